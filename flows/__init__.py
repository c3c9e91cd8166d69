"""The story: the order of the steps, and what failure means."""

import logging

from airlock import permissions

# Here, because a flow run that a worker starts has no other beginning that is ours.
permissions.make_private()
# Prefect forwards the core's loggers to the run's log; their level is ours to set.
logging.getLogger("airlock").setLevel(logging.INFO)

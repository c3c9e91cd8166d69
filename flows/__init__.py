"""The story: the order of the steps, and what failure means."""

import logging

# Prefect forwards the core's loggers to the run's log; their level is ours to set.
logging.getLogger("airlock").setLevel(logging.INFO)

"""The wall clock of a process under test, wrong by as much as a test says.

Injected, not faked from below: with libfaketime a wait with a timeout ends at once, now and then.
PostgreSQL, the service and the programs that a runner starts have the right clock.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from datetime import datetime, timedelta, tzinfo

from tests.faults import injector

# How many seconds it is ahead; back, if that is negative.
VARIABLE = "AIRLOCK_TEST_CLOCK_S"


def set_named() -> None:
    """Set this process's clock to what the environment says, if it says anything."""
    if not (ahead := os.environ.get(VARIABLE)):
        return
    injector.refuse_unless_under_test()
    seconds, now, seconds_now = float(ahead), datetime.now, time.time

    def shifted(_cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return now(tz) + timedelta(seconds=seconds)

    # Everybody has imported the class, and it takes no new attribute: into its dictionary, then.
    (attributes,) = gc.get_referents(datetime.__dict__)
    attributes["now"] = classmethod(shifted)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))
    time.time = lambda: seconds_now() + seconds

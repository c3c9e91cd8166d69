"""A run under test in a process of its own, with the injector armed.

Without arguments Prefect's engine, as a worker starts it; else ``python -m flows``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys

from tests.faults import guards, injector

# The fault as JSON.
VARIABLE = "AIRLOCK_TEST_FAULT"

if __name__ == "__main__":
    if given := os.environ.pop(VARIABLE, ""):
        injector.arm(injector.Fault(**json.loads(given)))
    guards.remove_named()
    # Whose clock is another one, is this process alone.
    os.environ.pop("LD_PRELOAD", None)
    module = "flows" if sys.argv[1:] else "prefect.engine"
    sys.argv[0] = module
    runpy.run_module(module, run_name="__main__", alter_sys=True)

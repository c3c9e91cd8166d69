"""What a worker starts for a run under test: Prefect's engine, with the injector armed."""

from __future__ import annotations

import json
import os
import runpy
import sys

from tests.faults import guards, injector

# The fault as JSON.
VARIABLE = "AIRLOCK_TEST_FAULT"

if __name__ == "__main__":
    injector.arm(injector.Fault(**json.loads(os.environ.pop(VARIABLE))))
    guards.remove_named()
    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)

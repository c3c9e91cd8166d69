"""What a worker starts for a run under test: our own entry point, with the injector armed."""

from __future__ import annotations

import json
import os
import sys

from tests.faults import guards, injector

# The fault as JSON.
VARIABLE = "AIRLOCK_TEST_FAULT"

if __name__ == "__main__":
    injector.arm(injector.Fault(**json.loads(os.environ.pop(VARIABLE))))
    guards.remove_named()
    from flows import run

    # Each lane has a deployment of its own, which prefect.yaml does not know.
    run.in_our_table = lambda _: [{"entrypoint": "flows.deploy.deploy"}]
    sys.exit(run.main())

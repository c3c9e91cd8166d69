"""Run one flow in this process: ``python -m flows deploy '{"target": "prod"}'``.

The command line ends here, so that ``airlock`` itself need not import Prefect. Exit status: 0
done, 1 refused, 2 rolled back, 3 stranded.
"""

from __future__ import annotations

import asyncio
import json
import sys

EXIT = {
    "Deployed": 0,
    "NothingToDo": 0,
    "Rehearsed": 0,
    "RolledBack": 2,
    "Refused": 1,
    "Stranded": 3,
}


def main() -> int:
    name, parameters = sys.argv[1], json.loads(sys.argv[2])
    from flows.deploy import deploy
    from flows.rollback import rollback

    flow = {"deploy": deploy, "rollback": rollback}[name]
    state = asyncio.run(flow(**parameters, return_state=True))
    print(f"{state.name}: {state.message or ''}".rstrip(": "))  # noqa: T201
    if name == "rollback" and state.name == "RolledBack":
        return 0
    return EXIT.get(state.name, 3)


if __name__ == "__main__":
    sys.exit(main())

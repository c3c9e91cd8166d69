"""``make attacks``: try all of them, and write docs/attacks.md of the run.

Exit status: pytest's; the page is written only when every attack was tried and held, or could not
be tried here, which it says by name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.attacks.document import Tried, write

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "docs" / "attacks.md"


class Results:
    """What became of each test, as pytest reports it."""

    def __init__(self) -> None:
        self.tried: list[Tried] = []
        self._marks: dict[str, pytest.Mark] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        unmarked = [item.nodeid for item in items if item.get_closest_marker("attack") is None]
        if unmarked:
            raise pytest.UsageError(f"Who tries what? Mark it: {', '.join(unmarked)}")
        for item in items:
            mark = item.get_closest_marker("attack")
            assert mark is not None
            self._marks[item.nodeid] = mark

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not (report.when == "setup" and report.skipped):
            return
        mark = self._marks[report.nodeid]
        missing = ""
        if report.skipped:
            _, _, missing = report.longrepr  # pyright: ignore[reportAssignmentType]
        self.tried.append(
            Tried(
                test=report.nodeid.partition("::")[2],
                by=mark.kwargs["by"],
                tries=mark.kwargs["tries"],
                not_run=missing.removeprefix("Skipped: "),
            )
        )


def main() -> int:
    results = Results()
    status = pytest.main(["-q", "-p", "no:xdist", str(FOLDER), *sys.argv[1:]], plugins=[results])
    if status == pytest.ExitCode.OK and not sys.argv[1:]:
        write(PAGE, results.tried)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())

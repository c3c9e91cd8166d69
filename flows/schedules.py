"""Whether schedules start what they should, seen from outside: ``python -m flows.schedules``.

What looks must need no schedule itself: `airlock status`, `airlock deliver` and the loop of
`make serve` do. Prints one JSON object, or nothing where no Prefect server is known.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from airlock import settings
from airlock.errors import AirlockError
from flows.runtime import client, published_api_url
from flows.runtime.api import occupied_queues, scheduled_runs, workers
from flows.runtime.command import WORK_POOL
from flows.runtime.deployments import published_by_title

LATE = timedelta(minutes=2)
SILENT = timedelta(minutes=1)
# What is found twice so far apart is no restart of the server, and no worker that catches up.
AGAIN_S = 20.0
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """What a server's schedules do. problems: by what they are about, in words."""

    server: str
    next_runs: Mapping[str, datetime]
    problems: Mapping[str, str]

    @property
    def says(self) -> str:
        """One line."""
        if self.problems:
            return "; ".join(self.problems.values())
        soonest = sorted(self.next_runs.items(), key=lambda each: each[1])
        runs = [f"{title} at {at:%Y-%m-%d %H:%M} UTC" for title, at in soonest]
        return f"next: {', '.join(runs)}" if runs else "none is on"


def judge(
    deployments: Mapping[str, Mapping[str, Any]],
    runs: Iterable[Mapping[str, Any]],
    occupied: frozenset[str],
    polled: Sequence[datetime],
    now: datetime,
    server: str,
) -> Schedules:
    """What is wrong, from what the server says.

    deployments: ours, by title. runs: those that wait to be started. occupied: the work queues with
    as many runs as they may have. polled: when each worker was last heard of.
    """
    waiting = _waiting(deployments, runs)
    active = {title: each for title, each in deployments.items() if _is_on(each)}
    problems = {
        title: f"{title} is on and has no next run; see the server's log"
        for title, each in active.items()
        if not waiting[title] and now - _changed_at(each) > LATE
    }
    for title, each in deployments.items():
        late = [at for at in waiting[title] if now - at > LATE]
        if late and each["work_queue_name"] not in occupied:
            minutes = (now - min(late)).total_seconds() // 60
            problems[title] = f"{title} should have started {minutes:.0f} min ago"
    if active and not any(now - at <= SILENT for at in polled):
        last = f"last polled at {max(polled):%H:%M:%S} UTC" if polled else "never polled"
        problems["worker"] = f"no worker of the pool {WORK_POOL} takes runs: {last}; start one"
    upcoming = {title: min(waiting[title]) for title in active if waiting[title]}
    return Schedules(server=server, next_runs=upcoming, problems=problems)


def _waiting(
    deployments: Mapping[str, Mapping[str, Any]], runs: Iterable[Mapping[str, Any]]
) -> dict[str, list[datetime]]:
    titles = {each["id"]: title for title, each in deployments.items()}
    found: dict[str, list[datetime]] = {title: [] for title in deployments}
    for run in runs:
        if title := titles.get(run["deployment_id"]):
            found[title].append(datetime.fromisoformat(run["expected_start_time"]))
    return found


def _is_on(deployment: Mapping[str, Any]) -> bool:
    return not deployment["paused"] and any(each["active"] for each in deployment["schedules"])


def _changed_at(deployment: Mapping[str, Any]) -> datetime:
    """The scheduler looks each minute; what was switched on since has no run yet."""
    return max(datetime.fromisoformat(text) for text in _changes(deployment))


def _changes(deployment: Mapping[str, Any]) -> Iterator[str]:
    yield deployment["updated"]
    yield from (each["updated"] for each in deployment["schedules"])


async def look(api_url: str) -> Schedules:
    """Ask a server once. One that does not answer is a problem, too."""
    try:
        async with asyncio.timeout(PATIENCE_S), client(api_url) as http:
            return judge(
                await published_by_title(http),
                await scheduled_runs(http),
                await occupied_queues(http),
                await workers(http),
                datetime.now(UTC),
                api_url,
            )
    except (httpx.HTTPError, TimeoutError) as error:
        said = f"the Prefect server at {api_url} does not answer ({type(error).__name__})"
        return Schedules(server=api_url, next_runs={}, problems={"server": said})


async def look_twice(api_url: str) -> Schedules:
    """The same, without the problems that are over in a moment."""
    first = await look(api_url)
    if not first.problems:
        return first
    await asyncio.sleep(AGAIN_S)
    second = await look(api_url)
    lasting = {what: said for what, said in second.problems.items() if what in first.problems}
    return Schedules(server=api_url, next_runs=second.next_runs, problems=lasting)


def main() -> int:
    """``--twice`` leaves out what is over in a moment."""
    try:
        here = published_api_url(settings.load().state_dir / "prefect")
    except AirlockError as error:
        print(f"airlock: {error}", file=sys.stderr)  # noqa: T201
        return 1
    api_url = os.environ.get("PREFECT_API_URL") or here
    if api_url is None:
        return 0
    found = asyncio.run((look_twice if "--twice" in sys.argv[1:] else look)(api_url))
    said = {"says": found.says, "problems": list(found.problems.values())}
    print(json.dumps(said))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

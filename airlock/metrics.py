"""What was measured, in the text form that Prometheus reads."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from airlock import client, ledger, record
from airlock.alert import letters
from airlock.client.felt import Felt
from airlock.errors import Refused
from airlock.ledger import Deploy, Event, State
from airlock.settings import Target

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

log = logging.getLogger(__name__)

# Another user collects the file, and nothing in it is secret.
MODE = 0o644
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the ledger of one target knows in numbers.

    last: the newest deploy or refresh; None before the first.
    by_state: how many deploys there are in each state, dry runs and refreshes left out.
    succeeded_at: the end of the newest one that stands.
    """

    target: str
    last: Deploy | None
    events: tuple[Event, ...]
    by_state: Mapping[State, int]
    succeeded_at: datetime | None
    alerts_waiting: int
    felt: Felt | None = None


async def read(target: Target) -> Measured:
    """Look into the ledger of one target."""
    async with ledger.connection(target) as conn:
        recent = await ledger.recent(conn)
        last = recent[0] if recent else None
        by_state, succeeded_at = await ledger.tally(conn, target.name)
        return Measured(
            target=target.name,
            last=last,
            events=await ledger.events(conn, last.id) if last else (),
            by_state=by_state,
            succeeded_at=succeeded_at,
            alerts_waiting=len(await letters.outstanding(conn, target)),
            felt=await client.read(conn, last.id) if last else None,
        )


def render(measured: Sequence[Measured]) -> str:
    """The text form, each metric once with a line for each target."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            return _families(measured)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())  # pyright: ignore[reportArgumentType] – only collect() is used
    return generate_latest(registry).decode()


_Samples = Sequence[tuple[tuple[str, ...], float]]


def _families(measured: Sequence[Measured]) -> Iterator[GaugeMetricFamily]:
    from prometheus_client.core import GaugeMetricFamily

    for name, help_text, labels in _METRICS:
        family = GaugeMetricFamily(f"airlock_{name}", help_text, labels=["target", *labels])
        for each in measured:
            for values, number in _samples(each).get(name, ()):
                family.add_metric([each.target, *values], number)
        yield family


# Gauges throughout: a deploy that is undone later counts elsewhere from then on.
_METRICS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("deploys", "Deploys in the ledger by the state they are in now.", ("state",)),
    ("last_deploy_state", "1 for the state of the newest deploy.", ("kind", "state")),
    ("last_deploy_info", "The newest deploy.", ("kind", "deploy", "versions")),
    ("last_deploy_started_timestamp_seconds", "When it began.", ()),
    ("last_deploy_finished_timestamp_seconds", "When it ended, if it did.", ()),
    ("last_success_timestamp_seconds", "End of the newest deploy that stands.", ()),
    ("heartbeat_timestamp_seconds", "Last beat of an unfinished deploy.", ()),
    ("step_duration_seconds", "Seconds in each step of the newest deploy.", ("step",)),
    ("snapshot_size_bytes", "Size of its snapshot.", ("provider",)),
    ("snapshot_duration_seconds", "Seconds that the snapshot took.", ("provider",)),
    ("snapshot_created_timestamp_seconds", "When the snapshot was taken.", ("provider",)),
    ("restart_gap_seconds", "Longest time without a good answer in its restart.", ("method",)),
    ("client_longest_seconds", "Longest wait of a client in it.", ("kind",)),
    ("client_requests", "Requests of the probe beside it.", ()),
    ("client_requests_failed", "How many of them failed.", ()),
    ("alerts_waiting", "Deliveries of alerts that no channel has taken yet.", ()),
)


def _samples(found: Measured) -> Mapping[str, _Samples]:
    """The lines of each metric: label values after the target, and the number."""
    always: Mapping[str, _Samples] = {
        "deploys": [((state,), found.by_state.get(state, 0)) for state in STATES],
        "alerts_waiting": [((), found.alerts_waiting)],
        "last_success_timestamp_seconds": _at(found.succeeded_at),
    }
    row = found.last
    if row is None:
        return always
    return {
        **always,
        "last_deploy_state": [((row.kind, s), float(s == row.state)) for s in STATES],
        "last_deploy_info": [((row.kind, str(row.id), row.planned.versions), 1)],
        "last_deploy_started_timestamp_seconds": _at(row.created_at),
        "last_deploy_finished_timestamp_seconds": _at(row.finished_at),
        "heartbeat_timestamp_seconds": _at(row.heartbeat_at if row.is_open else None),
        "step_duration_seconds": _steps(found.events),
        **_snapshot(row),
        **_restart(row),
        **_felt(found.felt),
    }


def _at(moment: datetime | None) -> _Samples:
    return [((), moment.timestamp())] if moment else []


def _steps(events: Sequence[Event]) -> _Samples:
    """Seconds in each step, all its tries together."""
    spent: dict[str, float] = {}
    for each in ledger.step_times(events):
        if each.seconds is not None:
            spent[each.step] = spent.get(each.step, 0.0) + max(0.0, each.seconds)
    return [((step,), seconds) for step, seconds in spent.items()]


def _snapshot(row: Deploy) -> Mapping[str, _Samples]:
    from airlock.snapshot import Snapshot

    if row.snapshot is None:
        return {}
    taken = record.load(Snapshot, row.snapshot)
    labels = (taken.provider,)
    return {
        "snapshot_size_bytes": [(labels, taken.size_bytes)],
        "snapshot_duration_seconds": [(labels, taken.seconds)],
        "snapshot_created_timestamp_seconds": [(labels, taken.created_at.timestamp())],
    }


def _restart(row: Deploy) -> Mapping[str, _Samples]:
    done = row.last_restart
    if done is None:
        return {}
    return {"restart_gap_seconds": [((done.method,), done.gap_s)]}


def _felt(felt: Felt | None) -> Mapping[str, _Samples]:
    if felt is None or not felt.requests:
        return {}
    longest = {"read": felt.longest_read, "write": felt.longest_write}
    return {
        "client_longest_seconds": [((k,), each.ms / 1000) for k, each in longest.items() if each],
        "client_requests": [((), felt.requests)],
        "client_requests_failed": [((), felt.failed)],
    }


# ---------------------------------------------------------------- out


async def publish(target: Target) -> None:
    """Write or push what was measured, as the target asks for. Only warns when it cannot."""
    if target.metrics.file is None and target.metrics.push_url_env is None:
        return
    try:
        text = render([await read(target)])
    except Exception as error:  # noqa: BLE001 – a deploy does not fail over its numbers
        log.warning("The metrics of %s could not be read: %s", target.name, type(error).__name__)
        return
    if target.metrics.file is not None:
        try:
            write(target.metrics.file, text)
        except OSError as error:
            place = target.metrics.file
            log.warning("Metrics were not written to %s: %s", place, error.strerror)
    if target.metrics.push_url_env is not None:
        try:
            await _push(target, target.metrics.push_url_env, text)
        except Refused as error:
            log.warning("Metrics of %s were not pushed: %s", target.name, error)
        except Exception as error:  # noqa: BLE001 – its text may carry the address
            log.warning("Metrics of %s were not pushed: %s", target.name, type(error).__name__)


def write(path: Path, text: str) -> None:
    """Replace the file in one step: whoever collects it never sees half of it."""
    file, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write(text)
            os.fchmod(file, MODE)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


async def _push(target: Target, variable: str, text: str) -> None:
    """PUT: what an earlier deploy had and this one has not goes away."""
    from airlock.alert import http

    url = f"{target.variable(variable).rstrip('/')}/metrics/job/airlock/target/{target.name}"
    async with http.client(target, {"Content-Type": CONTENT_TYPE}) as client:
        http.taken(await client.put(url, content=text.encode()))

"""Whether somebody changed a target by hand: each schema against what its last deploy left."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from airlock import settings
from airlock.drift import DriftReport
from airlock.errors import Refused
from flows import form
from tasks.detect_drift import detect_drift
from tasks.send_alert import send_alert
from tasks.show_drift import show_drift
from tasks.write_history import write_history

State = Any  # Prefect's State is generic in what it carries; ours carry nothing


def run_name() -> str:
    given = (flow_run.parameters or {}).get("target")
    return f"drift {given}" if given else "drift"


@flow(name="drift", flow_run_name=run_name, retries=0)
async def drift(target: form.AnyTarget = None) -> State:
    """Compare the schema of each target with the one that its last deploy left. Changes nothing.

    Whatever waits in the outboxes is sent, and each target's history written.
    """
    try:
        project = settings.load()
        chosen = [project.target(target).name] if target else list(project.targets)
    except Refused as error:
        return Failed(name="Refused", message=str(error))
    return _verdict([await _look(name) for name in chosen])


async def _look(target: str) -> DriftReport:
    """One target from question to alert; what goes wrong with it is not the others' affair."""
    try:
        report = await detect_drift(target)
    except Exception as error:  # noqa: BLE001 – see above
        report = DriftReport(target=target, failure=str(error) or type(error).__name__)
    get_run_logger().info("%s", report.text)
    await show_drift(report, return_state=True)
    if not report.failure:
        await send_alert(target, return_state=True)
        await write_history(target, return_state=True)
    return report


def _verdict(reports: list[DriftReport]) -> State:
    """Red where somebody has to look: at a drift, or at why nobody knows."""
    said = "; ".join(report.headline for report in reports) or "airlock.toml has no targets"
    if any(report.drifted for report in reports):
        return Failed(name="Drifted", message=said)
    if any(report.failure for report in reports):
        return Failed(name="NotCompared", message=said)
    return Completed(name="NoDrift", message=said)

"""A run that Prefect starts again, by its Retry button, with the parameters of its first start."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect.context import FlowRunContext

from tasks.check_retry import check_retry


async def refuse_if_outdated(target: str) -> None:
    """Raises Refused in a run that is started again after a newer deploy of its target.

    To be called with the lock of the target's database held.
    """
    context = FlowRunContext.get()
    if context is not None and context.flow_run and context.flow_run.run_count > 1:
        await check_retry(target, str(context.flow_run.id), _age_s(context))


def _age_s(context: FlowRunContext) -> float:
    """Since the first start of a run; no clock is compared with another one.

    Both times of the run are the server's, both of the context are this machine's.
    """
    run = context.flow_run
    assert run is not None  # noqa: S101 – see above
    began_again = run.state.timestamp if run.state else context.start_time
    until_this_start = began_again - (run.start_time or began_again)
    return (until_this_start + (datetime.now(UTC) - context.start_time)).total_seconds()

"""Whatever happened to a runner, its deploy comes to an end: forwards or back, by rule."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, nullcontext
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from airlock import ledger, lock, record, recovery, refresh, settings
from airlock.errors import Refused, Transient
from airlock.recovery import Taken
from airlock.request import DeployRequest
from flows import form, watch
from flows.forward import deploy_forwards, serve_copy
from flows.interrupt import Person, listening
from flows.naming import close_run, link_run
from flows.undo import carry_out, undo_deploy, undo_refresh
from tasks.send_alert import send_alert
from tasks.take_up import take_up

State = Any


class CutOff(Exception):
    """Its runner is gone: the failure that this way back answers."""


def run_name() -> str:
    """Such as ``recover prod``."""
    return f"recover {(flow_run.parameters or {}).get('target') or 'all targets'}"


@flow(name="recover", flow_run_name=run_name, retries=0)
async def recover(target: form.AnyTarget = None) -> State:
    """Take over the deploys and refreshes whose runners are gone, and bring them to an end.

    What is in production as a whole is checked and finished; anything less goes back. Where a
    runner is alive, or a person is needed, nothing is done.
    """
    names = [target] if target else list(settings.load().targets)
    ended: dict[str, State] = {}
    async with listening() as person:
        for name in names:
            if person.asked is None:
                ended[name] = await _recovered(name, person)
    if not await _anything_open():
        await watch.off()
        # Whoever opened a deploy at this moment has switched it on before, or does so now.
        if await _anything_open():
            await watch.on()
    return _outcome(ended)


async def _recovered(name: str, person: Person) -> State:
    target = settings.target(name)
    try:
        async with ledger.connection(target) as conn:
            last = await ledger.last(conn)
    except (Refused, Transient) as error:
        return Completed(name="NotReached", message=str(error))
    if last is None or not last.is_cut_off:
        found = last.headline if last else "nothing was deployed yet"
        return Completed(name="NothingToRecover", message=found)
    try:
        async with AsyncExitStack() as door:
            await door.enter_async_context(lock.hold(target, regain=last.kind == "deploy"))
            left = await take_up(name, flow_run=str(flow_run.id))
            if left is None:
                return Completed(name="NothingToRecover", message="somebody else was quicker")
            return await finish(left, door, person)
    except lock.Held as error:
        return Completed(name="NothingToRecover", message=str(error))
    except Exception as error:  # noqa: BLE001 – one target's trouble is not the others'
        # A person hears of it at last: the deploy is silent.
        await send_alert(name, return_state=True)
        return Failed(name="NotRecovered", message=str(error) or type(error).__name__)


async def finish(left: Taken, door: AsyncExitStack, person: Person) -> State:
    """Bring what was taken over to its end; the state that says how it ended.

    door: holds the database's lock.
    """
    lease, row = left.lease, left.row
    get_run_logger().warning("%s", left.sentence)
    await close_run(left.run, left.remedy.sentence)
    await link_run(lease)

    async def work() -> State:
        if left.remedy.way == "back":
            raise CutOff(f"{left.sentence}.")
        if row.kind == "refresh":
            return await serve_copy(lease, door)
        wanted = record.load(DeployRequest, row.request)
        return await deploy_forwards(lease, door, dry_run=wanted.dry_run)

    is_deploy = row.kind == "deploy"
    target = settings.target(lease.target)
    async with nullcontext() if is_deploy else refresh.alone(target):
        undo = undo_deploy if is_deploy else undo_refresh
        ended = await carry_out(lease, person, work, undo)
    await recovery.clear_up(target)
    return ended


async def _anything_open() -> bool:
    """Whether a runner works on any target, or worked; also where its server is away."""
    for target in settings.load().targets.values():
        try:
            async with ledger.connection(target) as conn:
                last = await ledger.last(conn)
                if last is not None and last.is_open and last.state != "stranded":
                    return True
        except Transient:
            return True
        except Refused:
            continue  # not set up here
    return False


def _outcome(ended: Mapping[str, State]) -> State:
    said = "\n".join(f"{name}: {state.name}: {state.message}" for name, state in ended.items())
    names = {state.name for state in ended.values()}
    if len(ended) == 1 and "NotReached" in names:
        return Failed(name="NotReached", message=said)
    for bad in ("Stranded", "NotRecovered"):
        if bad in names:
            return Failed(name=bad, message=said)
    name = "NothingToRecover" if names <= {"NothingToRecover", "NotReached"} else "Recovered"
    return Completed(name=name, message=said)

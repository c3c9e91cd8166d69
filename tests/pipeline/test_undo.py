"""What a failed deploy ends in, where even its ledger cannot be reached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from airlock import settings
from airlock.alert import Alert
from airlock.errors import LeaseLost, Transient
from airlock.ledger import Lease, State
from flows.undo import undo_deploy
from tasks.read_state import read_state
from tasks.roll_back import roll_back
from tasks.start_rollback import start_rollback
from tasks.strand import strand
from tests.receiver import Receiver, receiving

LEASE = Lease(target="prod", deploy=7, fence=7)


@pytest.fixture(autouse=True)
def _ledger_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "airlock.toml"
    path.write_text('[targets.prod]\ndatabase_url_env = "PROD_URL"\n', encoding="utf-8")
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(path))
    monkeypatch.setenv("PROD_URL", "postgresql://owner:s3cr3t@127.0.0.1:1/prod")
    for each in (read_state, start_rollback, roll_back, strand):
        assert each.retries == 5, "a server that restarts is back in seconds"
        monkeypatch.setattr(each, "retries", 0)


@flow
async def story(failure: str) -> Any:
    return await undo_deploy(LEASE, Transient(failure))


@pytest.fixture
async def pager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    async with receiving() as found:
        with (tmp_path / "airlock.toml").open("a", encoding="utf-8") as file:
            file.write(
                '[targets.prod.alerts]\npagerduty_key_env = "PAGER_KEY"\n'
                f'pagerduty_url = "{found.url}"\n'
            )
        monkeypatch.setenv("PAGER_KEY", "x")
        yield found


@pytest.mark.parametrize("emits", [True, False])
async def test_a_deploy_whose_ledger_is_out_of_reach_is_stranded_and_a_person_is_called(
    pager: Receiver, monkeypatch: pytest.MonkeyPatch, emits: bool
):
    events: list[str] = []

    def emit(alert: Alert) -> None:
        assert emits
        events.append(alert.event)

    monkeypatch.setattr("tasks.call_for_help.emit", emit)
    state = await story("the connection was lost", return_state=True)
    (call,) = pager.bodies
    assert (call["event_action"], call["dedup_key"]) == ("trigger", "airlock-prod-7-stranded")
    headline = "ROLLBACK FAILED – prod, deploy 7: its ledger was not reached"
    assert call["payload"]["summary"] == headline
    assert call["payload"]["severity"] == "critical"
    assert events == (["airlock.deploy.stranded"] if emits else [])
    assert (state.name, state.is_failed()) == ("Stranded", True)
    for said in ("could not be reached", "airlock recover prod", "the connection was lost"):
        assert said in state.message
    assert "s3cr3t" not in state.message


async def test_a_rollback_that_cannot_even_be_recorded_is_stranded(monkeypatch):
    async def touched(lease: Lease) -> State:
        return "applied"

    monkeypatch.setattr("flows.undo.read_state", touched)
    state = await story("half of it", return_state=True)
    assert state.name == "Stranded"
    assert "airlock recover prod" in state.message


async def test_whoever_lost_the_deploy_says_so_and_strands_nothing(monkeypatch):
    async def taken_over(lease: Lease) -> State:
        raise LeaseLost("somebody else has it")

    monkeypatch.setattr("flows.undo.read_state", taken_over)
    with pytest.raises(LeaseLost):
        await story("half of it")

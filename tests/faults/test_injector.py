"""The injector is for tests only."""

from __future__ import annotations

import pytest

from airlock import ledger
from tests.faults import injector
from tests.faults.injector import Fault


def test_without_its_switch_the_injector_ends_the_process_and_patches_nothing(
    monkeypatch, tmp_path
):
    monkeypatch.delenv(injector.SWITCH, raising=False)
    journal = ledger.journal
    with pytest.raises(SystemExit, match="under test only"):
        injector.arm(Fault(kind="kill", folder=str(tmp_path), point="apply_plan: after the intent"))
    assert ledger.journal is journal
    assert list(tmp_path.iterdir()) == []

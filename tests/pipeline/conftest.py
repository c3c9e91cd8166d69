"""Every test of this folder talks to the session's Prefect server."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _on_the_server(flows_report_to_the_server: None) -> None:
    """Applies the shared fixture to each test here."""

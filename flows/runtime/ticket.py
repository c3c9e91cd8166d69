"""Tickets: each opens Prefect's UI once, for some minutes.

A browser keeps the address of each page in its history, whatever the page does about it. What is
found there must not be the auth string, nor open anything again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

PATH = "/airlock"
LASTS_S = 600


def link(ui_url: str, auth_string: str) -> str:
    """An address that opens the UI. What follows the # never reaches a server or its log."""
    return f"{ui_url}{PATH}#{issue(auth_string, time.time())}"


def issue(auth_string: str, now: float) -> str:
    """A new ticket; whoever knows the auth string can issue one."""
    said = f"{int(now) + LASTS_S}-{secrets.token_hex(16)}"
    return f"{said}-{_signature(auth_string, said)}"


class Tickets:
    """Those that one server takes, and each of them once."""

    def __init__(self, auth_string: str) -> None:
        self._auth_string = auth_string
        self._used: dict[str, int] = {}

    def take(self, ticket: str, now: float) -> bool:
        """Whether it is good; it is not a second time."""
        said, _, signature = ticket.rpartition("-")
        expected = _signature(self._auth_string, said)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return False
        self._used = {each: ends for each, ends in self._used.items() if ends >= now}
        ends = int(said.partition("-")[0])
        if ends < now or said in self._used:
            return False
        self._used[said] = ends
        return True


def _signature(auth_string: str, said: str) -> str:
    return hmac.new(auth_string.encode(), said.encode(), hashlib.sha256).hexdigest()

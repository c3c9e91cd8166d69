"""Requests to addresses that are secrets themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airlock.alert import NotTaken

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0


def client(headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """A client that follows no redirect, which would carry an alert to somebody else."""
    import httpx

    # It logs every URL at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=TIMEOUT_S, trust_env=False, follow_redirects=False, headers=headers
    )


def taken(answer: httpx.Response) -> httpx.Response:
    """The answer, if it says yes. Raises NotTaken with its status otherwise."""
    if not answer.is_success:
        raise NotTaken(f"HTTP status {answer.status_code}")
    return answer


async def post(url: str, body: Mapping[str, object], **headers: str) -> None:
    """One JSON body to one address."""
    async with client(headers) as http:
        taken(await http.post(url, json=body))

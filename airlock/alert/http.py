"""Requests to addresses that are secrets themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airlock.alert import NotTaken
from airlock.authorities import authorities
from airlock.settings import Target

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 5.0


def client(target: Target, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    """A client that follows no redirect, which would carry an alert to somebody else.

    Its requests raise Refused where they would leave in plain text, and the target does not say so.
    """
    import httpx

    async def check(request: httpx.Request) -> None:
        if request.url.scheme != "https":
            target.refuse_plaintext(request.url.host)

    # It logs every URL at INFO.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return httpx.AsyncClient(
        timeout=TIMEOUT_S,
        trust_env=False,
        verify=authorities(),
        follow_redirects=False,
        headers=headers,
        event_hooks={"request": [check]},
    )


def host(url: str) -> str | None:
    """The name or number of the machine that an address leads to."""
    return urlsplit(url).hostname


def taken(answer: httpx.Response) -> httpx.Response:
    """The answer, if it says yes. Raises NotTaken with its status otherwise."""
    if not answer.is_success:
        raise NotTaken(f"HTTP status {answer.status_code}", is_final=_is_final(answer))
    return answer


def _is_final(answer: httpx.Response) -> bool:
    # GitHub's rate limit is a 403 with one of these headers:
    # https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    headers = answer.headers
    limited = "retry-after" in headers or headers.get("x-ratelimit-remaining") == "0"
    return answer.is_client_error and answer.status_code not in (408, 429) and not limited


async def post(target: Target, url: str, body: Mapping[str, object], **headers: str) -> None:
    """One JSON body to one address."""
    async with client(target, headers) as http:
        taken(await http.post(url, json=body))

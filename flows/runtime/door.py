"""What stands before Prefect's application: who is let in by which name, and a page for tickets."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Iterable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.runtime import auth
from flows.runtime.ticket import PATH, Tickets

# Prefect's UIs, both of them, look for the auth string under this name.
PAGE = """\
<!DOCTYPE html>
<meta charset="utf-8">
<title>Airlock</title>
<p>Opening Prefect …</p>
<script type="module">
const ticket = location.hash.slice(1);
history.replaceState(null, "", location.pathname);
const answer = await fetch(location.pathname, {method: "POST", body: ticket});
if (answer.ok) {
  localStorage.setItem("prefect-password", await answer.text());
  location.replace("/");
} else {
  document.querySelector("p").textContent = await answer.text();
}
</script>
"""
NOT_GOOD = "This link was used, or has expired. For another one: airlock ui"
FOREIGN = (
    "This server is not known by that name. Add the address to PREFECT_SERVER_CORS_ALLOWED_ORIGINS."
)
PRIVATE = {"Cache-Control": "no-store", "Content-Security-Policy": "frame-ancestors 'none'"}
# Prefect's own description of its API. The rest that is outside the API is the UI's files.
DESCRIPTION = ("/docs", "/redoc", "/openapi.json")


class Door:
    """Prefect's application, closed to whoever calls it by a foreign name.

    A site whose name is made to point at this machine (DNS rebinding) has the browsers of those who
    look at it call us by that name. It gets what is no secret: health, and the files of the UI.
    Whoever brings the auth string may call us what they like. An IP address cannot be rebound.
    """

    def __init__(
        self, app: ASGIApp, *, auth_string: str, names: Iterable[str], api_path: str = "/api"
    ) -> None:
        self._app = app
        self._encoded = auth.encoded(auth_string)
        self._header = auth.header(auth_string)["Authorization"].encode()
        self._tickets = Tickets(auth_string)
        self._names = {"localhost", *names}
        self._health = (f"{api_path}/health", f"{api_path}/ready")
        self._closed = (f"{api_path}/", *DESCRIPTION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._may_enter(scope):
            app = self._ticket_office if scope.get("path") == PATH else self._app
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(FOREIGN, 421)(scope, receive, send)

    def _may_enter(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        called = headers.getlist("host")
        if called and all(self._is_known(name_of(each)) for each in called):
            return True
        brought = headers.get("authorization", "").encode()
        return self._is_public(scope) or hmac.compare_digest(brought, self._header)

    def _is_known(self, name: str) -> bool:
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self._names

    def _is_public(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        return scope["path"] in self._health or not scope["path"].startswith(self._closed)

    async def _ticket_office(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["method"] == "POST":
            # A ticket is shorter than a message.
            await self._exchanged((await receive()).get("body", b""))(scope, receive, send)
        else:
            await HTMLResponse(PAGE, headers=PRIVATE)(scope, receive, send)

    def _exchanged(self, ticket: bytes) -> Response:
        if self._tickets.take(ticket.decode(errors="replace"), time.time()):
            return PlainTextResponse(self._encoded, headers=PRIVATE)
        return PlainTextResponse(NOT_GOOD, 403, headers=PRIVATE)


def name_of(host: str) -> str:
    """A Host header without its port: ``localhost`` of ``localhost:4200``, ``::1`` of ``[::1]``."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).strip("[]").lower()

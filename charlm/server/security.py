"""The guard around the application: who may ask, what every answer carries, and the log.

It decides by `scope["path"]`, which the router uses, and never by a URL that is made from the
header Host. All paths but OPEN_PATHS need the key, so no spelling of a path avoids it.
"""

import hmac
import re
import time
from collections.abc import Collection
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charlm.inference.work import Stopping
from charlm.server.errors import CLIENT_LEFT, Refused, unavailable
from charlm.server.log import Log
from charlm.server.service import Service

OPEN_PATHS = ("/health", "/", "/page.css", "/page.js")
"""Paths that need no key: the page asks for it, and works as long as the server runs."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that a request may name without --allow-host."""
HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_.-]+")
"""Name or address of a server in lower case."""
ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")
"""Origin of a page, as browsers send it."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of all answers: nothing from elsewhere, nothing inline."""
SAFE_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of all answers."""
CLOSE = (b"connection", b"close")
"""Header of an answer before the body was read: what follows would be taken for the body."""
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}
"""Headers that tell a browser what the page of an allowed origin may send."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Rules on who may ask: the key, if any, names of the server, and origins of other pages."""

    key: str | None = None
    hosts: Collection[str] = LOOPBACK
    origins: Collection[str] = ()

    def check(self, scope: Scope) -> None:
        """Raise Refused unless a request names the right host and has the key."""
        self.check_host(_values(scope, b"host"))
        if self.key is not None and scope["path"] not in OPEN_PATHS:
            self._check_key(self.key, _values(scope, b"authorization"))

    def cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that let the page of an allowed origin read the answer."""
        if not self.origins:
            return []
        origins = _values(scope, b"origin")
        headers = [(b"vary", b"Origin")]
        if len(origins) == 1 and origins[0] in self.origins:
            headers.append((b"access-control-allow-origin", origins[0].encode("latin-1")))
        return headers

    def check_host(self, hosts: list[str]) -> None:
        """Raise Refused unless the header Host occurs once and names this server."""
        name = re.sub(":[0-9]{1,5}$", "", hosts[0].lower()) if len(hosts) == 1 else ""
        if name not in self.hosts:
            shown = " and ".join(map(ascii, hosts))[:80] or "missing"
            raise Refused(
                403,
                f"the header Host is {shown}; expected one of {', '.join(self.hosts)}. Start the "
                "server with --allow-host NAME to answer to another name",
            )

    def _check_key(self, key: str, given: list[str]) -> None:
        expected = f"Bearer {key}".encode()
        sent = given[0].encode("latin-1") if len(given) == 1 else b""
        if not hmac.compare_digest(sent, expected):
            raise Refused(
                401,
                f"the key is {'wrong' if given else 'missing'}; expected the header "
                "Authorization: Bearer KEY with the key of the server",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


class Guard:
    """Application around another one: checks, headers and the log of each request.

    `requests` is the number of requests that the application works on. While the service is
    stopping, new ones are refused.
    """

    def __init__(self, app: ASGIApp, service: Service, access: Access, log: Log) -> None:
        self.app, self.service, self.access, self.log = app, service, access, log
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to the application."""
        assert scope["type"] == "http", "no other protocol is switched on"
        begun, status = time.perf_counter(), CLIENT_LEFT
        awaits_body = _has_body(scope)
        added = [*SAFE_HEADERS, *self.access.cors_headers(scope)]

        async def send_safely(message: Message) -> None:
            """Add the headers of all answers."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                close = [CLOSE] if awaits_body else []
                message["headers"] = [*message.get("headers", ()), *added, *close]
            await send(message)

        async def receive_safely() -> Message:
            """Note when the body is complete."""
            nonlocal awaits_body
            message = await receive()
            awaits_body = awaits_body and message.get("more_body", False)
            return message

        refusal = self._refusal(scope)
        try:
            if refusal:
                await refusal(scope, receive, send_safely)
            else:
                self.requests += 1
                await self.app(scope, receive_safely, send_safely)
        except Exception as error:
            self.log.failure(error)
        finally:
            self.requests -= refusal is None
            seconds = time.perf_counter() - begun
            self.log.request(scope["method"], scope["raw_path"], status, seconds)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that the application does not get, or None."""
        try:
            if preflight := self._preflight(scope):
                return preflight
            self.access.check(scope)
            if self.service.stopping and scope["path"] not in OPEN_PATHS:
                raise unavailable(Stopping())
        except Refused as refusal:
            return refusal.response
        return None

    def _preflight(self, scope: Scope) -> Response | None:
        """Return the answer to a browser that asks whether a page elsewhere may ask, or None."""
        asks = _values(scope, b"access-control-request-method")
        if scope["method"] != "OPTIONS" or not asks or not self.access.origins:
            return None
        self.access.check_host(_values(scope, b"host"))
        return Response(status_code=204, headers=PREFLIGHT)


def _has_body(scope: Scope) -> bool:
    lengths = _values(scope, b"content-length")
    return lengths not in ([], ["0"]) or bool(_values(scope, b"transfer-encoding"))


def _values(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header, each time it was sent."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]

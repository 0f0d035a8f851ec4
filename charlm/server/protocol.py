"""Connections with limits: uvicorn's HTTP/1.1 protocol with deadlines for what a client sends.

uvicorn itself waits for ever for headers and bodies that do not come, and takes any number of
headers. Here each connection is in one phase at a time, and a sweep closes those that have been in
theirs for too long:

    idle ──first byte──▶ headers ──complete──▶ body ──complete──▶ answer ──complete──▶ idle
             any of them ──a refusal by the protocol──▶ closing
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from charlm.server.errors import Refused
from charlm.server.limits import Limits
from charlm.server.log import Log

DISCARDED = 8
"""Bytes of a refused body that are read and discarded, in multiples of the largest body.

A client that is still sending would otherwise not see the answer.
"""
CLOSING_SECONDS = 5.0
"""Time that a client has to read an answer before the connection is closed."""


class BoundedReader(h11.Connection):
    """Parser of requests that refuses too many or too large headers."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self.limits = limits
        self.refusal = Refused(400, "")

    def next_event(self) -> Any:
        """Return the next event. Raises RemoteProtocolError and sets `refusal` to the answer."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refusal = self._refusal(error)
            raise
        if isinstance(event, h11.Request) and (problem := self._problem(event)):
            self.refusal = problem
            raise h11.RemoteProtocolError(problem.message, problem.status)
        return event

    def _refusal(self, error: h11.RemoteProtocolError) -> Refused:
        if error.error_status_hint == 431:
            return self._too_large()
        problem = "the request is not valid HTTP/1.1; expected one. Check the client"
        return Refused(error.error_status_hint, problem)

    def _too_large(self) -> Refused:
        most = self.limits.header_bytes
        return Refused(431, f"the headers have more than {most:,} bytes; expected fewer")

    def _problem(self, request: h11.Request) -> Refused | None:
        """Return a refusal of a request line or of headers, or None."""
        limits, headers = self.limits, request.headers.raw_items()
        if len(request.target) + len(request.method) + 11 > limits.line_bytes:
            most = f"the request line has more than {limits.line_bytes:,} bytes"
            return Refused(414, f"{most}; expected fewer. Put the text into the body")
        if len(headers) > limits.headers:
            most = f"the request has {len(headers):,} headers"
            return Refused(431, f"{most}; expected at most {limits.headers}")
        if sum(len(name) + len(value) + 4 for name, value in headers) > limits.header_bytes:
            return self._too_large()
        return None


class GentleTransport:
    """Transport that lets the protocol decide how it is closed."""

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        self.transport, self.close = transport, close

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class BoundedProtocol(H11Protocol):
    """A connection that is closed if its client is too slow, too large or too many."""

    def __init__(self, *, limits: Limits, log: Log, **options: Any) -> None:
        super().__init__(**options)
        self.limits, self.log = limits, log
        self.conn = self.reader = BoundedReader(limits)
        self.phase, self.since = "idle", self.loop.time()
        self.unsent, self.unsent_since = 0, self.since
        self.received = 0

    def connection_made(self, transport: Any) -> None:
        """Accept a connection; make room if there are too many."""
        super().connection_made(transport)
        self.transport: Any = GentleTransport(transport, self.close)
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of a client; bytes after a refusal are discarded."""
        self.received += len(data)
        if self.received > DISCARDED * self.limits.body_bytes + self.limits.header_bytes:
            self.transport.abort()
        elif self.phase != "closing":
            if self.phase == "idle":
                self._enter("headers")
            super().data_received(data)
            self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        cycle = self.cycle
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the sweep closes idle connections
        if self.cycle is cycle:
            self.received = 0
        self._update()

    def resume_writing(self) -> None:
        """Note that the client has read a part of the answer."""
        super().resume_writing()
        self.unsent = 0

    def close(self) -> None:
        """Close the connection; if the client is still sending a body, let it read the answer."""
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._close_writing()
        else:
            self.transport.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that the application does not see, and close."""
        self.refuse(self.reader.refusal)

    def refuse(self, refusal: Refused) -> None:
        """Answer with an error and close, but let the client read the answer first."""
        content = json.dumps(refusal.content).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        reason = STATUS_PHRASES.get(refusal.status, b"")
        response = h11.Response(status_code=refusal.status, headers=headers, reason=reason)
        self.log.request("-", b"-", refusal.status, self.loop.time() - self.since)
        if self.cycle is not None and not self.cycle.response_complete:  # its body is not valid
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            for event in (response, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer has begun already
            self.transport.abort()
        self._close_writing()

    def sweep(self, now: float) -> None:
        """Close the connection if a deadline has passed."""
        limit = {
            "idle": self.limits.idle_seconds,
            "headers": self.limits.header_seconds,
            "body": self.limits.body_seconds,
            "closing": CLOSING_SECONDS,
        }.get(self.phase)
        if self._stalled(now) > self.limits.write_seconds:
            self.transport.abort()
        elif limit is not None and now - self.since > limit:
            if self.phase == "headers":
                late = f"the headers are not complete after {limit:g} s; expected all of them"
                self.refuse(Refused(408, f"{late}. Send them at once"))
            else:  # the handler of a request sees that its client has left
                self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection, or mark it so that it closes after its answer."""
        with contextlib.suppress(h11.LocalProtocolError):
            super().shutdown()

    def _close_writing(self) -> None:
        """End the answer, and discard what still comes until the client closes."""
        self._enter("closing")
        with contextlib.suppress(OSError, RuntimeError):  # the client has left
            self.transport.write_eof()

    def _stalled(self, now: float) -> float:
        """Return for how many seconds the client has read nothing of what waits for it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self.unsent or self.unsent == 0:
            self.unsent_since = now
        self.unsent = unsent
        return now - self.unsent_since

    def _enter(self, phase: str) -> None:
        self.phase, self.since = phase, self.loop.time()

    def _update(self) -> None:
        """Enter the phase that the parser is in."""
        if self.phase == "closing":
            return
        state = self.conn.their_state
        if state is h11.IDLE:
            phase = "headers" if self.conn.trailing_data[0] else "idle"
        else:
            phase = "body" if state is h11.SEND_BODY else "answer"
        if phase != self.phase:
            self._enter(phase)

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client; if none does, this one."""
        others = [each for each in self.connections if isinstance(each, BoundedProtocol)]
        for phases in (("closing", "idle"), ("headers",), ("body",)):
            waiting = [each for each in others if each.phase in phases and each is not self]
            if waiting:
                victim = min(waiting, key=lambda each: each.since)
                break
        else:
            stalled = [each for each in others if each.unsent]
            victim = min(stalled, key=lambda each: each.unsent_since, default=self)
        self.connections.discard(victim)
        victim.transport.abort()

"""Deadlines and limits of one connection, with a clock that the tests set."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from charlm.server.limits import Limits
from charlm.server.log import Log
from charlm.server.protocol import CLOSING_SECONDS, DISCARDED, BoundedProtocol

LIMITS = Limits()
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


class Loop:
    """Event loop whose clock stands still; tasks are not run."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def create_task(self, coroutine: Any) -> "Loop":
        coroutine.close()
        return self

    def add_done_callback(self, callback: Any) -> None:
        pass

    def call_later(self, delay: float, callback: Any) -> "Loop":
        return self

    def cancel(self) -> None:
        pass


class Transport(asyncio.Transport):
    """Connection in memory; `unsent` bytes of what was written are not yet on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.unsent, self.state = b"", 0, "open"

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.state = "no more writing"

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.state in ("closed", "aborted")

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection:
    """A connection to the protocol, and the clock."""

    def __init__(self, server: ServerState, loop: Loop, limits: Limits, log: Log) -> None:
        self.loop, self.transport = loop, Transport()
        self.protocol = BoundedProtocol(
            limits=limits, log=log, config=Config(_no_app), server_state=server, app_state={},
            _loop=loop,
        )  # fmt: skip
        self.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.protocol.sweep(self.loop.now)

    def answer(self, *header: bytes) -> None:
        """Answer the request."""
        headers = [(b"content-length", b"0"), *([header] if header else [])]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        asyncio.run(self.protocol.cycle.send(start))
        asyncio.run(self.protocol.cycle.send({"type": "http.response.body", "body": b""}))

    @property
    def is_open(self) -> bool:
        return self.transport.state == "open"

    @property
    def status(self) -> int:
        """Status of the answer that was written."""
        head, _, body = self.transport.written.partition(b"\r\n\r\n")
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        return int(head.split()[1])


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


@pytest.fixture
def log() -> Iterator[Log]:
    with tempfile.TemporaryFile() as file:
        yield Log(file.fileno())


@pytest.fixture
def connection(log: Log) -> Connection:
    return Connection(ServerState(), Loop(), LIMITS, log)


def test_a_connection_without_a_request_is_closed(connection: Connection) -> None:
    connection.pass_time(LIMITS.idle_seconds - 1)
    assert connection.is_open
    connection.pass_time(2)
    assert connection.transport.state == "aborted"


def test_headers_that_trickle_are_refused_in_time(connection: Connection) -> None:
    """Each byte would reset a deadline that counts from the last one."""
    for byte in GET[: int(LIMITS.header_seconds)]:
        connection.send(bytes([byte]))
        assert connection.is_open
        connection.pass_time(1)
    connection.pass_time(0.1)
    assert connection.status == 408
    connection.pass_time(CLOSING_SECONDS + 1)
    assert connection.transport.state == "aborted"


def test_a_body_that_trickles_ends_in_time(connection: Connection) -> None:
    connection.send(POST)
    for _ in range(int(LIMITS.body_seconds)):
        connection.send(b"x")
        assert connection.is_open
        connection.pass_time(1)
    connection.pass_time(0.1)
    assert connection.transport.state == "aborted"


def test_an_answer_may_take_its_time_and_then_the_connection_is_idle(
    connection: Connection,
) -> None:
    connection.send(GET)
    connection.pass_time(1000)
    assert connection.is_open
    connection.answer()
    connection.pass_time(LIMITS.idle_seconds - 1)
    assert connection.is_open
    connection.send(GET)
    connection.answer()
    connection.pass_time(LIMITS.idle_seconds - 1)
    assert connection.is_open
    connection.pass_time(2)
    assert not connection.is_open


def test_an_answer_that_nobody_reads_is_cut_off(connection: Connection) -> None:
    connection.send(GET)
    connection.transport.unsent = 100_000
    for _ in range(10):  # a slow client is no idle one
        connection.pass_time(LIMITS.write_seconds - 1)
        connection.transport.unsent -= 1
    assert connection.is_open
    connection.pass_time(LIMITS.write_seconds - 1)
    connection.pass_time(LIMITS.write_seconds + 1)
    assert connection.transport.state == "aborted"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * (1 << 16) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * (1 << 20), 431),
        (b"GET /" + b"a" * (1 << 13) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01 a TLS client\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_headers_beyond_the_limits_are_refused(
    request_: bytes, status: int, connection: Connection
) -> None:
    connection.send(request_)
    assert connection.status == status
    assert connection.transport.state == "no more writing"


def test_as_many_headers_as_allowed_pass(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 99 + b"\r\n")
    assert connection.protocol.phase == "answer"


def test_what_follows_a_refusal_is_discarded_up_to_a_limit(connection: Connection) -> None:
    """So the client can read the answer while it still sends."""
    connection.send(b"no HTTP\r\n\r\n")
    written = connection.transport.written
    for _ in range(DISCARDED):
        connection.send(bytes(LIMITS.body_bytes))
        assert not connection.transport.is_closing()
    connection.send(bytes(LIMITS.body_bytes))
    assert connection.transport.state == "aborted"
    assert connection.transport.written == written


def test_an_answer_before_the_body_can_be_read(connection: Connection) -> None:
    """To close at once would reset the connection, and the answer would be lost."""
    connection.send(POST)
    connection.answer(b"connection", b"close")
    assert connection.transport.state == "no more writing"
    connection.send(b"x" * 1000 + GET)  # no request: it follows a body that is not read
    assert connection.transport.written.count(b"HTTP/1.1") == 1
    connection.pass_time(CLOSING_SECONDS + 1)
    assert connection.transport.state == "aborted"


def test_invalid_chunks_end_the_request_of_a_handler(connection: Connection) -> None:
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send(b"not a length\r\n")
    assert connection.status == 400
    assert connection.protocol.cycle.disconnected
    connection.answer()  # which is not sent, and raises nothing


def test_the_connection_that_waits_longest_makes_room(log: Log) -> None:
    """First idle ones, then half requests, then half bodies; never one that is answered."""
    server, loop, limits = ServerState(), Loop(), Limits(connections=4)
    begun: dict[str, Connection] = {}
    for name, data in {"answer": GET, "body": POST, "half": GET[:9], "idle": b""}.items():
        begun[name] = Connection(server, loop, limits, log)
        begun[name].send(data) if data else None
        loop.now += 1
    for closed in ("idle", "half", "body"):
        new = Connection(server, loop, limits, log)
        new.send(GET)
        assert begun[closed].transport.state == "aborted"
        begun[closed].protocol.connection_lost(None)
    last = Connection(server, loop, limits, log)
    assert last.transport.state == "aborted"
    assert begun["answer"].is_open

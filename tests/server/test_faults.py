"""Slow, large and rude clients of a server that runs; and its end."""

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from serving import Serving, serving_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from waiting import PATIENCE

from charlm.server.app import make_app
from charlm.server.bodies import MAX_DEPTH, read_json
from charlm.server.errors import Refused
from charlm.server.limits import Limits
from charlm.server.run import LATE

LIMITS = Limits(body_bytes=1000, connections=8)
JSON = {"Content-Type": "application/json"}


async def echo(request: Request) -> Response:
    return JSONResponse(await read_json(request))


async def fail(request: Request) -> Response:
    raise ValueError("the secret text of a client")


async def fail_late(request: Request) -> Response:
    async def pieces() -> Any:
        yield b"a"
        raise ValueError("the secret text of a client")

    return StreamingResponse(pieces())


async def other_tasks() -> None:
    """Let other tasks run."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def flood(request: Request) -> Response:
    async def pieces() -> Any:
        while True:
            await other_tasks()
            yield bytes(1 << 16)

    return StreamingResponse(pieces())


async def wait(request: Request) -> Response:
    """Answer when the service lets it."""

    async def pieces() -> Any:
        yield b"begun "
        while not request.app.state.service.released:
            await other_tasks()
        yield b"ended"

    return StreamingResponse(pieces())


class Stops:
    """Service without models."""

    def __init__(self) -> None:
        self.stopping = self.released = False
        self.grace: float | None = None

    def stop(self, grace: float) -> None:
        self.stopping, self.grace = True, grace


def odd_app(service: Any) -> Starlette:
    """Return the application with handlers that behave oddly."""
    app = make_app(service, LIMITS)
    for handler in (echo, fail, fail_late, flood, wait):
        app.router.routes.append(Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]))
    return app


@pytest.fixture(scope="module")
def odd() -> Iterator[Serving]:
    """Serve the odd handlers with short limits."""
    service = Stops()
    with serving_app(odd_app(service), service, LIMITS) as running:
        yield running


def answer_to(server: Serving, *parts: bytes) -> bytes:
    """Send parts of a request; return what comes until the server closes the connection."""
    with server.connect() as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: _received(connection), b""))


def _received(connection: Any) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""


def test_half_requests_end_while_others_are_answered(odd: Serving) -> None:
    """W-10: headers, a body and a whole request that do not come."""
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with odd.connect() as half, odd.connect() as body, odd.connect() as idle:
        half.sendall(head)
        body.sendall(head + b"Content-Length: 100\r\n\r\n{")
        while odd.phases() != ["body", "headers", "idle"]:
            assert odd.client.post("/echo", json={"a": 1}).json() == {"a": 1}
        odd.pass_time(LIMITS.header_seconds + 1)
        assert b" 408 " in half.recv(1 << 16)
        odd.pass_time(LIMITS.body_seconds + 1)
        assert (_received(body), _received(idle)) == (b"", b"")
    assert odd.client.post("/echo", json={"a": 1}).json() == {"a": 1}


def test_deadlines_pass_without_help() -> None:
    """The other tests set the clock."""
    service, limits = Stops(), Limits(idle_seconds=0.01)
    with serving_app(odd_app(service), service, limits) as running, running.connect() as idle:
        assert _received(idle) == b""


def test_a_body_that_comes_too_slowly_is_refused(odd: Serving) -> None:
    """The deadline of the handler is a moment before that of the connection."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    headers = [(b"content-type", b"application/json")]
    app = SimpleNamespace(state=SimpleNamespace(limits=Limits(body_seconds=0.001)))
    request = Request({"type": "http", "headers": headers, "app": app}, receive)
    with pytest.raises(Refused, match="not complete") as refused:
        asyncio.run(read_json(request))
    assert refused.value.status == 408


def test_more_connections_than_allowed_close_idle_ones(odd: Serving) -> None:
    many = [odd.connect() for _ in range(3 * LIMITS.connections)]
    assert odd.client.get("/page.css").status_code == 200
    assert len(odd.server.server_state.connections) <= LIMITS.connections
    for each in many:
        each.close()


def test_an_answer_that_nobody_reads_ends(odd: Serving) -> None:
    """W-19."""
    passed = 0.0
    with odd.connect() as connection:
        connection.sendall(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while odd.phases() != ["answer"]:
            odd.pass_time(0)
        while not any("/flood" in line for line in odd.log):
            passed += LIMITS.write_seconds + 1
            odd.pass_time(passed)
    assert any(line.startswith("GET /flood 200") for line in odd.log)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_at_once(odd: Serving, is_chunked: bool) -> None:
    """W-07: the client sees the answer though it still sends."""
    data = b'"' + b"a" * 20_000 + b'"'
    content = iter([data[:500], data[500:]]) if is_chunked else data
    answer = odd.client.post("/echo", content=content, headers=JSON)
    assert answer.status_code == 413
    if not is_chunked:  # whose last chunk may have come before the answer
        assert answer.headers["connection"] == "close"
    assert "1,000 bytes" in answer.json()["error"]["message"]
    assert odd.client.post("/echo", json={"a": 1}).status_code == 200


def test_a_length_that_is_not_true_leaves_nothing_behind(odd: Serving) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    close = b"Connection: close\r\n"
    length = b"Content-Length: 99999999999999999999\r\n\r\n{"
    assert b" 413 " in answer_to(odd, head + close + length)
    assert b" 400 " in answer_to(odd, head + b"Content-Length: -1\r\n\r\n{")
    longer = answer_to(odd, head + b'Content-Length: 2\r\n\r\n{}{"a": 1} HTTP\r\n\r\n')
    assert b" 200 " in longer and b" 400 " in longer
    with odd.connect() as connection:  # closed in the middle
        connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
    while not any(line.startswith("POST /echo 499") for line in odd.log):
        odd.client.get("/page.css")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"3",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": %s}' % (b"1" * 200),
        b'{"a": 1} x',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xe9"}',
        b"[" * 400,
        b'{"a": %s1%s}' % (b"[" * MAX_DEPTH, b"]" * MAX_DEPTH),
        b'{"a": ' * 100 + b"1" + b"}" * 100,
    ],
)
def test_a_body_that_is_no_plain_json_object_is_refused(odd: Serving, body: bytes) -> None:
    """W-14."""
    answer = odd.client.post("/echo", content=body, headers=JSON)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]["message"]


def test_a_deep_body_of_an_allowed_depth_is_read(odd: Serving) -> None:
    depth = MAX_DEPTH - 1
    body = b'{"a": %s1%s}' % (b"[" * depth, b"]" * depth)
    assert odd.client.post("/echo", content=body, headers=JSON).content == body.replace(b" ", b"")


def test_a_bug_is_an_error_without_its_text(odd: Serving) -> None:
    answer = odd.client.get("/fail")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    with pytest.raises(httpx.RemoteProtocolError):
        odd.client.get("/fail_late")
    assert sum("ValueError" in line for line in odd.log) == 2
    assert not any("secret" in line for line in odd.log)
    assert odd.client.get("/page.css").status_code == 200


@pytest.mark.parametrize("ends", [True, False])
def test_stopping_waits_for_answers_but_not_longer_than_allowed(ends: bool) -> None:
    """W-23; new work is refused meanwhile."""
    service, limits = Stops(), Limits(grace_seconds=PATIENCE if ends else 0.0)
    with serving_app(odd_app(service), service, limits) as running:
        with running.connect() as begun:
            begun.sendall(b"GET /wait HTTP/1.0\r\nHost: localhost\r\n\r\n")
            text = b""
            while b"begun" not in text:
                text += begun.recv(1 << 16)
            running.server.should_exit = True
            while ends and not service.stopping:
                running.client.get("/page.css")
            for _ in range(10 * ends):
                assert running.client.post("/echo", json={}).status_code == 503
            service.released = ends
            text += b"".join(iter(lambda: _received(begun), b""))
    assert text.endswith(b"ended") == ends
    assert service.grace == max(limits.grace_seconds - LATE, 0.0)
    with pytest.raises(OSError, match=r"refused|descriptor"):
        running.connect()


def test_new_work_is_refused_while_the_server_stops() -> None:
    service = Stops()
    with serving_app(odd_app(service), service, LIMITS) as running:
        service.stopping = True
        answer = running.client.post("/echo", json={})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "stopping")
        assert running.client.get("/").status_code == 200
        assert running.client.get("/fail").status_code == 503


def test_a_log_that_nobody_reads_does_not_stop_the_server() -> None:
    """A pipe holds 64 KB; lines are lost, and counted."""
    import os

    from charlm.server.log import Log

    reader, writer = os.pipe()
    log = Log(writer)
    for _ in range(3000):
        log.request("GET", b"/health", 200, 0.1)
    assert log.lost > 0
    assert len(os.read(reader, 1 << 20)) > 1000
    os.close(reader)
    log.write("nobody is there")
    os.close(writer)
    log.write("and now it is closed")


def test_messages_of_refusals_have_a_kind() -> None:
    kinds = {401: "authentication_error", 404: "not_found_error", 413: "invalid_request_error"}
    for status, kind in {**kinds, 503: "server_error"}.items():
        assert Refused(status, "found; expected").content["error"]["type"] == kind
        assert json.loads(bytes(Refused(status, "x").response.body))["error"]["message"] == "x"

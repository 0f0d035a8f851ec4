"""Faults of the clients of a server: slow, half-sent and hostile requests, and stops under load."""

import http.client
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charlm.server.limits import Limits
from server_process import ROOT, Server
from torture_bench import Bench, Row

LIMITS = Limits()
RUN = ("--run", "tales")
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
LONG = {"prompt": "The dog", "max_tokens": 1_000_000, "ignore_eos": True, "stream": True}
SLACK = 3.0
"""Seconds by which a deadline may be late on a busy machine."""


def server_faults(bench: Bench) -> Iterator[Row]:
    """Disturb servers in every way."""
    with Server(*RUN) as server:
        yield from slow_clients(server)
        yield from large_requests(server)
        yield from refused_requests(server)
        yield from gone_readers(server)
        bad = server.bad_lines()
    yield Row("servers' logs without a traceback", 1, int(not bad), "; ".join(bad[:2]))
    yield from keys()
    yield from stops(bench.amounts.server_stops)
    yield from ports()
    yield from removed_run(bench.folder)


def answers(server: Server) -> bool:
    """Return whether the server answers a completion, as it should after every fault."""
    status, body = server.ask("POST", "/v1/completions", {"prompt": "The", "max_tokens": 3})
    return status == 200 and len(json.loads(body)["choices"]) == 1


@dataclass
class Half:
    """Requests that are never sent whole: what is sent at first, then again and again."""

    kind: str
    count: int
    first: bytes
    again: bytes = b""
    limit: float = 0.0
    """Seconds after which the server must have closed them."""
    sockets: list[socket.socket] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    """Seconds after which each was closed."""


def slow_clients(server: Server) -> Iterator[Row]:
    """Hold many connections open in several ways at the same time; others must be answered."""
    body = HEAD + b"Content-Length: 1000\r\n\r\n{"
    halves = [
        Half("slow headers", 100, HEAD, b"X: 1\r\n", LIMITS.header_seconds),
        Half("half-sent request lines", 50, b"POST /v1/com", b"", LIMITS.header_seconds),
        Half("connections without a request", 50, b"", b"", LIMITS.idle_seconds),
        Half("slow bodies", 100, body, b" ", LIMITS.body_seconds),
        Half("half-sent bodies", 50, body, b"", LIMITS.body_seconds),
    ]
    memory, begun, slowest = server.memory(), time.monotonic(), 0.0
    for half in halves:
        for _ in range(half.count):
            half.sockets.append(socket.create_connection(("127.0.0.1", server.port)))
            half.sockets[-1].sendall(half.first)
    while any(half.sockets for half in halves) and time.monotonic() - begun < 40:
        for half in halves:
            _go_on(half, begun)
        asked = time.monotonic()
        answered = answers(server)
        slowest = max(slowest, time.monotonic() - asked if answered else 99.0)
        time.sleep(0.5)
    for half in halves:
        good = sum(seconds <= half.limit + SLACK for seconds in half.closed)
        for left in half.sockets:
            left.close()
        note = f"closed after {max(half.closed, default=0):.0f} s"
        yield Row(f"server: {half.kind}", half.count, good, note)
    grown = server.memory() - memory
    note = f"slowest in {1000 * slowest:.0f} ms; memory {grown:+.0f} MB"
    yield Row("server: other clients answered meanwhile", 1, int(slowest < 1.0), note)


def _go_on(half: Half, begun: float) -> None:
    """Send a little more on each connection; drop those that the server has closed."""
    for each in list(half.sockets):
        try:
            readable, _, _ = select.select([each], [], [], 0)
            if readable and not each.recv(4096):
                raise ConnectionResetError
            if half.again:
                each.sendall(half.again)
        except OSError:
            half.closed.append(time.monotonic() - begun)
            half.sockets.remove(each)
            each.close()


def raw(server: Server, data: bytes, more: bytes = b"", times: int = 0) -> int:
    """Send bytes, and `more` several times; return the status, or 0 if the server only closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=45) as connection:
        try:
            connection.sendall(data)
            for _ in range(times):
                connection.sendall(more)
        except OSError:
            pass  # it closed while this was sent; the answer may be there nevertheless
        try:
            answer = connection.recv(4096)
        except OSError:
            return 0
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def large_requests(server: Server) -> Iterator[Row]:
    """Send more than the limits: bodies, headers, request lines, connections."""
    megabyte = b"a" * (1 << 20)
    chunk = b"100000\r\n" + megabyte + b"\r\n"
    many = b"".join(b"X-%d: 1\r\n" % number for number in range(10_000))
    cases: dict[str, tuple[list[tuple[bytes, bytes, int]], set[int]]] = {
        "oversized bodies (Content-Length, chunked, lying)": (
            [
                (HEAD + b"Content-Length: 67108864\r\n\r\n", megabyte, 64),
                (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", megabyte, 2),
                (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, 64),
                (HEAD + b"Content-Length: 8388609\r\n\r\n{", b"", 0),
            ],
            {0, 400, 413},
        ),
        "10,000 headers, headers of 1 MB": (
            [
                (HEAD + many + b"\r\n", b"", 0),
                (HEAD + b"X: " + megabyte + b"\r\n\r\n", b"", 0),
                (HEAD + b"X: ", megabyte, 8),
                (HEAD + b"Cookie: " + b"a=b; " * 20_000 + b"\r\n\r\n", b"", 0),
            ],
            {0, 400, 431},
        ),
        "request lines of 1 MB": (
            [
                (b"GET /" + megabyte + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"", 0),
                (b"GET /health?" + megabyte + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"", 0),
                (megabyte, megabyte, 8),
            ],
            {0, 400, 414, 431},
        ),
        "compressed bodies": ([(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
                                b"", 0)], {415}),
    }  # fmt: skip
    for kind, (requests, statuses) in cases.items():
        memory = server.memory()
        given = [raw(server, *request) for request in requests]
        good = sum(status in statuses for status in given) if answers(server) else 0
        grown = server.memory() - memory
        seen = ", ".join(sorted({str(status) if status else "closed" for status in given}))
        yield Row(f"server: {kind}", len(given), good if grown < 32 else 0,
                  f"{seen}; memory {grown:+.0f} MB")  # fmt: skip
    yield connections(server)


def connections(server: Server) -> Row:
    """Open more connections than may be open; the newest must be answered."""
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(600)]
    good = answers(server)
    for each in sockets:
        each.close()
    note = f"limit {LIMITS.connections}; a new client is answered"
    return Row("server: connections at once", 600, 600 * good, note)


WRONG: dict[str, list[Any]] = {
    "model": [5, ["tales"], "../../x", "absent"], "prompt": [[], [[]], [1.5], [True], {}, 7, [None],
    [10**9], [-1], [2**31], ["a", 5]], "max_tokens": [-1, 10**12, "5", 2.5, True, []],
    "temperature": [-0.1, "1", 1e9, [1], True], "top_p": [0, 1.5, -0.1, "1"],
    "top_k": [-1, "1", 1.5], "min_p": [-1, 2, "a"], "n": [0, -1, 10**9, "2", 1.5, True],
    "best_of": [0, 10**9, "2", True], "seed": [2**65, "1", 1.5], "echo": ["true", 1],
    "stream": ["yes", 1], "stop": ["", ["a", ""], ["x"] * 100_000, ["y" * 1_000_000], [5], 7, {}],
    "logprobs": [21, 10**9, -1, 1.5, "5", True], "logit_bias": [5, {"a": 1}, {"1": "x"}],
    "stream_options": [5, {"include_usage": True}, {"x": 1}], "suffix": ["x"], "frobnicate": [1],
    "presence_penalty": [1], "ignore_eos": [1, "no"],
}  # fmt: skip
"""Values that are wrong, for each field of a completion."""
BODIES = (
    b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"prompt": "a"} x', b"\xff\xfe", b"\xef\xbb\xbf{}",
    '{"prompt": "a"}'.encode("utf-16"), b'{"prompt": "\xe9"}', b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "top_p": Infinity}',
    b'{"prompt": "a", "top_p": 1e999}', b'{"prompt": "a", "seed": ' + b"9" * 10_000 + b"}",
    b'{"a":' * 100_000, b'{"prompt": ' + b'[' * 500 + b']' * 500 + b"}",
)  # fmt: skip
HOSTS = (
    b"Host: evil.example", b"Host: localhost.evil.example", b"Host: 127.0.0.1.evil.example:80",
    b"Host: 127.0.0.1@evil.example", b"Host: evil.example#127.0.0.1", b"Host:", b"X: 1",
    b"Host: 127.0.0.1\r\nHost: evil.example", b"Host: 127.0.0.1\r\nHost: 127.0.0.1",
    b"Host: [::1", b"Host: localhost/v1/models?", b"Host: 2130706433", b"Host: 0x7f.1",
)  # fmt: skip
PATHS = (
    "/../../etc/passwd", "/static/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
    "/page.css/../../page.py", "//v1/models", "/v1//models", "/V1/models", "/v1/models/../models",
    "/v1/models/..%2f..%2fetc%2fpasswd", "/page.js%00", "/v1/models/%00",
    "/v1/models/" + "a" * 5000, "/.git/config", "/page.py", "/index.html",
)  # fmt: skip


def refused_requests(server: Server) -> Iterator[Row]:
    """Send what must be refused, and check that the next request works."""
    wrong = [{"prompt": "a", "max_tokens": 2, name: value}
             for name, values in WRONG.items() for value in values]  # fmt: skip
    given = [server.ask("POST", "/v1/completions", body) for body in wrong]
    good = sum(status in (400, 404) and b'"param"' in body for status, body in given)
    yield Row("server: wrong types and values", len(wrong), good if answers(server) else 0,
              f"of {len(WRONG)} fields; 400, or 404 for a model")  # fmt: skip
    statuses = [server.ask("POST", "/v1/completions", body)[0] for body in BODIES]
    yield Row("server: bad JSON, NaN, other encodings", len(BODIES),
              statuses.count(400) if answers(server) else 0, _seen(statuses))  # fmt: skip
    statuses = [raw(server, b"GET /v1/models HTTP/1.1\r\n" + host + b"\r\n\r\n") for host in HOSTS]
    good = sum(status in (400, 403) for status in statuses)
    yield Row("server: wrong Host", len(HOSTS), good, _seen(statuses))
    answered = [server.ask("GET", path) for path in PATHS]
    good = sum(status in (400, 404) and b"root:" not in body for status, body in answered)
    yield Row("server: path tricks", len(PATHS), good, _seen([status for status, _ in answered]))


def _seen(statuses: list[int]) -> str:
    return ", ".join(str(status) for status in sorted(set(statuses)))


def stream(server: Server, body: dict[str, Any] | None = None) -> http.client.HTTPResponse:
    """Begin a stream and read its first line."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body or LONG),
                       {"Content-Type": "application/json"})  # fmt: skip
    answer = connection.getresponse()
    answer.readline()
    answer.connection = connection  # type: ignore[attr-defined]
    return answer


def gone_readers(server: Server) -> Iterator[Row]:
    """Leave in the middle of streams; leave streams unread."""
    before, files = server.memory(), server.files()
    for _ in range(100):
        answer = stream(server)
        answer.connection.close()  # type: ignore[attr-defined]
        answer.close()
    good, seconds = _until(lambda: not server.health()["rows"], 5)
    yield Row("server: readers that leave in a stream", 100, 100 * (good and answers(server)),
              f"no row left after {seconds:.1f} s")  # fmt: skip
    sockets = []
    for _ in range(4):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.connect(("127.0.0.1", server.port))
        body = json.dumps(LONG | {"logprobs": 20}).encode()
        each.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        sockets.append(each)
    time.sleep(1.0)
    grown = server.memory() - before
    good, seconds = _until(lambda: server.files() <= files, LIMITS.write_seconds + 25)
    for each in sockets:
        each.close()
    yield Row("server: streams that nobody reads", 4, 4 * (good and grown < 100),
              f"closed after {seconds:.0f} s; memory {grown:+.0f} MB")  # fmt: skip


def _until(ready: Callable[[], bool], limit: float) -> tuple[bool, float]:
    """Wait for a condition; return whether it came, and after how many seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        if ready():
            return True, time.monotonic() - begun
        time.sleep(0.1)
    return False, limit


def keys() -> Iterator[Row]:
    """Ask a server that wants a key, with none, wrong ones, and paths that look like others."""
    key = "correct-horse-battery"
    values = (None, "Bearer wrong", f"Bearer {key[:-1]}", f"Bearer {key}x", key, "Bearer",
              "Bearer ", f"Basic {key}", f"Bearer {key} {key}", "Bearer " + "a" * 9000)  # fmt: skip
    paths = ("/v1/models", "/v1/models?x=/health", "/v1%2fmodels", "/metrics", "/api/model")
    with Server(*RUN, environment={"CHARLM_KEY": key}) as server:
        asked = [server.ask("GET", path, headers={"Authorization": value} if value else {})[0]
                 for value in values for path in paths]  # fmt: skip
        for line, host in ((b"/v1/models", b"127.0.0.1/health?"), (b"//health/../v1/models", b"")):
            asked.append(raw(server, b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (line, host)))
        right = server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})[0]
        quiet = key not in server.log()
    good = sum(status in (400, 401, 403, 404, 431) for status in asked)
    note = f"{_seen(asked)}; with the key {right}"
    yield Row("server: without the key", len(asked), good * (right == 200 and quiet), note)


def stops(rounds: int) -> Iterator[Row]:
    """Stop servers while they write streams and answer many clients."""
    good, slowest, ends = 0, 0.0, {b"error": 0, b"[DONE]": 0}
    for number in range(rounds):
        with Server(*RUN) as server:
            streams = [stream(server) for _ in range(8)]
            code, seconds = server.stop(signal.SIGTERM if number % 2 else signal.SIGINT)
            rest = [_rest(answer) for answer in streams]
            log = server.log()
        whole = sum(b'"error"' in text or text.rstrip().endswith(b"[DONE]") for text in rest)
        ends[b"error"] += sum(b'"error"' in text for text in rest)
        slowest = max(slowest, seconds)
        good += (code == (143 if number % 2 else 130) and whole == 8
                 and seconds < LIMITS.grace_seconds + SLACK and "Traceback" not in log)  # fmt: skip
    yield Row("server: SIGTERM and SIGINT during streams", rounds, good,
              f"ended within {slowest:.1f} s, {ends[b'error']} of {8 * rounds} streams with an "
              "error event")  # fmt: skip
    good, slowest = 0, 0.0
    for _ in range(rounds):
        with Server(*RUN) as server:
            streams = [stream(server) for _ in range(4)]
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            code, seconds = server.stop()
            slowest = max(slowest, seconds)
            good += code in (143, -signal.SIGTERM) and seconds < SLACK
            del streams
    yield Row("server: a second SIGTERM", rounds, good, f"ended within {slowest:.1f} s")
    yield from stops_under_load(rounds)


def _rest(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read()
    except (OSError, http.client.HTTPException):
        return b""


def stops_under_load(rounds: int) -> Iterator[Row]:
    """Stop servers while 32 clients ask; each answer is whole, refused by 503, or not begun."""
    good, slowest, counts = 0, 0.0, {"answered": 0, "503": 0, "not connected": 0}
    for _ in range(rounds):
        with Server(*RUN) as server:
            wrong: list[str] = []
            threads = [threading.Thread(target=_ask_on, args=(server, counts, wrong))
                       for _ in range(32)]  # fmt: skip
            for thread in threads:
                thread.start()
            time.sleep(1.0)
            code, seconds = server.stop()
            for thread in threads:
                thread.join()
            log = server.log()
        slowest = max(slowest, seconds)
        for each in set(wrong):
            print(f"stop under load: {wrong.count(each)} x {each}", file=sys.stderr)
        good += code == 143 and not wrong and "Traceback" not in log and seconds < 8
    note = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    yield Row("server: SIGTERM under load", rounds, good, f"ended within {slowest:.1f} s; {note}")


def _ask_on(server: Server, counts: dict[str, int], wrong: list[str]) -> None:
    while True:
        try:
            status, body = server.ask("POST", "/v1/completions", {"prompt": "A", "max_tokens": 50})
        except (ConnectionError, http.client.RemoteDisconnected):
            counts["not connected"] += 1
            return
        except Exception as error:  # a truncated answer, say
            wrong.append(f"{type(error).__name__}: {error}")
            return
        if status == 200 and json.loads(body)["usage"]["completion_tokens"]:
            counts["answered"] += 1
        elif status == 503:
            counts["503"] += 1
        else:
            wrong.append(f"status {status}")


def serve_exit(*arguments: str) -> tuple[int, str]:
    """Run `charlm serve`, which must not start; return its exit code and what it says."""
    command = [sys.executable, "-m", "charlm", "serve", *RUN, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def ports() -> Iterator[Row]:
    """Ask for ports and hosts that are not to be had; run two servers side by side."""
    with Server(*RUN) as one, Server("--run", "prose") as two:
        cases: list[tuple[int, Callable[[], tuple[int, str]]]] = [
            (5, lambda: serve_exit("--port", str(one.port))),
            (5, lambda: serve_exit("--host", "203.0.113.7", "--port", "0", "--insecure")),
            (5, lambda: serve_exit("--host", "no.such.host.invalid", "--port", "0", "--insecure")),
            (2, lambda: serve_exit("--host", "0.0.0.0", "--port", "0")),
        ]
        found = [(expected, *case()) for expected, case in cases]
        both = answers(one) and answers(two)
    good = sum(expected == code and "Traceback" not in said for expected, code, said in found)
    yield Row("server: port in use, strange hosts, no key", len(found), good,
              f"exit codes {', '.join(str(code) for _, code, _ in found)}")  # fmt: skip
    yield Row("server: two servers side by side", 2, 2 * both)


def removed_run(folder: Path) -> Iterator[Row]:
    """Truncate and delete the files of a run while it is served."""
    copy = folder / "served"
    shutil.copytree(ROOT / "checkpoints" / "tales", copy)
    body = {"prompt": "The dog", "max_tokens": 200, "seed": 1}
    with Server("--run", str(copy)) as server:
        before = json.loads(server.ask("POST", "/v1/completions", body)[1])["choices"]
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        truncated = json.loads(server.ask("POST", "/v1/completions", body)[1])["choices"]
        shutil.rmtree(copy)
        removed = json.loads(server.ask("POST", "/v1/completions", body)[1])["choices"]
    good = (truncated == before) + (removed == before)
    yield Row("server: the run truncated, then deleted", 2, good, "answers as before")

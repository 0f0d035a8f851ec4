"""The requests of `load_server.py`, and a small HTTP client for many connections in one process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

PATIENCE = 60.0
"""Seconds after which an answer counts as lost."""
OPENINGS = ("The dog found", "Tess sat", '"My dim tiny urns', "The apple and pear salad")
TEXT = (
    "The apple and pear salad was under the table. The dog found three sly lamps, and chased many "
    "dry sad spoons on the damp dry pie."
)
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True)
class Job:
    """One request: the bytes to send, the right statuses, how much of the answer is read."""

    kind: str
    path: str
    body: bytes
    statuses: tuple[int, ...] = (200,)
    method: str = "POST"
    headers: str = "Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
    key: bytes = b""
    """Identity of the answer, the same for a streamed one; empty if none is compared."""
    leave_after: int | None = None
    """Events after which the reader closes the connection; None: it reads all."""
    length: int | None = None
    """Content-Length, if it is not that of the body."""

    def whole(self) -> "Job":
        """Return the job with an answer that is not streamed."""
        return replace(self, body=self.key[len(self.path) :])

    def sent(self) -> bytes:
        """Return the bytes of the request."""
        length = len(self.body) if self.length is None else self.length
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\n{self.headers}Content-Length: {length}\r\n\r\n"
        )
        return head.encode() + self.body


@dataclass(frozen=True)
class Reply:
    """The answer to a job: status, what is compared, and the seconds until its last byte."""

    status: int
    content: Any
    seconds: float


@dataclass(frozen=True)
class Kind:
    """Requests of one kind, in variants; `weight` is their proportion in the mixture."""

    name: str
    job: Callable[[int], Job]
    weight: float = 1.0
    variants: int = 8
    tokens: int = 0
    """Tokens that one request samples or scores."""


def completion(kind: str, *, leave_after: int | None = None, **given: Any) -> Callable[[int], Job]:
    """Return the maker of a completion's jobs; the variant chooses prompt and seed."""

    def make(variant: int) -> Job:
        body = {"prompt": OPENINGS[variant % len(OPENINGS)], "seed": variant, **given}
        sent = json.dumps(body).encode()
        alone = json.dumps({k: v for k, v in body.items() if k != "stream"}).encode()
        key = b"" if leave_after else COMPLETIONS.encode() + alone
        return Job(kind, COMPLETIONS, sent, key=key, leave_after=leave_after)

    return make


def fixed(
    kind: str, path: str, body: dict[str, Any] | None, compare: bool = True
) -> Callable[[int], Job]:
    """Return the maker of a job without variants."""
    sent = b"" if body is None else json.dumps(body).encode()
    key = path.encode() + sent if compare else b""
    return lambda _: Job(kind, path, sent, method="GET" if body is None else "POST", key=key)


def refused(kind: str) -> Callable[[int], Job]:
    """Return the maker of requests that must be refused, each with its own status."""
    start = Job(kind, COMPLETIONS, b"")
    jobs = [
        replace(start, body=b'{"prompt": "a", "temperature": "hot"}', statuses=(400,)),
        replace(start, body=b'{"prompt": "a", "top_p": NaN}', statuses=(400,)),
        replace(start, body=b"[" * 100_000, statuses=(400,)),
        replace(start, body=b'{"prompt": [99999999]}', statuses=(400,)),
        replace(start, body=b'{"prompt": "a", "n": 1000000000}', statuses=(400,)),
        replace(start, body=b'{"prompt": "a", "model": "absent"}', statuses=(404,)),
        replace(start, path="/v1/nothing", body=b"{}", statuses=(404,)),
        replace(start, method="GET", statuses=(405,)),
        replace(start, body=b"a=1", headers="Host: 127.0.0.1\r\nContent-Type: text/plain\r\n",
                statuses=(415,)),
        replace(start, body=b"{}", headers="Host: evil.example\r\n"
                "Content-Type: application/json\r\n", statuses=(400, 403, 421)),
        replace(start, length=9 << 20, statuses=(413,)),
    ]  # fmt: skip
    return lambda variant: jobs[variant]


HUNDRED = {"max_tokens": 100, "ignore_eos": True}
THOUSAND = {"max_tokens": 1000, "ignore_eos": True}
COSTS = (
    Kind("100 tokens", completion("100 tokens", **HUNDRED), tokens=100),
    Kind("100 tokens, streamed", completion("100 tokens, streamed", stream=True, **HUNDRED),
         tokens=100),
    Kind("1,000 tokens", completion("1,000 tokens", **THOUSAND), tokens=1000),
    Kind("100 tokens, top_p 0.9", completion("100 tokens, top_p 0.9", top_p=0.9, **HUNDRED),
         tokens=100),
    Kind("score 132 characters, logprobs 1", completion("score 132 characters, logprobs 1",
         prompt=TEXT, max_tokens=0, echo=True, logprobs=1), variants=1, tokens=len(TEXT)),
    Kind("1 token", completion("1 token", max_tokens=1)),
    Kind("GET /health", fixed("GET /health", "/health", None, compare=False), variants=1),
)  # fmt: skip
MIX = (
    Kind("100 tokens", completion("100 tokens", **HUNDRED), 24),
    Kind("100 tokens, streamed", completion("100 tokens, streamed", stream=True, **HUNDRED), 16),
    Kind("1,000 tokens, streamed", completion("1,000 tokens, streamed", stream=True, **THOUSAND),
         2),
    Kind("100 tokens, top_p 0.9", completion("100 tokens, top_p 0.9", top_p=0.9, **HUNDRED), 10),
    Kind("to the end, logprobs 5", completion("to the end, logprobs 5", max_tokens=40, logprobs=5,
         temperature=0.7, stop=[".", "!"]), 8),
    Kind("n = 3, streamed, logprobs", completion("n = 3, streamed, logprobs", n=3, max_tokens=30,
         logprobs=2, echo=True, stream=True), 5),
    Kind("score a text, logprobs 1", completion("score a text, logprobs 1", prompt=TEXT,
         max_tokens=0, echo=True, logprobs=1), 10, variants=1),
    Kind("/tokenize", fixed("/tokenize", "/tokenize", {"prompt": TEXT}), 5, variants=1),
    Kind("/api/score", fixed("/api/score", "/api/score", {"text": TEXT, "top": 5}), 5, variants=1),
    Kind("GET /health", fixed("GET /health", "/health", None, compare=False), 5, variants=1),
    Kind("reader leaves in a stream", completion("reader leaves in a stream", leave_after=2,
         max_tokens=100_000, ignore_eos=True, stream=True), 4),
    Kind("reader leaves at once", completion("reader leaves at once", leave_after=0,
         max_tokens=100_000, ignore_eos=True), 2),
    Kind("refused", refused("refused"), 4, variants=11),
)  # fmt: skip


class Connection:
    """One HTTP/1.1 connection, opened when it is needed and kept while the server keeps it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """Close it at once."""
        if self.streams:
            self.streams[1].close()
        self.streams = None

    async def send(self, job: Job) -> Reply:
        """Send a request and read its answer, as far as the job wants it."""
        begun = time.perf_counter()
        async with asyncio.timeout(PATIENCE):
            status, content = await self._exchange(job)
        return Reply(status, content, time.perf_counter() - begun)

    async def _exchange(self, job: Job) -> tuple[int, Any]:
        is_new = self.streams is None
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        reader, writer = self.streams
        writer.write(job.sent())
        if job.leave_after == 0:
            await asyncio.sleep(0.01)
            self.close()
            return job.statuses[0], None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if is_new or getattr(error, "partial", None):
                raise
            self.close()  # the server closed it before the request came: every client asks again
            return await self._exchange(job)
        status, parts = int(head.split(" ", 2)[1]), []
        async for part in _body(reader, head):
            parts.append(part)
            if job.leave_after and len(parts) >= job.leave_after:
                self.close()
                return status, None
        if "\nconnection: close" in head or job.length is not None:
            self.close()
        return status, compared(b"".join(parts)) if job.key else None


async def _body(reader: asyncio.StreamReader, head: str) -> AsyncIterator[bytes]:
    for line in head.split("\r\n"):
        if line.startswith("content-length:"):
            yield await reader.readexactly(int(line[15:]))
            return
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()


def compared(body: bytes) -> Any:
    """Return what two answers to one request have in common, streamed or not."""
    if not body.startswith(b"data: "):
        content = json.loads(body)
        if "choices" in content:
            return _choices([content])
        return content
    events = body.decode().split("\n\n")
    if events[-2:] != ["data: [DONE]", ""]:
        return f"the stream ends with {events[-2:]}"
    return _choices([json.loads(event.removeprefix("data: ")) for event in events[:-2]])


def _choices(answers: list[dict[str, Any]]) -> list[Any]:
    found: dict[int, list[Any]] = {}
    for answer in answers:
        if "error" in answer:
            return [answer["error"]]
        for choice in answer["choices"]:
            own = found.setdefault(choice["index"], ["", [], [], []])
            own[0] += choice["text"]
            own[1] += [choice["finish_reason"]] if choice["finish_reason"] else []
            logprobs = choice.get("logprobs") or {}
            own[2] += logprobs.get("token_logprobs", [])
            own[3] += logprobs.get("text_offset", [])
    return sorted(found.items())

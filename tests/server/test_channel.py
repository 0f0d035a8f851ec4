"""Channels: events from the worker thread reach the request that waits, and a slow one pauses."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from charlm.inference.work import Failed, Finished, NewText, Work
from charlm.server.channel import MAX_WAITING, Channel
from charlm.server.client import ClientGone

BIG = NewText(0, "x" * (MAX_WAITING + 1), [], 1, None, None)


class FakeRows:
    """Rows whose events a test makes; also the ticket of the only work."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.listen: Callable[[Any], None] = print

    def submit(self, _: Work, listen: Callable[[Any], None]) -> "FakeRows":
        self.listen = listen
        return self

    def tell(self, *events: Any) -> None:
        """Report events on a thread of its own, until they are all taken."""
        thread = threading.Thread(target=lambda: [self.listen(event) for event in events])
        thread.start()
        thread.join()

    def __getattr__(self, name: str) -> Callable[[], None]:
        return lambda: self.calls.append(name)


def run(test: Callable[[FakeRows, Channel, asyncio.Event], Coroutine[Any, Any, None]]) -> FakeRows:
    """Run a test with a channel whose client leaves when the event is set."""
    rows = FakeRows()

    async def main() -> None:
        leave = asyncio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async with Channel(rows, Work(prompts=()), receive) as channel:  # type: ignore[arg-type]
            await test(rows, channel, leave)

    asyncio.run(main())
    assert rows.calls[-1] == "cancel"
    return rows


def test_events_arrive_together_and_in_order() -> None:
    async def test(rows: FakeRows, channel: Channel, _: asyncio.Event) -> None:
        small = replace(BIG, text="x")
        rows.tell(small, replace(BIG, text="y"))
        assert await channel.take() == ([small, replace(BIG, text="y")], False)
        rows.tell(small, Finished())
        assert await channel.take() == ([small], True)

    assert run(test).calls == ["cancel"]


def test_rows_pause_while_a_client_reads_slowly() -> None:
    async def test(rows: FakeRows, channel: Channel, _: asyncio.Event) -> None:
        for _ in range(2):
            rows.tell(BIG, BIG)
            await channel.arrived.wait()  # the client is busy: it takes nothing yet
            assert rows.calls[-1] == "pause"
            assert len((await channel.take())[0]) == 2
            assert rows.calls[-1] == "resume"

    assert run(test).calls == ["pause", "resume"] * 2 + ["cancel"]


def test_a_client_that_leaves_ends_the_work() -> None:
    async def test(rows: FakeRows, channel: Channel, leave: asyncio.Event) -> None:
        leave.set()
        with pytest.raises(ClientGone):
            await channel.take()
        assert rows.calls == ["cancel"]

    run(test)


def test_a_failure_is_raised() -> None:
    async def test(rows: FakeRows, channel: Channel, _: asyncio.Event) -> None:
        rows.tell(BIG, Failed(ZeroDivisionError()))
        with pytest.raises(ZeroDivisionError):
            await channel.take()

    run(test)

"""Events of the scheduler, from its worker thread to the request that waits for them."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType

from starlette.types import Receive

from charlm.inference.rows import Rows, Ticket
from charlm.inference.work import Event, Failed, Finished, NewText, Work
from charlm.server.client import ClientGone, departure

MAX_WAITING = 1 << 20
"""Size of events that wait for a slow client, about in bytes, from which its rows pause."""


class Channel:
    """Work of one request: submits it, collects its events, and cancels it at the end.

    Use it as a context. The work is cancelled as soon as the client has gone.
    """

    def __init__(self, rows: Rows, work: Work, receive: Receive) -> None:
        self.rows, self.work, self.receive = rows, work, receive
        self.loop = asyncio.get_running_loop()
        self.arrived, self.gone = asyncio.Event(), False
        self._lock, self._armed, self._paused = threading.Lock(), False, False
        self._events: list[Event] = []
        self._size = 0

    async def __aenter__(self) -> "Channel":
        self.ticket: Ticket = self.rows.submit(self.work, self._listen)
        self.watch = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.watch.cancel()
        self.ticket.cancel()

    async def take(self) -> tuple[list[Event], bool]:
        """Return the events since the last call, and True after the last one.

        Raises the error of a work that failed, and ClientGone.
        """
        await self.arrived.wait()
        self.arrived.clear()
        if self.gone:
            raise ClientGone
        with self._lock:
            events, self._events, self._size = self._events, [], 0
        if self._paused:
            self._paused = False
            self.ticket.resume()
        last = events[-1] if events else None
        if isinstance(last, Failed):
            raise last.error
        return (events[:-1], True) if isinstance(last, Finished) else (events, False)

    def _listen(self, event: Event) -> None:
        """Take an event on the worker thread; several wake the request once."""
        with self._lock:
            self._events.append(event)
            if isinstance(event, NewText):
                numbers = len(event.tokens) * (4 + (self.work.top or 0))
                self._size += len(event.text) + 20 * numbers
            if self._armed:
                return
            self._armed = True
        self._call(self._wake)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: nobody waits
            self.gone = True

    def _wake(self) -> None:
        with self._lock:
            self._armed, size = False, self._size
        if size > MAX_WAITING and not self._paused:
            self._paused = True
            self.ticket.pause()
        self.arrived.set()

    async def _watch(self) -> None:
        """Cancel the work once the client has gone."""
        await departure(self.receive)
        self.gone = True
        self.ticket.cancel()
        self.arrived.set()

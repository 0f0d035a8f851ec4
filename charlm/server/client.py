"""Clients of requests: they may leave, and the threads that work for them end then."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from starlette.types import Receive


class ClientGone(Exception):
    """Client that has closed the connection."""


GONE: ContextVar[threading.Event | None] = ContextVar("GONE", default=None)
"""Event of the request that a thread works for, set once its client has gone; None elsewhere."""


@asynccontextmanager
async def watched(receive: Receive) -> AsyncIterator[None]:
    """Watch the client of a request, for `check_client` in the threads that work for it."""
    gone = threading.Event()
    token = GONE.set(gone)
    watch = asyncio.ensure_future(departure(receive))
    watch.add_done_callback(lambda _: gone.set())
    try:
        yield
    finally:
        watch.cancel()
        GONE.reset(token)


def check_client() -> None:
    """Raise ClientGone if the client of the watched request has gone."""
    gone = GONE.get()
    if gone and gone.is_set():
        raise ClientGone


async def departure(receive: Receive) -> None:
    """Return once the client has closed the connection; the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass

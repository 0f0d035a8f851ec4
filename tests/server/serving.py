"""A server that runs in a thread of the tests, on a free port."""

import asyncio
import contextlib
import os
import queue
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, Any

import httpx
from waiting import PATIENCE

from charlm.server.app import make_app
from charlm.server.limits import Limits
from charlm.server.log import Log
from charlm.server.run import Address, Server
from charlm.server.security import Access, Guard
from charlm.server.service import Service
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.vocabulary import Vocabulary


def run_of(vocabulary: Vocabulary, boundaries: Boundaries) -> Any:
    """Return what a prompt needs of a run."""
    return SimpleNamespace(text_vocabulary=vocabulary, boundaries=boundaries)


@dataclass
class Serving:
    """A server that answers: its URL, a client for it, and its parts."""

    url: str
    client: httpx.Client
    server: Server
    service: Any
    log_file: IO[bytes]

    @property
    def log(self) -> list[str]:
        """Lines of the log up to now, without their times."""
        handle = self.log_file.fileno()
        lines = os.pread(handle, os.fstat(handle).st_size, 0).decode().splitlines()
        return [line.partition(" ")[2] for line in lines]

    def phases(self) -> list[str]:
        """Return the phases of all connections."""
        return sorted(each.phase for each in list(self.server.server_state.connections))

    def pass_time(self, seconds: float) -> None:
        """Apply the deadlines of all connections as if a time had passed."""
        done = threading.Event()

        def sweep() -> None:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server.server_state.connections):
                connection.sweep(now + seconds)
            done.set()

        self.server.loop.call_soon_threadsafe(sweep)
        done.wait(timeout=PATIENCE)

    def connect(self) -> socket.socket:
        """Return a connection to the server."""
        address = self.server.listener.getsockname()
        return socket.create_connection(address, timeout=PATIENCE)


@contextlib.contextmanager
def serving(
    service: Service, limits: Limits | None = None, access: Access | None = None
) -> Iterator[Serving]:
    """Serve models in a thread until the block ends, by default as `charlm serve` does.

    The service is stopped then, and cannot be used again.
    """
    with serving_app(make_app(service, limits or Limits()), service, limits, access) as running:
        yield running


@contextlib.contextmanager
def serving_app(
    app: Any, service: Any, limits: Limits | None = None, access: Access | None = None
) -> Iterator[Serving]:
    """Serve any application in a thread until the block ends."""
    urls: queue.Queue[str] = queue.Queue()
    with tempfile.TemporaryFile() as log_file:
        guard = Guard(app, service, access or Access(), Log(log_file.fileno()))
        listener = Address("127.0.0.1", 0).bind()
        server = Server(guard, listener, limits or Limits(), urls.put)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        url = urls.get(timeout=PATIENCE).rstrip("/")
        pool = httpx.Limits(max_keepalive_connections=0)
        try:
            with httpx.Client(
                base_url=url, timeout=PATIENCE, trust_env=False, limits=pool
            ) as client:
                yield Serving(url, client, server, service, log_file)
        finally:
            server.should_exit = True
            thread.join(timeout=PATIENCE)

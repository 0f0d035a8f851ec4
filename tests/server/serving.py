"""A server that runs in a thread of the tests, on a free port."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
from waiting import PATIENCE

from charlm.server.app import make_app
from charlm.server.limits import Limits
from charlm.server.run import Server, bind
from charlm.server.service import Service


@dataclass
class Serving:
    """A server that answers: its URL, a client for it, and its parts."""

    url: str
    client: httpx.Client
    server: Server
    service: Service

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a socket."""
        return self.server.listener.getsockname()[:2]


@contextlib.contextmanager
def serving(service: Service, limits: Limits | None = None, **options) -> Iterator[Serving]:
    """Serve in a thread until the block ends; `options` are those of `make_app`."""
    urls: queue.Queue[str] = queue.Queue()
    limits = limits or Limits()
    app = make_app(service, limits, **options)
    server = Server(app, bind("127.0.0.1", 0), limits, urls.put)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = urls.get(timeout=PATIENCE).rstrip("/")
    with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False) as client:
        yield Serving(url, client, server, service)
    server.should_exit = True
    thread.join(timeout=PATIENCE)

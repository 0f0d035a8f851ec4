"""Start and stop of the server: it binds its port first, and reports when it answers.

The first SIGINT or SIGTERM ends it politely: new work is refused (503), work in progress has some
seconds to end. The second one ends the process at once.
"""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from charlm.errors import EnvironmentFailure
from charlm.server.limits import Limits
from charlm.server.log import Log, Problems
from charlm.server.protocol import BoundedProtocol
from charlm.server.security import Guard

BACKLOG = 1024
"""Number of connections that wait while the models are loaded."""
LATE = 0.5
"""Seconds at the end of the grace time in which streams report that they end."""
TICK = 0.05
"""Seconds between two looks at the work in progress."""


class Address:
    """Host and port to listen at; port 0 is any free port.

    Raises EnvironmentFailure for a host that has no address.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        with self._failing():
            self._found = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        self.ip = ipaddress.ip_address(str(self._found[4][0]).partition("%")[0])

    def bind(self) -> socket.socket:
        """Return a socket that listens. Raises EnvironmentFailure if the port is in use."""
        family, kind, protocol, _, address = self._found
        listener = socket.socket(family, kind, protocol)
        try:
            with self._failing():
                if sys.platform != "win32":  # where the option would share a port that is in use
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
                listener.listen(BACKLOG)
        except EnvironmentFailure:
            listener.close()
            raise
        return listener

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise EnvironmentFailure(
                f"cannot listen at {self.host}, port {self.port}: {reason}; expected an address of "
                "this machine and a free port. Choose them with --host and --port (0: any free one)"
            ) from error


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket on this machine."""
    address, port = listener.getsockname()[:2]
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_unspecified:
        return f"http://{'[::1]' if ip.version == 6 else '127.0.0.1'}:{port}/"
    return f"http://[{address}]:{port}/" if ip.version == 6 else f"http://{address}:{port}/"


class Server(uvicorn.Server):
    """uvicorn's server with limits for its connections, and with a polite end.

    `answers` is called with the URL when the server answers, `stops` with the number of requests in
    progress when it stops. `stopped_by` is the signal that ended it, or None.
    """

    def __init__(
        self,
        guard: Guard,
        listener: socket.socket,
        limits: Limits,
        answers: Callable[[str], None],
        stops: Callable[[int], None] = lambda _: None,
    ) -> None:
        protocol: Any = functools.partial(BoundedProtocol, limits=limits, log=guard.log)
        options: dict[str, Any] = {"http": protocol, "ws": "none", "lifespan": "off"}
        options |= {"log_config": None, "access_log": False, "server_header": False}
        super().__init__(uvicorn.Config(guard, **options))
        self.guard, self.listener, self.limits = guard, listener, limits
        self._answers, self._stops = answers, stops
        self.stopped_by: signal.Signals | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until `should_exit` is set."""
        with _logged(self.guard.log):
            super().run(sockets or [self.listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then report the URL."""
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self._sweeping = asyncio.create_task(self._sweep())
        self._answers(url_of(self.listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new work and wait for work in progress, then close all connections."""
        grace, loop = self.limits.grace_seconds, asyncio.get_running_loop()
        end = loop.time() + grace
        self.guard.service.stop(max(grace - LATE, 0.0))
        self._stops(self.guard.requests)
        while self.guard.requests and loop.time() < end:
            await asyncio.sleep(TICK)
        self.config.timeout_graceful_shutdown = 0 if self.guard.requests else 1
        await super().shutdown(sockets)
        self._sweeping.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def _sweep(self) -> None:
        """Close connections whose deadlines have passed, again and again."""
        limits, loop = self.limits, asyncio.get_running_loop()
        shortest = min(limits.header_seconds, limits.body_seconds, limits.idle_seconds)
        while True:
            await asyncio.sleep(min(1.0, shortest / 4))
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.sweep(loop.time())

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; the second one has its usual effect. Ignored ones stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last is Ctrl-Break of Windows
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        caught = [number for number in numbers if before[number] is not signal.SIG_IGN]

        def stop(number: int, frame: Any) -> None:
            """Stop politely; the next signal kills the process."""
            del frame
            for each in caught:
                signal.signal(each, signal.SIG_DFL)
            self.stopped_by, self.should_exit = signal.Signals(number), True

        for number in caught:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number in caught:
                signal.signal(number, before[number])


@contextlib.contextmanager
def _logged(log: Log) -> Iterator[None]:
    """Write warnings and errors of the server and of its libraries to the log."""
    problems = Problems(log)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # each bad request has its line
    names = ("uvicorn.error", "asyncio", "charlm.server")
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addHandler(problems)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(problems)
            logger.propagate = True

"""Start and stop of the server: it binds its port first, and reports when it answers."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from charlm.errors import EnvironmentFailure
from charlm.server.limits import Limits


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a host and port; port 0 is any that is free.

    Raises EnvironmentFailure if the port is in use or the host is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot listen at {host} port {port}: {error.strerror}; expected an address of this "
            "machine and a free port. Choose others with --host and --port (0: any free port)"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Server(uvicorn.Server):
    """A server that calls `announce` when it answers."""

    def __init__(
        self, app: ASGIApp, listener: socket.socket, limits: Limits, announce: Callable[[str], None]
    ) -> None:
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, timeout_keep_alive=int(limits.idle_seconds),
        )  # fmt: skip
        super().__init__(config)
        self.listener, self.announce = listener, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then announce the URL."""
        await super().startup(sockets)
        self.announce(url_of(self.listener))

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal, or until `should_exit` is set."""
        super().run(sockets or [self.listener])

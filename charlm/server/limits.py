"""Limits of the server: sizes, numbers and times of what a client may send or hold."""

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that hold for every request, whatever it asks for."""

    body_bytes: int = 8 << 20
    """Maximum size of a body."""
    header_bytes: int = 64 << 10
    """Maximum size of the request line and the headers together."""
    headers: int = 100
    """Maximum number of headers."""
    line_bytes: int = 8 << 10
    """Maximum size of the request line."""
    connections: int = 512
    """Maximum number of connections; beyond it, the one that has been idle longest is closed."""
    header_seconds: float = 10.0
    """Time for the headers, from their first byte."""
    body_seconds: float = 30.0
    """Time for the body, from the last byte of the headers."""
    idle_seconds: float = 30.0
    """Time that a connection may stay open without a request."""
    write_seconds: float = 30.0
    """Time that a client may leave the answer unread."""
    grace_seconds: float = 5.0
    """Time for answers that are being written when the server is stopped."""


def fitting_limits() -> Limits:
    """Return the limits, with no more connections than half of the files that may be open."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        return Limits()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = files == resource.RLIM_INFINITY
    return Limits() if unlimited else Limits(connections=min(Limits.connections, files // 2))

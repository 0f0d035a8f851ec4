"""Phases of long work, reported to a listener.

    with phase("encoding the text", total=chars):
        for chunk in chunks:
            ...
            advance(len(chunk))

As in logging, the listener belongs to the context of the caller, so it need not be passed to every
function. Without a listener nothing happens. A phase must not stay open across a `yield`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


@dataclass(eq=False)
class Phase:
    """Part of the work that takes a while.

    `done` of `total` is finished. Without a `total`, `reached` may give the fraction, or `unit`
    the noun that `done` counts. A terminal shows `detail` in place of the name, and a log shows
    `line`.
    """

    name: str
    total: float | None = None
    unit: str = ""
    done: float = 0.0
    reached: float | None = None
    detail: str = ""
    line: str = ""

    @property
    def fraction(self) -> float | None:
        """Finished fraction of the phase; None if it is unknown, or if the total was too low."""
        if self.total:
            return self.done / self.total if self.done <= self.total else None
        return self.reached

    @property
    def text(self) -> str:
        """Detail, or else the name with the count."""
        counted = f": {self.done:,.0f} {self.unit}" if self.unit and self.done else ""
        return self.detail or self.name + counted


class Listener(Protocol):
    """Receiver of phases; it may read their fields while they are open."""

    def begin(self, phase: Phase) -> None:
        """Handle the begin of a phase, inside those that are open."""

    def end(self, phase: Phase) -> None:
        """Handle the end of a phase."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_innermost: ContextVar[Phase | None] = ContextVar("innermost", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report all phases in this context to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def phase(name: str, total: float | None = None, unit: str = "") -> Iterator[Phase]:
    """Open a phase with the amount of work as `total`, or if it is unknown, its `unit`."""
    current, listener = Phase(name, total, unit), _listener.get()
    token = _innermost.set(current)
    if listener is not None:
        listener.begin(current)
    try:
        yield current
    finally:
        if listener is not None:
            listener.end(current)
        _innermost.reset(token)


def advance(amount: float = 1.0) -> None:
    """Report that `amount` more of the innermost phase is finished."""
    current = _innermost.get()
    if current is not None:
        current.done += amount


def reach(fraction: float) -> None:
    """Report that this fraction of the innermost phase is finished."""
    current = _innermost.get()
    if current is not None:
        current.reached = fraction


def counted(chunks: Iterable[str]) -> Iterator[str]:
    """Pass chunks of text on and advance the phase by their characters."""
    for chunk in chunks:
        yield chunk
        advance(len(chunk))

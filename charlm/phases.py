"""Phases of long work: a name, how far it is, and whoever listens.

    with phase("encoding the text", total=chars):
        for chunk in chunks:
            ...
            advance(len(chunk))

As in logging, the listener belongs to the context of the caller and is not an argument of every
function on the way. Without a listener nothing happens. A phase is never open across a `yield`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol


@dataclass(eq=False)
class Phase:
    """A part of the work that takes a while.

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
        """How much of the phase is finished, from 0 to 1; None where that is not known."""
        if self.total:
            return min(self.done / self.total, 1.0)
        return self.reached

    @property
    def text(self) -> str:
        """The detail, else the name, with what has been counted."""
        counted = f": {self.done:,.0f} {self.unit}" if self.unit and self.done else ""
        return self.detail or self.name + counted


class Listener(Protocol):
    """Anything that is informed when a phase begins and ends, and reads its fields in between."""

    def begin(self, phase: Phase) -> None:
        """Take note of a phase that begins, inside of those that are open."""

    def end(self, phase: Phase) -> None:
        """Take note of its end."""


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_innermost: ContextVar[Phase | None] = ContextVar("innermost", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report all phases inside to a listener."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def phase(name: str, total: float | None = None, unit: str = "") -> Iterator[Phase]:
    """Name what is done inside; `total` is the amount of work, if it is known, else its `unit`."""
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
    """Report that so much more of the innermost phase is finished."""
    current = _innermost.get()
    if current is not None:
        current.done += amount


def counted(chunks: Iterable[str]) -> Iterator[str]:
    """Pass a text through, and advance by the characters of each chunk when the next is asked for.

    Used inside of a phase.
    """
    for chunk in chunks:
        yield chunk
        advance(len(chunk))

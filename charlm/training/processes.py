"""The processes that train one model together; here the case of one process.

Each process reads some of the sequences of a batch. What they compute is summed once in a step, so
that all of them take the same decisions from the same numbers. `parallel` has the case of several.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

from torch import Tensor, nn

from charlm.nn.encoder import State
from charlm.text.batches import Batch

Result = TypeVar("Result")


class Processes:
    """One process that trains alone; it reads whole batches and agrees with itself."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """Number of processes."""
    here: int = 1
    """Number of processes on this machine."""

    def own(self, batch: Batch, state: State | None) -> Batch:
        """Return the sequences of a batch that this process reads; `kept` is of its own state."""
        return batch

    def total(self, weights: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """Sum the gradients of weights (in place) and a vector of numbers over all processes."""
        return numbers

    def seconds(self, own: float) -> float:
        """Return the seconds of process 0 as of the newest step; `own` are those of this one."""
        return own

    def stop_reason(self, own: str) -> str:
        """Return the reason to stop of process 0 as of the newest step, or ""."""
        return own

    def hurry(self) -> None:
        """Wait for others only a little longer from now on: the user has asked to stop."""

    def from_first(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns, or raise what it raises, in process 0."""
        return function()

    def gathered(self, own: Result) -> list[Result] | None:
        """Return the values of all processes in process 0, and None in others."""
        return [own]

    def whole_state(self, hidden: State | None) -> State | None:
        """Return the state of all sequences in their order, in process 0; None in others."""
        return hidden


ALONE = Processes()
_TOGETHER: ContextVar[Processes] = ContextVar("processes", default=ALONE)


@contextlib.contextmanager
def training_together(processes: Processes) -> Iterator[None]:
    """Make these processes train what is planned and opened here."""
    token = _TOGETHER.set(processes)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


def current_processes() -> Processes:
    """Return the processes that train what is planned and opened here, usually this one alone."""
    return _TOGETHER.get()

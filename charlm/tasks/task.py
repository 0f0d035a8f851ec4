"""The task interface: everything a trainer knows about what is learned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.inference.figures import Figures
from charlm.nn.encoder import State
from charlm.text.batches import Batch, Position


class Sums(NamedTuple):
    """Sums over the targets of a batch, as float32 tensors without a shape.

    Whoever asks for them divides by the number of targets: so parts of a batch add up to the whole.
    """

    loss: Tensor
    """Value to minimise, penalties included."""
    nats: Tensor
    """Nats to report; they have no gradient."""
    after: State
    """Detached state after the batch, in float32; empty if the task carries none."""


Loss = Callable[[Any, Batch, State | None, torch.Generator], Sums]
"""Maps a model of the task, a batch, the state after the batch before it, and the generator of all
dropout to the sums. Targets are tokens or whole texts; counts of tokens count them."""


@runtime_checkable
class WindowLoss(Protocol):
    """A `Loss` that can also be computed from tensors that stay where they are in memory."""

    def state_before(
        self, model: Any, batch: Batch, state: State | None, generator: torch.Generator
    ) -> State | None:
        """Return the state that the sequences of a batch begin with; None is the initial state."""

    def of_window(
        self,
        model: Any,
        inputs: Tensor,
        targets: Tensor,
        state: State | None,
        generator: torch.Generator,
    ) -> Sums:
        """Return the sums of a window, both tensors (T, B), that begins with this state.

        Targets that are PADDING count nothing. All shapes follow from those of the arguments and no
        value is read on the host, so the operations can be captured in a CUDA graph.
        """


class Order(Protocol):
    """Batches of a text, epoch by epoch, from any position."""

    @property
    def total(self) -> int:
        """Number of targets in an epoch."""

    def typical(self, batch: Batch) -> float:
        """Return the usual number of targets of batches like this one."""

    def epoch(self, position: Position) -> Iterator[Batch]:
        """Yield the rest of an epoch."""


class Evaluator(Protocol):
    """Judges a model on text that it is not trained on."""

    @property
    def tokens(self) -> int:
        """Number of targets that are scored."""

    def __call__(self, model: Any) -> Figures:
        """Return the figures of a model of the task."""


def nats_of(figures: Figures) -> tuple[float, ...]:
    """Return the nats of figures, as a tuple; see `Task.badness`."""
    return (figures.nats,)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Batches to train on, the loss to minimise, and how to judge the model, if at all."""

    batches: Order
    loss: Loss
    evaluate: Evaluator | None
    target: str = "token"
    """Noun of one target, for records."""
    badness: Callable[[Any], tuple[float, ...]] = nats_of
    """Numbers of validation figures that the best weights have least, the first of them first."""
    low_precision: torch.dtype | None = None
    """Number type of the copy of the model that computes on a GPU; None without a copy."""


def real_rows(real: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Return the positions of true entries in the flattened array, None if all of them are true."""
    return None if real.all() else np.flatnonzero(real)


def take_rows(x: Tensor, rows: NDArray[np.int64] | None) -> Tensor:
    """Return x (T, B, ...) as (N, ...): these rows of the T * B, or all of them without a copy.

    Positions come from the host; a boolean mask on a GPU would wait for the device.
    """
    flat = x.flatten(0, 1)
    return flat if rows is None else flat.index_select(0, torch.from_numpy(rows).to(x.device))

"""The task interface: everything a trainer knows about what is learned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from charlm.inference.figures import Figures
from charlm.nn.encoder import State
from charlm.text.batches import Batch, Position

Loss = Callable[[Any, Batch, State | None, torch.Generator], tuple[Tensor, Tensor, State]]
"""Maps a model of the task, a batch, the state after the batch before it, and the generator of all
dropout to the value to minimise, the mean nats per target to report (both in float32), and the
detached state after the batch. Targets are tokens or whole texts; counts of tokens count them."""


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

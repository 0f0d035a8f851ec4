"""The task interface: everything a trainer knows about what is learned."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from charlm.nn.encoder import State
from charlm.nn.model import RecurrentLanguageModel
from charlm.text.batches import Batch, Batches
from charlm.units import Tally

Loss = Callable[
    [RecurrentLanguageModel, Batch, State | None, torch.Generator], tuple[Tensor, Tensor, State]
]
"""Maps a model, a batch, the state after the batch before it, and the generator of all dropout to
the value to minimise, the mean nats per token to report (both in float32), and the detached state
after the batch."""


class Evaluator(Protocol):
    """Judges a model on text that it is not trained on."""

    @property
    def tokens(self) -> int:
        """Number of tokens that are scored."""

    def __call__(self, model: RecurrentLanguageModel) -> Tally:
        """Return the figures of a model. Lower nats are better."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Batches to train on, the loss to minimise, and how to judge the model, if at all."""

    batches: Batches
    loss: Loss
    evaluate: Evaluator | None

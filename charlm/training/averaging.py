"""A moving average of the weights, which often evaluates better than the weights of any one step.

Polyak & Juditsky 1992. The exponential form has a short memory in the beginning, as in Kingma & Ba
2015 (section 7.2) and TensorFlow's ExponentialMovingAverage.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

NON_MONOTONE_INTERVAL = 5
"""Number of newest validations that `non_monotone` leaves out."""


class WeightAverage:
    """average <- d average + (1 - d) weights, d = min(decay, (1 + n) / (10 + n)) at update n.

    Without a decay it is the plain mean of all weights since update `since`: d = m / (1 + m) after
    m more updates.
    """

    def __init__(self, model: nn.Module, decay: float | None, since: int = 0) -> None:
        self.model, self.decay, self.since = model, decay, since
        self.tensors = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Add the weights after update `number`, counted from 1."""
        count = number - self.since
        decay = count / (1.0 + count)
        if self.decay is not None:
            decay = min(self.decay, (1.0 + number) / (10.0 + number))
        weights = dict(self.model.named_parameters())
        for name, average in self.tensors.items():
            average.lerp_(weights[name], 1.0 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model; put its own weights back when the context ends."""
        own = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from a saved average. Raises KeyError or RuntimeError if it does not fit."""
        for name, average in self.tensors.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.model.named_parameters():
            weight.copy_(tensors[name])


def non_monotone(nats: Sequence[float]) -> bool:
    """Return whether averaging begins after these validations (Merity et al. 2018, algorithm 1).

    It begins when the newest is worse than the best of all but the last five before it.
    """
    *before, newest = nats
    earlier = before[:-NON_MONOTONE_INTERVAL]
    return bool(earlier) and newest > min(earlier)

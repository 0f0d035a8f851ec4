"""Batches of a series: numbers and their changes as inputs, the next change as the target."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from charlm.text.batches import Batch, Batches, BatchSpec, Int64
from charlm.text.encoded import EncodedText
from charlm.text.series import Scales, inputs_of
from charlm.text.series_floors import Values


@dataclass(frozen=True, kw_only=True)
class SeriesBatch(Batch):
    """A batch of steps: `inputs` (T, B, 2), and `targets` (T, B), the standardised next changes.

    Both are float32. `tokens` counts the real steps.
    """

    real: NDArray[np.bool_]
    """Which steps are no padding, shape (T, B)."""

    def at(self, columns: Int64) -> Self:
        """Return a batch of some sequences of this one, by their columns."""
        real = self.real[:, columns]
        return replace(super().at(columns), real=real, tokens=int(np.count_nonzero(real)))


class SeriesBatches(Batches):
    """The batches of a series; where the state is fresh, the change in the input is 0."""

    batch_type: type[Batch] = SeriesBatch

    def __init__(self, text: EncodedText, values: Values, scales: Scales, spec: BatchSpec) -> None:
        super().__init__(text, spec)
        self._inputs = inputs_of(values[:-1], scales)  # (N, 2)
        self._targets = (np.diff(values) / scales.change).astype(np.float32)  # (N,)

    def arrays(self, starts: Int64, stops: Int64, span: range) -> dict[str, Any]:
        """Return inputs, targets and `real`: steps `span` of the segments [starts, stops)."""
        steps = starts + np.arange(span.start, span.stop)[:, None]  # (T, B)
        real = steps < stops
        steps = np.where(real, steps, 0)
        inputs = self._inputs[steps] * real[..., None]
        if span.start == 0:
            inputs[0, :, 1] = 0.0
        return {"inputs": inputs, "targets": self._targets[steps] * real, "real": real}

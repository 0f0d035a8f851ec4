"""The model of a series: an encoder of numbers, and a normal distribution of the next one.

Letters as in `encoder`. Steps are counted in standardised units: a number is its distance from the
training mean in training deviations, a change is in the root mean square of training changes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.backends.series_weights import INPUTS, MIN_DEVIATION, OUTPUTS, UNIT
from charlm.config.model import ModelSettings
from charlm.nn.dropout import dropped
from charlm.nn.encoder import Encoder, State
from charlm.nn.layers import without_init


class SeriesModel(Encoder):
    """P(next number | numbers so far), as the outputs of which `normal_of` makes a distribution.

    The head starts at zero, so a model that is not trained forecasts the last number, with the
    usual change as its deviation. Raises UsageError if a size is missing or does not fit.
    """

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__(settings, vocab_size)
        width, learned = self.embedding.embedding_dim, self.embedding.weight.requires_grad
        self.embedding: nn.Linear = without_init(nn.Linear, INPUTS, width)  # type: ignore[assignment]
        self.embedding.requires_grad_(learned)
        self.head = without_init(nn.Linear, settings.output_size, OUTPUTS)

    @classmethod
    def of_task(
        cls,
        settings: ModelSettings,
        vocab_size: int,
        task: Mapping[str, Any],  # noqa: ARG003
    ) -> "SeriesModel":
        """Return the model of a table `task` of config.json; its weights are not initialised."""
        return cls(settings, vocab_size)

    def forward(
        self, inputs: Tensor, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Return outputs (T, B, 2) for inputs (T, B, 2) of `inputs_of`, and the state after them.

        `state` and `generator` are as in `Encoder.forward`. Outputs are in float32.
        """
        hidden, after = self.run_layers(self.embedding(inputs), state, generator)  # (T, B, H)
        with torch.autocast(hidden.device.type, enabled=False):
            outputs: Tensor = self.head(
                dropped(hidden.float(), self.settings.output_dropout or 0.0, generator, axis=1)
            )
        return outputs, after

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights from the generator: see `Encoder.reset_parameters`."""
        nn.init.normal_(self.embedding.weight, 0.0, math.sqrt(1 / INPUTS), generator=generator)
        nn.init.zeros_(self.embedding.bias)
        for layer in self.recurrent_layers():
            layer.reset_parameters(generator)
        for tensor in self.first_state:
            nn.init.zeros_(tensor)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


def normal_of(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the next change, in usual changes, of outputs (..., 2)."""
    mean, width = outputs.unbind(-1)
    return mean, MIN_DEVIATION + F.softplus(width + UNIT)


class TorchSeries:
    """Reader of series by a model, on the device of its weights, in float32 without dropout."""

    def __init__(self, model: SeriesModel) -> None:
        self.model = model
        self.device, self.name = model.device, model.engine

    @torch.inference_mode()
    def read(self, inputs: NDArray[np.float32], state: State | None) -> tuple[Any, Any, State]:
        """See `charlm.inference.series.SeriesReader`."""
        with torch.autocast(self.device.type, enabled=False):
            outputs, after = self.model(torch.from_numpy(inputs).to(self.device), state)
        mean, deviation = (t.cpu().numpy().astype(np.float64) for t in normal_of(outputs))
        return mean, deviation, after

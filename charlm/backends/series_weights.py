"""Weights of a series model as arrays, and the shapes that settings imply."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from charlm.backends.interface import Array
from charlm.backends.weights import HEAD, Weights, encoder_shapes, weights_from
from charlm.config.model import ModelSettings

INPUTS, OUTPUTS = 2, 2
"""Numbers that a step reads (the number and its change), and that it gives (mean, deviation)."""
MIN_DEVIATION = 0.001
"""Smallest deviation of a forecast, in usual changes."""
UNIT = math.log(math.e - 1)
"""Number whose softplus is 1: added to the output that the deviation is computed from."""


class SeriesWeights(NamedTuple):
    """Weights whose embedding is a matrix (2, E) from inputs, with a bias (E,) of its own."""

    weights: Weights
    bias: Array


def series_shapes(
    settings: ModelSettings,
    vocab_size: int,
    task: Mapping[str, Any],  # noqa: ARG001
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a series model's file, by name."""
    hidden, width = settings.hidden_size or 0, settings.embedding_size or 0
    return encoder_shapes(settings, vocab_size) | {
        "embedding.weight": (width, INPUTS),
        "embedding.bias": (width,),
        f"{HEAD}weight": (OUTPUTS, hidden),
        f"{HEAD}bias": (OUTPUTS,),
    }


def series_weights(settings: ModelSettings, tensors: Mapping[str, Array]) -> SeriesWeights:
    """Return the weights of a series model whose tensors have the expected names and shapes."""
    renamed = {
        **tensors,
        "embedding.weight": tensors["embedding.weight"].T,
        "output.weight": tensors[f"{HEAD}weight"],
        "output.bias": tensors[f"{HEAD}bias"],
    }
    return SeriesWeights(weights_from(settings, renamed), tensors["embedding.bias"])

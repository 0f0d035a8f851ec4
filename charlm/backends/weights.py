"""Weights as arrays, by the names that torch gives them, and the shapes that settings imply."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charlm.backends.interface import Array
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings


def only_in_torch(settings: ModelSettings) -> list[str]:
    """Return the features of a model that only torch computes."""
    features = {
        f"cell {settings.cell}": not CELLS[settings.cell].numpy_step,
        "skips": settings.skip,
        "a last layer of another size": settings.last_hidden_size
        not in (None, settings.hidden_size),
        "a learned first state": settings.learned_state,
        "zoneout": bool(settings.zoneout or settings.zoneout_cell),
        "a mixture of softmaxes": settings.mixture > 1,
        "an adaptive softmax": settings.adaptive_softmax,
        "relu": settings.nonlinearity != "tanh",
    }
    return [name for name, used in features.items() if used]


def runs_without_torch(settings: ModelSettings) -> bool:
    """Report whether the backends of this package can compute a model."""
    return not only_in_torch(settings)


class LayerWeights(NamedTuple):
    """Weights of one layer, as torch.nn stores them: (G H, inputs), (G H, H), (G H,), (G H,)."""

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array
    bias_hh: Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """All weights of a model, in float32."""

    cell: str
    embedding: Array
    layers: tuple[LayerWeights, ...]
    output: Array
    output_bias: Array

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.output.shape[1])

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self.output.shape[0])

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Numbers of layers and of tensors in the state of each, and H."""
        return len(self.layers), len(CELLS[self.cell].state), self.hidden_size


def _names(layer: int) -> list[str]:
    return [f"layers.{layer}.rnn.{name}_l0" for name in LayerWeights._fields]


def expected_shapes(settings: ModelSettings, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's file, by name, without a tied output matrix."""
    hidden, width = settings.hidden_size or 0, settings.embedding_size or 0
    rows = len(CELLS[settings.cell].blocks) * hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab_size, width)}
    for layer in range(settings.num_layers or 0):
        inputs = hidden if layer else width
        sizes = ((rows, inputs), (rows, hidden), (rows,), (rows,))
        shapes |= dict(zip(_names(layer), sizes, strict=True))
    if not settings.tie_weights:
        shapes["output.weight"] = (vocab_size, hidden)
    return shapes | {"output.bias": (vocab_size,)}


def weights_from(
    settings: ModelSettings, tensors: Mapping[str, Array], logit_scale: float = 1.0
) -> Weights:
    """Return the weights of a model whose tensors have the expected names and shapes.

    `logit_scale` multiplies all logits: the output layer, but not an embedding tied to it.
    """
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    output = arrays["embedding.weight" if settings.tie_weights else "output.weight"]
    bias = arrays["output.bias"]
    if logit_scale != 1.0:
        output, bias = output * np.float32(logit_scale), bias * np.float32(logit_scale)
    return Weights(
        cell=settings.cell,
        embedding=arrays["embedding.weight"],
        layers=tuple(
            LayerWeights(*(arrays[name] for name in _names(layer)))
            for layer in range(settings.num_layers or 0)
        ),
        output=output,
        output_bias=bias,
    )

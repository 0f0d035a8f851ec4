"""Weights as arrays by the names that torch gives them, and the shapes that settings ask for."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings

Array = NDArray[np.float32]


def only_in_torch(settings: ModelSettings) -> list[str]:
    """What of a model the engines of this package do not compute; torch computes all of it."""
    found = {
        f"cell {settings.cell}": not CELLS[settings.cell].numpy_step,
        "skips": settings.skip,
        "a last layer of another size": settings.last_hidden_size
        not in (None, settings.hidden_size),
        "a learnt first state": settings.learned_state,
        "zoneout": bool(settings.zoneout or settings.zoneout_cell),
        "a mixture of softmaxes": settings.mixture > 1,
        "an adaptive softmax": settings.adaptive_softmax,
        "relu": settings.nonlinearity != "tanh",
    }
    return [name for name, holds in found.items() if holds]


def runs_without_torch(settings: ModelSettings) -> bool:
    """Whether the engines of this package can compute a model."""
    return not only_in_torch(settings)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Of one layer, as torch.nn keeps them: (G H, inputs), (G H, H), (G H,), (G H,)."""

    from_input: Array
    from_hidden: Array
    input_bias: Array
    hidden_bias: Array


@dataclass(frozen=True, kw_only=True)
class Weights:
    """All weights of a model of a built-in cell, in float32."""

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


LAYER_NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def expected_shapes(settings: ModelSettings, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in the file of a model; a tied output matrix is left out."""
    hidden, width = settings.hidden_size or 0, settings.embedding_size or 0
    rows = len(CELLS[settings.cell].blocks) * hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab_size, width)}
    for layer in range(settings.num_layers or 0):
        inputs = hidden if layer else width
        sizes = ((rows, inputs), (rows, hidden), (rows,), (rows,))
        shapes |= {
            f"layers.{layer}.rnn.{name}": size
            for name, size in zip(LAYER_NAMES, sizes, strict=True)
        }
    if not settings.tie_weights:
        shapes["output.weight"] = (vocab_size, hidden)
    return shapes | {"output.bias": (vocab_size,)}


def weights_from(
    settings: ModelSettings, tensors: Mapping[str, Array], logit_scale: float = 1.0
) -> Weights:
    """The weights of a model whose tensors have the expected names and shapes.

    All logits are multiplied by `logit_scale`, in the output layer (and not in an embedding that
    is tied to it).
    """
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    layers = tuple(
        LayerWeights(
            from_input=plain[f"layers.{layer}.rnn.weight_ih_l0"],
            from_hidden=plain[f"layers.{layer}.rnn.weight_hh_l0"],
            input_bias=plain[f"layers.{layer}.rnn.bias_ih_l0"],
            hidden_bias=plain[f"layers.{layer}.rnn.bias_hh_l0"],
        )
        for layer in range(settings.num_layers or 0)
    )
    output, bias = (
        plain["embedding.weight" if settings.tie_weights else "output.weight"],
        plain["output.bias"],
    )
    if logit_scale != 1.0:
        output, bias = output * np.float32(logit_scale), bias * np.float32(logit_scale)
    return Weights(
        cell=settings.cell,
        embedding=plain["embedding.weight"],
        layers=layers,
        output=output,
        output_bias=bias,
    )

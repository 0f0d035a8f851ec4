"""Weights as arrays, by the names that torch gives them, and the shapes that settings imply."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from charlm.backends.interface import Array
from charlm.config.cells import CELLS
from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.config.tasks import POOLINGS, TASKS
from charlm.text.tokenizers.tokenizer_json import EOS

BACKWARD, HEAD = "backward.", "head."
"""Beginnings of the names of tensors: those that read texts from their end, and those of the output
layer."""
FRESH = (HEAD, "characters.", "decoder.")
"""Beginnings of the names of tensors that no run to start from has."""
CONDITIONS = "conditions.weight"
"""Tensor of the rows that begin texts in the place of EOS, one for each condition."""


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


def encoder_shapes(settings: ModelSettings, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of an embedding and the layers above it, by name."""
    hidden, width = settings.hidden_size or 0, settings.embedding_size or 0
    rows = len(CELLS[settings.cell].blocks) * hidden
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab_size, width)}
    for layer in range(settings.num_layers or 0):
        inputs = hidden if layer else width
        sizes = ((rows, inputs), (rows, hidden), (rows,), (rows,))
        shapes |= dict(zip(_names(layer), sizes, strict=True))
    return shapes


def expected_shapes(
    settings: ModelSettings, vocab_size: int, conditions: int = 0
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's file, by name, without a tied output matrix."""
    shapes = encoder_shapes(settings, vocab_size)
    if not settings.tie_weights:
        shapes["output.weight"] = (vocab_size, settings.hidden_size or 0)
    if conditions:
        shapes[CONDITIONS] = (conditions, settings.embedding_size or 0)
    return shapes | {"output.bias": (vocab_size,)}


def begun_with(
    settings: ModelSettings, tensors: Mapping[str, Array], condition: int | None
) -> tuple[ModelSettings, dict[str, Array]]:
    """Return the language model that begins texts with one condition, or with EOS if it is None.

    The row of the condition replaces that of EOS in the embedding. An output layer that is tied
    keeps the embedding as it was, so that the condition is no output.
    """
    rest = {name: array for name, array in tensors.items() if name != CONDITIONS}
    if condition is None:
        return settings, rest
    embedding = tensors["embedding.weight"]
    if settings.tie_weights:
        settings, rest["output.weight"] = replace(settings, tie_weights=False), embedding
    rest["embedding.weight"] = embedding.copy()
    rest["embedding.weight"][EOS] = tensors[CONDITIONS][condition]
    return settings, rest


def task_shapes(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the file of a task's model, by name.

    `task` is the table in config.json.
    """
    return dict(resolve(TASKS[task["name"]].shapes)(settings, vocab_size, task))


def classifier_shapes(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a classifier's file, by name."""
    shapes = both_ways_shapes(settings, vocab_size, both_ways=task["both_ways"])
    labels = len(task["labels"])
    features = feature_count(settings, task["pooling"], task["both_ways"])
    return shapes | {f"{HEAD}weight": (labels, features), f"{HEAD}bias": (labels,)}


def both_ways_shapes(
    settings: ModelSettings, vocab_size: int, *, both_ways: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of an encoder, and of a second one that reads backward."""
    shapes = encoder_shapes(settings, vocab_size)
    if both_ways:
        shapes |= {f"{BACKWARD}{name}": shape for name, shape in shapes.items()}
    return shapes


def feature_count(settings: ModelSettings, pooling: str, both_ways: bool) -> int:
    """Return P: the width of the last layer, for each part of the pooling and each direction."""
    width = settings.output_size
    return width * len(pooling_parts(pooling)) * (1 + both_ways)


def pooling_parts(name: str) -> tuple[str, ...]:
    """Return the poolings that one consists of, in the order of their features."""
    return tuple(part for part in POOLINGS if part != name) if name == "concat" else (name,)


def weights_from(
    settings: ModelSettings, tensors: Mapping[str, Array], logit_scale: float = 1.0
) -> Weights:
    """Return the weights of a model whose tensors have the expected names and shapes.

    `logit_scale` multiplies all logits: the output layer, but not an embedding tied to it.
    """
    output = tensors["embedding.weight" if settings.tie_weights else "output.weight"]
    bias = tensors["output.bias"]
    if logit_scale != 1.0:
        output, bias = output * np.float32(logit_scale), bias * np.float32(logit_scale)
    return _weights(settings, tensors, output, bias)


def encoder_weights(
    settings: ModelSettings, tensors: Mapping[str, Array], prefix: str = ""
) -> Weights:
    """Return the weights of one encoder of a classifier, whose tensors have this prefix.

    The output layer is zero: only hidden vectors are read, by `Backend.trace`.
    """
    own = {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}
    entries, hidden = len(own["embedding.weight"]), settings.hidden_size or 0
    output, bias = np.zeros((entries, hidden), np.float32), np.zeros(entries, np.float32)
    return _weights(settings, own, output, bias)


def _weights(
    settings: ModelSettings, tensors: Mapping[str, Array], output: Array, output_bias: Array
) -> Weights:
    def plain(array: Array) -> Array:
        return np.ascontiguousarray(array, np.float32)

    return Weights(
        cell=settings.cell,
        embedding=plain(tensors["embedding.weight"]),
        layers=tuple(
            LayerWeights(*(plain(tensors[name]) for name in _names(layer)))
            for layer in range(settings.num_layers or 0)
        ),
        output=plain(output),
        output_bias=plain(output_bias),
    )

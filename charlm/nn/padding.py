"""Copies of a model with sizes that are multiples of 8, whose additional units are always zero.

cuDNN computes a layer fast in a 16-bit type only if its matrices have rows of a multiple of 16
bytes: a training step of three LSTM layers in bfloat16 took 8.3 ms on an H200 with 1150 units, and
4.5 ms with 1152. A unit whose weights are all zero begins with 0 and keeps it:

    lstm  c' = 0.5 * 0 + 0.5 * tanh(0) = 0, h' = 0.5 * tanh(0) = 0
    gru   h' = 0.5 * 0 + 0.5 * tanh(0) = 0
    rnn   h' = tanh(0) = 0, and relu(0) = 0

Weights that lead from it are zero too, so that other units compute what they did without it.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from charlm.config.model import ModelSettings
from charlm.nn.encoder import Encoder
from charlm.nn.model import RecurrentLanguageModel

MULTIPLE = 8
"""Number whose multiples are the padded sizes: 16 bytes in a 16-bit type."""
SIZES = ("hidden_size", "last_hidden_size", "embedding_size")
"""Settings that are padded."""


def padded_copy(model: Encoder) -> Encoder:
    """Return a copy of a model with padded sizes and zeros as weights, or an equal copy.

    The copy is equal if all sizes fit, and if the cell, the input or the output is none of those
    for which zeros are known to stay zeros. Its settings are those of the model, with its sizes.
    """
    settings = padded_settings(model.settings)
    if settings == model.settings or not can_be_padded(model):
        return copy.deepcopy(model)
    conditions = getattr(model, "conditions", None)
    wide = RecurrentLanguageModel(
        settings, model.vocab_size, 0 if conditions is None else conditions.num_embeddings
    )
    for weight, original in zip(wide.parameters(), model.parameters(), strict=True):
        nn.init.zeros_(weight).requires_grad_(original.requires_grad)
    wide.settings = model.settings
    return wide.to(model.device).train(model.training)


def padded_settings(settings: ModelSettings) -> ModelSettings:
    """Return the settings with each size that is given rounded up to a multiple of 8."""
    sizes = {name: getattr(settings, name) for name in SIZES}
    return replace(settings, **{n: -(-s // MULTIPLE) * MULTIPLE for n, s in sizes.items() if s})


def can_be_padded(model: Encoder) -> bool:
    """Return whether cuDNN computes the cell of a language model, and padding changes no result."""
    settings = model.settings
    excluded = settings.one_hot or settings.learned_state or settings.adaptive_softmax
    is_language_model = isinstance(model, RecurrentLanguageModel)
    return is_language_model and model.is_of_library() and not excluded


def blocks_of(model: Encoder) -> list[int]:
    """Return for each weight of a model of how many blocks of rows it consists, each padded alone.

    A recurrent layer has one for each gate, the context of a mixture one for each softmax.
    """
    gates = len(model.recurrent_layers()[0].spec.blocks)
    numbers = {"layers": gates, "output.context": model.settings.mixture}
    return [
        next((number for begin, number in numbers.items() if name.startswith(begin)), 1)
        for name, _ in model.named_parameters()
    ]


def real_part(padded: Tensor, weight: Tensor, blocks: int) -> Tensor:
    """Return the view of a padded weight (K H', ...) that holds a weight (K H, ...): (K, H, ...).

    K is the number of blocks. A weight that is not padded is returned as it is.
    """
    if padded.shape == weight.shape:
        return padded
    sizes = (blocks, len(weight) // blocks, *weight.shape[1:])
    rows = padded.view(blocks, -1, *padded.shape[1:])
    return rows[tuple(slice(size) for size in sizes)]


def padded_state(state: Tensor, added: int, dtype: torch.dtype) -> Tensor:
    """Return a state (B, H) in a number type, with zeros for additional units."""
    if not added:
        return state.to(dtype)
    wide = state.new_zeros(len(state), state.shape[1] + added, dtype=dtype)
    wide[:, : state.shape[1]] = state
    return wide

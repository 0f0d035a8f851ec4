"""The encoder: embedding and stacked recurrent layers, from ids to hidden vectors.

Letters used throughout: B batch, T time, V vocabulary, E embedding, H hidden, L layers.
Architecture as in Mikolov et al. 2010 and Zaremba et al. 2014 (arxiv.org/abs/1409.2329).
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import UsageError, named
from charlm.nn.dropout import dropout_mask, dropped, dropped_weight, run_layer, runs_by_steps
from charlm.nn.kernel_layers import looks_up
from charlm.nn.layers import LayerState, Lookup, RecurrentLayer, build_layer, empty_embedding
from charlm.nn.side_by_side import Part, run_side_by_side
from charlm.nn.torch_layers import TorchLayer, run_at_once

MAX_ONE_HOT = 4096
"""Largest vocabulary for one-hot input, whose matrix has the square of this many numbers."""
State = tuple[LayerState, ...]
"""The recurrent state as a value: for each layer a tuple of (B, H) tensors."""


class Encoder(nn.Module):
    """Map ids to the hidden vectors of the last layer. State goes in and comes out.

    Raises UsageError if a size is missing or does not fit.
    """

    pieces = 1
    """See `in_pieces`."""

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        widths = layer_widths(settings, vocab_size)
        self.settings, self.vocab_size = settings, vocab_size
        self.embedding = empty_embedding(vocab_size, widths[0])
        if settings.one_hot or not CELLS[settings.cell].learns_input:
            self.embedding.requires_grad_(False)
        self.layers = nn.ModuleList(
            build_layer(inputs, outputs, settings) for inputs, outputs in pairwise(widths)
        )
        self.first_state = nn.ParameterList()
        if settings.learned_state:
            zeros = [tensor for layer in self.zero_state(1) for tensor in layer]
            self.first_state.extend(nn.Parameter(tensor) for tensor in zeros)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embedding.weight.device

    @property
    def engine(self) -> str:
        """Name of what computes, for people: `torch cpu`."""
        return f"torch {self.device.type}"

    def forward(
        self, ids: Tensor, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Return hidden vectors (T, B, H) of ids (T, B), and the state after them.

        Without a state, the batch begins in the first state. Dropout masks come from `generator`;
        without one there is no dropout. The output of the last layer has none in any case.
        """
        settings, lookup = self.settings, Lookup(ids, self._table(generator))
        changed = generator is not None and settings.input_dropout
        if changed or runs_by_steps(settings, generator) or not looks_up(settings, lookup):
            return self.run_layers(lookup.rows(), state, generator)
        return self.run_layers(lookup, state, generator)

    def run_layers(
        self, embedded: Tensor | Lookup, state: State | None, generator: torch.Generator | None
    ) -> tuple[Tensor, State]:
        """Return hidden vectors and the state, as `forward` does, for embeddings (T, B, E).

        A Lookup is read as it is, without dropout.
        """
        settings = self.settings
        state = self.initial_state(embedded.shape[1]) if state is None else state
        if isinstance(embedded, Tensor) and self._works_side_by_side(generator):
            parts = self._parts(embedded, state, generator)
            return run_side_by_side(parts, embedded, self.pieces, skip=settings.skip)
        if isinstance(embedded, Tensor) and self._are_one_call(embedded.device, generator):
            layers = cast(list[TorchLayer], self.recurrent_layers())
            first = self.dropped(embedded, settings.input_dropout, generator)
            return run_at_once(layers, first, state)
        hidden, rate = embedded, settings.input_dropout
        after: list[LayerState] = []
        for layer, before in zip(self.recurrent_layers(), state, strict=True):
            x = hidden
            if isinstance(x, Tensor):
                x = self.dropped(x, rate, generator)
            hidden, layer_state = run_layer(layer, x, before, settings, generator)  # (T, B, H)
            if settings.skip and after:
                hidden = hidden + cast(Tensor, x)
            after.append(layer_state)
            rate = settings.dropout
        return cast(Tensor, hidden), tuple(after)

    def _embed(self, ids: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return embeddings (T, B, E), with whole entries dropped (Gal & Ghahramani 2016)."""
        return Lookup(ids, self._table(generator)).rows()

    def _table(self, generator: torch.Generator | None) -> Tensor:
        """Return the embedding of each entry (V, E), zero for those that are dropped."""
        weight, rate = self.embedding.weight, self.settings.embedding_dropout
        if generator is None or rate == 0.0:
            return weight
        return weight * dropped(weight.new_ones(len(weight), 1), rate, generator)

    def dropped(self, x: Tensor, rate: float | None, generator: torch.Generator | None) -> Tensor:
        """Return x after dropout, with one mask for all steps if dropout is variational."""
        mask = self._mask(x, rate, generator)
        return x if mask is None else x * mask

    def _mask(
        self, like: Tensor, rate: float | None, generator: torch.Generator | None
    ) -> Tensor | None:
        """Return the mask of `dropped` for a tensor (T, B, E) of this shape, None for none."""
        one = like[:1] if self.settings.variational else like
        return dropout_mask(one, rate or 0.0, generator, axis=1)

    @contextlib.contextmanager
    def in_pieces(self, pieces: int) -> Iterator[None]:
        """Let layers work side by side on pieces of a window (see `run_side_by_side`).

        Only layers that are computed step by step: cuDNN took longer for pieces, and cells without
        a matrix from state to gates read all steps at once.
        """
        by_steps = CELLS[self.settings.cell].learns_recurrence and not self.is_of_library()
        self.pieces = pieces if by_steps else 1
        try:
            yield
        finally:
            self.pieces = 1

    def _works_side_by_side(self, generator: torch.Generator | None) -> bool:
        """Report whether layers read a window in pieces, each layer another one.

        Not those that draw random numbers in each step.
        """
        several = self.pieces > 1 and len(self.layers) > 1
        return several and not runs_by_steps(self.settings, generator)

    def is_of_library(self) -> bool:
        """Report whether a library computes all steps of a layer in one call, on a GPU cuDNN."""
        return all(isinstance(layer, TorchLayer) for layer in self.layers)

    def _are_one_call(self, device: torch.device, generator: torch.Generator | None) -> bool:
        """Report whether one call computes all layers: only if nothing happens between them."""
        settings, layers = self.settings, self.recurrent_layers()
        drops = generator is not None and (settings.dropout or settings.weight_drop)
        return (
            device.type == "cuda"
            and len(layers) > 1
            and self.is_of_library()
            and len({layer.hidden_size for layer in layers}) == 1
            and not (drops or settings.skip or runs_by_steps(settings, generator))
            and not any(layer._forward_hooks for layer in layers)  # as of `recorded_calls`
        )

    def _parts(self, x: Tensor, state: State, generator: torch.Generator | None) -> list[Part]:
        """Return the layers for a window with input x, with the masks that `run_layers` draws."""
        settings, rate, parts = self.settings, self.settings.input_dropout, list[Part]()
        for layer, before in zip(self.recurrent_layers(), state, strict=True):
            like = x.new_empty(()).expand(*x.shape[:2], layer.input_size)
            mask = self._mask(like, rate, generator)
            weight = dropped_weight(layer, settings.weight_drop, generator)
            parts.append(Part(layer, weight, mask, before))
            rate = settings.dropout
        return parts

    def initial_state(self, batch_size: int) -> State:
        """Return the state in which documents begin: zero, or the learned one."""
        zeros = self.zero_state(batch_size)
        if not self.first_state:
            return zeros
        learned = iter(self.first_state)
        return tuple(tuple(next(learned).repeat(batch_size, 1) for _ in layer) for layer in zeros)

    def zero_state(self, batch_size: int) -> State:
        """Return the state of zeros."""
        return tuple(layer.initial_state(batch_size) for layer in self.recurrent_layers())

    def recurrent_layers(self) -> list[RecurrentLayer]:
        """Return the stacked layers, from the input up."""
        return cast(list[RecurrentLayer], list(self.layers))

    def parameter_count(self) -> int:
        """Return the number of weights, a reservoir's included, with tied weights counted once."""
        counted = saved_tensors(self).items()
        identity = "embedding.weight" if self.settings.one_hot else None
        return sum(t.numel() for name, t in counted if not (identity and name.endswith(identity)))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights from the generator; torch's global random state is not used."""
        if self.settings.one_hot:
            nn.init.eye_(self.embedding.weight)
        else:
            scale = embedding_scale(self.embedding.embedding_dim)
            nn.init.normal_(self.embedding.weight, 0.0, scale, generator=generator)
        for layer in self.recurrent_layers():
            layer.reset_parameters(generator)
        for tensor in self.first_state:
            nn.init.zeros_(tensor)


def saved_tensors(model: Encoder) -> dict[str, Tensor]:
    """Return the tensors of a model's file, by name; a tied output matrix is the embedding."""
    tensors = dict(model.state_dict())
    if model.settings.tie_weights:
        tensors.pop("output.weight", None)
    return tensors


def layer_widths(settings: ModelSettings, vocab_size: int) -> list[int]:
    """Return E and the output size of each layer. Raises UsageError if a size does not fit."""
    hidden, width, depth = settings.hidden_size, settings.embedding_size, settings.num_layers
    if hidden is None or width is None or depth is None:
        raise UsageError("hidden_size, embedding_size and num_layers are needed; give all three")
    spec = CELLS[settings.cell]
    for name in ("weight_drop", "state_dropout", "zoneout", "zoneout_cell"):
        if getattr(settings, name) and not spec.learns_recurrence:
            raise UsageError(
                f"{named(name)} with cell {settings.cell}, which has no recurrent weights to "
                "learn; expected another cell, or 0"
            )
    if settings.zoneout_cell and "c" not in spec.state:
        raise UsageError(
            f"{named('zoneout_cell')} with cell {settings.cell}, which has no c; use zoneout"
        )
    if settings.one_hot and (width != vocab_size or vocab_size > MAX_ONE_HOT):
        raise UsageError(
            f"one-hot input of {vocab_size:,} entries with {named('embedding_size')} {width}; "
            f"expected equal numbers up to {MAX_ONE_HOT:,}. Leave the size out, or use a "
            "learned embedding"
        )
    return [width, *[hidden] * (depth - 1), settings.last_hidden_size or hidden]


def embedding_scale(embedding_size: int) -> float:
    """Return the standard deviation of initial embeddings: vectors of length 1, at least 0.1."""
    return max(0.1, 1.0 / math.sqrt(embedding_size))


def select_rows(state: State, rows: Tensor) -> State:
    """Return the state of these sequences of the batch, in their order."""
    return tuple(tuple(tensor[rows] for tensor in layer) for layer in state)


def concatenate(states: Sequence[State]) -> State:
    """Return the states of several batches as the state of one batch."""
    if len(states) == 1:
        return states[0]
    return tuple(
        tuple(torch.cat(tensors) for tensors in zip(*layers, strict=True))
        for layers in zip(*states, strict=True)
    )

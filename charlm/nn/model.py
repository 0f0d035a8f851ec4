"""The language model: embedding, stacked recurrent layers, output layer.

Letters used throughout: B batch, T time, V vocabulary, E embedding, H hidden, L layers.
Architecture as in Mikolov et al. 2010 and Zaremba et al. 2014 (arxiv.org/abs/1409.2329).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import UsageError, named
from charlm.nn.cells import embedding_scale
from charlm.nn.dropout import dropped, read_layer
from charlm.nn.layers import LayerState, RecurrentLayer, build_layer, without_init
from charlm.nn.output import MIN_ENTRIES, MIN_HIDDEN, build_output

MAX_ONE_HOT = 4096
"""Entries up to which one-hot input is served: its matrix has the square of that."""
State = tuple[LayerState, ...]
"""The recurrent state as a value: one entry for each layer, each a tuple of (B, H) tensors."""


class RecurrentLanguageModel(nn.Module):
    """P(next token | tokens so far). State goes in and comes out; nothing is remembered inside.

    Raises UsageError when a size is missing or tied sizes differ.
    """

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        super().__init__()
        hidden, width, depth = sizes(settings, vocab_size)
        self.settings, self.vocab_size = settings, vocab_size
        self.embedding = without_init(nn.Embedding, vocab_size, width)
        if settings.one_hot or not CELLS[settings.cell].learns_input:
            self.embedding.requires_grad_(False)
        last = settings.last_hidden_size or hidden
        outs = [hidden] * (depth - 1) + [last]
        self.layers = nn.ModuleList(
            build_layer(into, out, settings)
            for into, out in zip([width, *outs], outs, strict=False)
        )
        self.output = build_output(settings, last, width, vocab_size)
        if settings.tie_weights:
            self.output.weight = self.embedding.weight
        self.first_state = nn.ParameterList()
        if settings.learned_state:
            parts = [part for layer in self.recurrent_layers() for part in layer.initial_state(1)]
            self.first_state.extend(nn.Parameter(torch.empty_like(part)) for part in parts)

    def forward(
        self,
        ids: Tensor,
        state: State | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, State]:
        """ids (T, B) and the state before them -> logits (T, B, V) and the state after them.

        Logits at t predict the token after ids[t]. Without a state, the first one. Dropout is
        drawn from `generator`; without one there is none.
        """
        _, x, after = self.read(ids, state, generator)  # (T, B, H)
        return self.output(x), after  # (T, B, V)

    def read(
        self, ids: Tensor, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """What the output layer sees of ids (T, B): before and after its dropout, and the state.

        Both of shape (T, B, H); without a generator they are the same.
        """
        settings = self.settings
        state = self.initial_state(ids.shape[1]) if state is None else state
        x = self._dropped(self._embedded(ids, generator), settings.input_dropout, generator)
        after = []
        raw = x  # (T, B, E)
        for number, layer in enumerate(self.recurrent_layers()):
            raw, layer_state = read_layer(layer, x, state[number], settings, generator)  # (T, B, H)
            if settings.skip and number:
                raw = raw + x
            after.append(layer_state)
            last = number == len(self.layers) - 1
            x = self._dropped(raw, settings.output_dropout if last else settings.dropout, generator)
        return raw, x, tuple(after)

    def _embedded(self, ids: Tensor, generator: torch.Generator | None) -> Tensor:
        """Embeddings (T, B, E), whole entries dropped (Gal & Ghahramani 2016)."""
        share = self.settings.embedding_dropout
        if generator is None or share == 0.0:
            return cast(Tensor, self.embedding(ids))
        weight = self.embedding.weight
        kept = dropped(weight.new_ones(len(weight), 1), share, generator)
        return F.embedding(ids, weight * kept)

    def _dropped(self, x: Tensor, share: float | None, generator: torch.Generator | None) -> Tensor:
        """Dropout, one mask for all steps where it is variational."""
        if not self.settings.variational or generator is None or not share:
            return dropped(x, share or 0.0, generator)
        return x * dropped(torch.ones_like(x[:1]), share, generator)

    def initial_state(self, batch_size: int) -> State:
        """The state that B rows begin with: zero, or the learnt one."""
        zeros = tuple(layer.initial_state(batch_size) for layer in self.recurrent_layers())
        if not self.first_state:
            return zeros
        learnt = iter(self.first_state)
        return tuple(tuple(next(learnt).repeat(batch_size, 1) for _ in layer) for layer in zeros)

    def recurrent_layers(self) -> list[RecurrentLayer]:
        """The stacked layers, from the input up."""
        return cast(list[RecurrentLayer], list(self.layers))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Fresh weights from the generator; the global random state is not touched."""
        if self.settings.one_hot:
            nn.init.eye_(self.embedding.weight)
        else:
            scale = embedding_scale(self.embedding.embedding_dim)
            nn.init.normal_(self.embedding.weight, 0.0, scale, generator=generator)
        for layer in self.recurrent_layers():
            layer.reset_parameters(generator)
        self.output.fill(generator, bool(self.settings.tie_weights))
        for part in self.first_state:
            nn.init.zeros_(part)

    def parameter_count(self) -> int:
        """Number of weights, tied ones counted once, those of a reservoir too."""
        tensors = saved_tensors(self)
        if self.settings.one_hot:  # the identity
            tensors.pop("embedding.weight")
        return sum(tensor.numel() for tensor in tensors.values())


def sizes(settings: ModelSettings, vocab_size: int) -> tuple[int, int, int]:
    """H, E and L of complete settings. Raises UsageError when one is missing or does not fit."""
    hidden, width, depth = settings.hidden_size, settings.embedding_size, settings.num_layers
    if hidden is None or width is None or depth is None:
        raise UsageError("hidden_size, embedding_size and num_layers are needed; give all three")
    spec = CELLS[settings.cell]
    for name in ("weight_drop", "state_dropout", "zoneout", "zoneout_cell"):
        if getattr(settings, name) and not spec.learns_recurrence:
            raise UsageError(
                f"{named(name)} with cell {settings.cell}, which has no recurrent weights to "
                "learn; "
                "expected another cell, or 0"
            )
    if settings.tie_weights and not spec.learns_input:
        raise UsageError(
            f"{named('tie_weights')} with cell {settings.cell}; its embedding is never trained. "
            "Use --no-tie"
        )
    last = settings.last_hidden_size or hidden
    if settings.tie_weights and last != width and settings.mixture == 1:
        raise UsageError(
            f"{named('tie_weights')} needs equal sizes; got embedding {width}, hidden {last}"
        )
    if settings.one_hot and (width != vocab_size or vocab_size > MAX_ONE_HOT):
        raise UsageError(
            f"one-hot input of {vocab_size:,} entries with {named('embedding_size')} {width}; "
            "expected "
            f"equal numbers up to {MAX_ONE_HOT:,}. Leave the size out, or use a learnt embedding"
        )
    if settings.zoneout_cell and "c" not in spec.state:
        raise UsageError(
            f"{named('zoneout_cell')} with cell {settings.cell}, which has no c; use zoneout"
        )
    if settings.adaptive_softmax and (vocab_size < MIN_ENTRIES or last < MIN_HIDDEN):
        raise UsageError(
            f"{named('adaptive_softmax')} with {vocab_size} entries and {named('hidden_size')} "
            f"{last}; "
            f"expected at least {MIN_ENTRIES} and {MIN_HIDDEN}"
        )
    return hidden, width, depth


def count_parameters(settings: ModelSettings, vocab_size: int) -> int:
    """Number of weights of a model of these settings, without building it."""
    with torch.device("meta"):
        return RecurrentLanguageModel(settings, vocab_size).parameter_count()


def saved_tensors(model: RecurrentLanguageModel) -> dict[str, Tensor]:
    """What is saved of a model, by name; a tied output matrix is left out, being the embedding."""
    tensors = dict(model.state_dict())
    if model.settings.tie_weights:
        tensors.pop("output.weight")
    return tensors


def tensor_shapes(settings: ModelSettings, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that is saved, from a model without memory."""
    with torch.device("meta"):
        model = RecurrentLanguageModel(settings, vocab_size)
    return {name: tuple(tensor.shape) for name, tensor in saved_tensors(model).items()}


def multiplied_weights(settings: ModelSettings, vocab_size: int) -> int:
    """Weights that are multiplied for each token: all but the embedding, which is looked up."""
    shapes = tensor_shapes(replace(settings, tie_weights=False), vocab_size)
    del shapes["embedding.weight"]
    return sum(math.prod(shape) for shape in shapes.values())


def rows_of(state: State, rows: Tensor) -> State:
    """The state of some rows of the batch, in the order of `rows`."""
    return tuple(tuple(part[rows] for part in layer) for layer in state)


def joined(states: Sequence[State]) -> State:
    """The states of several batches as that of one, their rows in a row."""
    if len(states) == 1:
        return states[0]
    return tuple(
        tuple(torch.cat(parts) for parts in zip(*layers, strict=True))
        for layers in zip(*states, strict=True)
    )

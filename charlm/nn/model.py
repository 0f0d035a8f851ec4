"""The language model, an encoder with an output layer, and functions for its sizes."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import UsageError, named
from charlm.nn.encoder import Encoder, State, layer_widths, saved_tensors
from charlm.nn.layers import empty_embedding
from charlm.nn.output import MIN_ENTRIES, MIN_HIDDEN, build_output
from charlm.text.tokenizers.tokenizer_json import EOS


class RecurrentLanguageModel(Encoder):
    """P(next token | tokens so far), as logits.

    Inputs V, V + 1, ... are conditions: they begin texts in the place of EOS and are never targets.
    Raises UsageError if a size is missing or does not fit.
    """

    def __init__(self, settings: ModelSettings, vocab_size: int, conditions: int = 0) -> None:
        check_model(settings, vocab_size)
        super().__init__(settings, vocab_size)
        first_state = self.first_state
        del self.first_state
        self.output = build_output(
            settings, settings.output_size, self.embedding.embedding_dim, vocab_size
        )
        if settings.tie_weights:
            self.output.weight = self.embedding.weight
        self.first_state = first_state  # after the output: checkpoints number weights in this order
        self.conditions: nn.Embedding | None = None
        if conditions:
            width = self.embedding.embedding_dim
            self.conditions = empty_embedding(conditions, width)

    def forward(
        self, ids: Tensor, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Return logits (T, B, V) for ids (T, B), and the state after them; see `Encoder.forward`.

        Logits at t predict the token after ids[t].
        """
        _, context, after = self.read(ids, state, generator)  # (T, B, H)
        return self.output(context), after  # (T, B, V)

    def read(
        self, ids: Tensor, state: State | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return hidden vectors (T, B, H) before and after output dropout, and the state after ids.

        The second are the input of the output layer. Without a generator both are equal.
        """
        hidden, after = super().forward(ids, state, generator)
        return hidden, self.dropped(hidden, self.settings.output_dropout, generator), after

    def _table(self, generator: torch.Generator | None) -> Tensor:
        """See `Encoder._table`; conditions, which are never dropped, follow the entries."""
        table = super()._table(generator)
        return table if self.conditions is None else torch.cat([table, self.conditions.weight])

    def reset_parameters(self, generator: torch.Generator) -> None:
        """See `Encoder.reset_parameters`; conditions are copies of EOS."""
        super().reset_parameters(generator)
        self.output.initialise(generator, tied=bool(self.settings.tie_weights))
        if self.conditions is not None:
            with torch.no_grad():
                self.conditions.weight.copy_(self.embedding.weight[EOS])


def check_model(settings: ModelSettings, vocab_size: int) -> None:
    """Raise UsageError if no model can be built of these settings."""
    width, *_, last = layer_widths(settings, vocab_size)
    if settings.tie_weights and not CELLS[settings.cell].learns_input:
        raise UsageError(
            f"{named('tie_weights')} with cell {settings.cell}; its embedding is never trained. "
            "Use --no-tie"
        )
    if settings.tie_weights and last != width and settings.mixture == 1:
        raise UsageError(
            f"{named('tie_weights')} needs equal sizes; got embedding {width}, hidden {last}"
        )
    if settings.adaptive_softmax and (vocab_size < MIN_ENTRIES or last < MIN_HIDDEN):
        raise UsageError(
            f"{named('adaptive_softmax')} with {vocab_size} entries and {named('hidden_size')} "
            f"{last}; expected at least {MIN_ENTRIES} and {MIN_HIDDEN}"
        )


def count_parameters(settings: ModelSettings, vocab_size: int, conditions: int = 0) -> int:
    """Return the number of weights of a model, without building it."""
    with torch.device("meta"):
        return RecurrentLanguageModel(settings, vocab_size, conditions).parameter_count()


def tensor_shapes(
    settings: ModelSettings, vocab_size: int, conditions: int = 0
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's file, by name, without building the model."""
    with torch.device("meta"):
        model = RecurrentLanguageModel(settings, vocab_size, conditions)
    return {name: tuple(tensor.shape) for name, tensor in saved_tensors(model).items()}


def multiplied_weights(settings: ModelSettings, vocab_size: int) -> int:
    """Return the number of weights multiplied for each token: all but the embedding."""
    shapes = tensor_shapes(replace(settings, tie_weights=False, one_hot=False), vocab_size)
    del shapes["embedding.weight"]
    return sum(math.prod(shape) for shape in shapes.values())

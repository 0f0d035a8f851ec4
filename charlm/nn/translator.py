"""The translator: encoders that read a source text, and a decoder that looks at what they read.

Letters as in `encoder`, with T' steps and V' entries of the target, and D = H or, both ways, 2 H.
The decoder is a language model of the target whose first state comes from the source (Sutskever et
al. 2014), with attention after its layers (Luong et al. 2015): whole targets are read at once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.backends.translator_weights import decoder_settings
from charlm.config.model import ModelSettings
from charlm.nn.attention import attend
from charlm.nn.classifier import reversed_within
from charlm.nn.encoder import Encoder, State
from charlm.nn.layers import empty_parameter, without_init


class Translator(Encoder):
    """P(target text | source text), as logits of each next token of the target.

    The encoder itself reads the source forward; with `both_ways`, `backward` is a second one of the
    same settings, with weights of its own, that reads it from its end. Raises UsageError if a size
    is missing or does not fit.
    """

    def __init__(
        self, settings: ModelSettings, vocab_size: int, target_size: int, both_ways: bool
    ) -> None:
        super().__init__(settings, vocab_size)
        # checkpoints number weights in this order: the encoders', the decoder's, the head's
        self.backward = Encoder(settings, vocab_size) if both_ways else None
        self.decoder = Decoder(decoder_settings(settings, both_ways), target_size)
        embedding_size = self.decoder.encoder.embedding.embedding_dim
        self.head = Head(self.decoder.width, embedding_size, target_size)

    @classmethod
    def of_task(
        cls, settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
    ) -> "Translator":
        """Build the translator that the table `task` of a run's config.json describes."""
        return cls(settings, vocab_size, task["target_size"], task["both_ways"])

    def memory(
        self, inputs: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, State]:
        """Return a vector for each step of the sources (T, B, D), and the decoder's first state.

        Sources (T, B) of these lengths (B,) are padded at their ends. The vector of a step is the
        forward hidden vector of the texts up to it and the backward one of the texts from it on.
        """
        forward, _ = Encoder.forward(self, inputs, None, generator)  # (T, B, H)
        last = (lengths - 1)[None, :, None].expand(1, -1, forward.shape[-1])
        memory, ends = forward, forward.gather(0, last)[0]  # (T, B, H), (B, H)
        if self.backward is not None:
            backward, _ = self.backward(reversed_within(inputs, lengths), None, generator)
            ends = torch.cat([ends, backward.gather(0, last)[0]], dim=-1)  # (B, D)
            memory = torch.cat([forward, reversed_within(backward, lengths)], dim=-1)  # (T, B, D)
        return memory, self.decoder.first(ends)

    def decode(
        self,
        ids: Tensor,
        state: State,
        memory: Tensor,
        lengths: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """Return what the output layer reads (T', B, E) after target ids (T', B).

        The second result is the attention (T', B, T), the third the state after the ids.
        """
        hidden, after = self.decoder.encoder(ids, state, generator)  # (T', B, D)
        context, weights = attend(hidden, memory, lengths)
        joined = torch.cat([hidden, context], dim=-1)  # (T', B, 2 D)
        read = torch.tanh(self.head.combine(joined))
        return self.dropped(read, self.settings.output_dropout, generator), weights, after

    def read(
        self,
        inputs: Tensor,
        lengths: Tensor,
        target_inputs: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return what the output layer reads (T', B, E) at each step of known targets (T', B)."""
        memory, state = self.memory(inputs, lengths, generator)
        return self.decode(target_inputs, state, memory, lengths, generator)[0]

    def logits(self, read: Tensor) -> Tensor:
        """Return logits (..., V') for what the output layer reads (..., E)."""
        return F.linear(read, self.decoder.encoder.embedding.weight, self.head.bias)

    def forward(  # type: ignore[override]
        self,
        inputs: Tensor,
        lengths: Tensor,
        target_inputs: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return logits (T', B, V') at each step of known targets (T', B)."""
        return self.logits(self.read(inputs, lengths, target_inputs, generator))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights as in `Encoder`; other matrices are Xavier-uniform."""
        super().reset_parameters(generator)
        if self.backward is not None:
            self.backward.reset_parameters(generator)
        self.decoder.encoder.reset_parameters(generator)
        for linear in (self.decoder.bridge, self.head.combine):
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.head.bias)


class Decoder(nn.Module):
    """Layers that read the target, and the matrix from the ends of the source to their state."""

    def __init__(self, settings: ModelSettings, target_size: int) -> None:
        super().__init__()
        self.encoder = Encoder(settings, target_size)
        self.width = settings.hidden_size or 0
        self._sizes = [part.shape[1] for layer in self.encoder.zero_state(1) for part in layer]
        self.bridge = without_init(nn.Linear, self.width, sum(self._sizes))

    def first(self, ends: Tensor) -> State:
        """Return tanh(W ends + b) as the state of each layer, for ends (B, D)."""
        values = torch.tanh(self.bridge(ends).float())  # (B, sizes)
        parts = iter(torch.split(values, self._sizes, dim=-1))
        return tuple(tuple(next(parts) for _ in layer) for layer in self.encoder.zero_state(1))


class Head(nn.Module):
    """Matrix from hidden vector and context to the width of the embedding, and output biases.

    The output matrix is the embedding of the target (Press & Wolf 2017).
    """

    def __init__(self, width: int, embedding_size: int, target_size: int) -> None:
        super().__init__()
        self.combine = without_init(nn.Linear, 2 * width, embedding_size)
        self.bias = empty_parameter(target_size)

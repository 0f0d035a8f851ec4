"""The tagger: encoders that read a sentence from one or both ends, and a tag for each word.

A word is read off where its tokens end: the forward state after its last token, the backward one
after its first. Letters as in `encoder`, with W words, K tags, P features, U spellings of C letters
each (see `charlm.text.word_batches`).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.backends.interface import Array
from charlm.backends.tagger_weights import CRF, ILLEGAL, letter_settings
from charlm.config.model import ModelSettings
from charlm.nn.classifier import reversed_steps, reversed_within
from charlm.nn.dropout import dropped
from charlm.nn.encoder import Encoder, layer_widths
from charlm.nn.layers import without_init
from charlm.nn.pooling import pooled
from charlm.text.groups import READ_TOGETHER, groups_by_length
from charlm.text.sentences import Sentences
from charlm.text.spans import legal
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.text.word_batches import WordBatch, word_batch

SIMILAR = (9,)
"""Lengths in steps up to which spellings are read side by side: long ones would pad the others."""


class Tagger(Encoder):
    """Scores of the tags of each word of a sentence.

    The encoder itself reads forward; with `both_ways`, `backward` is a second one of the same
    settings, with weights of its own. With a `letter_width`, what two small encoders make of the
    letters of a word (Lample et al. 2016) is added to its embedding. Raises UsageError if a size
    is missing or does not fit.
    """

    def __init__(
        self,
        settings: ModelSettings,
        vocab_size: int,
        labels: tuple[str, ...],
        *,
        both_ways: bool,
        output: str,
        letter_width: int = 0,
        letters: int = 0,
    ) -> None:
        super().__init__(settings, vocab_size)
        features = layer_widths(settings, vocab_size)[-1] * (1 + both_ways)
        # checkpoints number weights in this order
        self.backward = Encoder(settings, vocab_size) if both_ways else None
        self.characters = (
            Characters(letter_settings(settings, letter_width), letters) if letter_width else None
        )
        self.head = tag_head(features, labels, output)

    @classmethod
    def of_task(cls, settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]) -> "Tagger":
        """Return a tagger as the table of config.json describes it; its weights are unset."""
        names = ("both_ways", "output", "letter_width", "letters")
        about = {name: task[name] for name in names}
        return cls(settings, vocab_size, tuple(task["labels"]), **about)

    def features(self, batch: WordBatch, generator: torch.Generator | None = None) -> Tensor:
        """Return the features (words, P) of all words of a batch, sentence after sentence.

        Those of the forward half come first. `generator` is as in `Encoder.forward`.
        """
        inputs, lengths = self._moved(batch.inputs), self._moved(batch.lengths)
        word, sentence = map(self._moved, batch.word_places())
        spelled = self._spelled(batch)  # (T, B, E)
        hidden, _ = self.run_layers(self._embed(inputs, generator) + spelled, None, generator)
        parts = [hidden[self._moved(batch.lasts)[word, sentence], sentence]]
        if self.backward is not None:
            order = reversed_steps(len(inputs), lengths)  # it undoes itself
            embedded = self.backward._embed(inputs, generator) + spelled
            embedded = reversed_within(embedded, lengths)
            hidden, _ = self.backward.run_layers(embedded, None, generator)
            first = self._moved(batch.firsts)[word, sentence]
            parts.append(hidden[order[first, sentence], sentence])
        return torch.cat(parts, dim=1).float()

    def emissions(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the score (words, K) of each tag of words with features (words, P), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            rate = self.settings.output_dropout or 0.0
            scores: Tensor = self.head(dropped(features, rate, generator))
        return scores

    def _spelled(self, batch: WordBatch) -> Tensor:
        """Return what the letters of the word at each step say (T, B, E), zero at EOS and pads."""
        if self.characters is None:
            return self.embedding.weight.new_zeros(())
        letters, lengths = self._moved(batch.letters), self._moved(batch.letter_lengths)
        vectors: Tensor = self.characters(letters, lengths)  # (U, E)
        vectors = torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])
        return vectors[self._moved(batch.spelled)]

    def _moved(self, array: NDArray[np.int64]) -> Tensor:
        """Return an array as a tensor on the device of the weights."""
        return torch.from_numpy(array).to(self.device)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights as in `Encoder`; those of the output layer Xavier-uniform."""
        super().reset_parameters(generator)
        for part in (self.backward, self.characters):
            if part is not None:
                part.reset_parameters(generator)
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        for name, weight in self.head.named_parameters():
            if name != "weight":
                nn.init.zeros_(weight)


class Characters(Encoder):
    """Two encoders that read the letters of a word, one from each of its ends."""

    def __init__(self, settings: ModelSettings, letters: int) -> None:
        super().__init__(settings, letters)
        self.backward = Encoder(settings, letters)

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Return the last states (U, 2 C) for spellings (letters, U) of these lengths (U,)."""
        order = lengths.argsort()
        ends = [int((lengths <= steps).sum()) for steps in SIMILAR] + [len(lengths)]
        parts = [letters.new_zeros(0, 2 * self.embedding.embedding_dim)]
        for begin, end in pairwise([0, *ends]):
            if begin < end:
                rows = order[begin:end]
                parts.append(self._ends(letters[: int(lengths[rows[-1]]), rows], lengths[rows]))
        return torch.cat(parts)[order.argsort()]

    def _ends(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """Return `forward` of spellings that are read side by side."""
        forward, _ = Encoder.forward(self, letters)
        backward, _ = self.backward(reversed_within(letters, lengths))
        return torch.cat([pooled("last", hidden, lengths) for hidden in (forward, backward)], dim=1)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights as in `Encoder`."""
        super().reset_parameters(generator)
        self.backward.reset_parameters(generator)


class CrfHead(nn.Linear):
    """Emissions of tags, and scores of steps between tags, of which some are not legal."""

    legal: Tensor
    """Legal steps, as in `text.spans.legal`; not saved."""

    def __init__(self, features: int, tags: int, device: str) -> None:
        super().__init__(features, tags, device=device)
        self.transitions = nn.Parameter(torch.empty(tags, tags, device=device))
        self.first = nn.Parameter(torch.empty(tags, device=device))
        self.last = nn.Parameter(torch.empty(tags, device=device))

    def steps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of steps (K, K), of the first tag (K,) and of the last one (K,)."""
        return (
            self.transitions.where(self.legal[:-1], ILLEGAL),
            self.first.where(self.legal[-1], ILLEGAL),
            self.last,
        )


def tag_head(features: int, labels: Sequence[str], output: str) -> nn.Linear:
    """Return the output layer of a tagger, with unset weights."""
    if output != CRF:
        return without_init(nn.Linear, features, len(labels))
    head = without_init(CrfHead, features, len(labels))
    head.register_buffer("legal", torch.from_numpy(legal(labels)), persistent=False)
    return head


class TorchTagReader:
    """Features and emissions of the words of sentences by a tagger, on the device of its weights.

    `letters` are the entries of the letters, if the model reads them. Sentences are read in batches
    of like length, in float32 and without dropout.
    """

    def __init__(self, model: Tagger, letters: Vocabulary | None = None) -> None:
        self.model, self.letters, self.name = model, letters, model.engine

    @torch.inference_mode()
    def features(self, sentences: Sentences) -> Array:
        """Return the features of all words, shape (W, P)."""
        result = np.empty((len(sentences.firsts), self.model.head.in_features), np.float32)
        for rows in groups_by_length(sentences.lengths, READ_TOGETHER):
            batch = word_batch(sentences, rows, letters=self.letters)
            with torch.autocast(self.model.device.type, enabled=False):
                result[sentences.numbers(rows)] = self.model.features(batch).cpu().numpy()
        return result

    def emissions(self, sentences: Sentences) -> NDArray[np.float64]:
        """Return the score of each tag of all words, shape (W, K)."""
        return self.emissions_of(self.features(sentences))

    @torch.inference_mode()
    def emissions_of(self, features: Array) -> NDArray[np.float64]:
        """Return the score of each tag of words with these features, shape (W, K)."""
        known = torch.from_numpy(features).to(self.model.device)
        return self.model.emissions(known).cpu().numpy().astype(np.float64)

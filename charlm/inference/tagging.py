"""Tags of words, read by backends; no torch.

Letters: W words, T time, B batch, E embedding, H hidden, P features, K tags, U spellings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Array, Backend
from charlm.backends.numpy_backend import run_layers
from charlm.backends.weights import Weights
from charlm.config.cells import CELLS
from charlm.inference.crf import Answers
from charlm.inference.labelling import hidden_vectors, pooled, reversed_within
from charlm.products import product
from charlm.text.batches import Int64
from charlm.text.groups import READ_TOGETHER, groups_by_length
from charlm.text.sentences import Sentences
from charlm.text.spans import is_iob2, spans_of
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.text.word_batches import word_batch


class TextSpan(NamedTuple):
    """A span of words: its type, its characters in the text, its words, and its probability.

    Characters `start` to `end` (not included) are those of the text as it was given; words `first`
    to `last` are included. The probability is that of the least probable of its tags.
    """

    type: str
    text: str
    start: int
    end: int
    first: int
    last: int
    probability: float


class Tags(NamedTuple):
    """The words of a sentence, the tag of each, the spans, and the probability of each tag."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    spans: tuple[TextSpan, ...]
    probabilities: tuple[float, ...]


class WrongSentence(NamedTuple):
    """The words of a sentence, their gold and predicted tags, and the nats of the gold tags.

    A gold tag that the run does not know is "?".
    """

    words: tuple[str, ...]
    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    nats: float


class TagReader(Protocol):
    """Computation of a tagger: an `ArrayTagReader`, or `nn.tagger.TorchTagReader`."""

    @property
    def name(self) -> str:
        """Name for people: `native avx512`, `numpy`, `torch cpu`."""

    def features(self, sentences: Sentences) -> Array:
        """Return the features of all words, shape (W, P)."""

    def emissions(self, sentences: Sentences) -> NDArray[np.float64]:
        """Return the score of each tag of all words, shape (W, K)."""


@dataclass(frozen=True, kw_only=True)
class Letters:
    """Two encoders that read the letters of words: the entries of letters, and both weights."""

    vocabulary: Vocabulary
    forward: Weights
    backward: Weights

    def vectors(self, letters: Int64, lengths: Int64) -> Array:
        """Return a vector (U, E) for each spelling; `letters` (C, U) have these lengths (U,)."""
        sides = ((self.forward, letters), (self.backward, reversed_within(letters, lengths)))
        parts = [pooled("last", _hidden(half, half.embedding[ids]), lengths) for half, ids in sides]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True, kw_only=True)
class ArrayTagReader:
    """A tagger computed by backends, or with letters by numpy: the forward encoder, the backward.

    The head has `weight` (K, P) and `bias` (K,).
    """

    halves: tuple[Backend | Weights, ...]
    weight: Array
    bias: Array
    letters: Letters | None = None

    @property
    def name(self) -> str:
        """Name of the backends."""
        first = self.halves[0]
        return "numpy" if isinstance(first, Weights) else first.name

    def features(self, sentences: Sentences) -> Array:
        """See `TagReader.features`; the forward half comes first.

        A word is read off at its last token by the encoder that reads forward, and at its first
        one by that which reads backward.
        """
        features = np.empty((len(sentences.firsts), self.weight.shape[1]), np.float32)
        vocabulary = self.letters.vocabulary if self.letters else None
        for rows in groups_by_length(sentences.lengths, READ_TOGETHER):
            batch = word_batch(sentences, rows, letters=vocabulary)
            word, column = batch.word_places()
            first, last = batch.firsts[word, column], batch.lasts[word, column]
            added = None
            if self.letters:
                spellings = self.letters.vectors(batch.letters, batch.letter_lengths)
                none = np.zeros((1, spellings.shape[1]), np.float32)
                added = np.concatenate([none, spellings])  # (U + 1, E)
            sides = (
                (batch.inputs, batch.spelled, last),
                (
                    reversed_within(batch.inputs, batch.lengths),
                    reversed_within(batch.spelled, batch.lengths),
                    batch.lengths[column] - first,
                ),
            )
            parts = []
            for half, (inputs, spelled, steps) in zip(self.halves, sides, strict=False):
                if isinstance(half, Weights):
                    x = half.embedding[inputs]
                    hidden = _hidden(half, x if added is None else x + added[spelled])
                else:
                    hidden = hidden_vectors(half, inputs)
                parts.append(hidden[steps, column])
            features[sentences.numbers(rows)] = np.concatenate(parts, axis=1)
        return features

    def emissions(self, sentences: Sentences) -> NDArray[np.float64]:
        """See `TagReader.emissions`."""
        return (product(self.features(sentences), self.weight.T) + self.bias).astype(np.float64)


def _hidden(weights: Weights, x: Array) -> Array:
    """Return the hidden vectors (T, B, H) of the last layer after inputs x (T, B, E)."""
    shape = (x.shape[1], weights.hidden_size)
    empty = tuple(np.zeros(shape, np.float32) for _ in CELLS[weights.cell].state)
    signals, _ = run_layers(weights.cell, weights.layers, x, (empty,) * len(weights.layers))
    return signals[-1][:, 0]


def tags_of(
    answers: Answers, ends: Int64, names: Sequence[str], texts: Sequence["PlacedWords"]
) -> Iterator[Tags]:
    """Yield the tags of each sentence, whose words up to its end `ends` (N,) counts."""
    chosen = answers.log_probabilities[np.arange(len(answers.tags)), answers.tags]
    probabilities = np.exp(chosen).tolist()
    spans_are_tagged = is_iob2(names)
    begin = 0
    for text, end in zip(texts, ends.tolist(), strict=True):
        tags = tuple(names[tag] for tag in answers.tags[begin:end])
        own = tuple(probabilities[begin:end])
        spans = tuple(
            TextSpan(
                type=span.type,
                text=text.text[text.starts[span.first] : stop],
                start=text.starts[span.first],
                end=stop,
                first=span.first,
                last=span.last,
                probability=min(own[span.first : span.last + 1]),
            )
            for span in (spans_of(tags) if spans_are_tagged else ())
            for stop in [text.starts[span.last] + len(text.words[span.last])]
        )
        yield Tags(text.words, tags, spans, own)
        begin = end


class PlacedWords(NamedTuple):
    """A text, its words, and the character at which each begins."""

    text: str
    words: tuple[str, ...]
    starts: tuple[int, ...]

"""Features and labels of texts, read by backends; no torch.

Letters: N texts, T time, B batch, H hidden, P features, K labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Array, Backend
from charlm.backends.mixed import mixed_nats
from charlm.backends.softmax import log_softmax
from charlm.backends.weights import pooling_parts
from charlm.products import product
from charlm.text.bag_of_words import BagOfWords
from charlm.text.batches import Int64
from charlm.text.encoded import EncodedText
from charlm.text.groups import READ_TOGETHER, groups_by_length, padded, text_lengths

Number = TypeVar("Number", bound=np.generic)


class Label(NamedTuple):
    """The likeliest label of a text, its probability, and those of all labels by name."""

    label: str
    probability: float
    probabilities: dict[str, float]

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the likeliest labels with their probabilities, the likeliest first."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return ranked[:count]


class WrongText(NamedTuple):
    """A text with its gold label, the predicted one, and the probability of both."""

    text: str
    gold: str
    predicted: str
    probability: float
    gold_probability: float


class LabelReader(Protocol):
    """Computation of a classifier: an `ArrayReader`, or `nn.classifier.TorchReader`."""

    @property
    def name(self) -> str:
        """Name for people: `native avx512`, `numpy`, `torch cpu`."""

    def hidden(self, inputs: Int64) -> Array:
        """Return the hidden vectors (T, B, H) of inputs (T, B), read forward."""

    def features(self, text: EncodedText) -> Array:
        """Return the pooled features of each text, shape (N, P)."""

    def logits(self, text: EncodedText) -> NDArray[np.float64]:
        """Return the logits of each text, shape (N, K)."""


@dataclass(frozen=True, kw_only=True)
class ArrayReader:
    """A classifier computed by backends: the encoder that reads forward, and the backward one.

    The head has `weight` (K, P) and `bias` (K,); `scale` multiplies all logits. Of the backends
    only hidden vectors are used.
    """

    halves: tuple[Backend, ...]
    weight: Array
    bias: Array
    pooling: str
    scale: float = 1.0

    @property
    def name(self) -> str:
        """Name of the backends."""
        return self.halves[0].name

    def hidden(self, inputs: Int64) -> Array:
        """See `LabelReader.hidden`."""
        return hidden_vectors(self.halves[0], inputs)

    def features(self, text: EncodedText) -> Array:
        """See `LabelReader.features`; the forward half comes first."""
        features = np.empty((text.documents, self.weight.shape[1]), np.float32)
        for rows in groups_by_length(text_lengths(text), READ_TOGETHER):
            inputs, lengths = padded(text, rows)
            sides = (inputs, reversed_within(inputs, lengths))
            parts = [
                pooled(self.pooling, hidden_vectors(half, side), lengths)
                for half, side in zip(self.halves, sides, strict=False)
            ]
            features[rows] = np.concatenate(parts, axis=1)
        return features

    def logits(self, text: EncodedText) -> NDArray[np.float64]:
        """See `LabelReader.logits`."""
        logits = product(self.features(text), self.weight.T) + self.bias
        return logits.astype(np.float64) * self.scale


@dataclass(frozen=True, kw_only=True)
class MixedReader:
    """A classifier to whose logits those of a bag of words are added."""

    network: LabelReader
    bag: BagOfWords

    @property
    def name(self) -> str:
        """Name of the network's."""
        return self.network.name

    def hidden(self, inputs: Int64) -> Array:
        """See `LabelReader.hidden`."""
        return self.network.hidden(inputs)

    def features(self, text: EncodedText) -> Array:
        """Return the pooled features of the network, shape (N, P)."""
        return self.network.features(text)

    def logits(self, text: EncodedText) -> NDArray[np.float64]:
        """See `LabelReader.logits`."""
        return self.network.logits(text) + self.bag.logits(text)


@dataclass(frozen=True, kw_only=True)
class TextForEach(EncodedText):
    """A text as the first of several classifiers encodes it, with its encoding by each of them."""

    each: tuple[EncodedText, ...]

    @classmethod
    def of(cls, each: Sequence[EncodedText]) -> "TextForEach":
        """Return the encodings of one text, of which each has the same number of documents."""
        first = each[0]
        return cls(
            ids=first.ids,
            ends=first.ends,
            counts=first.counts,
            is_stream=first.is_stream,
            firsts=first.firsts,
            each=tuple(each),
        )


@dataclass(frozen=True, kw_only=True)
class MeanReader:
    """The weighted mean of the probabilities of several classifiers of the same labels.

    `columns` has for each classifier the columns of its logits in the order of the labels of the
    first one. The weights are positive, and their sum is 1.
    """

    readers: tuple[LabelReader, ...]
    weights: tuple[float, ...]
    columns: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Names of the readers."""
        return "mixture of " + " and ".join(reader.name for reader in self.readers)

    def hidden(self, inputs: Int64) -> Array:
        """Return the hidden vectors of the first classifier (see `LabelReader.hidden`)."""
        return self.readers[0].hidden(inputs)

    def features(self, text: EncodedText) -> Array:
        """Return the pooled features of the first classifier, shape (N, P)."""
        return self.readers[0].features(text)

    def logits(self, text: EncodedText) -> NDArray[np.float64]:
        """Return ln P of each label, shape (N, K)."""
        assert isinstance(text, TextForEach), "encoded by each run"
        nats = [
            -log_softmax(reader.logits(own))[:, order]
            for reader, own, order in zip(self.readers, text.each, self.columns, strict=True)
        ]
        return -mixed_nats(nats, self.weights)


def hidden_vectors(backend: Backend, inputs: Int64) -> Array:
    """Return the hidden vectors (T, B, H) of the last layer after each input (T, B)."""
    signals, _ = backend.trace(inputs, backend.initial_state(inputs.shape[1]), ("h",))
    return np.asarray(signals["h"][-1])


def pooled(name: str, hidden: Array, lengths: Int64) -> Array:
    """Return one vector (B, P) of hidden vectors (T, B, H), as `nn.pooling.pooled` does."""
    inside = (np.arange(len(hidden))[:, np.newaxis] < lengths)[..., np.newaxis]
    ways: dict[str, Callable[[], NDArray[Any]]] = {
        "last": lambda: hidden[lengths - 1, np.arange(hidden.shape[1])],
        "mean": lambda: (hidden * inside).sum(axis=0) / lengths[:, np.newaxis],
        "max": lambda: np.where(inside, hidden, np.float32(-np.inf)).max(axis=0),
    }
    parts = [ways[part]() for part in pooling_parts(name)]
    return np.concatenate(parts, axis=1, dtype=np.float32)


def reversed_within(inputs: NDArray[Number], lengths: Int64) -> NDArray[Number]:
    """Return inputs (T, B, ...) with each text reversed, as `nn.classifier.reversed_within` does.

    Applied to the hidden vectors of reversed texts it puts them back in order.
    """
    steps = np.arange(len(inputs))[:, np.newaxis]
    inside = (steps > 0) & (steps < lengths)
    places = np.where(inside, lengths - steps, steps)
    return inputs[places, np.arange(inputs.shape[1])]

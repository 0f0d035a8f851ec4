"""Floors: simple classifiers that a network has to beat, and the best single unit of a network.

Wang and Manning 2012 (https://aclanthology.org/P12-2018) show that naive Bayes with pairs of words
is hard to beat on short texts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.batches import Int64
from charlm.text.encoded import EncodedText
from charlm.text.labels import UNSEEN, Targets

Floats = NDArray[np.float64]
TEXTS_AT_ONCE = 1 << 13
"""Texts whose features are found at a time; their numbers fit into 63 bits."""
UNITS_AT_ONCE = 64
"""Units of a network that are compared at a time, to bound the memory."""


def majority(targets: Targets, labels: int) -> int:
    """Return the id of the most frequent label; the first one of several."""
    return int(np.bincount(targets[targets != UNSEEN], minlength=labels).argmax())


@dataclass(frozen=True, kw_only=True)
class NaiveBayes:
    """Multinomial naive Bayes over the words and the pairs of neighbouring words of a text.

    Each word or pair counts once in a text. Features that training lacks are left out.
    """

    features: Int64
    """Numbers of the features of the training texts, sorted."""
    weights: Floats
    """ln P(feature | label), shape (features, K), with one added to each count."""
    priors: Floats
    """ln P(label), shape (K,)."""
    vocab_size: int

    @classmethod
    def fit(
        cls, text: EncodedText, targets: Targets, labels: int, vocab_size: int, *, least: int = 1
    ) -> "NaiveBayes":
        """Count the features of texts whose labels are `targets`, shape (documents,).

        Features of fewer than `least` texts are left out.
        """
        rows, found = _text_features(text, vocab_size)
        features, places = np.unique(found, return_inverse=True)
        cells = places * labels + targets[rows]
        counts = np.bincount(cells, minlength=len(features) * labels).reshape(-1, labels) + 1.0
        priors = np.bincount(targets, minlength=labels) / len(targets)
        kept = counts.sum(axis=1) >= least + labels
        with np.errstate(divide="ignore"):  # a label without a text is never chosen
            return cls(
                features=features[kept],
                weights=np.log(counts[kept]) - np.log(counts.sum(axis=0)),
                priors=np.log(priors),
                vocab_size=vocab_size,
            )

    def times(self, factor: float) -> "NaiveBayes":
        """Return a copy with all logits multiplied by a factor."""
        return replace(self, weights=self.weights * factor, priors=self.priors * factor)

    def logits(self, text: EncodedText) -> Floats:
        """Return ln P(label, features) of each text, shape (documents, K)."""
        rows, found = _text_features(text, self.vocab_size)
        places = np.searchsorted(self.features, found)
        known = np.append(self.features, -1)[places] == found
        rows, places = rows[known], places[known]
        sums = [
            np.bincount(rows, self.weights[places, label], text.documents)
            for label in range(len(self.priors))
        ]
        return np.stack(sums, axis=1) + self.priors


def _text_features(text: EncodedText, vocab_size: int) -> tuple[Int64, Int64]:
    """Return the distinct features of each text, and the number of the text of each.

    Word w is feature w, and the pair of v and w is (v + 1) V + w, with V words.
    """
    blocks = [
        _block_features(text, range(begin, min(begin + TEXTS_AT_ONCE, text.documents)), vocab_size)
        for begin in range(0, text.documents, TEXTS_AT_ONCE)
    ]
    rows, features = zip((np.empty(0, np.int64),) * 2, *blocks, strict=True)
    return np.concatenate(rows), np.concatenate(features)


def _block_features(text: EncodedText, block: range, vocab_size: int) -> tuple[Int64, Int64]:
    begin = int(text.ends[block.start - 1]) if block.start else 0
    ends = text.ends[block.start : block.stop] - begin
    ids = np.asarray(text.ids[begin : begin + int(ends[-1])], np.int64)
    rows = np.repeat(np.arange(len(block)), np.diff(ends, prepend=0))
    is_word = np.ones(len(ids), np.bool_)
    is_word[ends - 1] = False  # EOS
    is_pair = is_word[:-1] & is_word[1:]  # an EOS is between two texts
    pairs = ((ids[:-1] + 1) * vocab_size + ids[1:])[is_pair]
    size = (vocab_size + 1) * vocab_size
    keys = rows[is_word] * size + ids[is_word], rows[:-1][is_pair] * size + pairs
    ordered = np.sort(np.concatenate(keys))  # np.unique takes nine times as long, by hashing
    row, feature = np.divmod(ordered[np.diff(ordered, prepend=-1) > 0], size)
    return row + block.start, feature


# ------------------------------------------------------------------ single units

Guess = Callable[[NDArray[Any]], NDArray[np.int64]]
"""Function from features (N, U) to the labels that each unit alone gives, shape (N, U)."""


def best_unit(
    train: NDArray[Any],
    train_targets: Targets,
    valid: NDArray[Any],
    valid_targets: Targets,
    labels: int,
) -> tuple[int, float]:
    """Return the unit that tells the labels of the training texts apart best, and its accuracy.

    `train` and `valid` are features of shape (N, P). Two labels are told apart by one threshold,
    more by a normal distribution for each. The accuracy is that on the validation texts.
    """
    best, unit, accuracy = -1.0, 0, 0.0
    for begin in range(0, train.shape[1], UNITS_AT_ONCE):
        units = slice(begin, begin + UNITS_AT_ONCE)
        values = np.asarray(train[:, units], np.float64)
        guess = (
            _threshold(values, train_targets)
            if labels == 2
            else _normal(values, train_targets, labels)
        )
        right = (guess(values) == train_targets[:, np.newaxis]).mean(axis=0)
        place = int(right.argmax())
        if right[place] > best:
            found = guess(np.asarray(valid[:, units], np.float64))[:, place]
            best, unit = float(right[place]), begin + place
            accuracy = float((found == valid_targets).mean())
    return unit, accuracy


def _threshold(values: Floats, targets: Targets) -> Guess:
    """Return the rule of one threshold for each unit, with the most texts right."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    ones = targets[order] == 1
    texts, start = len(targets), np.zeros((1, values.shape[1]), np.int64)
    below = np.concatenate([start, np.cumsum(~ones, axis=0)])  # zeros before each cut
    above = ones.sum(axis=0) - np.concatenate([start, np.cumsum(ones, axis=0)])
    right = np.stack([below + above, texts - below - above])  # label 1 above the cut, or below it
    right[:, 1:-1][:, ordered[1:] == ordered[:-1]] = -1  # no cut between equal values
    cuts = right.argmax(axis=1)  # (2, U)
    flipped = np.argmax(right.max(axis=1), axis=0)
    edges = np.concatenate([start - np.inf, ordered, start + np.inf])
    cut = np.take_along_axis(cuts, flipped[np.newaxis], axis=0)
    threshold = sum(np.take_along_axis(edges, cut + side, axis=0) / 2 for side in (0, 1))
    return lambda features: ((features > threshold) != flipped).astype(np.int64)


def _normal(values: Floats, targets: Targets, labels: int) -> Guess:
    """Return the rule of a normal distribution for each label and unit."""
    present = [label for label in range(labels) if np.any(targets == label)]
    groups = [values[targets == label] for label in present]
    means = [group.mean(axis=0) for group in groups]
    deviations = [group.std(axis=0) + 1e-9 for group in groups]
    priors = [np.log(len(group) / len(values)) for group in groups]

    def guess(features: NDArray[Any]) -> NDArray[np.int64]:
        """Return the likeliest label of each text by each unit."""
        likely = [
            prior - np.log(deviation) - 0.5 * ((features - mean) / deviation) ** 2
            for mean, deviation, prior in zip(means, deviations, priors, strict=True)
        ]
        labels_of: NDArray[np.int64] = np.array(present)[np.argmax(likely, axis=0)]
        return labels_of

    return guess

"""Bags of words: classifiers by the words and the pairs of neighbouring words of a text.

Wang and Manning 2012 (https://aclanthology.org/P12-2018) show that naive Bayes with pairs of words
is hard to beat on short texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from charlm.text.batches import Int64
from charlm.text.encoded import EncodedText
from charlm.text.labels import Targets

Floats = NDArray[np.float64]
TEXTS_AT_ONCE = 1 << 13
"""Texts whose features are found at a time; their numbers fit into 63 bits."""
FEATURES_AT_ONCE = 1 << 22
"""Least number of features of texts that are added to the counts at a time."""


@dataclass(frozen=True, kw_only=True)
class BagOfWords:
    """Logits that are the sum of the weights of a text's words and pairs, and of the priors.

    Each word or pair counts once in a text. Features that training lacks are left out.
    """

    features: Int64
    """Numbers of the features, sorted."""
    weights: Floats
    """Weights of the features, shape (features, K); of naive Bayes ln P(feature | label)."""
    priors: Floats
    """Logits of a text without features, shape (K,); of naive Bayes ln P(label)."""
    vocab_size: int

    @classmethod
    def naive_bayes(
        cls, text: EncodedText, targets: Targets, labels: int, vocab_size: int, *, least: int = 1
    ) -> "BagOfWords":
        """Fit multinomial naive Bayes to texts whose labels are `targets`, shape (documents,).

        One is added to each count. Features of fewer than `least` texts are left out.
        """
        features, counts = _counted(text, targets, labels, vocab_size)
        counts += 1.0
        priors = np.bincount(targets, minlength=labels) / len(targets)
        kept = counts.sum(axis=1) >= least + labels
        with np.errstate(divide="ignore"):  # a label without a text is never chosen
            return cls(
                features=features[kept],
                weights=np.log(counts[kept]) - np.log(counts.sum(axis=0)),
                priors=np.log(priors),
                vocab_size=vocab_size,
            )

    def times(self, factor: float) -> "BagOfWords":
        """Return a copy with all logits multiplied by a factor."""
        return replace(self, weights=self.weights * factor, priors=self.priors * factor)

    def plus(self, other: "BagOfWords") -> "BagOfWords":
        """Return a copy whose logits are the sum with those of a bag of the same features."""
        return replace(
            self, weights=self.weights + other.weights, priors=self.priors + other.priors
        )

    def places(self, text: EncodedText) -> tuple[Int64, Int64]:
        """Return which features each text has: numbers of texts, and places in `features`."""
        rows, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        ended = np.append(self.features, -1)
        for row, feature in _text_features(text, self.vocab_size):
            place = np.searchsorted(self.features, feature)
            known = ended[place] == feature
            rows.append(row[known])
            places.append(place[known])
        return np.concatenate(rows), np.concatenate(places)

    def logits(self, text: EncodedText) -> Floats:
        """Return the logits of each text, shape (documents, K)."""
        rows, places = self.places(text)
        sums = [
            np.bincount(rows, self.weights[places, label], text.documents)
            for label in range(len(self.priors))
        ]
        return np.stack(sums, axis=1) + self.priors


def _counted(
    text: EncodedText, targets: Targets, labels: int, vocab_size: int
) -> tuple[Int64, Floats]:
    """Return the sorted features, and how many texts of each label have them (features, K).

    The features of many texts are added to the counts at a time, so that memory holds not much more
    than the distinct ones.
    """
    features, counts = np.empty(0, np.int64), np.empty((0, labels))
    waiting: list[tuple[Int64, Targets]] = []
    for rows, found in _text_features(text, vocab_size):
        waiting.append((found, targets[rows]))
        if sum(len(each) for each, _ in waiting) >= max(len(features), FEATURES_AT_ONCE):
            features, counts = _added(features, counts, waiting)
            waiting = []
    return _added(features, counts, waiting)


def _added(
    features: Int64, counts: Floats, waiting: list[tuple[Int64, Targets]]
) -> tuple[Int64, Floats]:
    """Return features and counts with those of more texts, given with their labels."""
    every, places = np.unique(
        np.concatenate([features, *(each for each, _ in waiting)]), return_inverse=True
    )
    labels = counts.shape[1]
    known, new = places[: len(features)], places[len(features) :]
    cells = new * labels + np.concatenate([np.empty(0, np.int64), *(label for _, label in waiting)])
    total = np.bincount(cells, minlength=len(every) * labels).reshape(-1, labels).astype(float)
    total[known] += counts
    return every, total


def _text_features(text: EncodedText, vocab_size: int) -> Iterator[tuple[Int64, Int64]]:
    """Yield the distinct features of each text, and before them the number of the text of each.

    Word w is feature w, and the pair of v and w is (v + 1) V + w, with V words.
    """
    for begin in range(0, text.documents, TEXTS_AT_ONCE):
        block = range(begin, min(begin + TEXTS_AT_ONCE, text.documents))
        yield _block_features(text, block, vocab_size)


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

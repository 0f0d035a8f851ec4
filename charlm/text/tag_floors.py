"""The floor of a tagger: the most frequent tag of each word."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from charlm.text.floors import majority
from charlm.text.labels import UNSEEN, Targets
from charlm.text.sentences import Sentences


@dataclass(frozen=True, kw_only=True)
class FrequentTag:
    """The tag that each spelling has most often in training, the first one of several.

    Words that training lacks have the most frequent tag of all. Words are compared as they are
    written, with capitals.
    """

    best: Mapping[str, int]
    """Ids of tags by spelling."""
    other: int
    """Id of the most frequent tag."""

    @classmethod
    def fit(cls, sentences: Sentences, targets: Targets, tags: int) -> "FrequentTag":
        """Count `targets`, the tags of all words, shape (W,), among this number of tags."""
        tagged = targets != UNSEEN
        cells = sentences.spelling[tagged].astype(np.int64) * tags + targets[tagged]
        counts = np.bincount(cells, minlength=len(sentences.words) * tags).reshape(-1, tags)
        best = counts.argmax(axis=1).tolist()
        return cls(
            best=dict(zip(sentences.words, best, strict=True)), other=majority(targets, tags)
        )

    def tags(self, sentences: Sentences) -> Targets:
        """Return the tag of each word, shape (W,)."""
        known = [self.best.get(word, self.other) for word in sentences.words]
        return np.array(known, np.int32)[sentences.spelling]

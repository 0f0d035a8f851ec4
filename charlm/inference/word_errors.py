"""Word error rates: Levenshtein distance between hypotheses and references (Levenshtein 1966).

Among alignments with the same number of errors the counts of insertions, deletions and
substitutions follow Kaldi's compute-wer: an insertion is preferred, then a deletion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.inference.bootstrap import ratio_interval

Ints = NDArray[np.int64]
NO_WORDS = "the references have no words; expected some to count errors in. Give other references"


@dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """Errors of hypotheses against references: counts of errors, and of reference words.

    `low` and `high` bound 95 % of the rates of bootstrap samples of utterances; None for fewer than
    20 utterances, or if half of the references are empty. With `chars` the words are characters.
    """

    insertions: int
    deletions: int
    substitutions: int
    words: int
    utterances: int
    low: float | None = None
    high: float | None = None
    chars: bool = False

    @property
    def errors(self) -> int:
        """Number of errors."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors per reference word; above 1 if there are more errors than words."""
        return self.errors / self.words

    def summary(self) -> dict[str, Any]:
        """Return the figures by name, for JSON; the unit is words or chars."""
        return (
            {"unit": "chars" if self.chars else "words", "rate": self.rate}
            | {
                name: getattr(self, name)
                for name in ("low", "high", "errors", "insertions", "deletions", "substitutions")
            }
            | {"reference_length": self.words}
        )

    def __str__(self) -> str:
        """Return the line that Kaldi prints: %WER 12.30 [ 45 / 366, 5 ins, 10 del, 30 sub ]."""
        name = "%CER" if self.chars else "%WER"
        counts = f"{self.insertions} ins, {self.deletions} del, {self.substitutions} sub"
        return f"{name} {100 * self.rate:.2f} [ {self.errors} / {self.words}, {counts} ]"


@dataclass(frozen=True, kw_only=True)
class ErrorChange:
    """Change of an error rate on the same utterances: negative if the second choice is better.

    `low` and `high` bound 95 % of the changes of bootstrap samples of utterances, in which both
    choices are compared on the same utterances; None as in `ErrorRate`.
    """

    rate: float
    low: float | None = None
    high: float | None = None

    def summary(self) -> dict[str, float | None]:
        """Return the figures by name, for JSON."""
        return {"rate": self.rate, "low": self.low, "high": self.high}


def split_text(text: str, *, chars: bool = False) -> list[str]:
    """Return the words of a text, as separated by blanks; with `chars` its characters.

    Characters of different words are compared with one blank between the words.
    """
    words = text.split()
    return list(" ".join(words)) if chars else words


def error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, chars: bool = False, seed: int = 0
) -> ErrorRate:
    """Return the error rate of one hypothesis for each reference; `seed` is of the bootstrap.

    Raises CorpusError for references without words.
    """
    counts = np.array(
        [
            edit_counts(split_text(reference, chars=chars), split_text(hypothesis, chars=chars))
            for reference, hypothesis in zip(references, hypotheses, strict=True)
        ],
        np.int64,
    ).reshape(-1, 3)
    words = np.array([len(split_text(reference, chars=chars)) for reference in references])
    if not words.sum():
        raise CorpusError(NO_WORDS)
    low, high = _interval(counts.sum(1), words, seed)
    insertions, deletions, substitutions = counts.sum(0).tolist()
    return ErrorRate(
        insertions=insertions,
        deletions=deletions,
        substitutions=substitutions,
        words=int(words.sum()),
        utterances=len(references),
        low=low,
        high=high,
        chars=chars,
    )


def _interval(amounts: Ints, words: Ints, seed: int) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of a rate; None if a sample might have no words."""
    if np.count_nonzero(words) <= len(words) / 2:
        return None, None
    return ratio_interval(amounts.astype(float), words.astype(float), seed=seed)


def error_change(
    references: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    *,
    chars: bool = False,
    seed: int = 0,
) -> ErrorChange:
    """Return the change of the error rate from one choice of hypotheses to another.

    `seed` is of the bootstrap. Raises CorpusError for references without words.
    """
    words = np.array([len(split_text(each, chars=chars)) for each in references], np.int64)
    if not words.sum():
        raise CorpusError(NO_WORDS)
    changes = np.zeros(len(words), np.int64)
    for at, (reference, *texts) in enumerate(zip(references, before, after, strict=True)):
        parts = [split_text(text, chars=chars) for text in texts]
        first, second = edit_distances(split_text(reference, chars=chars), parts)
        changes[at] = second - first
    low, high = _interval(changes, words, seed)
    return ErrorChange(rate=float(changes.sum() / words.sum()), low=low, high=high)


def edit_counts(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int]:
    """Return the insertions, deletions and substitutions of a hypothesis."""
    if list(reference) == list(hypothesis):
        return 0, 0, 0
    ids = _numbered([reference, hypothesis])
    table = _distances(ids[0], ids[1][None, :])[:, 0].tolist()  # (I + 1, R + 1)
    insertions = deletions = substitutions = 0
    row, column = len(hypothesis), len(reference)
    while row and column:
        differ = int(ids[1][row - 1] != ids[0][column - 1])
        inserted, deleted = table[row - 1][column] + 1, table[row][column - 1] + 1
        replaced = table[row - 1][column - 1] + differ
        if replaced < inserted and replaced < deleted:
            row, column, substitutions = row - 1, column - 1, substitutions + differ
        elif deleted < inserted:
            column, deletions = column - 1, deletions + 1
        else:
            row, insertions = row - 1, insertions + 1
    return insertions + row, deletions + column, substitutions


def edit_distances(reference: Sequence[str], hypotheses: Sequence[Sequence[str]]) -> Ints:
    """Return the number of errors of each hypothesis, shape (H,)."""
    ids = _numbered([reference, *hypotheses])
    lengths = np.array([len(hypothesis) for hypothesis in hypotheses], np.int64)
    padded = np.full((len(hypotheses), lengths.max(initial=0)), -1, np.int64)
    for row, hypothesis in zip(padded, ids[1:], strict=True):
        row[: len(hypothesis)] = hypothesis
    table = _distances(ids[0], padded)  # (I + 1, H, R + 1)
    return np.asarray(table[lengths, np.arange(len(hypotheses)), -1])


def _numbered(texts: Sequence[Sequence[str]]) -> list[Ints]:
    """Return texts with a number in place of each word."""
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(word, len(numbers)) for word in text], np.int64)
        for text in texts
    ]


def _distances(reference: Ints, hypotheses: Ints) -> Ints:
    """Return the distances of the beginnings of hypotheses (H, I) from those of a reference.

    Shape (I + 1, H, R + 1). A row follows from the row before: insertions and substitutions at
    once, then deletions as a running minimum.
    """
    count, length = hypotheses.shape
    places = np.arange(len(reference) + 1)
    table = np.empty((length + 1, count, len(places)), np.int64)
    table[0] = places
    for row in range(length):
        before = table[row]
        costs = before + 1
        differ = hypotheses[:, row, None] != reference
        np.minimum(costs[:, 1:], before[:, :-1] + differ, out=costs[:, 1:])
        table[row + 1] = np.minimum.accumulate(costs - places, axis=1) + places
    return table

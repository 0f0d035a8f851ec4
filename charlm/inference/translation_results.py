"""Results of evaluations and comparisons of runs that give translations."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from charlm.inference.bootstrap import interval, sign_p
from charlm.inference.text_metrics import BLEU_SUMS, Sums, chrf2
from charlm.inference.translation_counts import DRAWN, TranslationCounts, drawn_figures


class WorstTranslation(NamedTuple):
    """A text with its reference and its output, and the chrF of the output."""

    text: str
    reference: str
    output: str
    chrf: float


@dataclass(frozen=True, kw_only=True)
class TranslationEvaluation:
    """Figures of texts by their name, with those of a copy of the source and the worst texts.

    `beam` is the width of the search, `notes` are about the texts.
    """

    beam: int
    counts: dict[str, TranslationCounts]
    floors: dict[str, dict[str, float]]
    worst: dict[str, list[WorstTranslation]]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class TranslationDifference:
    """Difference of one figure of two runs; positive if the second is better.

    `low` and `high` bound 95 % of the bootstrap samples over texts; `p` is their `sign_p`.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, if the interval leaves out zero."""
        if self.low <= 0.0 <= self.high:
            return "no difference shown"
        return "better" if self.value > 0.0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def worst_translations(
    texts: Sequence[tuple[str, str]], outputs: Sequence[str], rows: Sums, number: int
) -> list[WorstTranslation]:
    """Return the texts whose outputs have the least chrF; of equal ones the first. None is exact.

    `texts` are pairs of a text and its reference, `rows` those of `text_metrics.text_rows`.
    """
    scores = chrf2(rows[:, 1 + BLEU_SUMS :])
    order = np.argsort(scores, kind="stable")
    order = order[rows[order, 0] == 0][:number].tolist()
    return [
        WorstTranslation(
            text=texts[at][0], reference=texts[at][1], output=outputs[at], chrf=float(scores[at])
        )
        for at in order
    ]


def differences(
    first: TranslationCounts, other: TranslationCounts, seed: int = 0
) -> dict[str, TranslationDifference]:
    """Return the differences of two runs on the same texts, paired text by text."""
    assert first.rows is not None and other.rows is not None, "counts of texts that were read"
    samples = drawn_figures(other.rows, seed) - drawn_figures(first.rows, seed)
    found = {}
    for name, drawn in zip(DRAWN, samples, strict=True):
        low, high = interval(drawn)
        value = getattr(other, name) - getattr(first, name)
        found[name] = TranslationDifference(value=value, low=low, high=high, p=sign_p(drawn))
    return found

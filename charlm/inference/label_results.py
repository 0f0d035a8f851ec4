"""Results of evaluations and comparisons of runs that give labels."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from charlm.inference.counts import LabelCounts

NOT_SHOWN = "no difference shown"
"""Verdict on two runs that may be equally good."""


class WrongText(NamedTuple):
    """A text with its gold label, the predicted one, and the probability of both."""

    text: str
    gold: str
    predicted: str
    probability: float
    gold_probability: float


@dataclass(frozen=True, kw_only=True)
class LabelEvaluation:
    """Figures of texts by their name, with the accuracy of the floors and the worst texts.

    `floors` has `majority` and `bag_of_words`, each if it is known. `notes` are about the texts.
    """

    labels: tuple[str, ...]
    counts: dict[str, LabelCounts]
    floors: dict[str, dict[str, float]]
    worst: dict[str, list[WrongText]]
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class AccuracyDifference:
    """Difference of the accuracies of two runs; positive if the second is better.

    `low` and `high` bound 95 % of the bootstrap samples over texts, `p` is the exact value of
    McNemar's test.
    """

    accuracy: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, by McNemar's test."""
        if self.p >= 0.05:
            return NOT_SHOWN
        return "better" if self.accuracy > 0.0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "verdict": self.verdict}

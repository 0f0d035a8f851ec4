"""Minimal pairs: how often the good sentence of a pair is more probable than the bad one."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from charlm.inference.bootstrap import fraction_interval
from charlm.inference.scoring import Scorer
from charlm.inference.suites import PredictionScore, score_items
from charlm.listing import Listing
from charlm.text.pair_files import Pair
from charlm.text.syntaxgym import SuiteItem
from charlm.units import finite


@dataclass(frozen=True, kw_only=True)
class PairScore:
    """A pair with ln P of its sentences in nats, and their numbers of unknown tokens.

    `unk_penalty` is the cost of each unknown token in nats, in addition to -ln P(UNK).
    """

    pair: Pair
    good: float
    bad: float
    good_oov: int = 0
    bad_oov: int = 0
    unk_penalty: float = 0.0

    @property
    def margin(self) -> float:
        """Difference of the penalized log-probabilities in nats; positive if the model is right."""
        return (self.good - self.unk_penalty * self.good_oov) - (
            self.bad - self.unk_penalty * self.bad_oov
        )

    @property
    def paradigm(self) -> str:
        """Paradigm of the pair."""
        return self.pair.paradigm

    @property
    def phenomenon(self) -> str:
        """Phenomenon of the pair."""
        return self.pair.phenomenon

    @property
    def is_correct(self) -> bool:
        """True if the good sentence is strictly more probable."""
        return self.margin > 0.0

    @property
    def is_tie(self) -> bool:
        """True if both sentences are equally probable."""
        return self.margin == 0.0

    @property
    def equal_oov(self) -> bool:
        """True if both sentences have equally many unknown tokens."""
        return self.good_oov == self.bad_oov

    def row(self) -> dict[str, Any]:
        """Return the figures by column, and the other columns of the pair's table.

        Log-probabilities are in nats, `correct` is 0 or 1. A column of the table with the name of
        a figure becomes `input_NAME`.
        """
        own = {
            "paradigm": self.paradigm,
            "phenomenon": self.phenomenon,
            "log_probability_good": self.good,
            "log_probability_bad": self.bad,
            "oov_good": self.good_oov,
            "oov_bad": self.bad_oov,
            "margin": self.margin,
            "correct": int(self.is_correct),
            "sentence_good": self.pair.good,
            "sentence_bad": self.pair.bad,
        }
        cells = self.pair.cells.items()
        return {f"input_{name}" if name in own else name: cell for name, cell in cells} | own


Answer = PairScore | PredictionScore
"""One pair, or one prediction about one item of a test suite."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Number of pairs and of those whose good sentence is strictly more probable.

    `ties` are pairs of equal probability, which are not correct. The numbers that begin with
    `equal_oov` are of the pairs whose sentences have equally many unknown tokens.
    """

    name: str
    phenomenon: str = ""
    pairs: int
    correct: int
    ties: int
    equal_oov_pairs: int
    equal_oov_correct: int
    equal_oov_ties: int

    @property
    def accuracy(self) -> float:
        """Fraction of the pairs that are correct."""
        return self.correct / self.pairs

    @property
    def equal_oov_accuracy(self) -> float | None:
        """Fraction of the pairs with equally many unknown tokens that are correct."""
        return self.equal_oov_correct / self.equal_oov_pairs if self.equal_oov_pairs else None

    def summary(self) -> dict[str, Any]:
        """Return all numbers, with the 95 % interval of the accuracy (Wilson 1927)."""
        low, high = fraction_interval(self.correct, self.pairs)
        return {
            "name": self.name, "phenomenon": self.phenomenon, "pairs": self.pairs,
            "correct": self.correct, "ties": self.ties, "accuracy": self.accuracy,
            "low": low, "high": high, "equal_oov_pairs": self.equal_oov_pairs,
            "equal_oov_correct": self.equal_oov_correct,
            "equal_oov_ties": self.equal_oov_ties,
            "equal_oov_accuracy": self.equal_oov_accuracy,
        }  # fmt: skip


class PairsResult(Listing[Answer]):
    """Scores of pairs, then of the items of test suites; notebooks show them as a table."""

    split: str = "none"
    """Rule by which the sentences were split into words: moses or none."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the row of each pair or item."""
        return [score.row() for score in self]

    def shown_rows(self) -> list[dict[str, Any]]:
        """Return the accuracy of each paradigm and of all pairs; see `Listing.shown_rows`."""
        return [each.summary() for each in (*self.paradigms, self.total)] if self else []

    @property
    def total(self) -> Accuracy:
        """Accuracy of all pairs."""
        return _accuracy("all pairs", "", self)

    @cached_property
    def paradigms(self) -> list[Accuracy]:
        """Accuracy of each paradigm, in the order of the data."""
        return _grouped(self, lambda score: score.paradigm)

    @cached_property
    def phenomena(self) -> list[Accuracy]:
        """Accuracy of each phenomenon that the data name."""
        return [each for each in _grouped(self, lambda score: score.phenomenon) if each.name]

    @property
    def mean_accuracy(self) -> float:
        """Mean of the paradigms' accuracies, the figure of BLiMP."""
        return _mean(each.accuracy for each in self.paradigms)

    @property
    def mean_equal_oov_accuracy(self) -> float:
        """Mean over the paradigms of the accuracy of pairs with equally many unknown tokens."""
        return _mean(each.equal_oov_accuracy for each in self.paradigms)

    def summary(self) -> dict[str, Any]:
        """Return the split, and the figures of each paradigm and phenomenon and of all pairs."""
        return {
            "split": self.split,
            "paradigms": [each.summary() for each in self.paradigms],
            "phenomena": [each.summary() for each in self.phenomena],
            "total": self.total.summary(),
            "mean_accuracy": self.mean_accuracy,
            "mean_equal_oov_accuracy": finite(self.mean_equal_oov_accuracy),
        }

    def __repr__(self) -> str:
        total = self.total
        return f"PairsResult({total.correct:,} of {total.pairs:,} pairs are correct)"


def score_questions(scorer: Scorer, questions: Sequence[Pair | SuiteItem]) -> PairsResult:
    """Return the scores of pairs and of the items of test suites."""
    pairs = [each for each in questions if isinstance(each, Pair)]
    items = [each for each in questions if not isinstance(each, Pair)]
    return PairsResult([*score_pairs(scorer, pairs), *score_items(scorer, items)])


def score_pairs(scorer: Scorer, pairs: Sequence[Pair]) -> list[PairScore]:
    """Return the scores of pairs; sentences of the same tokens have the same score."""
    scores = scorer.score_distinct(text for pair in pairs for text in pair.texts)
    return [
        PairScore(
            pair=pair,
            good=scores[pair.good].log_probability,
            bad=scores[pair.bad].log_probability,
            good_oov=scores[pair.good].tally.oov,
            bad_oov=scores[pair.bad].tally.oov,
            unk_penalty=scorer.unk_penalty,
        )
        for pair in pairs
    ]


def _mean(values: Iterable[float | None]) -> float:
    """Return the mean of the values that are numbers; nan without any."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _grouped(scores: Iterable[Answer], name: Callable[[Answer], str]) -> list[Accuracy]:
    groups: dict[str, list[Answer]] = {}
    for score in scores:
        groups.setdefault(name(score), []).append(score)
    return [_accuracy(key, group[0].phenomenon, group) for key, group in groups.items()]


def _accuracy(name: str, phenomenon: str, scores: Sequence[Answer]) -> Accuracy:
    equal = [score for score in scores if score.equal_oov]
    return Accuracy(
        name=name,
        phenomenon=phenomenon,
        pairs=len(scores),
        correct=sum(score.is_correct for score in scores),
        ties=sum(score.is_tie for score in scores),
        equal_oov_pairs=len(equal),
        equal_oov_correct=sum(score.is_correct for score in equal),
        equal_oov_ties=sum(score.is_tie for score in equal),
    )

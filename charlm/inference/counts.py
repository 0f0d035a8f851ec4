"""Figures of labelled texts: `LabelCounts`, sums from which every figure follows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.backends.softmax import log_softmax
from charlm.inference.adapt.calibration import TargetLogits, fit_scale
from charlm.inference.bootstrap import DRAWS, fraction_interval, interval, mean_interval
from charlm.units import finite, ratio

BINS = 20
"""Bins of the winning probability, of equal width."""
SURE = 0.99
"""Probability from which an answer is counted in `LabelCounts.sure`."""
FIGURES = ("nats_per_{}", "raw_nats_per_{}", "accuracy", "macro_f1", "macro_recall", "ece")
"""Figures of a summary; the brace is the noun of a target."""
ROUNDS = 8
"""Rounds in which the factors of a mixture are fitted."""
TINY = 1e-9
Amounts = NDArray[np.float64]


class LabelFigures(NamedTuple):
    """Figures of one label, over its `texts`; NaN where the label was never gold or predicted."""

    precision: float
    recall: float
    f1: float
    texts: int

    @classmethod
    def of(cls, right: int, gold: int, predicted: int) -> "LabelFigures":
        """Return the figures of a label, from its right answers, gold and predicted texts."""
        return cls(
            precision=ratio(right, predicted),
            recall=ratio(right, gold),
            f1=ratio(2 * right, gold + predicted),
            texts=gold,
        )


class Confident(NamedTuple):
    """Answers with at least a `probability`: their `fraction` of all, and their accuracy."""

    probability: float
    fraction: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Sums over labelled texts, with the figures that follow from them.

    `confusion[gold][predicted]` counts texts. `unseen` counts those whose gold label the model does
    not have: errors in `accuracy`, left out of all other figures. `nats` is the negative
    log-likelihood of the gold labels if logits are multiplied by `scale`, `raw_nats` if they are
    not. `bins` has, for each twentieth of the winning probability, its texts, how many of them
    are right, and the sum of the probability; `sure` has the texts and right ones above 0.99.
    """

    noun: ClassVar[str] = "text"
    """Noun of one target."""

    confusion: tuple[tuple[int, ...], ...]
    unseen: int = 0
    nats: float = 0.0
    raw_nats: float = 0.0
    scale: float = 1.0
    bins: tuple[tuple[int, int, float], ...] = ((0, 0, 0.0),) * BINS
    sure: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, logits: ArrayLike, targets: ArrayLike, scale: float = 1.0) -> Self:
        """Count answers: logits of shape (N, K), gold labels of shape (N,), -1 for unseen ones."""
        every, gold = np.asarray(logits, np.float64), np.asarray(targets)
        known = gold >= 0
        raw, gold = every[known], gold[known]
        logs = log_softmax(raw * scale)
        return cls.of_answers(
            raw.argmax(axis=1),
            gold,
            logs,
            unseen=int((~known).sum()),
            nats=_nats(logs, gold),
            raw_nats=_nats(log_softmax(raw), gold),
            scale=scale,
        )

    @classmethod
    def of_answers(
        cls, predicted: NDArray[Any], gold: NDArray[Any], logs: Amounts, **known: Any
    ) -> Self:
        """Count answers: the labels predicted and those that are right, shapes (N,).

        `logs` are the log-probabilities of every label, shape (N, K), `known` further fields.
        """
        labels, right = logs.shape[1], predicted == gold
        confusion = np.bincount(gold * labels + predicted, minlength=labels * labels)
        best = np.exp(logs[np.arange(len(logs)), predicted])
        number = np.minimum(np.nan_to_num(best) * BINS, BINS - 1).astype(int)
        sums = [
            np.bincount(number, weights=values, minlength=BINS).tolist()
            for values in (np.ones(len(best)), right, best)
        ]
        sure = best >= SURE
        return cls(
            confusion=_rows(confusion.reshape(labels, labels).tolist()),
            bins=tuple((int(n), int(good), total) for n, good, total in zip(*sums, strict=True)),
            sure=(int(sure.sum()), int((sure & right).sum())),
            **known,
        )

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Self:
        """Return the counts of answers in a summary; nats and probabilities are left out."""
        return cls(confusion=_rows(summary["confusion"]), unseen=summary["unseen"])

    def __repr__(self) -> str:
        return (
            f"LabelCounts(accuracy {self.accuracy:.4f}, {self.nats_per_text:.4f} nats/text, "
            f"{self.texts:,} texts)"
        )

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        """Add the sums of two sets of texts; `scale` becomes 1 if they differ in it."""
        return LabelCounts(
            confusion=_rows((self.table + other.table).tolist()),
            unseen=self.unseen + other.unseen,
            nats=self.nats + other.nats,
            raw_nats=self.raw_nats + other.raw_nats,
            scale=self.scale if self.scale == other.scale else 1.0,
            bins=tuple(
                (n + more, right + good, total + others)
                for (n, right, total), (more, good, others) in zip(
                    self.bins, other.bins, strict=True
                )
            ),
            sure=(self.sure[0] + other.sure[0], self.sure[1] + other.sure[1]),
        )  # fmt: skip

    @property
    def table(self) -> NDArray[np.int64]:
        """Confusion as an array of shape (K, K)."""
        return np.array(self.confusion, np.int64)

    @property
    def known(self) -> int:
        """Number of texts whose gold label the model has."""
        return sum(map(sum, self.confusion))

    @property
    def texts(self) -> int:
        """Number of all texts."""
        return self.known + self.unseen

    @property
    def tokens(self) -> int:
        """Number of targets, as in a `Tally`: here the texts."""
        return self.texts

    @property
    def nats_per_text(self) -> float:
        """Mean negative log-likelihood of the gold label, under `scale`."""
        return ratio(self.nats, self.known)

    @property
    def nats_per_token(self) -> float:
        """Nats of one target, as in a `Tally`: here of one text."""
        return self.nats_per_text

    @property
    def raw_nats_per_text(self) -> float:
        """Mean negative log-likelihood of the gold label, with logits as they are."""
        return ratio(self.raw_nats, self.known)

    @property
    def accuracy(self) -> float:
        """Fraction of right answers; texts with an unseen label are wrong."""
        return ratio(sum(row[label] for label, row in enumerate(self.confusion)), self.texts)

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the labels that are gold or predicted somewhere."""
        return _macro(self.table)["macro_f1"]

    @property
    def macro_recall(self) -> float:
        """Mean recall of the labels that are gold somewhere (balanced accuracy)."""
        return _macro(self.table)["macro_recall"]

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017).

        Mean distance between the winning probability and the fraction of right answers, in bins.
        """
        return ratio(sum(abs(right - total) for _, right, total in self.bins), self.known)

    def confident(self) -> list[Confident]:
        """Return the answers at 0.5, 0.9 and 0.99 or above."""
        upper = [np.array(self.bins)[begin:, :2].sum(axis=0) for begin in (BINS // 2, BINS - 2)]
        counts = zip((0.5, 0.9, SURE), [*upper, self.sure], strict=True)
        return [
            Confident(least, ratio(float(n), self.known), ratio(float(right), float(n)))
            for least, (n, right) in counts
        ]

    def per_label(self) -> list[LabelFigures]:
        """Return the figures of each label, in the order of the labels."""
        columns = (column.tolist() for column in _margins(self.table))
        return list(map(LabelFigures.of, *columns))

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of accuracy, macro_f1 and macro_recall.

        That of the accuracy is Wilson's. For the others, cells of the confusion are sampled from a
        multinomial distribution, which is the bootstrap over texts (Efron 1979). It knows no errors
        that did not occur, so the ends are at least as far away as those from Wilson's interval of
        each label. Without texts there are no intervals.
        """
        table, texts = self.table, self.texts
        if not texts:
            return {}
        places = np.nonzero(table)
        cells = np.append(table[places], self.unseen)
        random = np.random.default_rng(seed)
        samples: dict[str, list[float]] = {}
        for _ in range(DRAWS):
            drawn = random.multinomial(texts, cells / texts)
            again = np.zeros_like(table)
            again[places] = drawn[:-1]
            for name, value in _macro(again).items():
                if not math.isnan(value):  # as if all drawn texts have an unseen label
                    samples.setdefault(name, []).append(value)
        accuracy = {"accuracy": fraction_interval(int(np.trace(table)), texts)}
        least = _macro_intervals(table) if samples else {}
        wide = {
            name: _hull(interval(np.array(values)), least[name]) for name, values in samples.items()
        }
        return accuracy | wide

    def summary(self) -> dict[str, Any]:
        """Return every figure by its name, None if it is not finite, and the confusion."""
        figures = {
            name.format(self.noun): finite(getattr(self, name.format("text"))) for name in FIGURES
        }
        counts = {f"{self.noun}s": self.texts, "unseen": self.unseen, "nats": finite(self.nats)}
        return counts | figures | {"confusion": [list(row) for row in self.confusion]}

    def sums(self) -> dict[str, Any]:
        """Return the raw sums, from which `figures_from` rebuilds the counts."""
        return asdict(self)


def fit_label_scale(logits: ArrayLike, targets: ArrayLike) -> float:
    """Return the factor on logits, shape (N, K), with the least nats; 1 without known labels."""
    gold = np.asarray(targets)
    raw, gold = np.asarray(logits, np.float64)[gold >= 0], gold[gold >= 0]
    return TargetLogits([(raw, gold)]).best_factor() if len(gold) else 1.0


def fit_label_mixture(tables: Sequence[ArrayLike], targets: ArrayLike) -> list[float]:
    """Return the factors on tables of logits whose sum has the least nats.

    Each has the shape (N, K). The nats are a convex function of the factors, which are fitted in
    turns. All are positive.
    """
    gold = np.asarray(targets)
    known = gold >= 0  # UNSEEN is not
    parts = [np.asarray(table, np.float64)[known] for table in tables]
    gold = gold[known]
    factors = [1.0 / (len(parts) * max(float(part.std(axis=1).mean()), TINY)) for part in parts]
    for _ in range(ROUNDS):
        for at, part in enumerate(parts):
            own = factors[at] * part
            others = sum((f * p for f, p in zip(factors, parts, strict=True)), -own)

            def nats(factor: float, own: Amounts = own, others: Amounts = others) -> float:
                """Return the nats with the own logits multiplied by a factor."""
                return _nats(log_softmax(factor * own + others), gold)

            factors[at] *= fit_scale(nats)
    return factors


def paired_interval(
    right_a: ArrayLike, right_b: ArrayLike, seed: int = 0
) -> tuple[float, float, float]:
    """Return the accuracy of b minus that of a, and the ends of its 95 % interval.

    Both say for each of the same texts, shape (N,), if the answer is right. The interval is from a
    bootstrap over texts.
    """
    change = np.asarray(right_b, np.int64) - np.asarray(right_a, np.int64)
    if not len(change):
        return math.nan, math.nan, math.nan
    counts = np.bincount(change + 1, minlength=3)
    drawn = np.random.default_rng(seed).multinomial(len(change), counts / len(change), DRAWS)
    samples = (drawn[:, 2] - drawn[:, 0]) / len(change)
    low, high = interval(samples)
    return float(change.mean()), low, high


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> float:
    """Return the exact two-sided p-value that a and b are right equally often (McNemar 1947).

    Only texts on which one of them alone is right count: a fair coin decides each of them.
    """
    first, second = np.asarray(right_a, bool), np.asarray(right_b, bool)
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    total, least = one + other, min(one, other)
    chosen = (
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        for k in range(least + 1)
    )
    tail = math.fsum(math.exp(log_choices - total * math.log(2)) for log_choices in chosen)
    return min(1.0, 2.0 * tail)


def _nats(logs: Amounts, gold: NDArray[Any]) -> float:
    return -float(logs[np.arange(len(gold)), gold].sum()) + 0.0  # 0 and not -0 of no texts


def _rows(table: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, table))


def _margins(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return right answers, gold texts and predicted texts of each label."""
    return np.diagonal(table), table.sum(axis=1), table.sum(axis=0)


def _macro(table: NDArray[np.int64]) -> dict[str, float]:
    """Return macro_f1 and macro_recall of a confusion."""
    right, gold, predicted = _margins(table)
    named, any_gold = gold + predicted > 0, gold > 0
    f1 = 2 * right[named] / (gold + predicted)[named]
    recall = right[any_gold] / gold[any_gold]
    return {
        "macro_f1": ratio(float(f1.sum()), len(f1)),
        "macro_recall": ratio(float(recall.sum()), len(recall)),
    }


def _macro_intervals(table: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """Return intervals of macro_f1 and macro_recall, from Wilson's intervals of each label.

    With the texts that have the label as gold or predicted one as cases, of which a fraction p is
    right, the F1 of the label is 2p / (1 + p).
    """
    right, gold, predicted = _margins(table)
    f1, recall = [], []
    for own, all_gold, union in zip(right, gold, gold + predicted - right, strict=True):
        if union:
            ends = (own / union, *fraction_interval(int(own), int(union)))
            f1.append([2 * p / (1 + p) for p in ends])
        if all_gold:
            recall.append([own / all_gold, *fraction_interval(int(own), int(all_gold))])
    return {
        name: mean_interval([value for value, *_ in rows], [(low, high) for _, low, high in rows])
        for name, rows in (("macro_f1", f1), ("macro_recall", recall))
    }


def _hull(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of the least interval that holds two others."""
    return min(one[0], other[0]), max(one[1], other[1])

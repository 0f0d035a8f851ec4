"""Figures of tagged words: `TagCounts`, sums from which every figure follows.

Spans are counted as the script conlleval does: a span is right if its type, its first and its last
word are. Precision, recall and F1 are those of all spans together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.config.tasks import TAG
from charlm.inference.bootstrap import bootstrap_interval, drawn_sums, interval, sign_p
from charlm.inference.counts import Amounts, LabelCounts, LabelFigures
from charlm.inference.crf import Answers, Transitions, answers, tag_nats
from charlm.inference.figures import TaskDifference
from charlm.text.labels import UNSEEN, Targets
from charlm.text.sentences import Sentences
from charlm.text.spans import OUTSIDE, is_iob2, spans_of
from charlm.units import finite, ratio

SPAN_FIGURES = ("precision", "recall", "f1")
PAIRS = ("seen_words", "new_words", "seen_spans", "new_spans")
_UNSEEN_TAG = "I-\0"  # of words whose tag training lacks; no tag of a file has a NUL type

Rows = NDArray[np.int64]
"""Sums of each sentence, shape (N, 5): words, right ones; gold, predicted and right spans."""


class Known(NamedTuple):
    """Words of a training text, and the words of its spans, joined by blanks."""

    words: frozenset[str]
    spans: frozenset[str]

    @classmethod
    def of(cls, sentences: Sentences, targets: Targets, names: Sequence[str]) -> "Known":
        """Collect the words and spans of a text with these tags, shape (W,)."""
        spans: set[str] = set()
        if is_iob2(names):
            begin = 0
            for row, end in enumerate(sentences.ends.tolist()):
                tags, begin = targets[begin:end], end
                words = sentences.words_of(row) if (tags != names.index(OUTSIDE)).any() else []
                spans.update(
                    " ".join(words[span.first : span.last + 1])
                    for span in (spans_of(_tags(tags, names)) if words else ())
                )
        return cls(frozenset(sentences.words), frozenset(spans))


@dataclass(frozen=True, kw_only=True)
class TagCounts(LabelCounts):
    """Sums over tagged words, with the figures that follow from them.

    The fields of `LabelCounts` count words in place of texts; `nats` are those of the tags of each
    sentence together. `spans` has, for each type of the model in sorted order and then for all
    types that training lacks, the gold spans, the predicted and the right ones; it is empty if tags
    are no spans. `seen_words` and `new_words` are pairs of all and right words that training
    has, or lacks; `seen_spans` and `new_spans` are those of gold spans.

    `rows` are the sums of each sentence, for intervals; they are in memory only.
    """

    noun: ClassVar[str] = "tag"

    spans: tuple[tuple[int, int, int], ...] = ()
    seen_words: tuple[int, int] = (0, 0)
    new_words: tuple[int, int] = (0, 0)
    seen_spans: tuple[int, int] = (0, 0)
    new_spans: tuple[int, int] = (0, 0)
    rows: Rows | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_sentences(
        cls,
        answers: Answers,
        targets: Targets,
        sentences: Sentences,
        names: Sequence[str],
        *,
        known: Known | None = None,
        raw_nats: float = 0.0,
        scale: float = 1.0,
    ) -> "TagCounts":
        """Count answers to all words of sentences, whose gold tags are `targets`, shape (W,).

        `names` are those of the tags. Without `known` no word counts as seen or new.
        """
        tagged, right = targets != UNSEEN, answers.tags == targets
        counts = cls.of_answers(
            answers.tags[tagged],
            targets[tagged],
            answers.log_probabilities[tagged],
            unseen=int((~tagged).sum()),
            nats=float(answers.nats.sum()),
            raw_nats=raw_nats,
            scale=scale,
        )
        spans, rows, span_pairs = _count_spans(answers.tags, targets, sentences, names, known)
        rows[:, 0] = sentences.counts
        rows[:, 1] = np.diff(np.append(0, np.cumsum(right))[sentences.ends], prepend=0)
        pairs = [(0, 0), (0, 0)]
        if known is not None:
            is_known = np.array([word in known.words for word in sentences.words], np.bool_)
            seen = is_known[sentences.spelling]
            pairs = [(int(part.sum()), int((part & right).sum())) for part in (seen, ~seen)]
        shares: dict[str, Any] = dict(zip(PAIRS, [*pairs, *span_pairs], strict=True))
        return replace(counts, spans=spans, rows=rows, **shares)

    @classmethod
    def of_tags(
        cls, tags: Targets, targets: Targets, sentences: Sentences, names: Sequence[str]
    ) -> "TagCounts":
        """Count tags (W,) that have no probabilities, such as those of a floor."""
        logs = np.zeros((len(tags), len(names)))
        found = Answers(tags, logs, np.zeros(sentences.documents))
        return cls.of_sentences(found, targets, sentences, names)

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "TagCounts":
        """Return the counts of answers in a summary; nats and probabilities are left out."""
        spans = tuple(map(tuple, summary.get("spans", ())))
        pairs: dict[str, Any] = {key: tuple(summary[key]) for key in PAIRS if key in summary}
        return replace(super().from_summary(summary), spans=spans, **pairs)

    def __repr__(self) -> str:
        score = f"F1 {self.f1:.4f}, " if self.spans else ""
        return (
            f"TagCounts({score}accuracy {self.accuracy:.4f}, {self.nats_per_tag:.4f} nats/tag, "
            f"{self.tags:,} tags)"
        )

    def __add__(self, other: LabelCounts) -> "TagCounts":
        """Add the sums of two texts with the same tags."""
        assert isinstance(other, TagCounts), "counts of tags"
        base = super().__add__(other)
        rows = [counts.rows for counts in (self, other) if counts.rows is not None]
        whole = sum(int(part[:, 0].sum()) for part in rows) == base.texts
        sums: dict[str, Any] = {each.name: getattr(base, each.name) for each in fields(LabelCounts)}
        for name in PAIRS:
            sums[name] = tuple(np.add(getattr(self, name), getattr(other, name)).tolist())
        sums["spans"] = tuple(map(tuple, np.add(self.spans, other.spans).tolist()))
        return TagCounts(**sums, rows=np.concatenate(rows) if rows and whole else None)

    @property
    def tags(self) -> int:
        """Number of all words."""
        return self.texts

    @property
    def nats_per_tag(self) -> float:
        """Mean negative log-likelihood of a gold tag, under `scale`."""
        return self.nats_per_text

    @property
    def raw_nats_per_tag(self) -> float:
        """Mean negative log-likelihood of a gold tag, with all scores as they are."""
        return self.raw_nats_per_text

    @property
    def precision(self) -> float:
        """Fraction of predicted spans that are right."""
        _, predicted, right = self._all_spans
        return ratio(right, predicted)

    @property
    def recall(self) -> float:
        """Fraction of gold spans that were found."""
        gold, _, right = self._all_spans
        return ratio(right, gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, NaN if there is no span."""
        gold, predicted, right = self._all_spans
        return ratio(2 * right, gold + predicted)

    @property
    def headline(self) -> str:
        """Name of the most important figure: f1 if tags are spans, else accuracy."""
        return "f1" if self.spans else "accuracy"

    @property
    def _all_spans(self) -> tuple[int, int, int]:
        gold, predicted, right = np.sum(self.spans or [(0, 0, 0)], axis=0).tolist()
        return gold, predicted, right

    def per_type(self) -> list[LabelFigures]:
        """Return the figures of each type of span, in sorted order, where `texts` are gold spans.

        Types that training lacks come last, together.
        """
        return [LabelFigures.of(right, gold, predicted) for gold, predicted, right in self.spans]

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of accuracy, and of the figures of spans if tags are spans.

        They are from a bootstrap over sentences (Efron 1979); of sentences that are all right, or
        all wrong, they are Wilson's. Without the sums of each sentence there are none.
        """
        if self.rows is None or not self.tags:
            return {}
        spanned = int((self.rows[:, 2:4].sum(axis=1) > 0).sum())
        names = ("accuracy", *SPAN_FIGURES) if self._all_spans[0] else ("accuracy",)
        drawn = drawn_figures(self.rows, seed)
        known = {name: drawn[name][~np.isnan(drawn[name])] for name in names}
        return {
            name: bootstrap_interval(values, len(self.rows) if name == "accuracy" else spanned)
            for name, values in known.items()
            if len(values)  # none: precision of a model that predicts no span
        }

    def summary(self) -> dict[str, Any]:
        """Return every figure by its name, None if it is not finite, sums and intervals."""
        figures = super().summary()
        if self.spans:
            figures |= {name: finite(getattr(self, name)) for name in SPAN_FIGURES}
            figures["spans"] = [list(row) for row in self.spans]
        figures |= {name: list(getattr(self, name)) for name in PAIRS}
        return figures | {"intervals": {key: list(ends) for key, ends in self.intervals().items()}}

    def sums(self) -> dict[str, Any]:
        """Return the raw sums, from which `figures_from` rebuilds the counts."""
        names = [each.name for each in fields(self) if each.name != "rows"]
        return {"kind": TAG} | {name: getattr(self, name) for name in names}


def counted_tags(
    emissions: Amounts,
    targets: Targets,
    sentences: Sentences,
    names: Sequence[str],
    steps: Transitions | None,
    *,
    scale: float,
    known: Known | None = None,
) -> tuple[TagCounts, Answers]:
    """Return the figures of emissions (W, K), with all scores multiplied by a factor, and answers.

    `names` are those of the tags, `known` is what the training text has.
    """
    ends = sentences.ends
    found = answers(emissions, ends, steps, scale, targets)
    counts = TagCounts.of_sentences(
        found,
        targets,
        sentences,
        names,
        known=known,
        raw_nats=float(tag_nats(emissions, targets, ends, steps).sum()),
        scale=scale,
    )
    return counts, found


def span_types(names: Sequence[str]) -> list[str]:
    """Return the types of IOB2 tags, sorted, in the order of `TagCounts.spans`."""
    return sorted({name[2:] for name in names if name != OUTSIDE}) if is_iob2(names) else []


def _tags(ids: Targets, names: Sequence[str]) -> list[str]:
    return [names[number] if number >= 0 else _UNSEEN_TAG for number in ids.tolist()]


def _count_spans(
    predicted: Targets,
    targets: Targets,
    sentences: Sentences,
    names: Sequence[str],
    known: Known | None,
) -> tuple[tuple[tuple[int, int, int], ...], Rows, list[tuple[int, int]]]:
    """Return `spans` and `rows` of `TagCounts`, and its pairs of seen and new spans."""
    rows = np.zeros((sentences.documents, 5), np.int64)
    pairs = np.zeros((2, 2), np.int64)
    types = {name: number for number, name in enumerate(span_types(names))}
    sums = np.zeros((len(types) + 1, 3), np.int64)
    if not types:
        return (), rows, [(0, 0), (0, 0)]
    inside = (targets != names.index(OUTSIDE)) | (predicted != names.index(OUTSIDE))
    begin = 0
    for row, end in enumerate(sentences.ends.tolist()):
        own, begin = slice(begin, end), end
        if not inside[own].any():
            continue
        gold, found = (set(spans_of(_tags(ids[own], names))) for ids in (targets, predicted))
        for column, part in enumerate((gold, found, gold & found)):
            rows[row, 2 + column] = len(part)
            for span in part:
                sums[types.get(span.type, len(types)), column] += 1
        if known is not None:
            words = sentences.words_of(row)
            for span in gold:
                is_new = " ".join(words[span.first : span.last + 1]) not in known.spans
                pairs[int(is_new)] += (1, span in found)
    return (
        tuple((gold, found, right) for gold, found, right in sums.tolist()),
        rows,
        [(every, right) for every, right in pairs.tolist()],
    )


# ------------------------------------------------------------------ intervals


def drawn_figures(rows: Rows, seed: int = 0) -> dict[str, Amounts]:
    """Return accuracy, precision, recall and F1 of bootstrap samples of sentences, each (DRAWS,).

    See `drawn_sums`. NaN where a sample has no span.
    """
    return _figures(drawn_sums(rows, seed))


def _figures(sums: Rows) -> dict[str, Amounts]:
    words, right, gold, predicted, found = sums.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "accuracy": right / words,
            "precision": found / predicted,
            "recall": found / gold,
            "f1": 2 * found / (gold + predicted),
        }


def paired_difference(one: Rows, other: Rows, figure: str, seed: int = 0) -> TaskDifference:
    """Return a figure of the second run minus that of the first, on the same sentences.

    The interval and `sign_p` are from a bootstrap over sentences (Efron 1979).
    """
    value = [float(_figures(rows.sum(axis=0, keepdims=True))[figure][0]) for rows in (one, other)]
    drawn = drawn_figures(other, seed)[figure] - drawn_figures(one, seed)[figure]
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return TaskDifference(figure, np.nan, np.nan, np.nan, np.nan)
    return TaskDifference(figure, value[1] - value[0], *interval(drawn), sign_p(drawn))

"""Figures of translated texts: `TranslationCounts`, sums from which every figure follows."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from charlm.config.tasks import TRANSLATE
from charlm.inference.bootstrap import drawn_sums, fraction_interval, interval, sign_p
from charlm.inference.figures import TaskDifference
from charlm.inference.text_metrics import (
    BLEU_SUMS,
    CHRF_SUMS,
    Scores,
    Sums,
    bleu,
    chrf2,
    text_rows,
)
from charlm.units import finite, ratio

FIGURES = ("nats_per_token", "exact", "chrf", "bleu", "length_ratio", "reference_letters")
COUNTS = ("texts", "tokens", "nats", "repeated", "shared", "copied")
IN_ROW, IN_TEXT = 4, 3
"""Length of a run of tokens, and how often in succession it makes an output a repetition."""


@dataclass(frozen=True, kw_only=True)
class TranslationCounts:
    """Sums over translated texts, with the figures that follow from them.

    `nats` is the negative log-likelihood of the `tokens` of the references, their end symbols
    included. The others are about outputs: `right` are equal to their reference, `repeated` have
    the same 4 tokens 3 times in succession, `shared` are equal to the output of another text with
    another reference (among texts that are counted together), and `copied` is the number of
    unknown tokens that were replaced by a piece of the source. `bleu_sums` and `chrf_sums` are as
    in `text_metrics`. While training there are no outputs: `texts` is 0.

    `rows` has the sums of each text, shape (N, 29), for intervals; it is in memory only.
    """

    nats: float = 0.0
    tokens: int = 0
    texts: int = 0
    right: int = 0
    repeated: int = 0
    shared: int = 0
    copied: int = 0
    bleu_sums: tuple[int, ...] = (0,) * BLEU_SUMS
    chrf_sums: tuple[int, ...] = (0,) * CHRF_SUMS
    rows: Sums | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        outputs: Sequence[str],
        references: Sequence[str],
        pieces: Sequence[Sequence[Hashable]] = (),
        **known: Any,
    ) -> "TranslationCounts":
        """Count outputs and their references, texts without blanks at their ends.

        `pieces` are the tokens of each output, `known` further fields: nats, tokens, copied.
        """
        rows = text_rows(outputs, references)
        right, *sums = rows.sum(axis=0).tolist()
        return cls(
            texts=len(rows),
            right=right,
            repeated=sum(map(is_repetition, pieces)),
            shared=_shared(outputs, references),
            bleu_sums=tuple(sums[:BLEU_SUMS]),
            chrf_sums=tuple(sums[BLEU_SUMS:]),
            rows=rows,
            **known,
        )

    def __repr__(self) -> str:
        return (
            f"TranslationCounts(chrF2 {self.chrf:.1f}, BLEU {self.bleu:.1f}, exact "
            f"{self.exact:.4f}, {self.nats_per_token:.4f} nats/token, {self.texts:,} texts)"
        )

    def __add__(self, other: "TranslationCounts") -> "TranslationCounts":
        """Add the sums of two sets of texts."""
        rows = [counts.rows for counts in (self, other) if counts.rows is not None]
        is_whole = sum(map(len, rows)) == self.texts + other.texts
        return TranslationCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
            bleu_sums=_add(self.bleu_sums, other.bleu_sums),
            chrf_sums=_add(self.chrf_sums, other.chrf_sums),
            rows=np.concatenate(rows) if rows and is_whole else None,
        )

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of a token of the references."""
        return ratio(self.nats, self.tokens)

    @property
    def exact(self) -> float:
        """Fraction of outputs that are equal to their reference."""
        return ratio(self.right, self.texts)

    @property
    def bleu(self) -> float:
        """BLEU of the corpus, 0 to 100; see `text_metrics.SIGNATURE`."""
        return float(bleu(self.bleu_sums)) if self.texts else float("nan")

    @property
    def chrf(self) -> float:
        """Figure chrF2 of the corpus, 0 to 100."""
        return float(chrf2(self.chrf_sums)) if self.texts else float("nan")

    @property
    def length_ratio(self) -> float:
        """Words of the outputs divided by those of the references, as BLEU counts them."""
        return ratio(*self.bleu_sums[:2])

    @property
    def reference_letters(self) -> float:
        """Mean number of characters of a reference, without blanks."""
        return ratio(self.chrf_sums[1], self.texts)

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals of exact, chrf and bleu.

        That of exact is Wilson's, the others are from a bootstrap over texts (Efron 1979). If all
        texts are right, a wrong one could have no likeness at all: all have the low end of exact.
        Without the sums of each text there are none.
        """
        if self.rows is None or not len(self.rows):
            return {}
        exact = fraction_interval(self.right, self.texts)
        if self.right == self.texts:
            whole = (100.0 * exact[0], 100.0)
            return {"exact": exact, "chrf": whole, "bleu": whole}
        _, *drawn = drawn_figures(self.rows, seed)
        return {"exact": exact} | {
            name: interval(values) for name, values in zip(DRAWN[1:], drawn, strict=True)
        }

    def summary(self) -> dict[str, Any]:
        """Return every figure by its name, None if it is not finite, and the intervals."""
        figures = {name: finite(getattr(self, name)) for name in (*COUNTS, *FIGURES)}
        return figures | {"intervals": {key: list(ends) for key, ends in self.intervals().items()}}

    def sums(self) -> dict[str, Any]:
        """Return the raw sums, from which `figures_from` rebuilds the counts."""
        return {"kind": TRANSLATE} | {k: v for k, v in asdict(self).items() if k != "rows"}


_ADDED = tuple(
    each.name
    for each in fields(TranslationCounts)
    if each.name not in ("bleu_sums", "chrf_sums", "rows")
)
DRAWN = ("exact", "chrf", "bleu")
"""Figures that `drawn_figures` gives."""


def drawn_figures(rows: Sums, seed: int = 0) -> Scores:
    """Return exact, chrF and BLEU of bootstrap samples of texts, shape (3, DRAWS).

    `rows` are those of `text_rows`; see `drawn_sums`.
    """
    sums = drawn_sums(rows, seed)
    exact = sums[:, 0] / len(rows)
    return np.stack([exact, chrf2(sums[:, 1 + BLEU_SUMS :]), bleu(sums[:, 1 : 1 + BLEU_SUMS])])


def copy_floor(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the figures of sources that are given as their own translations."""
    sources, references = ([pair[side].strip() for pair in pairs] for side in (0, 1))
    counts = TranslationCounts.of(sources, references)
    return {name: getattr(counts, name) for name in (*DRAWN, "reference_letters")}


class WorstTranslation(NamedTuple):
    """A text with its reference and its output, and the chrF of the output."""

    text: str
    reference: str
    output: str
    chrf: float


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
) -> dict[str, TaskDifference]:
    """Return the differences of two runs on the same texts, paired text by text."""
    assert first.rows is not None and other.rows is not None, "counts of texts that were read"
    samples = drawn_figures(other.rows, seed) - drawn_figures(first.rows, seed)
    found = {}
    for name, drawn in zip(DRAWN, samples, strict=True):
        value = getattr(other, name) - getattr(first, name)
        found[name] = TaskDifference(name, value, *interval(drawn), sign_p(drawn))
    return found


def is_repetition(pieces: Sequence[Hashable]) -> bool:
    """Return True if the same 4 tokens follow each other 3 times somewhere."""
    lasting = 0
    for one, other in zip(pieces, pieces[IN_ROW:], strict=False):
        lasting = lasting + 1 if one == other else 0
        if lasting == IN_ROW * (IN_TEXT - 1):
            return True
    return False


def _shared(outputs: Sequence[str], references: Sequence[str]) -> int:
    """Return how many outputs are equal to that of a text with another reference."""
    pairs = Counter(zip(outputs, references, strict=True))
    wanted = Counter(output for output, _ in pairs)
    return sum(count for (output, _), count in pairs.items() if output and wanted[output] > 1)


def _add(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))

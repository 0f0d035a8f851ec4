"""BLEU and chrF of translations, from sums that add over texts.

BLEU (Papineni et al. 2002) with the tokens of mteval-v13a and exponential smoothing, and chrF2
(Popovic 2015), both over a corpus with one reference for each text. Figures are equal to those of
sacrebleu, under the signature SIGNATURE.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|charlm"
"""Signature of BLEU, in the words of sacrebleu."""
WORD_ORDER, CHAR_ORDER = 4, 6
"""Longest n-grams of BLEU and of chrF."""
BETA = 2
"""Weight of the recall in chrF, against the precision."""
BLEU_SUMS, CHRF_SUMS = 2 + 2 * WORD_ORDER, 3 * CHAR_ORDER
Sums = NDArray[np.int64]
Scores = NDArray[np.float64]
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_MARKS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 "),
        (r"([^0-9])([\.,])", r"\1 \2 "),  # a period or comma, unless it is between digits
        (r"([\.,])([^0-9])", r" \1 \2"),
        (r"([0-9])(-)", r"\1 \2 "),  # a dash after a digit
    )
)


def tokenize_13a(text: str) -> list[str]:
    """Return the tokens of a text, as mteval-v13a.pl of NIST cuts them."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, char in _ENTITIES:
        line = line.replace(entity, char)
    line = f" {line} "
    for pattern, replacement in _MARKS:
        line = pattern.sub(replacement, line)
    return line.split()


def bleu_stats(hypothesis: str, reference: str) -> list[int]:
    """Return the sums of BLEU for one text, shape (10,).

    They are the tokens of the hypothesis and of the reference, then for each order 1 to 4 the
    matching n-grams, then those of the hypothesis.
    """
    tokens, wanted = tokenize_13a(hypothesis), tokenize_13a(reference)
    matches, totals = [], []
    for order in range(1, WORD_ORDER + 1):
        own, other = _ngrams(tokens, order), _ngrams(wanted, order)
        matches.append((own & other).total())
        totals.append(own.total())
    return [len(tokens), len(wanted), *matches, *totals]


def chrf_stats(hypothesis: str, reference: str) -> list[int]:
    """Return the sums of chrF for one text, shape (18,).

    They are, for each order 1 to 6, the n-grams of characters (without blanks) of the hypothesis,
    of the reference, and those that match. An order that the reference lacks counts none.
    """
    chars, wanted = "".join(hypothesis.split()), "".join(reference.split())
    sums = []
    for order in range(1, CHAR_ORDER + 1):
        own, other = _ngrams(chars, order), _ngrams(wanted, order)
        sums += [own.total() if other else 0, other.total(), (own & other).total()]
    return sums


def _ngrams(pieces: Sequence[str], order: int) -> Counter[Sequence[str]]:
    """Count the n-grams of one order: of a str as strings, of a list as tuples."""
    starts = range(len(pieces) - order + 1)
    if isinstance(pieces, str):
        return Counter(pieces[at : at + order] for at in starts)
    return Counter(tuple(pieces[at : at + order]) for at in starts)


def bleu(sums: ArrayLike) -> Scores:
    """Return BLEU, 0 to 100, of sums of `bleu_stats`, shape (..., 10).

    An order without matches counts 1/2, 1/4, ... of one; without any match BLEU is 0, and also if
    the hypotheses have no n-gram of order 4.
    """
    values = np.asarray(sums, np.float64)
    length, wanted = values[..., 0], values[..., 1]
    matches, totals = values[..., 2 : 2 + WORD_ORDER], values[..., 2 + WORD_ORDER :]
    smoothed = np.where(matches > 0, matches, 0.5 ** np.cumsum(matches == 0, axis=-1))
    is_zero = (matches.max(axis=-1) == 0) | (totals[..., -1] == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / totals).mean(axis=-1)
        score = 100.0 * np.exp(np.minimum(1.0 - wanted / length, 0.0) + logs)
    return np.where(is_zero, 0.0, score)


def chrf2(sums: ArrayLike) -> Scores:
    """Return chrF2, 0 to 100, of sums of `chrf_stats`, shape (..., 18).

    Precision and recall are means over the orders that both texts have.
    """
    values = np.asarray(sums, np.float64)
    values = values.reshape(*values.shape[:-1], CHAR_ORDER, 3)
    own, other, matches = values[..., 0], values[..., 1], values[..., 2]
    in_both = (own > 0) & (other > 0)
    orders = np.maximum(in_both.sum(axis=-1), 1)
    precision, recall = (
        np.where(in_both, matches / np.maximum(counts, 1), 0.0).sum(axis=-1) / orders
        for counts in (own, other)
    )
    weighted = BETA**2 * precision + recall
    score = 100.0 * (1 + BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1.0)
    return np.asarray(score, np.float64)


def text_rows(hypotheses: Iterable[str], references: Iterable[str]) -> Sums:
    """Return for each text if it is equal to its reference, and its sums, shape (N, 29)."""
    rows = [
        (own == other, *bleu_stats(own, other), *chrf_stats(own, other))
        for own, other in zip(hypotheses, references, strict=True)
    ]
    flat = np.fromiter(chain.from_iterable(rows), np.int64)
    return flat.reshape(len(rows), 1 + BLEU_SUMS + CHRF_SUMS)

"""Interpolated modified Kneser-Ney n-grams (Chen & Goodman 1999, equations 24 to 26).

    P(w | h) = (a(h w) - D(a(h w))) / sum_v a(h v) + g(h) P(w | h')

The adjusted count a is the number of different tokens before an n-gram; for the highest order, and
for n-grams that begin with the start symbol, it is the number of occurrences. g(h) gives the mass
of the discounts D to the next lower order, and unigrams are interpolated with 1 / V. No n-gram is
pruned. This is the model that KenLM's lmplz estimates (Heafield et al. 2013).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.ngrams.counting import SLICE, Counts, Places, count
from charlm.ngrams.model import Floats, NgramModel

METHOD = "modified Kneser-Ney"
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of an order whose counts give none, as with `lmplz --discount_fallback`."""
MAX_TRAINING = 3_000_000
"""Tokens of a longer training text that `ngram_nats` counts: its end."""
MAX_EVALUATED, PIECES = 200_000, 20
"""Tokens of a longer text that `ngram_nats` evaluates, in so many pieces spread over it. The first
60,000 characters of a text can be 5 % easier than the whole (tiny Shakespeare)."""
ORDERS = (3, 5, 7)
"""Orders that `ngram_nats` tries. They are odd, since words and blanks alternate."""


@dataclass(frozen=True, kw_only=True)
class Discounts:
    """Discounts of the counts 1, 2, and 3 or more; `fallback` if they are not estimated."""

    values: tuple[float, float, float]
    fallback: bool


def estimate(
    counts: Counts, order: int, kind: type[np.floating[Any]] = np.float64, *, free: bool = False
) -> tuple[NgramModel, list[Discounts]]:
    """Return the model of an order up to that of the counts, and the discounts of each order.

    Probabilities are computed in float64, and their logarithms are kept as `kind`. To `free` the
    counts is to use them up: the model needs their memory.
    """
    every: list[Discounts] = []
    log_p: list[Any] = []
    log_backoff: list[Any] = []
    p = np.empty(0)
    for length in range(1, order + 1):
        adjusted = counts.adjusted(length, order)
        if free:
            counts.occurrences[length - 1] = np.empty(0, np.int32)
        every.append(discounts_of(adjusted))
        lost = np.array([0.0, *every[-1].values])
        if length == 1:
            p = _unigrams(adjusted, lost)
            log_p.append(np.log10(p).astype(kind))
            continue
        log_p.append(np.empty(len(adjusted), kind))
        log_backoff.append(np.zeros(len(p), kind))
        lower, p = p, np.empty(len(adjusted) if length < order else 0)
        for ngrams, contexts, values, backoff in _longer(counts, length, adjusted, lost, lower):
            log_p[-1][ngrams] = np.log10(values)
            log_backoff[-1][contexts] = np.log10(backoff)
            if length < order:
                p[ngrams] = values
        if free:
            counts.suffixes[length - 2] = np.empty(0, np.int32)
    model = NgramModel(
        vocab_size=counts.vocab_size,
        keys=counts.keys[: order - 1],
        log_p=log_p,
        log_backoff=log_backoff,
    )
    return model, every


def _unigrams(adjusted: Places, discounts: Floats) -> Floats:
    """Return the probabilities of order 1; that of the start symbol is 1."""
    lost = discounts[np.minimum(adjusted, 3)]
    total, size = max(int(adjusted.sum()), 1), len(adjusted) - 1
    p = (adjusted - lost) / total + (lost.sum() / total if adjusted.any() else 1.0) / size
    p[size] = 1.0
    return p


def _longer(
    counts: Counts, order: int, adjusted: Places, discounts: Floats, lower: Floats
) -> Iterator[tuple[slice, slice, Floats, Floats]]:
    """Yield n-grams, their contexts, and their probabilities and back-offs, by parts of an order.

    `discounts` are those of counts from 0 to 3, and `lower` the probabilities of the order below.
    """
    size, keys = counts.vocab_size + 1, counts.keys[order - 2]
    begin = 0
    while begin < len(keys):
        end = begin + SLICE
        if end < len(keys):  # a context has all its n-grams in one part
            context = keys[end] // size
            end = int(np.searchsorted(keys, context * size))
            if end <= begin:
                end = int(np.searchsorted(keys, (context + 1) * size))
        part = slice(begin, min(end, len(keys)))
        contexts = keys[part] // size
        first, last = int(contexts[0]), int(contexts[-1])
        contexts -= first
        own = adjusted[part]
        lost = discounts[np.minimum(own, 3)]
        totals, left = np.bincount(contexts, weights=own), np.bincount(contexts, weights=lost)
        backoff = np.divide(left, totals, out=np.ones(len(totals)), where=totals > 0)
        p = (own - lost) / totals[contexts] + backoff[contexts] * lower[
            counts.suffixes[order - 2][part]
        ]
        yield part, slice(first, last + 1), p, backoff
        begin = part.stop


def discounts_of(counts: NDArray[np.int64]) -> Discounts:
    """Return the discounts of one order from the numbers of n-grams with counts 1 to 4.

    They are FALLBACK if the counts are too few for discounts that are positive and at most as
    large as the counts that they are taken from.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        values = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        if all(0.0 < value <= most for most, value in enumerate(values, 1)):
            return Discounts(values=values, fallback=False)
    return Discounts(values=FALLBACK, fallback=True)


def fit(
    ids: NDArray[np.integer],
    vocab_size: int,
    order: int,
    limit: int | None = None,
    kind: type[np.floating[Any]] = np.float64,
) -> tuple[NgramModel, list[Discounts]]:
    """Return the model of a text, and the discounts of each order.

    Documents begin at the first id and after each EOS. `limit` is as in `count`, and `kind` as in
    `estimate`. Raises EnvironmentFailure if the memory that is free is too little for the text.
    """
    counts = count(ids, vocab_size, order, limit)
    return estimate(counts, len(counts.occurrences), kind, free=True)


def ngram_nats(train: NDArray[np.integer], other: NDArray[np.integer], vocab_size: int) -> float:
    """Return the nats per token of the other text under n-grams of the training text.

    The order is the best of ORDERS. An empty text gives nan.
    """
    if not len(other):
        return float("nan")
    evaluated = np.asarray(_spread(other), np.int64)
    counts = count(np.asarray(train[-MAX_TRAINING:]), vocab_size, max(ORDERS))
    models = (estimate(counts, order)[0] for order in ORDERS)
    return min(float(model.text_nats(evaluated).mean()) for model in models)


def _spread(ids: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return at most MAX_EVALUATED of the ids, in pieces spread over them."""
    if len(ids) <= MAX_EVALUATED:
        return ids
    size = MAX_EVALUATED // PIECES
    starts = np.linspace(0, len(ids) - size, PIECES).astype(int)
    return np.concatenate([ids[start : start + size] for start in starts])

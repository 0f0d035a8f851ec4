"""Interpolated modified Kneser-Ney n-grams (Chen & Goodman 1999, equations 24 to 26).

    P(w | h) = (a(h w) - D(a(h w))) / sum_v a(h v) + g(h) P(w | h')

The adjusted count a is the number of different tokens before an n-gram; for the highest order, and
for n-grams that begin with the start symbol, it is the number of occurrences. g(h) gives the mass
of the discounts D to the next lower order, and unigrams are interpolated with 1 / V. No n-gram is
pruned. This is the model that KenLM's lmplz estimates (Heafield et al. 2013).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import EnvironmentFailure
from charlm.files.memory import free_memory
from charlm.ngrams.model import Ids, NgramModel
from charlm.text.tokenizers.tokenizer_json import EOS

METHOD = "modified Kneser-Ney"
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of an order whose counts give none, as with `lmplz --discount_fallback`."""
MAX_TRAINING = 3_000_000
"""Tokens of a longer training text that `ngram_nats` counts: its end."""
MAX_EVALUATED, PIECES = 200_000, 20
"""Tokens of a longer text that `ngram_nats` evaluates, in so many pieces spread over it. The first
60,000 characters of a text can be 5 % easier than the whole (tiny Shakespeare)."""
MAX_BITS = 63
"""Bits of a positive number in 64 bits."""
TOKEN_BYTES = (16, 64, 88)
"""Bytes of memory that `count` needs at least for each token, for order 1, 2, and 3 or more."""
ORDERS = (3, 5, 7)
"""Orders that `ngram_nats` tries. They are odd, since words and blanks alternate."""


@dataclass(frozen=True, kw_only=True)
class Discounts:
    """Discounts of the counts 1, 2, and 3 or more; `fallback` if they are not estimated."""

    values: tuple[float, float, float]
    fallback: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """The n-grams of a text up to some order.

    `keys` are those of `NgramModel`, for orders 2 and up; `suffixes` are the nodes of the same
    n-grams without their first token; `occurrences` begin with order 1.
    """

    vocab_size: int
    keys: list[Ids]
    suffixes: list[NDArray[np.int32]]
    occurrences: list[NDArray[np.int64]]

    def adjusted(self, order: int, highest: int) -> NDArray[np.int64]:
        """Return the adjusted counts of one order for a model of order `highest`."""
        occurrences = self.occurrences[order - 1]
        if order == highest:
            counts = occurrences.copy()
        else:
            counts = np.bincount(self.suffixes[order - 1], minlength=len(occurrences))
            first = self._first_after_start(order)
            counts[first:] = occurrences[first:]
        if order == 1:
            counts[self.vocab_size] = 0
        return counts

    def _first_after_start(self, order: int) -> int:
        """Return the first node that begins with the start symbol; the others follow it."""
        first = self.vocab_size
        for keys in self.keys[: order - 1]:
            first = int(np.searchsorted(keys, first * (self.vocab_size + 1)))
        return first


def count(
    ids: NDArray[np.integer], vocab_size: int, order: int, limit: int | None = None
) -> Counts:
    """Count the n-grams of a text; documents begin at its first id and after each EOS.

    Orders with which there would be more than `limit` different n-grams are left out.
    """
    start = vocab_size
    firsts = np.flatnonzero(ids[:-1] == EOS) + 1 if len(ids) else np.empty(0, np.int64)
    stream = np.insert(ids.astype(np.int64), np.append(0, firsts) if len(ids) else firsts, start)
    counts = Counts(
        vocab_size=vocab_size,
        keys=[],
        suffixes=[],
        occurrences=[np.bincount(stream, minlength=vocab_size + 1)],
    )
    nodes = stream  # node of the n-gram that ends at each place of `ends`
    ends = np.arange(len(stream))
    for length in range(2, order + 1):
        tokens = stream[ends[1:]]
        inside = (ends[1:] == ends[:-1] + 1) & (tokens != start)
        suffixes, ends = nodes[1:][inside], ends[1:][inside]
        keys, by_key = sorted_keys(nodes[:-1][inside] * (vocab_size + 1) + tokens[inside])
        is_new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
        groups = np.flatnonzero(is_new)
        known = sum(len(occurrences) for occurrences in counts.occurrences)
        if limit is not None and known + len(groups) > limit:
            break
        counts.keys.append(keys[groups])
        counts.suffixes.append(suffixes[by_key[groups]].astype(np.int32))
        counts.occurrences.append(np.diff(groups, append=len(keys)))
        if length < order:
            nodes = np.empty(len(keys), np.int64)
            nodes[by_key] = np.repeat(np.arange(len(groups)), counts.occurrences[-1])
    return counts


def sorted_keys(keys: Ids) -> tuple[Ids, Ids]:
    """Return keys in ascending order, and the place that each of them had.

    Each key is sorted in one number with its place if there are enough bits, which takes less than
    half the time of an argsort.
    """
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > MAX_BITS:
        places = np.argsort(keys)
        return keys[places], places
    both = (keys << bits) | np.arange(len(keys))
    both.sort()
    return both >> bits, both & ((1 << bits) - 1)


def estimate(counts: Counts, order: int) -> tuple[NgramModel, list[Discounts]]:
    """Return the model of an order up to that of the counts, and the discounts of each order."""
    size, every = counts.vocab_size, []
    log_p: list[Any] = []
    log_backoff: list[Any] = []
    for length in range(1, order + 1):
        adjusted = counts.adjusted(length, order)
        discounts = discounts_of(adjusted)
        every.append(discounts)
        lost = np.array([0.0, *discounts.values])[np.minimum(adjusted, 3)]
        kept = adjusted - lost
        if length == 1:
            total = max(int(adjusted.sum()), 1)
            p = kept / total + (lost.sum() / total if adjusted.any() else 1.0) / size
            p[size] = 1.0
        else:
            contexts = counts.keys[length - 2] // (size + 1)
            count_of = len(counts.occurrences[length - 2])
            totals = np.bincount(contexts, weights=adjusted, minlength=count_of)
            left = np.bincount(contexts, weights=lost, minlength=count_of)
            backoff = np.divide(left, totals, out=np.ones(count_of), where=totals > 0)
            log_backoff.append(np.log10(backoff))
            p = kept / totals[contexts] + backoff[contexts] * p[counts.suffixes[length - 2]]
        log_p.append(np.log10(p))
    model = NgramModel(
        vocab_size=size, keys=counts.keys[: order - 1], log_p=log_p, log_backoff=log_backoff
    )
    return model, every


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
    ids: NDArray[np.integer], vocab_size: int, order: int, limit: int | None = None
) -> tuple[NgramModel, list[Discounts]]:
    """Return the model of a text, and the discounts of each order.

    Documents begin at the first id and after each EOS. `limit` is as in `count`. Raises
    EnvironmentFailure if the memory that is free is too little for the text.
    """
    _check_memory(len(ids), order)
    counts = count(ids, vocab_size, order, limit)
    return estimate(counts, len(counts.occurrences))


def _check_memory(tokens: int, order: int) -> None:
    """Raise EnvironmentFailure if n-grams of a text of this length cannot be counted in memory."""
    needed, free = tokens * TOKEN_BYTES[min(order, len(TOKEN_BYTES)) - 1], free_memory()
    if free is not None and needed > free:
        raise EnvironmentFailure(
            f"counting n-grams of {tokens:,} tokens needs at least {needed / 1e9:.1f} GB of "
            f"memory, but only {free / 1e9:.1f} GB is free; expected enough for all. Use a part of "
            "the text"
        )


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

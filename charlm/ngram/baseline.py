"""N-grams of token ids: how hard a text is for a simple model, and what of a text is copied.

The model is that of Witten & Bell 1991, interpolated (Chen & Goodman 1999, section 2.4):

    P_n(w | h) = (c(h w) + N(h) P_{n-1}(w | h')) / (c(h) + N(h))

with N(h) the number of different tokens seen after h, h' without its first token, P_0 = 1 / V.
"""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]
MAX_TRAINING = 3_000_000
MAX_ORDER = 6
MAX_JUDGED = 60_000
"""Tokens that are enough: the end of a longer training text, the beginning of a longer other."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)


def ngram_nats(train: NDArray[np.integer], other: NDArray[np.integer], vocab_size: int) -> float:
    """Nats per token of the other text under n-grams of the training text, of the best order.

    nan for an empty text.
    """
    known: Ids = np.asarray(train[-MAX_TRAINING:], np.int64)
    judged: Ids = np.asarray(other[:MAX_JUDGED], np.int64)
    if not len(judged):
        return float("nan")
    chances = np.full(len(judged), 1.0 / vocab_size)
    found = []
    for length in range(1, MAX_ORDER + 1):
        chances = _interpolated(known, judged, length, chances)
        found.append(float(-np.log(chances).mean()))
    return min(found)


def _interpolated(
    train: Ids, other: Ids, length: int, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """P_n of each token from P_{n-1}; the first tokens, without a whole history, keep theirs."""
    if min(len(train), len(other)) < length:
        return lower
    seen, first, counts = np.unique(
        window_hashes(train, length), return_index=True, return_counts=True
    )
    contexts = np.zeros(max(len(train) - length + 1, 0), np.uint64)
    wanted = np.zeros(len(other) - length + 1, np.uint64)
    if length > 1:
        contexts = window_hashes(train[:-1], length - 1)
        wanted = window_hashes(other[:-1], length - 1)
    histories, totals = np.unique(contexts, return_counts=True)
    kinds_of, kinds = np.unique(contexts[first], return_counts=True)
    own = _looked_up(seen, counts, window_hashes(other, length))
    total = _looked_up(histories, totals, wanted)
    different = _looked_up(kinds_of, kinds, wanted)
    mixed = lower.copy()
    known = total > 0
    tail = mixed[length - 1 :]
    tail[known] = (own + different * tail)[known] / (total + different)[known]
    return mixed


def _looked_up(keys: Hashes, values: NDArray[np.int64], wanted: Hashes) -> NDArray[np.int64]:
    """The value of each wanted key, 0 where it is not there; `keys` are sorted."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def window_hashes(ids: NDArray[np.integer], length: int) -> Hashes:
    """A number for each window of so many ids, equal for equal windows, shape (N - length + 1,).

    Windows of twice a length are made from two of it, and the rest is put behind one by one.
    """
    count = len(ids) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    single = _mixed(np.asarray(ids).astype(np.int64).astype(np.uint64) + np.uint64(2))
    found, done = single, 1
    for bit in bin(length)[3:]:
        found = _mixed(found[: len(found) - done] * FACTOR + found[done:])
        done *= 2
        if bit == "1":
            found = _mixed(found[:-1] * FACTOR + single[done : done + len(found) - 1])
            done += 1
    return found[:count]


def _mixed(values: Hashes) -> Hashes:
    """Bits well stirred (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def longest_overlap(ids: NDArray[np.integer], corpus: NDArray[np.integer]) -> tuple[int, int]:
    """Length and beginning of the longest run of ids that stands in the corpus too.

    By bisection: where no window of n tokens is in the corpus, no longer one is.
    """
    low, high, place = 0, len(ids) + 1, 0
    while high - low > 1:
        middle = (low + high) // 2
        found = np.flatnonzero(in_corpus(ids, corpus, middle))
        if len(found):
            low, place = middle, int(found[0])
        else:
            high = middle
    return low, place


def in_corpus(
    ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int
) -> NDArray[np.bool_]:
    """Which windows of so many ids stand in the corpus, shape (N - length + 1,)."""
    own = window_hashes(ids, length)
    if not len(own):
        return np.zeros(0, np.bool_)
    keys = np.unique(own)
    theirs = window_hashes(corpus, length)
    places = np.minimum(np.searchsorted(keys, theirs), len(keys) - 1)
    there = np.zeros(len(keys), np.bool_)
    there[places[keys[places] == theirs]] = True
    return there[np.searchsorted(keys, own)]


def novel_share(
    ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int = 8, apart: int | None = None
) -> float:
    """Share of the windows of so many ids that are not in the corpus; nan where there is none.

    Windows that hold the id `apart`, which stands between texts, do not count.
    """
    found = in_corpus(ids, corpus, length)
    if apart is not None and len(found):
        reaching = np.convolve(np.asarray(ids) == apart, np.ones(length, np.int64), "valid")
        found = found[reaching == 0]
    return float(1.0 - found.mean()) if len(found) else float("nan")

"""N-grams of token ids: a baseline of the difficulty of a text, and a measure of copied text.

The model is that of Witten & Bell 1991, interpolated (Chen & Goodman 1999, section 2.4):

    P_n(w | h) = (c(h w) + N(h) P_{n-1}(w | h')) / (c(h) + N(h))

where N(h) is the number of different tokens after h, h' is h without its first token, and
P_0 = 1 / V.
"""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]
MAX_TRAINING = 3_000_000
MAX_ORDER = 6
MAX_EVALUATED = 60_000
"""Tokens used of longer texts: the end of a training text, the beginning of an evaluated one."""
SEPARATOR = -1
"""Id between two texts, which is in no text."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier that makes the hash of a window depend on the order of its ids."""


def ngram_nats(train: NDArray[np.integer], other: NDArray[np.integer], vocab_size: int) -> float:
    """Return the nats per token of the other text under n-grams of the training text.

    The order is the best one up to MAX_ORDER. An empty text gives nan.
    """
    known: Ids = np.asarray(train[-MAX_TRAINING:], np.int64)
    evaluated: Ids = np.asarray(other[:MAX_EVALUATED], np.int64)
    if not len(evaluated):
        return float("nan")
    probabilities = np.full(len(evaluated), 1.0 / vocab_size)
    nats = []
    for length in range(1, MAX_ORDER + 1):
        probabilities = _interpolated(known, evaluated, length, probabilities)
        nats.append(float(-np.log(probabilities).mean()))
    return min(nats)


def _interpolated(
    train: Ids, other: Ids, length: int, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return P_n of each token, given P_{n-1}; tokens without a full history keep P_{n-1}."""
    if min(len(train), len(other)) < length:
        return lower
    ngrams, first, counts = np.unique(
        window_hashes(train, length), return_index=True, return_counts=True
    )
    train_histories = np.zeros(max(len(train) - length + 1, 0), np.uint64)
    other_histories = np.zeros(len(other) - length + 1, np.uint64)
    if length > 1:
        train_histories = window_hashes(train[:-1], length - 1)
        other_histories = window_hashes(other[:-1], length - 1)
    histories, totals = np.unique(train_histories, return_counts=True)
    followed, followers = np.unique(train_histories[first], return_counts=True)
    count = _look_up(ngrams, counts, window_hashes(other, length))  # c(h w)
    total = _look_up(histories, totals, other_histories)  # c(h)
    different = _look_up(followed, followers, other_histories)  # N(h)
    mixed = lower.copy()
    known = total > 0
    tail = mixed[length - 1 :]
    tail[known] = (count + different * tail)[known] / (total + different)[known]
    return mixed


def _look_up(keys: Hashes, values: NDArray[np.int64], hashes: Hashes) -> NDArray[np.int64]:
    """Return the value of each hash, 0 if it is not among the sorted keys."""
    places = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
    return np.where(keys[places] == hashes, values[places], 0)


def window_hashes(ids: NDArray[np.integer], length: int) -> Hashes:
    """Hash each window of `length` ids, shape (N - length + 1,).

    The hash of a window is made from the hashes of its halves; by the binary digits of the length,
    single ids are appended.
    """
    count = len(ids) - length + 1
    if count < 1:
        return np.empty(0, np.uint64)
    single = _mixed(np.asarray(ids).astype(np.int64).astype(np.uint64) + np.uint64(2))
    hashes, size = single, 1
    for bit in bin(length)[3:]:
        hashes = _mixed(hashes[: len(hashes) - size] * FACTOR + hashes[size:])
        size *= 2
        if bit == "1":
            hashes = _mixed(hashes[:-1] * FACTOR + single[size : size + len(hashes) - 1])
            size += 1
    return hashes[:count]


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of each value (the finalizer of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def longest_overlap(ids: NDArray[np.integer], corpus: NDArray[np.integer]) -> tuple[int, int]:
    """Return the length and the beginning of the longest run of ids that is also in the corpus.

    It bisects: if no window of n ids is in the corpus, no longer window is.
    """
    low, high, place = 0, len(ids) + 1, 0
    while high - low > 1:
        middle = (low + high) // 2
        starts = np.flatnonzero(in_corpus(ids, corpus, middle))
        if len(starts):
            low, place = middle, int(starts[0])
        else:
            high = middle
    return low, place


def in_corpus(
    ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int
) -> NDArray[np.bool_]:
    """Test whether each window of `length` ids is in the corpus, shape (N - length + 1,)."""
    windows = window_hashes(ids, length)
    if not len(windows):
        return np.zeros(0, np.bool_)
    keys = np.unique(windows)
    corpus_windows = window_hashes(corpus, length)
    places = np.minimum(np.searchsorted(keys, corpus_windows), len(keys) - 1)
    known = np.zeros(len(keys), np.bool_)
    known[places[keys[places] == corpus_windows]] = True
    return known[np.searchsorted(keys, windows)]


def novel_fraction(ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int) -> float:
    """Return the fraction of the windows of `length` ids that are not in the corpus.

    Windows with a SEPARATOR do not count. Without any window the result is nan.
    """
    known = in_corpus(ids, corpus, length)
    if len(known):
        separators = np.convolve(np.asarray(ids) == SEPARATOR, np.ones(length, np.int64), "valid")
        known = known[separators == 0]
    return float(1.0 - known.mean()) if len(known) else float("nan")

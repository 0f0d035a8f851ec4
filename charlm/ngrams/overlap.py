"""Overlap of a text with a corpus: which of its windows of token ids are copied."""

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
SEPARATOR = -1
"""Id between two texts, which is in no text."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier that makes the hash of a window depend on the order of its ids."""


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

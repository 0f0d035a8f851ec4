"""Overlap of a text with a corpus: which of its windows of token ids are copied."""

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
SEPARATOR = -1
"""Id between two texts, which is in no text."""
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd multiplier that makes the hash of a window depend on the order of its ids."""
LOW_BITS = np.uint64((1 << 20) - 1)
"""Mask of the bits of a hash that number the entries of the table of `members`."""
AT_A_TIME = 1 << 18
"""Number of values that are looked up at a time, in little memory."""


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
        hashes = _joined(hashes, size)
        size *= 2
        if bit == "1":
            hashes = _mixed(hashes[:-1] * FACTOR + single[size : size + len(hashes) - 1])
            size += 1
    return hashes[:count]


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of each value in place, and return them.

    By the finalizer of splitmix64 (Steele et al. 2014).
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


def longest_overlap(ids: NDArray[np.integer], corpus: NDArray[np.integer]) -> tuple[int, int]:
    """Return the length and the beginning of the longest run of ids that is also in the corpus.

    Windows are doubled while one of them is in the corpus; then the length is bisected, where a
    window is known by its first and its last half. Only places of the corpus with the shorter
    window can have the longer one, so few are left after eight ids.
    """
    size, own, others = 1, window_hashes(ids, 1), window_hashes(corpus, 1)
    starts = np.flatnonzero(members(others, own))
    if not len(starts):
        return 0, 0
    while True:
        longer = _joined(own, size), _joined(others, size)
        found = np.flatnonzero(members(longer[1], longer[0]))
        if not len(found):
            break
        (own, others), starts, size = longer, found, 2 * size
    low, high, place = size, 2 * size, int(np.flatnonzero(members(own, others[starts]))[0])
    while high - low > 1:
        middle = (low + high) // 2
        apart = middle - size
        windows = _joined(own, apart)
        fitting = starts[starts < len(others) - apart]
        there = _mixed(others[fitting] * FACTOR + others[fitting + apart])
        in_both = np.flatnonzero(members(windows, there))
        if len(in_both):
            low, place, starts = middle, int(in_both[0]), fitting[members(there, windows)]
        else:
            high = middle
    return low, place


def _joined(hashes: Hashes, apart: int) -> Hashes:
    """Hash each pair of windows that begin `apart` ids from each other."""
    pairs = hashes[: max(len(hashes) - apart, 0)] * FACTOR
    pairs += hashes[apart:]
    return _mixed(pairs)


def members(values: Hashes, keys: Hashes) -> NDArray[np.bool_]:
    """Test whether each value is one of the keys, shape (N,).

    Most values are found to be none by a table of their lowest bits.
    """
    found = np.zeros(len(values), np.bool_)
    if len(keys):
        keys = np.unique(keys)
        table = np.zeros(int(LOW_BITS) + 1, np.bool_)
        table[keys & LOW_BITS] = True
        for first in range(0, len(values), AT_A_TIME):
            some = values[first : first + AT_A_TIME]
            likely = np.flatnonzero(table[some & LOW_BITS])
            places = np.minimum(np.searchsorted(keys, some[likely]), len(keys) - 1)
            found[first + likely] = keys[places] == some[likely]
    return found


def in_corpus(
    ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int
) -> NDArray[np.bool_]:
    """Test whether each window of `length` ids is in the corpus, shape (N - length + 1,)."""
    windows, others = window_hashes(ids, length), window_hashes(corpus, length)
    return members(windows, others[members(others, windows)])


def novel_fraction(ids: NDArray[np.integer], corpus: NDArray[np.integer], length: int) -> float:
    """Return the fraction of the windows of `length` ids that are not in the corpus.

    Windows with a SEPARATOR do not count. Without any window the result is nan.
    """
    known = in_corpus(ids, corpus, length)
    if len(known):
        separators = np.convolve(np.asarray(ids) == SEPARATOR, np.ones(length, np.int64), "valid")
        known = known[separators == 0]
    return float(1.0 - known.mean()) if len(known) else float("nan")

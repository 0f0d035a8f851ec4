"""Overlaps against Python's own search, and hashes of windows."""

import itertools
import math
import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.ngrams.overlap import in_corpus, longest_overlap, novel_fraction, window_hashes

small_ids = st.lists(st.integers(0, 3), max_size=60)


@pytest.mark.parametrize("length", [2, 3, 4, 5, 8, 9])
def test_reordered_windows_have_different_hashes(length: int) -> None:
    """Every order of `length` different tokens has a number of its own."""
    orders = list(itertools.islice(itertools.permutations(range(length)), 500))
    hashes = [int(window_hashes(np.array(order), length)[0]) for order in orders]
    assert len(set(hashes)) == len(orders)


@given(small_ids, st.integers(1, 20))
def test_windows_have_equal_hashes_only_if_they_are_equal(ids: list[int], length: int) -> None:
    hashes = window_hashes(np.array(ids, np.int64), length)
    assert len(hashes) == max(len(ids) - length + 1, 0)
    numbers = defaultdict(set)
    for at, value in enumerate(hashes.tolist()):
        numbers[value].add(tuple(ids[at : at + length]))
    assert all(len(windows) == 1 for windows in numbers.values())
    assert len(numbers) == len({tuple(ids[i : i + length]) for i in range(len(hashes))})


@given(small_ids, small_ids)
def test_no_overlap_is_longer_than_the_longest(ids: list[int], corpus: list[int]) -> None:
    """Python's search in strings is the reference; the run is in both texts."""
    text, whole = "".join(map(str, ids)), "".join(map(str, corpus))
    length, place = longest_overlap(np.array(ids, np.int64), np.array(corpus, np.int64))
    assert text[place : place + length] in whole
    longer = {text[i : i + length + 1] for i in range(len(text) - length)}
    assert not any(part in whole for part in longer)


def test_novel_windows_by_hand() -> None:
    """abcdab has the windows abcd, bcda, cdab of abcdabcx, but not dabc and abcx."""
    corpus, ids = (np.frombuffer(text, np.uint8) for text in (b"abcdab", b"abcdabcx"))
    assert in_corpus(ids, corpus, 4).tolist() == [True, True, True, False, False]
    assert novel_fraction(ids, corpus, 4) == pytest.approx(0.4)
    assert math.isnan(novel_fraction(ids[:3], corpus, 4))
    assert novel_fraction(ids, corpus[:2], 4) == 1.0


def test_little_more_memory_is_used_than_that_of_the_hashes() -> None:
    """Which take 8 bytes for each id of the corpus, as do those of longer windows."""
    ids = np.random.default_rng(0).integers(0, 60, 1_000_000)
    tracemalloc.start()
    assert longest_overlap(ids[500:700], ids) == (200, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * len(ids)

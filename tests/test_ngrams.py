"""N-grams against dictionaries and loops, and overlaps against Python's own search."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.ngram import baseline
from charlm.ngram.baseline import (
    in_corpus,
    longest_overlap,
    ngram_nats,
    novel_fraction,
    window_hashes,
)

small_ids = st.lists(st.integers(0, 3), max_size=60)


def naive_nats(train: list[int], other: list[int], vocab_size: int, order: int) -> float:
    """Witten-Bell by dictionaries, one token at a time."""
    counts = [Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
              for n in range(1, order + 1)]  # fmt: skip
    total = 0.0
    for at, token in enumerate(other):
        chance = 1.0 / vocab_size
        for n in range(1, order + 1):
            if at < n - 1 or len(train) < n or len(other) < n:
                continue
            history = tuple(other[at - n + 1 : at])
            after = {k: c for k, c in counts[n - 1].items() if k[:-1] == history}
            if after:
                mass, kinds = sum(after.values()), len(after)
                own = after.get((*history, token), 0)
                chance = (own + kinds * chance) / (mass + kinds)
        total -= math.log(chance)
    return total / len(other)


@settings(max_examples=60)
@given(small_ids.filter(bool), small_ids.filter(bool))
def test_the_nats_are_those_of_the_formula(train: list[int], other: list[int]) -> None:
    """The result is that of the best order."""
    nats = ngram_nats(np.array(train), np.array(other), 4)
    expected = min(naive_nats(train, other, 4, order) for order in range(1, 7))
    assert nats == pytest.approx(expected, rel=1e-9)


def test_probabilities_sum_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all tokens after the same history, seen or not."""
    monkeypatch.setattr(baseline, "MAX_ORDER", 3)
    train = np.random.default_rng(0).integers(0, 4, 50)
    for history in ([0, 1], [3, 3], [2, 0]):
        last = []
        for token in range(4):
            with_it = ngram_nats_of(train, [*history, token]) * 3
            without = ngram_nats_of(train, history) * 2
            last.append(math.exp(without - with_it))
        assert sum(last) == pytest.approx(1.0)


def ngram_nats_of(train: np.ndarray, other: list[int]) -> float:
    """The formula at order 3; `ngram_nats` takes the best order."""
    chances = np.full(len(other), 0.25)
    for length in (1, 2, 3):
        chances = baseline._interpolated(train, np.array(other), length, chances)
    return float(-np.log(chances).mean())


def test_an_empty_text_has_no_figure() -> None:
    assert math.isnan(ngram_nats(np.array([1, 2]), np.array([], np.int64), 4))


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

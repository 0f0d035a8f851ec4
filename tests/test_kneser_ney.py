"""Kneser-Ney against the formulas in dictionaries, its own laws, and files of another program."""

import math
import tracemalloc
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers import oracle_file
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import EnvironmentFailure
from charlm.ngrams import counting, kneser_ney
from charlm.ngrams import model as model_module
from charlm.ngrams.counting import NGRAM_BYTES, TOKEN_BYTES, count, sorted_keys
from charlm.ngrams.kneser_ney import FALLBACK, discounts_of, estimate, fit, ngram_nats
from charlm.ngrams.model import NgramModel
from charlm.text.tokenizers.tokenizer_json import EOS

START = "<s>"
texts = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array)
"""Token ids of documents that end with EOS, which is 1."""


def naive(ids: list[int], vocab_size: int, order: int):
    """Return P(token | history), written down from equations 24 to 26 of Chen & Goodman 1999."""
    documents: list[list] = [[START]]
    for position, token in enumerate(ids):
        documents[-1].append(token)
        if token == EOS and position + 1 < len(ids):
            documents.append([START])
    occurrences: Counter = Counter()
    before = defaultdict(set)
    for document in documents:
        for size in range(1, order + 2):
            for end in range(size, len(document) + 1):
                ngram = tuple(document[end - size : end])
                occurrences[ngram] += 1
                before[ngram[1:]].add(ngram[0])
    adjusted: dict[int, dict] = {size: {} for size in range(1, order + 1)}
    for ngram, number in occurrences.items():
        if len(ngram) > order or ngram == (START,):
            continue
        raw = len(ngram) == order or ngram[0] == START
        adjusted[len(ngram)][ngram] = number if raw else len(before[ngram])

    discounts = {}
    for size, counts in adjusted.items():
        of = Counter(counts.values())
        n = [of[c] for c in range(5)]
        values = FALLBACK
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = tuple(c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3))
            if all(0 < d <= c for c, d in enumerate(found, 1)):
                values = found
        discounts[size] = (0.0, *values)

    @cache
    def probability(history: tuple, token: int) -> float:
        lower = probability(history[1:], token) if history else 1.0 / vocab_size
        size = len(history) + 1
        after = {g: a for g, a in adjusted[size].items() if g[:-1] == history}
        if not after:
            return lower
        total = sum(after.values())
        own = after.get((*history, token), 0)
        mass = sum(discounts[size][min(a, 3)] for a in after.values())
        return (own - discounts[size][min(own, 3)]) / total + mass / total * lower

    return lambda history, token: probability(
        tuple(history[max(len(history) - order + 1, 0) :]), token
    )


def histories_of(ids: list[int]) -> list[list]:
    """Return the visible history of each token, from the start symbol of its document."""
    histories, visible = [], [START]
    for token in ids:
        histories.append(list(visible))
        visible = [START] if token == EOS else [*visible, token]
    return histories


@settings(max_examples=40)
@given(texts, texts, st.integers(1, 4))
def test_the_probabilities_are_those_of_the_formulas(train, other, order: int) -> None:
    model, _ = fit(train, 5, order)
    reference = naive(train.tolist(), 5, order)
    for text in (train, other):
        pairs = zip(histories_of(text.tolist()), text.tolist(), strict=True)
        expected = [-math.log(reference(history, token)) for history, token in pairs]
        assert model.text_nats(text) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=40)
@given(texts, texts, st.integers(1, 4))
def test_probabilities_sum_to_one_after_any_history(train, other, order: int) -> None:
    """Histories of the text and others, and the empty one."""
    model, _ = fit(train, 5, order)
    for text in (train, other):
        rows = model.distributions(model.contexts(np.append(EOS, text)))
        assert np.exp(rows).sum(axis=1) == pytest.approx(1.0, abs=1e-9)
    none = np.full((order - 1, 1), -1)
    assert np.exp(model.distributions(none)).sum() == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=40)
@given(texts, texts, st.integers(1, 4))
def test_a_distribution_has_the_probability_of_each_token(train, other, order: int) -> None:
    model, _ = fit(train, 5, order)
    rows = model.distributions(model.contexts(np.append(EOS, other[:-1])))
    own = np.take_along_axis(rows, other[:, None], axis=1)[:, 0]
    assert -own == pytest.approx(model.text_nats(other), rel=1e-12)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2**62), max_size=40).map(lambda keys: np.array(keys, np.int64)))
def test_keys_are_sorted_with_their_places(keys: np.ndarray) -> None:
    """Large ones, which leave no bits for a place, and small ones, of which many are equal."""
    for given_keys in (keys, keys % 7):
        ordered, places = sorted_keys(given_keys)
        assert ordered.tolist() == sorted(given_keys.tolist())
        assert np.array_equal(given_keys[places], ordered)
        assert sorted(places.tolist()) == list(range(len(keys)))


@settings(max_examples=60)
@given(texts, st.integers(1, 4), st.integers(1, 5))
def test_a_text_that_is_counted_in_slices_has_the_same_model(train, order: int, size: int) -> None:
    """To the bit, also where an n-gram has more places, or a context more n-grams, than a slice."""
    model, discounts = fit(train, 5, order)
    with mock.patch.object(counting, "SLICE", size), mock.patch.object(kneser_ney, "SLICE", size):
        other, others = fit(train, 5, order)
    assert discounts == others
    for name in ("keys", "log_p", "log_backoff"):
        for one, two in zip(getattr(model, name), getattr(other, name), strict=True):
            assert np.array_equal(one, two)


@settings(max_examples=20)
@given(texts, st.integers(1, 4))
def test_logarithms_of_half_the_size_are_those_rounded(train, order: int) -> None:
    (model, discounts), (half, others) = fit(train, 5, order), fit(train, 5, order, kind=np.float32)
    assert discounts == others
    for name in ("log_p", "log_backoff"):
        for one, two in zip(getattr(model, name), getattr(half, name), strict=True):
            assert two.dtype == np.float32
            assert np.array_equal(one.astype(np.float32), two)


@settings(max_examples=40)
@given(texts, texts)
def test_n_grams_of_a_long_text_are_found_as_those_of_a_short_one(train, other) -> None:
    """A long text is looked up in the order of its keys."""
    model, _ = fit(train, 5, 4)
    expected = model.text_figures(other)
    with mock.patch.object(model_module, "MIN_SORTED", 0):
        for found, known in zip(model.text_figures(other), expected, strict=True):
            assert np.array_equal(found, known)


def test_nothing_before_the_end_of_a_document_is_seen() -> None:
    train = np.array([2, 3, 4, 1, 4, 3, 1, 2, 2, 1] * 3)
    model, _ = fit(train, 5, 4)
    nats = model.text_nats(np.array([4, 4, 1, 2, 3]))
    assert nats[3:] == pytest.approx(model.text_nats(np.array([2, 3])))


def test_discounts_by_hand() -> None:
    """n1 = 4, n2 = 2, n3 = 1, n4 = 1: y = 1/2."""
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    discounts = discounts_of(counts)
    assert discounts.values == pytest.approx((0.5, 2 - 3 * 0.5 / 2, 3 - 4 * 0.5))
    assert not discounts.fallback
    assert discounts_of(np.array([1, 1, 2])).values == FALLBACK  # no 3


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("ids", [[], [2], [1], [1, 1], [2, 2, 2, 2]])
def test_the_shortest_texts_have_a_model(ids: list[int], order: int) -> None:
    model, _ = fit(np.array(ids, np.int64), 4, order)
    rows = model.distributions(model.contexts(np.array([EOS, 2, 3])))
    assert np.exp(rows).sum(axis=1) == pytest.approx(1.0)
    assert len(model.text_nats(np.array([], np.int64))) == 0


def test_the_nats_are_those_of_the_best_order() -> None:
    drawn = np.random.default_rng(0).integers(2, 6, 400)
    train, other = np.repeat(drawn[:300], 2), np.repeat(drawn[300:], 2)
    nats = [fit(train, 6, order)[0].text_nats(other).mean() for order in kneser_ney.ORDERS]
    assert ngram_nats(train, other, 6) == pytest.approx(min(nats))
    assert math.isnan(ngram_nats(np.array([1, 2]), np.array([], np.int64), 4))


def test_the_nats_of_a_long_text_are_those_of_pieces_spread_over_it(monkeypatch) -> None:
    """Its beginning may be easier than the rest."""
    train = np.random.default_rng(0).choice([2, 3], 500, p=[0.9, 0.1])
    easy, hard = np.full(200, 2), np.full(200, 3)
    other = np.concatenate([easy, hard])
    whole = ngram_nats(train, other, 4)
    monkeypatch.setattr(kneser_ney, "MAX_EVALUATED", 100)
    monkeypatch.setattr(kneser_ney, "PIECES", 4)
    assert ngram_nats(train, other, 4) == pytest.approx(whole, rel=0.05)
    assert len(kneser_ney._spread(other)) == 100
    assert kneser_ney._spread(other)[[0, -1]].tolist() == [2, 3]


def words_of(path: Path) -> list[str]:
    """Return the entries of an ARPA file in its order, without the start symbol."""
    lines = path.read_text(encoding="utf-8").split("\\1-grams:\n")[1].split("\n\n")[0]
    words = [line.split("\t")[1] for line in lines.splitlines()]
    words.remove("<s>")
    assert words[:2] == ["<unk>", "</s>"]
    return words


@pytest.mark.data
@pytest.mark.parametrize(
    ("golden", "text", "order"),
    [("tiny2.arpa", "tiny.txt", 2), ("tiny3.arpa", "tiny.txt", 3),
     ("tinychar4.arpa", "tinychar.txt", 4), ("small3.fallback.arpa", "small.txt", 3)],
)  # fmt: skip
def test_every_entry_agrees_with_lmplz(golden: str, text: str, order: int) -> None:
    words = words_of(oracle_file(golden))
    ids = {word: index for index, word in enumerate(words)} | {START: len(words)}
    lines = oracle_file(text).read_text(encoding="utf-8").splitlines()
    stream = [ids[word] for line in lines for word in (*line.split(), "</s>")]
    model, _ = fit(np.array(stream), len(words), order)
    entries = 0
    for section in oracle_file(golden).read_text(encoding="utf-8").split("-grams:\n")[1:]:
        for line in section.split("\n\n")[0].splitlines():
            log_p, ngram, *log_backoff = line.split("\t")
            node = node_of(model, [ids[word] for word in ngram.split(" ")])
            size = ngram.count(" ") + 1
            if ngram != START:
                assert model.log_p[size - 1][node] == pytest.approx(float(log_p), abs=1e-6)
            if size < order:
                expected = float(*log_backoff)
                assert model.log_backoff[size - 1][node] == pytest.approx(expected, abs=1e-6)
            entries += 1
    assert entries == sum(model.sizes)


def node_of(model: NgramModel, tokens: list[int]) -> int:
    node = np.array(tokens[:1])
    for size, token in enumerate(tokens[1:], 2):
        node = model.find(size, node, np.array([token]))
    assert node >= 0
    return int(node[0])


def test_an_order_of_the_counts_is_the_model_of_that_order() -> None:
    """Counts of order 5 give the same bigrams as counts of order 2."""
    train = np.random.default_rng(1).integers(1, 6, 300)
    (left, _), (right, _) = estimate(count(train, 6, 5), 2), fit(train, 6, 2)
    for a, b in zip(left.log_p, right.log_p, strict=True):
        assert np.array_equal(a, b)


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize(("size", "kind"), [(6, np.uint8), (100, np.uint8), (5000, np.uint16)])
def test_the_memory_that_is_asked_for_is_the_least_that_counting_needs(
    monkeypatch: pytest.MonkeyPatch, order: int, size: int, kind: type
) -> None:
    """And not far below: numpy reports its arrays to tracemalloc."""
    monkeypatch.setattr(counting, "SLICE", 1 << 13)
    ids = np.random.default_rng(1).integers(2, size, 400_000).astype(kind)
    tracemalloc.start()
    counts = count(ids, size, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    asked = TOKEN_BYTES * len(ids) + NGRAM_BYTES * sum(map(len, counts.occurrences))
    assert 0.65 * peak < asked <= peak


def test_a_text_whose_ngrams_do_not_fit_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system killed charlm without a word."""
    long = np.broadcast_to(np.uint8(3), 10**9)
    monkeypatch.setattr(counting, "free_memory", lambda: 8 * 10**9)
    with pytest.raises(EnvironmentFailure) as caught:
        fit(long, 5, 7)
    assert str(caught.value) == (
        "counting n-grams of 1,000,000,000 tokens needs at least 9.0 GB of memory, but only "
        "8.0 GB is free; expected enough for all. Use a part of the text, or shorter n-grams"
    )
    short = long[:1000]
    for free in (9_000, None):  # enough, or not known
        monkeypatch.setattr(counting, "free_memory", lambda free=free: free)
        assert fit(short, 5, 7)[0].order == 7


@pytest.mark.parametrize("documents", [False, True])
def test_a_text_with_many_ngrams_is_refused_when_that_is_known(
    monkeypatch: pytest.MonkeyPatch, documents: bool
) -> None:
    """Never for more n-grams than it turns out to have."""
    ids = np.random.default_rng(0).integers(1 if documents else 2, 10, 2000)
    sizes = [len(each) for each in count(ids, 10, 4).occurrences]
    needed = [max(9 * 2000, NGRAM_BYTES * 8), *(NGRAM_BYTES * sum(sizes[n:]) for n in (1, 2, 3))]
    asked: list[int] = []
    monkeypatch.setattr(counting, "_check_memory", lambda _, __, more: asked.append(more))
    count(ids, 10, 4)
    assert len(asked) == 4
    assert all(one <= other for one, other in zip(asked, needed, strict=True))
    assert documents or asked[2] == NGRAM_BYTES * 2 * (sizes[1] - 2)
    asked.clear()
    count(ids, 10, 4, limit=150)
    assert all(more <= NGRAM_BYTES * 150 for more in asked[1:])

"""Neural cache: it follows its formula, does not see the future, and is a distribution."""

import itertools

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, naive_nats, tiny_model

from charlm.inference.adapt.cache import (
    THETAS,
    WEIGHTS,
    Cache,
    Contexts,
    cached_nats,
    cached_tally,
    read_contexts,
    tuned,
)

V, H = 5, 3


def random_contexts(count: int = 40, seed: int = 0) -> Contexts:
    draws = np.random.default_rng(seed)
    return Contexts(
        hidden=draws.normal(size=(count, H)).astype(np.float32),
        targets=draws.integers(0, V, count),
        nats=draws.uniform(0.5, 3.0, count),
    )


def naive(contexts: Contexts, cache: Cache) -> list[float]:
    """Return the nats token by token, by the formula."""
    nats = [float(contexts.nats[0])]
    h, x = contexts.hidden.astype(np.float64), contexts.targets
    for t in range(1, len(x)):
        past = range(max(0, t - cache.size), t)
        chances = np.array([np.exp(cache.theta * h[t] @ h[i]) for i in past])
        own = sum(chances[k] for k, i in enumerate(past) if x[i] == x[t]) / chances.sum()
        plain = np.exp(-contexts.nats[t])
        nats.append(-np.log((1 - cache.weight) * plain + cache.weight * own))
    return nats


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize("theta", [0.0, 0.5, 3.0])
def test_the_cache_is_its_formula(size: int, theta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed in blocks shorter and longer than the cache."""
    contexts, cache = random_contexts(), Cache(size=size, weight=0.3, theta=theta)
    expected = naive(contexts, cache)
    for block in (1, 5, 256):
        monkeypatch.setattr("charlm.inference.adapt.cache.BLOCK", block)
        np.testing.assert_allclose(cached_nats(contexts, cache), expected, rtol=1e-5)


def test_extreme_contexts_do_not_overflow() -> None:
    contexts = random_contexts()
    contexts.hidden[20:] *= 1000.0
    assert np.isfinite(cached_nats(contexts, Cache(size=30, weight=0.5, theta=1.0))).all()


def test_the_future_is_not_seen() -> None:
    """Later tokens and contexts change no earlier nats."""
    cache = Cache(size=10, weight=0.3, theta=0.5)
    before = cached_nats(random_contexts(), cache)
    changed = random_contexts()
    changed.hidden[25:] += 1.0
    changed.targets[25:] = (changed.targets[25:] + 1) % V
    assert np.array_equal(cached_nats(changed, cache)[:25], before[:25])


def test_probabilities_of_all_tokens_sum_to_one() -> None:
    total = 0.0
    for token in range(V):
        contexts = random_contexts()
        contexts.targets[-1], contexts.nats[-1] = token, np.log(V)
        total += float(np.exp(-cached_nats(contexts, Cache(size=9, weight=0.4, theta=1.0))[-1]))
    assert total == pytest.approx(1.0, rel=1e-6)


def test_contexts_are_the_states_of_the_model() -> None:
    model = tiny_model("lstm", V)
    ids = [2, 3, 4, 2, 3, 3, 1, 4]
    contexts = read_contexts(engine(model), encoded_stream(ids))
    assert contexts.nats == pytest.approx(naive_nats(model, ids), rel=1e-5)
    documents = [[2, 3, 1], [4, 1]]
    contexts = read_contexts(engine(model), encoded_documents(documents))
    expected = [value for document in documents for value in naive_nats(model, document)]
    assert contexts.nats == pytest.approx(expected, rel=1e-5)
    assert contexts.hidden.shape == (5, H)
    np.testing.assert_allclose(
        contexts.hidden[0], contexts.hidden[3], rtol=1e-6
    )  # both begin a document
    for count in (1, 3, 4, 9):
        part = read_contexts(engine(model), encoded_documents(documents), count)
        assert part.targets.tolist() == [2, 3, 1, 4, 1][:count]
        assert part.nats == pytest.approx(expected[:count], rel=1e-5)


def test_the_best_of_the_grid_is_chosen() -> None:
    contexts = random_contexts()
    best = tuned(contexts, 7)
    least = cached_nats(contexts, best).sum()
    for weight, theta in itertools.product(WEIGHTS, THETAS):
        other = Cache(size=7, weight=weight, theta=theta)
        assert cached_nats(contexts, other).sum() >= least - 1e-9


def test_tuning_weights_the_cache_for_repetition_and_not_for_noise() -> None:
    draws = np.random.default_rng(3)
    hidden = np.tile(2 * draws.normal(size=(10, 8)), (30, 1)).astype(np.float32)
    again = Contexts(
        hidden=hidden, targets=np.tile(np.arange(10), 30), nats=np.full(300, np.log(10))
    )
    best = tuned(again, 50)
    assert best.weight == max(WEIGHTS)
    assert best.theta > 0
    assert cached_nats(again, best).sum() < 0.9 * again.nats.sum()
    noise = Contexts(
        hidden=hidden, targets=draws.integers(0, 10, 300), nats=np.full(300, np.log(10))
    )
    assert tuned(noise, 50).weight == min(WEIGHTS)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("lengths", [(700,), (1, 5, 400, 2, 300)])
def test_mixing_while_reading_equals_mixing_at_once(lengths, size: int) -> None:
    model, draws = tiny_model("lstm", V), np.random.default_rng(2)
    documents = [list(draws.integers(2, V, length)) for length in lengths]
    whole = len(documents) == 1
    text = encoded_stream(documents[0]) if whole else encoded_documents(documents)
    cache = Cache(size=size, weight=0.3, theta=0.5)
    tally = cached_tally(engine(model), text, cache)
    expected = cached_nats(read_contexts(engine(model), text), cache)
    assert tally.tokens == len(expected) == sum(lengths)
    assert tally.nats == pytest.approx(expected.sum(), rel=1e-6)

"""Mixtures of models: the formula, the best weights, never worse than the best model."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import encoded_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.mixed import MixedBackend, mixed_nats
from charlm.backends.ngram_backend import NgramBackend
from charlm.backends.softmax import log_softmax
from charlm.inference.adapt.calibration import text_logits
from charlm.inference.adapt.mixture import fit_to_ngrams, fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.ngrams.kneser_ney import fit


def drawn(models: int, tokens: int = 200, seed: int = 0) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return [draws.uniform(0.05, 6.0, tokens) for _ in range(models)]


@settings(max_examples=25)
@given(st.integers(2, 4), st.integers(0, 10**6), st.sampled_from([1.0, 0.1, 0.01]))
def test_fitted_weights_are_optimal(models: int, seed: int, spread: float) -> None:
    """At the maximum, the mean of P_k / P is at most 1, and exactly 1 if weight k is not 0.

    With a small spread the models are alike, so that plain EM takes thousands of steps.
    """
    nats = [2.0 + spread * own for own in drawn(models, seed=seed)]
    weights = np.array(fitted_weights(nats))
    assert weights.sum() == pytest.approx(1.0)
    mixed = mixed_nats(nats, list(weights))
    ratios = np.array([np.exp(mixed - own).mean() for own in nats])
    assert (ratios <= 1.0 + 1e-5).all()
    assert ratios[weights > 0.01] == pytest.approx(1.0, abs=1e-5)
    assert mixed.sum() <= min(own.sum() for own in nats) + 1e-6


def test_a_model_that_is_always_worse_gets_no_weight() -> None:
    good = drawn(1)[0]
    weights = fitted_weights([good, good + 1.0])
    assert 0.0 < weights[1] < 1e-6  # one that --with takes


def test_fixed_weights_stay_and_the_others_are_optimal() -> None:
    """With a third model fixed at 0.2, no other division of the rest is better."""
    nats = drawn(3, seed=4)
    weights = fitted_weights(nats, [None, None, 0.2])
    assert weights[2] == 0.2
    assert sum(weights) == pytest.approx(1.0)
    losses = [
        mixed_nats(nats, [0.8 - other, other, 0.2]).sum() for other in np.linspace(0.0, 0.8, 81)
    ]
    assert mixed_nats(nats, weights).sum() <= min(losses) + 1e-6


class Bigrams:
    """A network that knows the text's pairs of tokens, and is too sure of them."""

    name, logits_each, vocab_size = "bigrams", 7, 7

    def __init__(self, ids: np.ndarray, factor: float) -> None:
        counts = np.ones((7, 7))
        np.add.at(counts, (ids[:-1], ids[1:]), 1.0)
        self.logits = 3.0 * factor * np.log(counts)

    def initial_state(self, batch_size: int) -> tuple:
        return ((np.zeros((batch_size, 1)),),)

    def nats(self, inputs: np.ndarray, targets: np.ndarray, state: tuple) -> tuple:
        return -log_softmax(self.logits)[inputs, targets], state

    def distribution(self, inputs: np.ndarray, state: tuple) -> tuple:
        return self.logits[inputs], state


def test_the_mixture_with_n_grams_is_the_best_of_its_kind() -> None:
    """A network that is too sure is scaled down, and each length of context has its best weight.

    Lengths of few tokens have the weight of all.
    """
    draws, ids = np.random.default_rng(2), np.full(3000, 2)
    for place in range(2, 3000):
        last = ids[place - 1] + (ids[place - 2] if ids[place - 1] < 5 else 0)
        ids[place] = 2 + (last + draws.choice([0, 0, 0, 1, 3])) % 5
    text, ngrams = encoded_stream(ids[200:]), fit(ids[:200], 7, 6)[0]

    def losses(factor: float) -> list[np.ndarray]:
        return [text_nats(Bigrams(ids, factor), text), ngrams.text_nats(text.ids)]

    network = partial(Bigrams, ids)
    sample = replace(text_logits(network(2.0), text), scale=0.5)  # those of the factor 1
    mixing, mixed, alone = fit_to_ngrams(network, ngrams, text, sample)
    assert np.array_equal(alone, ngrams.text_nats(text.ids))
    members = [Bigrams(ids, mixing.scale), NgramBackend(ngrams)]
    mixture = MixedBackend(members, mixing.weights, mixing.by_length)
    nats, lengths = losses(mixing.scale), ngrams.text_figures(text.ids)[1]
    by_length = np.array(mixing.by_length)
    assert mixed == pytest.approx(text_nats(mixture, text))
    assert 0.2 < mixing.scale < 0.7
    for factor in (0.8 * mixing.scale, 1.0, 1.25 * mixing.scale):
        one = mixed_nats(losses(factor), fitted_weights(losses(factor)))
        assert text_nats(mixture, text).sum() < one.sum()
    usual = fitted_weights(nats)[1]
    for length in range(6):
        chosen = lengths == length
        best = fitted_weights([own[chosen] for own in nats])[1] if chosen.sum() >= 100 else usual
        assert by_length[length] == pytest.approx(best, abs=1e-6)
    assert len(set(by_length[2:].round(3))) > 2
    assert by_length[0] == pytest.approx(usual)
    mean = by_length[lengths].mean()
    assert mixing.weights == pytest.approx((1.0 - mean, mean))

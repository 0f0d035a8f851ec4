"""Mixtures of models: the formula, the best weights, never worse than the best model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.mixed import mixed_nats
from charlm.inference.adapt.mixture import fitted_weights


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

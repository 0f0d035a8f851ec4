"""Mixtures of models: the formula, the best weights, never worse than the best model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.inference.adapt.mixture import fitted_weights, mixed_nats


def drawn(models: int, tokens: int = 200, seed: int = 0) -> list[np.ndarray]:
    draws = np.random.default_rng(seed)
    return [draws.uniform(0.05, 6.0, tokens) for _ in range(models)]


def test_a_mixture_by_hand() -> None:
    """A half and an eighth, a quarter of the first: -ln(1/8 + 3/32)."""
    nats = [np.array([np.log(2.0)]), np.array([np.log(8.0)])]
    assert mixed_nats(nats, [0.25, 0.75])[0] == pytest.approx(-np.log(1 / 8 + 3 / 32))


def test_a_mixture_of_extreme_nats_does_not_overflow() -> None:
    nats = mixed_nats([np.array([900.0, 1e-9]), np.array([1e-9, 900.0])], [0.5, 0.5])
    assert nats == pytest.approx([np.log(2.0)] * 2)
    assert np.isfinite(mixed_nats([np.array([5.0]), np.array([1.0])], [1.0, 0.0])).all()


@settings(max_examples=25)
@given(st.integers(2, 4), st.integers(0, 10**6))
def test_fitted_weights_are_optimal(models: int, seed: int) -> None:
    """At the maximum, the mean of P_k / P is at most 1, and exactly 1 if weight k is not 0."""
    nats = drawn(models, seed=seed)
    weights = np.array(fitted_weights(nats))
    assert weights.sum() == pytest.approx(1.0)
    mixed = mixed_nats(nats, list(weights))
    ratios = np.array([np.exp(mixed - own).mean() for own in nats])
    assert (ratios <= 1.0 + 0.02).all()
    assert ratios[weights > 0.05] == pytest.approx(1.0, abs=0.02)
    assert mixed.sum() <= min(own.sum() for own in nats) + 1e-6


def test_a_model_that_is_always_worse_gets_no_weight() -> None:
    good = drawn(1)[0]
    weights = fitted_weights([good, good + 1.0])
    assert weights[1] < 1e-3

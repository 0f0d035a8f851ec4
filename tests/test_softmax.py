"""The softmax in float64, against sums of exponentials by math.fsum."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.softmax import log_softmax, log_sum_exp, softmax

ROWS = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-30, 30), min_size=width, max_size=width), min_size=1, max_size=4
    )
)


@given(rows=ROWS)
@settings(max_examples=100)
def test_sums_of_exponentials_are_exact_in_both_types(rows: list[list[float]]) -> None:
    """Numbers of type float32 are not added up in float32."""
    for kind in (np.float32, np.float64):
        values = np.array(rows, kind)
        expected = [math.log(math.fsum(map(math.exp, row))) for row in values.tolist()]
        for array, axis in ((values, -1), (values.T, 0)):
            np.testing.assert_allclose(log_sum_exp(array, axis), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_large_and_impossible_values_are_summed(kind: type) -> None:
    """A large value does not overflow; where nothing is possible, the sum is ln 0."""
    values = np.array([[1e30, 1e30], [-np.inf, 3.0], [-np.inf, -np.inf]], kind)
    expected = [float(values[0, 0]), 3.0, -np.inf]
    np.testing.assert_allclose(log_sum_exp(values), expected, rtol=1e-14)
    assert log_sum_exp(np.empty((2, 0), kind)).tolist() == [-np.inf] * 2


@given(rows=ROWS)
@settings(max_examples=100)
def test_probabilities_are_the_exponentials_of_their_logarithms(rows: list[list[float]]) -> None:
    """Both sum to one, whatever is added to all logits."""
    logits = np.array(rows)
    np.testing.assert_allclose(np.exp(log_softmax(logits)), softmax(logits), atol=1e-12)
    np.testing.assert_allclose(softmax(logits).sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(softmax(logits + 700), softmax(logits), atol=1e-9)

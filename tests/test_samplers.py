"""Sampling rules on four probabilities, with exact lists; draws as often as they should be."""

import math

import numpy as np
import pytest
from helpers import chi_square_fits
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.errors import UsageError
from charlm.inference.samplers import (
    RULES,
    Sampling,
    SamplingColumns,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    likeliest,
    next_distribution,
)

P = [0.1, 0.4, 0.2, 0.3]
LOGITS = np.log([P])
GONE = -math.inf


def kept(logits: np.ndarray) -> list[int]:
    return np.flatnonzero(np.isfinite(logits[0])).tolist()


def distribution(**sampling) -> list[float]:
    return next_distribution(LOGITS, Sampling(**sampling))[0].tolist()


@pytest.mark.parametrize(
    ("k", "ids"), [(0, [0, 1, 2, 3]), (1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3])]
)
def test_top_k_keeps_the_k_likeliest(k: int, ids: list[int]) -> None:
    """0 keeps all, like a k above their number; kept logits are not changed."""
    assert kept(keep_top_k(LOGITS, k)) == ids
    assert keep_top_k(LOGITS, k)[0, ids].tolist() == LOGITS[0, ids].tolist()
    assert keep_top_k(LOGITS, 99) is LOGITS


@pytest.mark.parametrize(
    ("p", "ids"),
    [
        (0.0, [1]),
        (1e-9, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.69, [1, 3]),
        (0.71, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_smallest_set_that_holds_p(p: float, ids: list[int]) -> None:
    """0.4, then 0.4 + 0.3, then 0.4 + 0.3 + 0.2."""
    assert kept(keep_top_p(LOGITS, p)) == ids


@pytest.mark.parametrize(
    ("p", "ids"),
    [(0.0, [0, 1, 2, 3]), (0.24, [0, 1, 2, 3]), (0.26, [1, 2, 3]), (0.51, [1, 3]), (1.0, [1])],
)
def test_min_p_keeps_a_fraction_of_the_likeliest(p: float, ids: list[int]) -> None:
    """A quarter of 0.4 is 0.1, half of it 0.2."""
    assert kept(keep_min_p(LOGITS, p)) == ids


@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(1, 6),
)
def test_the_likeliest_are_the_first_of_a_sort(rows: list[list[int]], count: int) -> None:
    """With ties in the order of ids."""
    values = np.where(np.array(rows) == -2, -np.inf, np.array(rows, np.float64))
    expected = np.argsort(-values, axis=1, kind="stable")[:, :count]
    kept = values.copy()
    np.testing.assert_array_equal(likeliest(values, count), expected)
    np.testing.assert_array_equal(values, kept)


def test_kept_tokens_keep_their_proportions() -> None:
    """top_k 2 of 0.4 and 0.3 is 4/7 and 3/7."""
    assert distribution() == pytest.approx(P, abs=1e-12)
    assert distribution(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=1e-12)
    assert distribution(top_p=0.8) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=1e-12)
    assert distribution(min_p=0.6) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=1e-12)
    assert distribution(top_k=3, top_p=0.5) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=1e-12)


def test_temperature_divides_the_logits() -> None:
    """At 1/2 probabilities are squared: 1, 16, 4 and 9 thirtieths; rules look before that."""
    assert distribution(temperature=0.5) == pytest.approx([1 / 30, 16 / 30, 4 / 30, 9 / 30])
    assert distribution(temperature=100, top_p=0.41)[0] == 0.0


def test_temperature_zero_takes_the_likeliest_of_the_lowest_id() -> None:
    """The first of equal tokens is chosen, in every row."""
    logits = np.array([[1.0, 5.0, 5.0], [2.0, 2.0, 2.0], [GONE, 0.0, 1.0]])
    chosen = next_distribution(logits, Sampling(temperature=0.0))
    assert chosen.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(5e-324, [0, 1, 0, 0]), (1e-30, [0, 1, 0, 0]), (1e30, [0.25] * 4), (1e308, [0.25] * 4)],
)
def test_extreme_temperatures_are_finite(temperature: float, expected: list[float]) -> None:
    """Towards the likeliest below, towards even above, never NaN (vllm#1623)."""
    assert distribution(temperature=temperature) == pytest.approx(expected, abs=1e-12)
    masked = np.array([[GONE, 3.0, GONE, 3.0]])
    chosen = next_distribution(masked, Sampling(temperature=temperature))[0]
    assert chosen.tolist() == pytest.approx([0, 0.5, 0, 0.5])


@pytest.mark.parametrize("rule", RULES)
def test_ties_are_decided_by_id(rule: str) -> None:
    """Four equal tokens: top_k 2 and top_p 0.5 keep the two lowest ids, min_p all."""
    value = {"top_k": 2, "top_p": 0.5, "min_p": 1.0}[rule]
    assert kept(RULES[rule](np.zeros((1, 4)), value)) == (
        [0, 1] if rule != "min_p" else [0, 1, 2, 3]
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("temperature", np.float32(-1)),
        ("top_k", np.int64(-1)),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    """With the value in the message; it is a ValueError as well."""
    with pytest.raises(UsageError, match=f"{name} is {value:g}; expected"):
        Sampling(**{name: value})
    with pytest.raises(ValueError, match="expected"):
        Sampling(**{name: value})


ROWS = st.lists(
    st.lists(st.floats(-50, 50) | st.just(GONE), min_size=4, max_size=4).filter(
        lambda row: max(row) > GONE
    ),
    min_size=1,
    max_size=3,
)


@given(
    rows=ROWS,
    temperature=st.just(0.0) | st.floats(1e-300, 1e300),
    top_k=st.integers(0, 6),
    top_p=st.floats(1e-300, 1.0),
    min_p=st.floats(0.0, 1.0),
)
@settings(max_examples=300)
def test_the_likeliest_token_can_always_be_sampled(rows, temperature, top_k, top_p, min_p) -> None:
    """With any rules rows sum to one, impossible tokens stay so, and the likeliest is kept."""
    logits = np.array(rows)
    before = logits.copy()
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    chosen = next_distribution(logits, sampling)
    assert np.isfinite(chosen).all()
    assert (chosen >= 0).all()
    np.testing.assert_allclose(chosen.sum(axis=1), 1.0, atol=1e-12)
    assert not chosen[np.isneginf(logits)].any()
    assert (chosen[np.arange(len(rows)), logits.argmax(axis=1)] > 0).all()
    assert np.array_equal(logits, before)
    uniform = np.full(len(rows), math.nextafter(1.0, 0.0))
    for draws in (draw(chosen, uniform), draw(chosen, 0 * uniform)):
        assert (chosen[np.arange(len(rows)), draws] > 0).all()


@given(
    rows=ROWS,
    settings_of_rows=st.lists(
        st.builds(
            Sampling,
            temperature=st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1e300]),
            top_k=st.integers(0, 6),
            top_p=st.sampled_from([1e-9, 0.5, 0.9, 1.0]),
            min_p=st.sampled_from([0.0, 0.1, 1.0]),
        ),
        min_size=9,
        max_size=9,
    ),
)
@settings(max_examples=200)
def test_rows_with_settings_of_their_own_are_those_made_alone(rows, settings_of_rows) -> None:
    """To the bit."""
    logits, own = np.array(rows), settings_of_rows[: len(rows)]
    chosen = next_distribution(logits, SamplingColumns.of(own))
    for row, sampling in enumerate(own):
        alone = next_distribution(logits[row : row + 1], sampling)
        np.testing.assert_array_equal(chosen[row : row + 1], alone)


@pytest.mark.parametrize("rule", RULES)
@given(rows=ROWS, value=st.floats(0.01, 1.0))
@settings(max_examples=50)
def test_a_rule_only_removes(rule: str, rows, value: float) -> None:
    """Logits are kept as they are or become minus infinity, and never all of them."""
    logits = np.array(rows)
    kept_logits = RULES[rule](logits, max(1, round(4 * value)) if rule == "top_k" else value)
    assert ((kept_logits == logits) | np.isneginf(kept_logits)).all()
    assert (kept_logits.max(axis=1) == logits.max(axis=1)).all()


def test_sampling_inverts_the_cumulative_distribution() -> None:
    """0.1, 0.5, 0.7 and 1.0 are the borders; a token of probability 0 is never sampled."""
    uniform = np.array([0.0, 0.099, 0.11, 0.49, 0.51, 0.69, 0.71, 0.999])
    rows = np.tile(P, (len(uniform), 1))
    assert draw(rows, uniform).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert draw(np.array([[0.0, 1.0, 0.0]] * 2), np.array([0.0, 0.9999])).tolist() == [1, 1]


@pytest.mark.parametrize("sampling", [{}, {"top_k": 3}, {"temperature": 0.7}, {"top_p": 0.5}])
def test_samples_are_as_frequent_as_their_probabilities(sampling: dict) -> None:
    """Twenty thousand draws under a fixed seed, chi-square."""
    expected = np.array(distribution(**sampling))
    uniform = np.random.default_rng(1).random(20_000)
    counts = np.bincount(draw(np.tile(expected, (len(uniform), 1)), uniform), minlength=4)
    possible = expected > 0
    assert not counts[~possible].any()
    assert chi_square_fits(counts[possible], 20_000 * expected[possible])

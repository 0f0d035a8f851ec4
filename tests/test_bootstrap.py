"""The bootstrap: its law, pairs of equal draws, intervals and p-values."""

import numpy as np
import pytest

from charlm.inference.bootstrap import DRAWS, drawn_sums, interval, sign_p


def test_sums_of_drawn_rows_have_the_mean_and_the_deviation_of_the_bootstrap() -> None:
    rows = np.random.default_rng(5).integers(0, 9, (50, 2))
    sums = drawn_sums(rows)
    assert sums.shape == (DRAWS, 2)
    assert sums.mean(axis=0) == pytest.approx(rows.sum(axis=0), rel=0.01)
    assert sums.std(axis=0) == pytest.approx(rows.std(axis=0) * 50**0.5, rel=0.05)


def test_equal_seeds_draw_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of other columns, and whatever is drawn at a time."""
    rows = np.arange(30).reshape(10, 3)
    sums = drawn_sums(rows, seed=1)
    assert np.array_equal(drawn_sums(rows + 1, seed=1), sums + 10)
    assert not np.array_equal(drawn_sums(rows, seed=2), sums)
    monkeypatch.setattr("charlm.inference.bootstrap._BLOCK", 30)
    assert np.array_equal(drawn_sums(rows, seed=1), sums)


def test_an_interval_leaves_out_a_fortieth_on_each_side() -> None:
    assert interval(np.arange(41.0)) == (1.0, 39.0)


def test_p_is_that_of_the_less_frequent_side_and_at_most_one() -> None:
    samples = np.array([-1.0, *np.ones(38)])
    assert sign_p(samples) == sign_p(-samples) == pytest.approx(2 * (1 + 1) / 40)
    assert sign_p(np.zeros(9)) == 1.0
    assert sign_p(np.ones(39)) == pytest.approx(0.05)

"""Units and tallies: figures that can be checked by hand."""

import math

import pytest

from charlm.units import Tally, perplexity


def test_a_uniform_model_over_four_symbols_has_perplexity_four() -> None:
    """Ten tokens at ln 4 nats each: 2 bits a token, perplexity 4."""
    tally = Tally(nats=10 * math.log(4), tokens=10, chars=10, bytes=20, words=5)
    assert tally.bits_per_token == pytest.approx(2.0, abs=1e-12)
    assert tally.bits_per_char == pytest.approx(2.0, abs=1e-12)
    assert tally.bits_per_byte == pytest.approx(1.0, abs=1e-12)
    assert tally.perplexity == pytest.approx(4.0, abs=1e-12)
    assert tally.word_perplexity == pytest.approx(16.0, abs=1e-12)


def test_sums_are_added_and_divided_once() -> None:
    """1 token at 1 nat and 3 tokens at 3 nats are 10/4 nats a token, not the mean of means."""
    total = Tally(nats=1, tokens=1) + Tally(nats=9, tokens=3)
    assert total.nats_per_token == 2.5


def test_oov_and_eos_are_left_out_on_request() -> None:
    """Removing the unknown (5 nats) or the end symbol (2 nats) changes sum and count."""
    tally = Tally(nats=10, tokens=5, oov=1, oov_nats=5, eos=1, eos_nats=2)
    assert tally.perplexity_without_oov == pytest.approx(math.exp(5 / 4))
    assert tally.perplexity_without_eos == pytest.approx(math.exp(8 / 4))


def test_nothing_counted_is_nan_and_overflow_is_inf() -> None:
    """No division error, no overflow error; JSON gets None."""
    assert math.isnan(Tally().perplexity)
    assert perplexity(1e9, 1) == math.inf
    assert Tally(nats=1e9, tokens=1).summary()["perplexity"] is None
    assert Tally().summary()["bits_per_char"] is None


def test_sums_rebuild_the_tally() -> None:
    """`sums` is a faithful record."""
    tally = Tally(nats=1.5, tokens=3, words=1, chars=2, bytes=4, oov=1, oov_nats=0.5, documents=1)
    assert Tally(**tally.sums()) == tally

"""Comparing runs: losses by line, a bootstrap that is right as often as it says, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, naive_nats, tiny_model, vocabulary_of

from charlm.errors import UsageError
from charlm.inference.comparison import LineNats, difference, line_nats
from charlm.units import Tally, bits

VOCABULARY = vocabulary_of("ab\n")
LINE_END = VOCABULARY.line_end
A, B = (VOCABULARY.ids[letter] for letter in "ab")
V = len(VOCABULARY)


def lines_of(nats: np.ndarray, name: str = "x") -> LineNats:
    tally = Tally(nats=float(nats.sum()), tokens=10 * len(nats), bytes=10 * len(nats))
    return LineNats(name=name, tally=tally, nats=nats, entries=("a", "b"))


def test_losses_are_cut_after_each_line_end() -> None:
    """Lines of two, one and three tokens, the last one without a line end."""
    ids = [A, LINE_END, LINE_END, B, A, B]
    model = tiny_model("lstm", V)
    found = line_nats("x", engine(model), encoded_stream(ids), VOCABULARY)
    nats = naive_nats(model, ids)
    assert found.nats == pytest.approx([sum(nats[:2]), nats[2], sum(nats[3:])], rel=1e-5)
    assert found.tally.nats == pytest.approx(found.nats.sum())


def test_documents_are_lines_that_end_with_eos() -> None:
    """As many as in a stream of the same text."""
    documents = [[A, B, 1], [B, 1], [1]]
    model = tiny_model("gru", V)
    found = line_nats("x", engine(model), encoded_documents(documents), VOCABULARY)
    expected = [sum(naive_nats(model, document)) for document in documents]
    assert found.nats == pytest.approx(expected, rel=1e-5)


def test_a_model_does_not_differ_from_itself() -> None:
    """Exactly, in every draw."""
    one = lines_of(np.arange(1.0, 9.0))
    found = difference(one, one, [10] * 8)
    assert (found.bits_per_byte, found.low, found.high, found.wins) == (0.0, 0.0, 0.0, 0.0)
    assert (found.nats_per_token, found.verdict) == (0.0, "no difference shown")


def test_differences_by_hand() -> None:
    """Two lines of 10 and 30 bytes, 2 and 6 nats less: 0.2 nats a byte in every draw."""
    first, other = lines_of(np.array([5.0, 9.0])), lines_of(np.array([3.0, 3.0]))
    found = difference(first, other, [10, 30])
    for value in (found.bits_per_byte, found.low, found.high):
        assert value == pytest.approx(bits(-0.2))
    assert (found.wins, found.verdict) == (1.0, "better")
    assert found.nats_per_token == pytest.approx(-8 / 20)
    back = difference(other, first, [10, 30])
    assert (back.bits_per_byte, back.verdict) == (-found.bits_per_byte, "worse")
    strange = replace(other, entries=("a", "c"))
    assert difference(first, strange, [10, 30]).nats_per_token is None


def test_the_interval_is_wrong_about_as_often_as_it_says() -> None:
    """Lines whose differences are noise around zero: one trial in twenty shows a difference."""
    draws = np.random.default_rng(7)
    shown = 0
    for trial in range(300):
        noise = draws.normal(size=80)
        found = difference(
            lines_of(np.zeros(80)), lines_of(noise), [10] * 80, draws=400, seed=trial
        )
        shown += found.verdict != "no difference shown"
    assert 0.02 < shown / 300 < 0.10


def test_the_same_seed_gives_the_same_interval() -> None:
    """And another seed another."""
    noise = np.random.default_rng(0).normal(size=30)
    pair = lines_of(np.zeros(30)), lines_of(noise)
    first, again, other = (difference(*pair, [9] * 30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.bits_per_byte == other.bits_per_byte


def test_texts_that_are_cut_differently_are_refused() -> None:
    """Blank lines are no documents, so that the lines do not pair."""
    with pytest.raises(UsageError, match="x reads 3 lines of 4, y 4; expected equal"):
        difference(lines_of(np.zeros(3)), lines_of(np.zeros(4), "y"), [9] * 4)

"""Comparing runs: losses by line, a bootstrap that is right as often as it says, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, naive_nats, tiny_model, vocabulary_of

from charlm.errors import UsageError
from charlm.inference.comparison import BLOCK, LineNats, difference, line_nats
from charlm.units import Tally, bits

VOCABULARY = vocabulary_of("ab\n")
LINE_END = VOCABULARY.line_end
A, B = (VOCABULARY.ids[letter] for letter in "ab")
V = len(VOCABULARY)


def lines_of(nats: np.ndarray, name: str = "x", oov: int = 0) -> LineNats:
    """Lines of ten tokens and ten bytes each."""
    tally = Tally(nats=float(nats.sum()), tokens=10 * len(nats), bytes=10 * len(nats), oov=oov)
    tokens = np.repeat(nats / 10, 10)
    return LineNats(name=name, tally=tally, nats=nats, tokens=tokens, entries=("a", "b"))


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
    one = lines_of(np.arange(1.0, 29.0))
    found = difference(one, one, [10] * 28)
    assert (found.bits_per_byte, found.low, found.high, found.wins) == (0.0, 0.0, 0.0, 0.0)
    assert (found.nats_per_token, found.verdict) == (0.0, "no difference shown")


def test_differences_by_hand() -> None:
    """Lines of 10 and 30 bytes, 2 and 6 nats less: 0.2 nats a byte in every draw."""
    first, other = (lines_of(np.tile(nats, 10)) for nats in ([5.0, 9.0], [3.0, 3.0]))
    sizes = [10, 30] * 10
    found = difference(first, other, sizes)
    for value in (found.bits_per_byte, found.low, found.high):
        assert value == pytest.approx(bits(-0.2))
    assert (found.wins, found.verdict) == (1.0, "better")
    assert (found.parts, found.block) == (20, None)
    assert found.nats_per_token == pytest.approx(-8 / 20)
    back = difference(other, first, sizes)
    assert (back.bits_per_byte, back.verdict) == (-found.bits_per_byte, "worse")
    strange = replace(other, entries=("a", "c"))
    assert difference(first, strange, sizes).nats_per_token is None


def one_line(tokens: np.ndarray, *entries: str) -> LineNats:
    tally = Tally(nats=float(tokens.sum()), tokens=len(tokens), bytes=len(tokens))
    return LineNats(
        name="x", tally=tally, nats=tokens.sum(keepdims=True), tokens=tokens, entries=entries
    )


def test_a_text_of_one_line_is_cut_into_blocks_of_tokens() -> None:
    """Two models that differ by chance: an interval with a width, around no difference."""
    noise = np.random.default_rng(3).normal(size=(2, 50 * BLOCK + 7))
    first, other = one_line(noise[0], "a"), one_line(noise[1], "a")
    found = difference(first, other, [noise.shape[1]])
    assert (found.parts, found.block) == (51, BLOCK)
    assert found.bits_per_byte == pytest.approx(bits(float((noise[1] - noise[0]).mean())))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.bits_per_byte < found.high
    assert found.verdict == "no difference shown"


@pytest.mark.parametrize(("tokens", "entries"), [(50 * BLOCK, ("b",)), (3 * BLOCK, ("a",))])
def test_where_few_parts_pair_there_is_no_verdict(tokens: int, entries: tuple[str, ...]) -> None:
    """A text of one line and other tokens, or few tokens."""
    first, other = one_line(np.ones(tokens), "a"), one_line(np.zeros(tokens), *entries)
    found = difference(first, other, [tokens])
    assert (found.low, found.high, found.verdict) == (None, None, "too few lines")
    assert found.bits_per_byte == pytest.approx(bits(-1.0))


@pytest.mark.parametrize(("oov", "verdict"), [(1, "better"), (80, "depends on the unknown tokens")])
def test_unknown_tokens_may_decide(oov: int, verdict: str) -> None:
    """A bit a byte less; at 8 bits for each of 400 bytes, 80 unknown ones cost more than that."""
    first = lines_of(np.full(40, 20.0))
    other = lines_of(first.nats - 10 * np.log(2.0), oov=oov)
    found = difference(first, other, [10] * 40)
    assert found.unknown == pytest.approx(8 * oov / 400)
    assert found.verdict == verdict


def test_a_file_that_ends_with_a_line_end_has_no_line_more() -> None:
    """Its end symbol belongs to the last line; of an empty document it is a line."""
    documents = [[A, LINE_END, 1], [1], [B, LINE_END, A, LINE_END, 1]]
    model = tiny_model("gru", V)
    found = line_nats("x", engine(model), encoded_documents(documents), VOCABULARY)
    third = naive_nats(model, documents[2])
    expected = [sum(naive_nats(model, one)) for one in documents[:2]]
    expected += [sum(third[:2]), sum(third[2:])]
    assert found.nats == pytest.approx(expected, rel=1e-5)


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

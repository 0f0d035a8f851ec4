"""Comparing runs: losses by line, and a bootstrap with the promised error rate."""

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
    """Three lines, the last without a line end."""
    ids = [A, LINE_END, LINE_END, B, A, B]
    model = tiny_model("lstm", V)
    lines = line_nats("x", engine(model), encoded_stream(ids), VOCABULARY)
    nats = naive_nats(model, ids)
    assert lines.nats == pytest.approx([sum(nats[:2]), nats[2], sum(nats[3:])], rel=1e-5)
    assert lines.tally.nats == pytest.approx(lines.nats.sum())


def test_documents_are_lines_that_end_with_eos() -> None:
    documents = [[A, B, 1], [B, 1], [1]]
    model = tiny_model("gru", V)
    lines = line_nats("x", engine(model), encoded_documents(documents), VOCABULARY)
    expected = [sum(naive_nats(model, document)) for document in documents]
    assert lines.nats == pytest.approx(expected, rel=1e-5)


def test_a_model_does_not_differ_from_itself() -> None:
    one = lines_of(np.arange(1.0, 29.0))
    result = difference(one, one, [10] * 28)
    assert (result.bits_per_byte, result.low, result.high, result.wins) == (0.0, 0.0, 0.0, 0.0)
    assert (result.nats_per_token, result.verdict) == (0.0, "no difference shown")


def test_a_difference_by_hand() -> None:
    """Lines of 10 and 30 bytes with 2 and 6 nats less: 0.2 nats a byte."""
    first, other = (lines_of(np.tile(nats, 10)) for nats in ([5.0, 9.0], [3.0, 3.0]))
    sizes = [10, 30] * 10
    result = difference(first, other, sizes)
    for value in (result.bits_per_byte, result.low, result.high):
        assert value == pytest.approx(bits(-0.2))
    assert (result.wins, result.verdict) == (1.0, "better")
    assert (result.parts, result.block) == (20, None)
    assert result.nats_per_token == pytest.approx(-8 / 20)
    back = difference(other, first, sizes)
    assert (back.bits_per_byte, back.verdict) == (-result.bits_per_byte, "worse")
    strange = replace(other, entries=("a", "c"))
    assert difference(first, strange, sizes).nats_per_token is None


def one_line(tokens: np.ndarray, *entries: str) -> LineNats:
    tally = Tally(nats=float(tokens.sum()), tokens=len(tokens), bytes=len(tokens))
    return LineNats(
        name="x", tally=tally, nats=tokens.sum(keepdims=True), tokens=tokens, entries=entries
    )


def test_a_text_of_one_line_is_cut_into_blocks_of_tokens() -> None:
    """Two models that differ by chance only."""
    noise = np.random.default_rng(3).normal(size=(2, 50 * BLOCK + 7))
    first, other = one_line(noise[0], "a"), one_line(noise[1], "a")
    result = difference(first, other, [noise.shape[1]])
    assert (result.parts, result.block) == (51, BLOCK)
    assert result.bits_per_byte == pytest.approx(bits(float((noise[1] - noise[0]).mean())))
    assert result.low < result.bits_per_byte < result.high
    assert result.verdict == "no difference shown"


@pytest.mark.parametrize(("tokens", "entries"), [(50 * BLOCK, ("b",)), (3 * BLOCK, ("a",))])
def test_few_parts_give_no_verdict(tokens: int, entries: tuple[str, ...]) -> None:
    """One line with other tokens, or few tokens."""
    first, other = one_line(np.ones(tokens), "a"), one_line(np.zeros(tokens), *entries)
    result = difference(first, other, [tokens])
    assert (result.low, result.high, result.verdict) == (None, None, "too few lines")
    assert result.bits_per_byte == pytest.approx(bits(-1.0))


@pytest.mark.parametrize(("oov", "verdict"), [(1, "better"), (80, "depends on the unknown tokens")])
def test_unknown_tokens_may_decide_the_comparison(oov: int, verdict: str) -> None:
    """One bit a byte less, but 8 bits for each unknown byte."""
    first = lines_of(np.full(40, 20.0))
    other = lines_of(first.nats - 10 * np.log(2.0), oov=oov)
    result = difference(first, other, [10] * 40)
    assert result.unknown == pytest.approx(8 * oov / 400)
    assert result.verdict == verdict


def test_a_final_line_end_adds_no_line() -> None:
    """The end symbol belongs to the last line."""
    documents = [[A, LINE_END, 1], [1], [B, LINE_END, A, LINE_END, 1]]
    model = tiny_model("gru", V)
    lines = line_nats("x", engine(model), encoded_documents(documents), VOCABULARY)
    third = naive_nats(model, documents[2])
    expected = [sum(naive_nats(model, one)) for one in documents[:2]]
    expected += [sum(third[:2]), sum(third[2:])]
    assert lines.nats == pytest.approx(expected, rel=1e-5)


def test_the_interval_has_its_error_rate() -> None:
    """Noise around zero shows a difference in one of twenty trials."""
    draws = np.random.default_rng(7)
    shown = 0
    for trial in range(300):
        noise = draws.normal(size=80)
        result = difference(
            lines_of(np.zeros(80)), lines_of(noise), [10] * 80, draws=400, seed=trial
        )
        shown += result.verdict != "no difference shown"
    assert 0.02 < shown / 300 < 0.10


def test_the_same_seed_gives_the_same_interval() -> None:
    noise = np.random.default_rng(0).normal(size=30)
    pair = lines_of(np.zeros(30)), lines_of(noise)
    first, again, other = (difference(*pair, [9] * 30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.bits_per_byte == other.bits_per_byte


def test_texts_with_different_lines_are_refused() -> None:
    """Blank lines are no documents."""
    with pytest.raises(UsageError, match="x reads 3 lines of 4, y 4; expected equal"):
        difference(lines_of(np.zeros(3)), lines_of(np.zeros(4), "y"), [9] * 4)

"""Scores of sentences: each its own, in order, token by token, ranks by brute force."""

import math

import pytest
import torch
from helpers import CORPUS, engine, naive_nats, tiny_model, uniform_model, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.text_units import TEXT_UNITS
from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer, read_tokens
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.units import Tally

TEXTS = ["the cat", "", "a dog sat on the mat", "zebra!", "the cat", "naïve 猫"]
VOCABULARIES = {unit: vocabulary_of(CORPUS, unit) for unit in TEXT_UNITS}
MODELS = {
    unit: tiny_model("lstm", len(vocabulary), scale=3.0)
    for unit, vocabulary in VOCABULARIES.items()
}
every_unit = pytest.mark.parametrize("unit", TEXT_UNITS)
either_end = pytest.mark.parametrize("end", [True, False])


def scorer(unit: str = "char", *, end: bool = True, carry: bool = False) -> Scorer:
    boundaries = Boundaries(document="file" if end else "stream")
    return Scorer(engine(MODELS[unit]), VOCABULARIES[unit], boundaries, carry=carry)


def ids_of(unit: str, text: str, end: bool) -> list[int]:
    return VOCABULARIES[unit].encode(text).tolist() + [EOS] * end


def in_batches(over: Scorer, size: int) -> list[Score]:
    parts = [TEXTS[start : start + size] for start in range(0, len(TEXTS), size)]
    return [score for part in parts for score in over.score(part)]


def nats_of(scores: list[Score]) -> list[float]:
    return [score.tally.nats for score in scores]


@every_unit
@either_end
def test_scores_are_in_the_order_of_the_texts(unit: str, end: bool) -> None:
    """Each equals the score of that text alone, token by token, however long the others are."""
    scores = scorer(unit, end=end).score(TEXTS)
    assert [score.text for score in scores] == TEXTS
    for text, score in zip(TEXTS, scores, strict=True):
        expected = sum(naive_nats(MODELS[unit], ids_of(unit, text, end)))
        assert score.tally.nats == pytest.approx(expected, abs=1e-4)
        assert score.log_probability == -score.tally.nats


@every_unit
def test_a_text_scores_the_same_alone_and_in_a_batch(unit: str) -> None:
    """Batches of any size and order agree to 1e-5; nothing is kept between texts."""
    together = nats_of(scorer(unit).score(TEXTS))
    alone = [nats_of(scorer(unit).score([text]))[0] for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5, rel=1e-5)
    turned = nats_of(scorer(unit).score(TEXTS[::-1]))
    assert turned[::-1] == pytest.approx(together, abs=1e-5, rel=1e-5)
    for size in (1, 2, 100):
        parts = in_batches(scorer(unit), size)
        assert nats_of(parts) == pytest.approx(together, abs=1e-5, rel=1e-5)


def test_the_end_symbol_counts_only_if_the_model_has_learnt_one() -> None:
    """With `end` one token, character and byte more: the line end that it stands for."""
    with_end, without = (scorer(end=end).score(["naïve"])[0].tally for end in (True, False))
    assert (with_end.tokens, with_end.chars, with_end.bytes, with_end.eos) == (6, 6, 7, 1)
    assert (without.tokens, without.chars, without.bytes, without.eos) == (5, 5, 6, 0)
    assert (with_end.words, with_end.documents) == (1, 1)
    assert with_end.nats - without.nats == pytest.approx(with_end.eos_nats, abs=1e-5)


def test_an_empty_text_scores_the_end_after_the_beginning() -> None:
    """log P(EOS | start) if texts end; nothing if they do not."""
    ended = scorer(end=True).score([""], by="token")[0]
    assert ended.tally.tokens == 1
    assert ended.tally.nats == pytest.approx(naive_nats(MODELS["char"], [EOS])[0], abs=1e-5)
    assert [token.token for token in ended.tokens] == ["<eos>"]
    endless = scorer(end=False).score([""], by="token")[0]
    assert (endless.tally, endless.tokens) == (Tally(documents=1), ())
    assert scorer().score([]) == []


@either_end
@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_carried_texts_score_as_one_stream(unit: str, end: bool) -> None:
    """score(ab) = score(a) + score(b | a); ends between them, if any, are part of the stream."""
    carried = scorer(unit, end=end, carry=True).score(TEXTS)
    ids = [index for text in TEXTS for index in ids_of(unit, text, end)]
    expected = naive_nats(MODELS[unit], ids)
    assert sum(nats_of(carried)) == pytest.approx(sum(expected), abs=1e-3)
    start = 0
    for text, score in zip(TEXTS, carried, strict=True):
        stop = start + len(ids_of(unit, text, end))
        assert score.tally.nats == pytest.approx(sum(expected[start:stop]), abs=1e-4)
        start = stop


@every_unit
def test_carried_lines_have_their_line_ends_between_them(unit: str) -> None:
    """For a model of a stream, the sum over the lines is the score of the text."""
    plain = Scorer(engine(MODELS[unit]), VOCABULARIES[unit], STREAM, carry=True, lines=True)
    known = not VOCABULARIES[unit].unknown("\n")
    ids = [index for text in TEXTS for index in ids_of(unit, text + "\n" * known, end=False)]
    scores = plain.score(TEXTS, by="token")
    assert sum(nats_of(scores)) == pytest.approx(sum(naive_nats(MODELS[unit], ids)), abs=1e-3)
    assert [score.text for score in scores] == list(TEXTS)
    assert sum(len(score.tokens) for score in scores) == len(ids)


def test_carried_texts_may_come_in_any_batches() -> None:
    """The state outlives the call."""
    whole = nats_of(scorer(carry=True).score(TEXTS))
    for size in (1, 2):
        assert nats_of(in_batches(scorer(carry=True), size)) == pytest.approx(whole, abs=1e-5)


@every_unit
@either_end
@pytest.mark.parametrize("carry", [False, True])
def test_tokens_sum_to_their_text(unit: str, end: bool, carry: bool) -> None:
    """Their number, nats and unknowns are those of the tally; asking for them changes no score."""
    plain = scorer(unit, end=end, carry=carry).score(TEXTS)
    detailed = scorer(unit, end=end, carry=carry).score(TEXTS, by="token")
    for text, bare, score in zip(TEXTS, plain, detailed, strict=True):
        assert bare.tokens == ()
        assert bare.tally == score.tally
        assert sum(token.nats for token in score.tokens) == pytest.approx(score.tally.nats)
        assert [token.id for token in score.tokens] == ids_of(unit, text, end)
        assert sum(token.oov for token in score.tokens) == score.tally.oov
        assert all(token.oov == (token.id == UNK) for token in score.tokens)
        if unit in ("char", "word"):
            assert "".join(token.token for token in score.tokens).removesuffix("<eos>") == text


@pytest.mark.parametrize("carry", [False, True])
def test_ranks_are_those_of_brute_force(carry: bool) -> None:
    """One more than how many tokens were likelier, from the state that the token was read in."""
    model = MODELS["char"]
    state, last = None, EOS
    for score in scorer(carry=carry).score(TEXTS, by="token"):
        if not carry:
            state, last = None, EOS
        for token in score.tokens:
            with torch.no_grad():
                logits, state = model(torch.tensor([[last]]), state)
            values = logits[0, 0].tolist()
            assert token.rank == 1 + sum(value > values[token.id] for value in values)
            last = token.id


@every_unit
@pytest.mark.parametrize("carry", [False, True])
def test_entropy_is_that_of_the_full_distribution(unit: str, carry: bool) -> None:
    """Each token has -sum P ln P of the distribution that predicted it; nats and ranks stay."""
    model, plain = MODELS[unit], scorer(unit, carry=carry).score(TEXTS, by="token")
    over = scorer(unit, carry=carry)
    over.entropy = True
    state, last = None, EOS
    for score, before in zip(over.score(TEXTS, by="token"), plain, strict=True):
        if not carry:
            state, last = None, EOS
        assert [(t.nats, t.rank) for t in score.tokens] == [(t.nats, t.rank) for t in before.tokens]
        for token in score.tokens:
            with torch.no_grad():
                logits, state = model(torch.tensor([[last]]), state)
            expected = torch.distributions.Categorical(logits=logits[0, 0].double()).entropy()
            assert token.entropy == pytest.approx(expected.item(), abs=1e-5)
            last = token.id


@pytest.mark.parametrize("step", [1, 3, 256])
def test_ranks_do_not_depend_on_how_many_are_read_at_once(step: int) -> None:
    """The pieces carry the state; equal logits share the best rank."""
    ids = VOCABULARIES["char"].encode("the cat sat").astype("int64")
    model, uniform = engine(MODELS["char"]), engine(uniform_model(len(VOCABULARIES["char"])))
    expected = read_tokens(model, ids, model.ranks)
    assert read_tokens(model, ids, model.ranks, step=step).tolist() == expected.tolist()
    assert set(read_tokens(uniform, ids, uniform.ranks).tolist()) == {1}


def test_unknown_tokens_are_flagged_and_can_be_left_out() -> None:
    """Both perplexities, with and without; never infinite in silence."""
    score = scorer().score(["zebra"], by="token")[0]
    flags = [token.oov for token in score.tokens]
    assert flags == [True, False, True, True, False, False]
    assert score.tally.oov == 3
    outside = sum(token.nats for token in score.tokens if token.oov)
    assert score.tally.oov_nats == pytest.approx(outside)
    assert math.isfinite(score.tally.perplexity_without_oov)


def test_a_uniform_model_scores_all_texts_alike() -> None:
    """ln V for each token and the end."""
    vocabulary = VOCABULARIES["char"]
    uniform = Scorer(
        engine(uniform_model(len(vocabulary))), vocabulary, Boundaries(document="file")
    )
    for score in uniform.score(TEXTS):
        expected = (len(score.text) + 1) * math.log(len(vocabulary))
        assert score.tally.nats == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("unit", TEXT_UNITS)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=4))
@settings(max_examples=25)
def test_any_text_can_be_scored(unit: str, texts: list[str]) -> None:
    """Any Unicode: finite, one score a text, its own counts."""
    for text, score in zip(texts, scorer(unit).score(texts, by="token"), strict=True):
        assert math.isfinite(score.tally.nats)
        assert score.tally.bytes == len(text.encode()) + 1
        assert len(score.tokens) == score.tally.tokens

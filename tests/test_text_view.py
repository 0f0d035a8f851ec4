"""Texts as models read them: their parts join to the text, their bits are those of the score."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import CORPUS, engine, tiny_model, vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.errors import CorpusError, UsageError
from charlm.inference.scoring import Scorer
from charlm.inference.words import WordRule
from charlm.inspect.text_view import (
    TextView,
    differences,
    token_places,
    view_text,
)
from charlm.listing import Part
from charlm.runs.run import Run
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import bits

UNITS = {
    "char": {},
    "folded": {"lowercase": True, "normalize": "nfc"},
    "byte": {"unit": "byte"},
    "text": {"unit": "word", "words": "text"},
    "blank": {"unit": "word", "words": "whitespace"},
    "bpe": {"unit": "bpe", "max_size": 300},
}
DOCUMENTS = ("stream", "line", "paragraph")
every_unit = pytest.mark.parametrize("unit", UNITS)


def run_of(unit: str = "char", document: str = "stream", *, backward: bool = False) -> Run:
    """Return an untrained model of a unit."""
    vocabulary = vocabulary_of(**UNITS[unit])
    rules = Boundaries(document=document, line_end_is_eos=vocabulary.line_ends_are_eos)
    backend = engine(tiny_model(vocab_size=len(vocabulary), scale=3.0))
    read = BackwardVocabulary(vocabulary) if backward else vocabulary
    return Run(path=Path("x"), backend=backend, vocabulary=read, boundaries=rules, config={})


def scorer_of(run: Run, **rules) -> Scorer:
    return Scorer(run.backend, run.vocabulary, run.boundaries, word_rule=WordRule(**rules))


def view_of(run: Run, text: str, top: int = 0) -> TextView:
    return view_text(run, scorer_of(run), text, top=top)


RUNS = {(unit, document): run_of(unit, document) for unit in UNITS for document in DOCUMENTS}


@every_unit
@pytest.mark.parametrize("document", DOCUMENTS)
@settings(max_examples=10)
@given(st.text(st.sampled_from("ab Äe\u0301猫\n\t'.\u202e👩\u200d"), max_size=12))
@example(CORPUS)
@example("")
@example("  two  blanks  ")
@example("a\r\nb\n\n\nc\n")
def test_the_tokens_join_to_the_text(unit: str, document: str, text: str) -> None:
    """Line ends are kept, up to the last one of a model of lines."""
    run = RUNS[unit, document]
    view = view_of(run, text)
    read = run.boundaries.scored_text(text)
    marked = read.replace("\r\n", "\n") if document == "line" else read
    assert view.text == "".join(part.text for part in view.parts) == marked
    total = math.fsum(token.bits for token in view.tokens)
    assert total == pytest.approx(bits(view.tally.nats))
    assert math.fsum(part.bits for part in view.parts) == pytest.approx(total)


@every_unit
def test_a_model_that_reads_backward_is_shown_in_the_order_of_the_text(unit: str) -> None:
    """The bits are those of the score, whose tokens are in the order of reading."""
    run = run_of(unit, "line", backward=True)
    view = view_of(run, "the cat\nsat Äh")
    assert view.text == "the cat\nsat Äh"
    (score,) = scorer_of(run).score(["the cat\nsat Äh"], by="token")
    ids = [token.id for token in score.tokens]
    assert [token.id for token in view.tokens] == [*ids[:-1][::-1], ids[-1]]


@every_unit
@pytest.mark.parametrize("document", ["stream", "line"])
def test_alternatives_are_the_distribution_in_the_place_of_a_token(
    unit: str, document: str
) -> None:
    """All of them sum to 1; the token itself is one of them, at its rank."""
    run = RUNS[unit, document]
    view = view_of(run, "the cat\nsat on", top=len(run.vocabulary))
    for token in view.tokens:
        chances = [chance for _, chance in token.alternatives]
        assert math.fsum(chances) == pytest.approx(1.0)
        assert chances == sorted(chances, reverse=True)
        assert chances[token.rank - 1] == pytest.approx(2.0**-token.bits, rel=1e-4)
    assert [len(token.alternatives) for token in view_of(run, "the", 3).tokens] == [3] * len(
        view_of(run, "the").tokens
    )


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("document", DOCUMENTS)
@every_unit
def test_figures_do_not_depend_on_the_alternatives(
    unit: str, document: str, backward: bool
) -> None:
    """The tokens are read in another way then: one after another, with all logits."""
    run = run_of(unit, document, backward=backward)
    for text in ("", "the cat\nsat on\n\nit"):
        plain, full = (view_of(run, text, top).tokens for top in (0, 2))
        assert [t._replace(bits=0.0, alternatives=()) for t in full] == [
            t._replace(bits=0.0) for t in plain
        ]
        assert [t.bits for t in full] == pytest.approx([t.bits for t in plain], abs=1e-5)


def test_alternatives_are_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes from one to the next."""
    whole = view_of(RUNS["char", "stream"], "the cat", top=3).tokens
    monkeypatch.setattr("charlm.inspect.hidden.window_length", lambda *_: 2)
    cut = view_of(RUNS["char", "stream"], "the cat", top=3).tokens
    for token, other in zip(cut, whole, strict=True):
        assert [name for name, _ in token.alternatives] == [name for name, _ in other.alternatives]
        chances = [chance for _, chance in other.alternatives]
        assert [chance for _, chance in token.alternatives] == pytest.approx(chances, rel=1e-5)


def test_the_rest_of_a_character_has_no_text_of_its_own() -> None:
    """A character of two bytes is one part, with the bits of both."""
    view = view_of(RUNS["byte", "stream"], "aÄb")
    assert [token.text for token in view.tokens] == ["a", "Ä", "", "b"]
    first, second, third, last = [token.bits for token in view.tokens]
    assert [part.text for part in view.parts] == ["a", "Ä", "b"]
    assert [part.bits for part in view.parts] == pytest.approx([first, second + third, last])


def test_blanks_at_the_end_belong_to_the_last_token_of_the_text() -> None:
    """So the EOS is shown as an end; it has them only if there is no other token."""
    run = RUNS["blank", "line"]
    assert [token.text for token in view_of(run, "the cat  ").tokens] == ["the", " cat  ", ""]
    assert [token.text for token in view_of(run, "  ").tokens] == ["  "]


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(CorpusError, match="half of a surrogate pair"):
        view_of(RUNS["char", "stream"], "a\ud800")


@every_unit
@pytest.mark.parametrize("text", ["the cat  sat.", " the\tcat ", "", "Äh, don't – naïve 猫"])
def test_words_join_to_the_text(unit: str, text: str) -> None:
    """The blank before a word belongs to it, what follows the last one to that."""
    run = RUNS[unit, "stream"]
    (score,) = scorer_of(run, boundary="leading").score([text], by="word")
    parts = score.word_parts
    assert "".join(part.text for part in parts) == (text if score.words else "")
    assert [part.text.strip() for part in parts] == [word.word for word in score.words]


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("backward", [False, True])
def test_a_notebook_shows_scored_tokens_in_the_order_of_the_text(
    document: str, backward: bool
) -> None:
    """Also of a model that reads backward; the end of a document stays last."""
    run = run_of("char", document, backward=backward)
    scores = scorer_of(run).score(["the cat", ""], by="token")
    end = "" if document == "stream" else "<eos>"
    parts = [part for row in scores.shown_rows() for part in getattr(row["text"], "parts", ())]
    assert "".join(part.text for part in parts) == f"the cat{end}{end}"
    nats = {token.token: token.nats for token in scores[0].tokens}
    assert all(part.bits == bits(nats[part.text]) for part in parts[:7] if part.text in "hec ")


@pytest.mark.parametrize("unit", ["char", "byte", "bpe", "text"])
def test_two_models_compare_by_what_both_cut_out(unit: str) -> None:
    """The parts join to the text, and their bits sum to those of each model."""
    text = "the cat sat on the mat.\nÄh, don't"
    own, other = view_of(RUNS["char", "stream"], text), view_of(RUNS[unit, "stream"], text)
    parts = differences(own.parts, other.parts)
    assert "".join(part.text for part in parts) == text
    assert len(parts) == len(other.parts if unit in ("bpe", "text") else own.parts)
    for view, name in ((own, "bits"), (other, "other_bits")):
        sums = math.fsum(getattr(part, name) for part in parts)
        assert sums == pytest.approx(math.fsum(part.bits for part in view.parts))
    assert all(part.difference == 0.0 for part in differences(own.parts, own.parts))


def test_an_end_counts_only_if_both_models_score_it() -> None:
    ended, open_end = [Part("a", 1.0), Part("", 4.0)], [Part("a", 3.0)]
    assert [part.difference for part in differences(ended, open_end)] == [-2.0]
    assert [part.difference for part in differences(ended, ended)] == [0.0]
    assert differences(ended, ended)[0].bits == 5.0
    assert differences([], []) == []


def test_different_texts_are_not_compared() -> None:
    with pytest.raises(UsageError, match="read this text differently"):
        differences([Part("a", 1.0)], [Part("b", 1.0)])


def hidden_of(ids: list[int], lengths: list[int]) -> SimpleNamespace:
    """Return what `token_places` reads of the values of units on tokens of these lengths."""
    return SimpleNamespace(tokens=np.array(ids), cuts=np.cumsum([0, *lengths]))


def test_a_token_has_the_value_of_a_unit_after_it() -> None:
    """The EOS at the end has none. Line ends between paragraphs may be one token of the units."""
    view = view_of(RUNS["char", "line"], "the")
    ids = [token.id for token in view.tokens]
    assert token_places(view, hidden_of(ids[:-1], [1, 1, 1])) == [0, 1, 2, -1]
    view = view_of(RUNS["char", "stream"], "t\n\nh")
    first, end, _, last = (token.id for token in view.tokens)
    assert token_places(view, hidden_of([first, end, end, last], [1, 1, 1, 1])) == [0, 1, 2, 3]
    assert token_places(view, hidden_of([first, EOS, last], [1, 2, 1])) == [0, 0, 1, 2]
    assert token_places(view_of(RUNS["char", "stream"], ""), hidden_of([], [])) == []

"""Hidden values: laws over every unit, document and cell, and what a user may ask for."""

import math
import pickle
from dataclasses import asdict
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from helpers import CORPUS, STRUCTURES, engine, tiny_model, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.api.model import Model
from charlm.backends.mixed import MixedBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.config.cells import CELLS
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import UsageError, naming
from charlm.inspect import hidden as module
from charlm.inspect.hidden import Hidden, read_hidden, unit_number
from charlm.ngrams.kneser_ney import fit
from charlm.runs import layout
from charlm.runs.run import Run
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.units import bits

TEXT = 'The cat "sat".\n\nÄh, naïve 猫!\r\nthe dog\n'
PLACE = Path(__file__).parent / "fixtures" / "format-1"
"""A folder with the files of a run, whose stamps a model takes."""
every_unit = pytest.mark.parametrize("unit", TEXT_UNITS)
every_document = pytest.mark.parametrize("document", ["stream", "line", "paragraph", "file"])


@cache
def run_of(
    cell: str = "lstm",
    unit: str = "char",
    document: str = "stream",
    *,
    backward: bool = False,
    **vocabulary_settings: str,
) -> Run:
    """Return a run in memory whose predictions differ from token to token."""
    vocabulary = vocabulary_of(CORPUS + TEXT, unit, **vocabulary_settings)
    model = tiny_model(cell, len(vocabulary), scale=3.0, **one_hot_size(cell, len(vocabulary)))
    return Run(
        path=PLACE,
        backend=engine(model),
        vocabulary=BackwardVocabulary(vocabulary) if backward else vocabulary,
        boundaries=Boundaries(
            document=document, line_end_is_eos=vocabulary.line_ends_are_eos, crlf=False
        ),
        config={"model": asdict(model.settings)},
    )


def one_hot_size(cell: str, size: int) -> dict[str, int]:
    return {"embedding_size": size} if cell == "one-hot" else {}


def assert_equal(hidden: Hidden, other: Hidden, part: slice = slice(None)) -> None:
    """Compare all values of `hidden` with those of a part of another text."""
    assert hidden.tokens.tolist() == other.tokens[part].tolist()
    for name, values in hidden.signals.items():
        np.testing.assert_allclose(values, other.signals[name][:, part], atol=1e-5)


def assert_state(state, expected) -> None:
    for layer, other in zip(state, expected, strict=True):
        for array, right in zip(layer, other, strict=True):
            np.testing.assert_allclose(array, right, atol=1e-6)


# ------------------------------------------------------------------ laws


@every_unit
@every_document
@pytest.mark.parametrize("backward", [False, True])
def test_pieces_join_to_the_text_and_the_last_values_are_the_state(
    unit: str, document: str, backward: bool
) -> None:
    model = Model(run_of(unit=unit, document=document, backward=backward))
    around = ["\n"] if document != "paragraph" else []  # `state` drops it: it ends no paragraph
    for text in (TEXT.rstrip("\n"), TEXT + "cat", "\n\nA", "cat\n\n", "cat", "", *around):
        hidden = model.hidden(text)
        assert "".join(hidden.pieces) == text
        assert len(hidden.pieces) == len(hidden) == len(hidden.cuts) - 1
        assert_state(hidden.after.hidden, model.state(text).hidden)
        log_probabilities = model.state(text).log_probabilities
        np.testing.assert_allclose(hidden.after.log_probabilities, log_probabilities, atol=1e-5)
        if len(hidden):
            newest = 0 if backward else -1
            last = [layer[0][0] for layer in hidden.after.hidden]
            np.testing.assert_allclose(hidden.signals["h"][:, newest], last, atol=1e-6)


@pytest.mark.parametrize(
    ("unit", "document", "pieces"),
    [
        ("char", "line", ["a", "\r\n", "t", "\n", "\r\n", "c"]),
        ("char", "paragraph", ["a", "\r\n\r\n\n", "t", "\r\n", "c", "\n\n", "\r"]),
        ("byte", "stream", ["a", "Ä", "", "t", "猫", "", "", "!"]),
        ("word", "stream", ["the", "  cat", " \n", " sat "]),
        ("word", "line", ["the", " cat", " \n", "sat"]),
    ],
)
def test_each_token_has_its_piece_of_the_text(unit: str, document: str, pieces: list[str]) -> None:
    """Line ends of two characters and several bytes of one too."""
    vocabulary = {"words": "whitespace"} if unit == "word" else {}
    hidden = read_hidden(run_of(unit=unit, document=document, **vocabulary), "".join(pieces))
    assert hidden.pieces == pieces
    assert hidden.cuts.tolist() == [0, *accumulate(map(len, pieces))]


@pytest.mark.parametrize("cell", [*CELLS, *STRUCTURES])
def test_a_text_in_two_parts_is_the_text_at_once(cell: str) -> None:
    run = run_of(cell)
    signals = CELLS[run.config["model"]["cell"]].signals
    whole = read_hidden(run, TEXT, signals)
    for cut in (0, 9):
        first = read_hidden(run, TEXT[:cut], signals)
        second = read_hidden(run, TEXT[cut:], signals, first.after)
        assert_equal(first, whole, slice(cut))
        assert_equal(second, whole, slice(cut, None))
        assert_state(second.after.hidden, whole.after.hidden)


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=12), st.text("ab\n", max_size=12))
@settings(max_examples=8)
def test_later_text_moves_nothing_earlier(text: str, more: str, other: str) -> None:
    """And a line does not know the lines before it."""
    run = RUNS["line"]
    first, second = (read_hidden(run, text + rest) for rest in (more, other))
    for values, others in zip(first.signals.values(), second.signals.values(), strict=True):
        np.testing.assert_allclose(values[:, : len(text)], others[:, : len(text)], atol=1e-6)
    alone = read_hidden(run, more)
    assert_equal(alone, read_hidden(run, text + "\n" + more), slice(len(text) + 1, None))


RUNS = {document: run_of(document=document) for document in ("stream", "line")}


@every_unit
@every_document
@pytest.mark.parametrize("backward", [False, True])
def test_predictions_are_those_of_the_score(unit: str, document: str, backward: bool) -> None:
    """All entries have probabilities that sum to 1, and that of the token gives its surprisal."""
    run = run_of(unit=unit, document=document, backward=backward)
    text = "cat sat\nnaïve" if document == "line" else "cat sat naïve"
    hidden, surprisals = read_hidden(run, text), Model(run).surprisal(text)
    ids, chances = hidden.top(len(run.vocabulary) + 5)
    assert ids.shape == chances.shape == (len(hidden), len(run.vocabulary))
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-9)
    assert (np.diff(chances, axis=1) <= 0).all()
    places = np.argmax(ids == hidden.tokens[:, None], axis=1)
    own = chances[np.arange(len(hidden)), places]
    np.testing.assert_allclose(-np.log2(own), surprisals.bits[: len(hidden)], atol=1e-4)
    few, most = hidden.top(3)
    np.testing.assert_array_equal(most, chances[:, :3])
    assert few.shape == (len(hidden), 3)


@every_unit
@every_document
def test_surprisals_sum_to_the_score(unit: str, document: str) -> None:
    """Of tokens, and of words with what is between them; their pieces join to the text."""
    model = Model(run_of(unit=unit, document=document))
    text = "the cat sat\non  the mat. " if document == "line" else "the cat sat on  the mat. "
    tokens, words = model.surprisal(text), model.surprisal(text, by="word")
    score = model.score(text)[0]
    assert math.fsum(tokens.bits) == pytest.approx(bits(score.tally.nats), abs=1e-4)
    expected = [bits(word.nats) for word in model.words(text, boundary="leading")]
    assert words.bits.tolist() == pytest.approx(expected)
    for parts in (tokens, words):
        assert "".join(part.text for part in parts.shown_rows()[0]["text"].parts) == text
        assert all(part.piece == text[part.start : part.end] for part in parts)
        assert "".join(part.piece for part in parts) == text
        assert parts.rows()[0] == parts[0]._asdict()
    with pytest.raises(UsageError, match="by is 'text'; expected one of token, word"):
        model.surprisal(text, by="text")


def test_a_model_that_reads_backward_has_its_values_in_text_order() -> None:
    """They are those of a forward model on the reversed text."""
    forward, backward = run_of(), run_of(backward=True)
    text = "the dog sat"
    values, mirrored = read_hidden(backward, text), read_hidden(forward, text[::-1])
    np.testing.assert_allclose(values.signals["c"], mirrored.signals["c"][:, ::-1], atol=1e-6)
    assert values.pieces == mirrored.pieces[::-1]


def test_values_follow_the_formulas_of_the_cell() -> None:
    """c = f c + i g and h = o tanh(c), from the state before the text on."""
    run = RUNS["stream"]
    signals = CELLS["lstm"].signals
    first = read_hidden(run, "the ", signals)
    hidden = read_hidden(run, "cat sat", signals, first.after)
    own = hidden.signals
    before = np.array([layer[1] for layer in hidden.start.hidden])  # (L, 1, H)
    cells = np.concatenate([before, own["c"][:, :-1]], axis=1)
    np.testing.assert_allclose(own["c"], own["f"] * cells + own["i"] * own["g"], atol=1e-6)
    np.testing.assert_allclose(own["h"], own["o"] * np.tanh(own["c"]), atol=1e-6)


# ------------------------------------------------------------------ use


def test_a_unit_is_named_by_layer_and_number() -> None:
    hidden = read_hidden(RUNS["stream"], "cat")
    np.testing.assert_array_equal(hidden.unit("2:1"), hidden.signals["c"][1, :, 1])
    np.testing.assert_array_equal(hidden.unit("1:0", "h"), hidden.signals["h"][0, :, 0])
    assert repr(hidden) == "Hidden(3 tokens, 6 units in 2 layers, signals h, c)"
    assert unit_number("2:1", (3, 2)) == (2, 1)
    for wrong in ("2:2", "0:1", "3:0", "1", "1:-1", "a:b", "1:0 "):
        with pytest.raises(UsageError, match=r"unit is .*; expected a layer and a unit, 1:0 to"):
            unit_number(wrong, (3, 2))
    with pytest.raises(UsageError, match="expected one of h, c"):
        hidden.unit("1:0", "f")


def test_a_copy_has_the_values_without_the_model() -> None:
    """Process pools return copies, and a model's kernels cannot be copied."""
    hidden = read_hidden(RUNS["stream"], "cat", ["f", "i"])
    copy = pickle.loads(pickle.dumps(hidden))
    assert_equal(copy, hidden)
    np.testing.assert_array_equal(copy.unit("2:1"), hidden.signals["f"][1, :, 1])
    with pytest.raises(UsageError, match="has no model; call top before"):
        copy.top(2)


def test_a_cell_without_a_signal_says_which_it_has() -> None:
    run = run_of("gru")
    assert list(read_hidden(run, "cat").signals) == ["h"]
    with pytest.raises(UsageError, match="signals is 'c'; expected one of h, r, z, g"):
        read_hidden(run, "cat", ["c"])


def test_too_many_values_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 300)
    with (
        naming({"signals": "--signal"}),
        pytest.raises(UsageError, match=r"2 signals of 6 units after 7 tokens .*--signal"),
    ):
        read_hidden(RUNS["stream"], "cat sat")
    assert len(read_hidden(RUNS["stream"], "cat sat", ["h"])) == 7


def test_a_mixture_has_the_units_of_its_network_and_n_grams_have_none() -> None:
    network = RUNS["stream"]
    ids = network.vocabulary.encode(CORPUS).astype(np.int64)
    ngrams = NgramBackend(fit(ids, len(network.vocabulary), 3)[0])
    parts = {**vars(network), "backend": MixedBackend([network.backend, ngrams], [0.6, 0.4])}
    mixed = read_hidden(Run(**parts), "the cat")
    assert_equal(mixed, read_hidden(network, "the cat"))
    expected = Model(Run(**parts)).surprisal("the cat").bits
    ids, chances = mixed.top(len(network.vocabulary))
    own = chances[ids == mixed.tokens[:, None]]
    np.testing.assert_allclose(-np.log2(own), expected, atol=1e-5)
    with pytest.raises(UsageError, match="is an n-gram run, and reading its units needs"):
        read_hidden(
            Run(**{**parts, "config": {"model": {"kind": layout.NGRAM}, "kind": layout.NGRAM}}),
            "cat",
        )

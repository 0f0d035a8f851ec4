"""The n-gram backend: windows, batches and cuts change nothing, and its figures agree."""

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.interface import select_rows
from charlm.backends.ngram_backend import NgramBackend
from charlm.inference import likelihood
from charlm.inference.generation import generate
from charlm.inference.likelihood import stream_nats, text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.ngrams.model import NgramModel
from charlm.text.tokenizers.tokenizer_json import EOS

V = 6
orders = pytest.mark.parametrize("order", [1, 2, 3, 5])
DRAWN = np.random.default_rng(0)


def tokens(*shape: int) -> np.ndarray:
    return DRAWN.choice(V, shape, p=[0.05, 0.15, 0.3, 0.2, 0.2, 0.1])


TEXT = tokens(2000)


def model_of(order: int) -> NgramModel:
    return fit(TEXT, V, order)[0]


@orders
def test_rows_are_read_as_if_alone(order: int) -> None:
    """Nats of a batch are those of the model, whatever the state before the start symbol."""
    model = model_of(order)
    backend, targets = NgramBackend(model), tokens(30, 4)
    inputs = np.concatenate([np.full((1, 4), EOS), targets[:-1]])
    for state in (
        backend.initial_state(4),
        backend.logits(tokens(9, 4), backend.initial_state(4))[1],
    ):
        nats, _ = backend.nats(inputs, targets, state)
        for row in range(4):
            assert nats[:, row] == pytest.approx(model.text_nats(targets[:, row]), rel=1e-12)


@orders
@pytest.mark.parametrize("cut", [1, 2, 7, 29])
def test_a_cut_changes_nothing(order: int, cut: int) -> None:
    backend, inputs, targets = NgramBackend(model_of(order)), tokens(30, 3), tokens(30, 3)
    start = backend.initial_state(3)
    whole, after = backend.nats(inputs, targets, start)
    first, between = backend.nats(inputs[:cut], targets[:cut], start)
    second, end = backend.nats(inputs[cut:], targets[cut:], between)
    assert np.array_equal(np.concatenate([first, second]), whole)
    assert np.array_equal(end[0][0], after[0][0])
    assert np.array_equal(backend.logits(inputs[cut:], between)[1][0][0], after[0][0])


@orders
def test_ranks_masses_and_lengths_agree_with_the_logits(order: int, monkeypatch) -> None:
    monkeypatch.setattr("charlm.backends.ngram_backend.MAX_LOGITS", 5 * V)  # 5 tokens at a time
    model = model_of(order)
    backend, inputs, targets = NgramBackend(model), tokens(12, 2), tokens(12, 2)
    entries = np.array([True, True, False, False, True, False])
    start = backend.initial_state(2)
    nats, ranks, _ = backend.ranks(inputs, targets, start)
    _, lengths, _ = backend.lengths(inputs, targets, start)
    same, masses, _ = backend.masses(inputs, targets, entries, start)
    assert np.array_equal(same, nats)
    assert set(lengths.ravel().tolist()) <= set(range(1, order + 1))
    state = start
    for step in range(12):
        rows, state = backend.logits(inputs[step : step + 1], state)
        assert np.exp(rows).sum(axis=1) == pytest.approx(1.0)
        for row in range(2):
            own = rows[row, targets[step, row]]
            assert nats[step, row] == pytest.approx(-own)
            assert ranks[step, row] == 1 + (rows[row] > own).sum()
            assert masses[step, row] == pytest.approx(np.log(np.exp(rows[row, entries]).sum()))


@orders
def test_a_state_can_be_selected(order: int) -> None:
    backend, inputs = NgramBackend(model_of(order)), tokens(9, 3)
    _, state = backend.logits(inputs, backend.initial_state(3))
    rows, _ = backend.logits(np.array([[2]]), select_rows(state, [1]))
    every, _ = backend.logits(np.array([[2, 2, 2]]), state)
    assert np.array_equal(rows[0], every[1])


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(2, V - 1), max_size=9), min_size=1, max_size=9))
def test_documents_and_the_stream_of_them_are_the_same(documents: list[list[int]]) -> None:
    """Each document ends with EOS, which is where contexts end in a stream too."""
    model = model_of(4)
    backend = NgramBackend(model)
    ended = [[*ids, EOS] for ids in documents]
    joined = [index for ids in ended for index in ids]
    expected = pytest.approx(model.text_nats(np.array(joined)), rel=1e-12)
    assert text_nats(backend, encoded_documents(ended)) == expected
    assert text_nats(backend, encoded_stream(joined)) == expected


def test_a_long_stream_is_read_in_pieces_without_an_effect(monkeypatch) -> None:
    monkeypatch.setattr(likelihood, "MIN_PIECE", 64)
    model, ids = model_of(5), tokens(1000)
    nats, _ = stream_nats(NgramBackend(model), ids)
    assert nats == pytest.approx(model.text_nats(ids), rel=1e-12)


def test_samples_follow_the_probabilities() -> None:
    """A text that repeats itself is continued with it."""
    vocabulary = vocabulary_of("abc" * 20)
    model, _ = fit(vocabulary.encode("abc" * 200), len(vocabulary), 3)
    pieces = generate(NgramBackend(model), vocabulary, length=60, seed=1)
    text = "".join(piece.text for piece in pieces)
    assert sum(text.count(pair) for pair in ("ab", "bc", "ca")) > 50

"""The one likelihood: sums to one, and the same however a text is cut, batched or windowed."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import (
    encoded_documents,
    encoded_stream,
    engine,
    naive_nats,
    remembering_model,
    seeded,
    tiny_model,
    uniform_model,
)

from charlm.config.cells import CELLS
from charlm.inference import likelihood
from charlm.inference.likelihood import (
    document_nats,
    evaluate,
    stream_nats,
    tally,
    text_nats,
    windowed_nats,
)
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

V = 5
MODELS = {cell: tiny_model(cell, V, scale=3.0) for cell in CELLS}
MODELS["never forgets"] = remembering_model(V)
ENGINES = {name: engine(model) for name, model in MODELS.items()}
every_model = pytest.mark.parametrize("name", MODELS)


def random_ids(length: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, length)


def flat(state) -> np.ndarray:
    return np.concatenate([np.asarray(part).reshape(-1) for layer in state for part in layer])


def random_state(model) -> tuple:
    """A state as an engine takes it."""
    generator = seeded(7)
    return tuple(
        tuple(torch.randn(part.shape, generator=generator).numpy() for part in layer)
        for layer in model.initial_state(1)
    )


def tensors(state) -> tuple:
    return tuple(tuple(torch.from_numpy(part) for part in layer) for layer in state)


# ------------------------------------------------------------------ by hand


@pytest.mark.parametrize("size", [3, 5, 64])
def test_a_uniform_model_scores_log_v_for_every_token(size: int) -> None:
    """log2 V bits a token and perplexity V, on streams and documents."""
    model = engine(uniform_model(size))
    ids = np.arange(40) % size
    np.testing.assert_allclose(stream_nats(model, ids)[0], math.log(size), rtol=1e-6)
    for text in (encoded_stream(ids), encoded_documents([[0, EOS], [EOS], [2, 2, EOS]])):
        result = evaluate(model, text)
        assert result.bits_per_token == pytest.approx(math.log2(size), rel=1e-6)
        assert result.perplexity == pytest.approx(size, rel=1e-6)


@every_model
@pytest.mark.parametrize("length", [1, 2, 3])
def test_all_texts_of_a_length_share_a_probability_of_one(name: str, length: int) -> None:
    """The probabilities of all 5, 25 and 125 strings sum to one."""
    strings = [np.array(ids) for ids in itertools.product(range(V), repeat=length)]
    total = math.fsum(math.exp(-nats.sum()) for nats in document_nats(ENGINES[name], strings))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_sums_by_hand() -> None:
    """Ids UNK, 2, EOS, EOS at 1, 2, 4 and 8 nats: what is unknown, what ends, what is counted."""
    text = encoded_documents([[UNK, 2, EOS], [EOS]])
    result = tally(text, np.array([1.0, 2.0, 4.0, 8.0]))
    assert result.sums() == {
        "nats": 15.0,
        "tokens": 4,
        "words": 3,
        "chars": 4,
        "bytes": 8,
        "oov": 1,
        "oov_nats": 1.0,
        "eos": 2,
        "eos_nats": 12.0,
        "documents": 2,
    }


def test_windows_that_forget_restart_at_each_document() -> None:
    """Documents that fit into a window cost what they do in a full pass."""
    model, documents = MODELS["lstm"], [[2, 3, 4, 1], [0, 1], [2, 2, 1]]
    text = encoded_documents(documents)
    expected = naive_nats(model, [2, 3, 4]) + naive_nats(model, [1], first_input=4)
    expected += naive_nats(model, [0, 1]) + naive_nats(model, [2, 2, 1])
    np.testing.assert_allclose(windowed_nats(engine(model), text, 3), expected, atol=1e-5)
    assert evaluate(engine(model), text, reset_every=4).nats == pytest.approx(
        evaluate(engine(model), text).nats, abs=1e-5
    )


def test_windows_that_forget_by_hand() -> None:
    """reset_every 3: five tokens are read as three and two, each from the zero state."""
    model, ids = MODELS["lstm"], [2, 3, 4, 0, 1]
    expected = naive_nats(model, ids[:3]) + naive_nats(model, ids[3:], first_input=4)
    text = encoded_stream(ids)
    np.testing.assert_allclose(windowed_nats(engine(model), text, 3), expected, atol=1e-5)
    assert evaluate(engine(model), text, reset_every=3).nats == pytest.approx(
        sum(expected), abs=1e-5
    )
    assert evaluate(engine(model), text, reset_every=99).nats == pytest.approx(
        evaluate(engine(model), text).nats, abs=1e-5
    )


def test_the_softmax_does_not_overflow() -> None:
    """Logits of +-10,000 give finite nats."""
    model = tiny_model("gru", V)
    with torch.no_grad():
        model.output.bias[:] = torch.tensor([1e4, -1e4, 0.0, 0.0, 0.0])
    nats, _ = stream_nats(engine(model), np.array([0, 1, 2]))
    assert np.isfinite(nats).all()
    assert nats[0] == pytest.approx(0.0, abs=1e-6)
    assert nats[1] == pytest.approx(2e4, rel=1e-3)


# ------------------------------------------------------------------ laws


@every_model
@pytest.mark.parametrize("length", [1, 2, 100])
@pytest.mark.parametrize("rows", [1, 2, 16])
@pytest.mark.parametrize("window", [1, 7, 64])
def test_a_stream_scores_the_same_however_it_is_read(
    name: str, length: int, rows: int, window: int, monkeypatch
) -> None:
    """Rows side by side and windows of any length: the nats and state of one token at a time.

    A state that never forgets makes every piece wrong until it is read again to its end.
    """
    monkeypatch.setattr(likelihood, "MIN_PIECE", 3)
    monkeypatch.setattr(likelihood, "WINDOW", window)
    model, ids = MODELS[name], random_ids(length)
    nats, after = stream_nats(engine(model), ids, rows=rows)
    assert nats.dtype == np.float64
    np.testing.assert_allclose(nats, EXPECTED[name][:length], atol=2e-4)
    with torch.no_grad():
        _, last = model(torch.from_numpy(np.concatenate([[EOS], ids[:-1]]))[:, None])
    np.testing.assert_allclose(flat(after), flat(last), atol=2e-4, rtol=1e-5)
    assert nats.sum() == pytest.approx(sum(EXPECTED[name][:length]), rel=1e-5)


EXPECTED = {name: naive_nats(model, random_ids(100)) for name, model in MODELS.items()}


@every_model
def test_a_stream_goes_on_from_the_state_given(name: str, monkeypatch) -> None:
    """score(ab) = score(a) + score(b | a) at any cut, whatever state a itself began with."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 3)
    model, ids = MODELS[name], random_ids(40)
    start = random_state(model)
    whole, last = stream_nats(engine(model), ids, start, first_input=2)
    np.testing.assert_allclose(whole, naive_nats(model, ids, tensors(start), 2), atol=1e-4)
    for cut in (0, 1, 20, 39):
        left, between = stream_nats(engine(model), ids[:cut], start, first_input=2)
        first = int(ids[cut - 1]) if cut else 2
        right, after = stream_nats(engine(model), ids[cut:], between, first_input=first)
        np.testing.assert_allclose(np.concatenate([left, right]), whole, atol=1e-4)
        np.testing.assert_allclose(flat(after), flat(last), atol=1e-4, rtol=1e-5)


def test_reading_a_stream_leaves_the_state_given_alone(monkeypatch) -> None:
    """The state is a value: the caller may use it again."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 3)
    model = MODELS["lstm"]
    state = random_state(model)
    kept = flat(state).copy()
    stream_nats(engine(model), random_ids(40), state)
    assert (flat(state) == kept).all()
    nats, after = stream_nats(engine(model), np.empty(0, np.int64), state)
    assert nats.shape == (0,)
    assert after is state


def test_a_piece_read_a_third_time_is_held_to_its_latest_reading(monkeypatch) -> None:
    """Read from zero, from a wrong state, from zero again: the nats of the first time return.

    Held to its first reading it would stop at once, and keep what the wrong state had given.
    """
    monkeypatch.setattr(likelihood, "WINDOW", 3)
    pieces = likelihood._Pieces(ENGINES["never forgets"], random_ids(24), 2, EOS, None)
    pieces.read()
    first = pieces.nats.copy()
    for part in pieces.after[0]:
        part[0] = 5.0
    assert pieces.correct([1]) == [1]
    assert np.abs(pieces.nats - first)[1].min() > 0
    for part in pieces.after[0]:
        part[0] = 0.0
    assert pieces.correct([1]) == [1]
    np.testing.assert_allclose(pieces.nats, first, atol=1e-6)


@every_model
@pytest.mark.parametrize("rows", [1, 2, 32])
@pytest.mark.parametrize("window", [1, 4, 256])
def test_documents_score_side_by_side_what_they_score_alone(
    name: str, rows: int, window: int, monkeypatch
) -> None:
    """Each from the zero state; padding is never counted; the order is kept."""
    monkeypatch.setattr(likelihood, "WINDOW", window)
    model = MODELS[name]
    documents = [random_ids(length, seed=length) for length in (3, 0, 1, 12, 3, 7, 0)]
    found = document_nats(engine(model), documents, rows=rows)
    assert [len(nats) for nats in found] == [3, 0, 1, 12, 3, 7, 0]
    for ids, nats in zip(documents, found, strict=True):
        np.testing.assert_allclose(nats, naive_nats(model, ids), atol=1e-4)
    assert document_nats(engine(model), []) == []


@every_model
@pytest.mark.parametrize("closed", [True, False])
def test_the_tally_of_a_text_does_not_depend_on_its_reading(
    name, closed: bool, monkeypatch
) -> None:
    """Long documents are read as streams, short ones side by side: one number."""
    documents = [[*random_ids(length, length).tolist(), EOS] for length in (0, 2, 9, 5, 30, 20)]
    parts = documents if closed else [[index for document in documents for index in document]]
    text = encoded_documents(parts, is_stream=not closed)
    model = MODELS[name]
    expected = [nats for ids in parts for nats in naive_nats(model, ids)]
    for window, least, most in [(1, 3, 2), (7, 1024, 32), (64, 4, 32)]:
        monkeypatch.setattr(likelihood, "WINDOW", window)
        monkeypatch.setattr(likelihood, "MIN_PIECE", least)
        monkeypatch.setattr(likelihood, "MAX_ROWS", most)
        np.testing.assert_allclose(text_nats(engine(model), text), expected, atol=2e-4)
        result = evaluate(engine(model), text)
        assert result.nats == pytest.approx(sum(expected), rel=1e-5)
        assert result.tokens == len(text.ids)


def test_the_order_of_documents_does_not_matter() -> None:
    """The state is reset between them (char-rnn question 3): any order, the same sum."""
    documents = [[*random_ids(length, length).tolist(), EOS] for length in (4, 9, 2)]
    sums = {
        round(evaluate(ENGINES["lstm"], encoded_documents(list(order))).nats, 3)
        for order in itertools.permutations(documents)
    }
    assert len(sums) == 1


@pytest.mark.parametrize("softmaxes", [1, 3])
def test_memory_is_bounded_by_the_size_of_the_logits(softmaxes: int, monkeypatch) -> None:
    """A large vocabulary or a mixture makes shorter windows, and no other result."""
    model, ids = tiny_model("gru", V, mixture=softmaxes), random_ids(50)
    whole, _ = stream_nats(engine(model), ids)
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 3 * V)
    lengths = []
    handle = model.output.register_forward_hook(
        lambda _, __, out: lengths.append(out.numel() * softmaxes)
    )
    np.testing.assert_allclose(stream_nats(engine(model), ids)[0], whole, atol=1e-5)
    handle.remove()
    assert max(lengths) <= 3 * V


def test_scoring_draws_nothing_and_asks_for_no_gradient() -> None:
    """Evaluating in the middle of training disturbs nothing, dropout settings or not."""
    model = tiny_model("lstm", V, dropout=0.5, input_dropout=0.5).train()
    before = torch.get_rng_state()
    first = evaluate(engine(model), encoded_stream(random_ids(20)))
    assert first == evaluate(engine(model), encoded_stream(random_ids(20)))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


class Counting:
    """An engine that counts the calls and tokens that it is asked for."""

    def __init__(self, inner) -> None:
        self.inner, self.tokens, self.calls = inner, 0, 0
        self.vocab_size, self.logits_each = inner.vocab_size, inner.logits_each

    def initial_state(self, rows: int):
        return self.inner.initial_state(rows)

    def nats(self, inputs, targets, state):
        self.tokens += inputs.size
        self.calls += 1
        return self.inner.nats(inputs, targets, state)


def test_a_network_that_does_not_forget_costs_few_readings(monkeypatch) -> None:
    """Twice side by side, then row after row: three times the text, not once for each row.

    The story: a GRU early in its training took 84 of the 90 seconds of a run to be validated.
    """
    monkeypatch.setattr(likelihood, "MIN_PIECE", 8)
    ids = random_ids(32 * 8)
    counting = Counting(ENGINES["never forgets"])
    nats, _ = stream_nats(counting, ids, rows=32)
    np.testing.assert_allclose(nats, naive_nats(MODELS["never forgets"], ids), atol=2e-4)
    assert counting.tokens <= 3 * len(ids)
    counting = Counting(ENGINES["lstm"])
    stream_nats(counting, ids, rows=32)
    assert counting.tokens <= 3 * len(ids)


def test_states_are_not_kept_for_every_window() -> None:
    """A stream of any length keeps few of them, and is read as before, where rows never agree."""
    model = remembering_model(5)
    ids = np.random.default_rng(0).integers(2, 5, 4 * 1024 + 7)
    pieces = likelihood._Pieces(engine(model), ids[:4096], 4, 1, None)
    pieces.window = 8
    pieces.read()
    assert len(pieces.kept) == 16 + 3  # 0 to 15, 16, 32 and 64 of 128
    likelihood._settle(pieces)
    whole, _ = stream_nats(engine(model), ids[:4096], rows=1)
    assert np.allclose(pieces.nats.reshape(-1), whole, atol=1e-4)
    pieces.kept.clear()
    assert pieces.correct([1, 2, 3]) == []  # they end as they did before: nothing follows

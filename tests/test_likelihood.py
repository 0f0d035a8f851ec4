"""The likelihood: it sums to one and does not depend on cuts, batches or windows."""

import itertools
import math
from dataclasses import replace

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
    nats_alone,
    read_documents,
    stream_nats,
    tally,
    text_nats,
    windowed_nats,
)
from charlm.nn.torch_backend import gpu_logits
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
    """Return a random state in the form that a backend takes."""
    generator = seeded(7)
    return tuple(
        tuple(torch.randn(part.shape, generator=generator).numpy() for part in layer)
        for layer in model.initial_state(1)
    )


def tensors(state) -> tuple:
    return tuple(tuple(torch.from_numpy(part) for part in layer) for layer in state)


@pytest.mark.parametrize("window", [None, 2])
def test_documents_begin_with_their_start_symbols(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short and long ones; ids above 255 fit beside a text of bytes."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 2)
    monkeypatch.setattr(likelihood, "MAX_ROWS", 2)
    model = tiny_model("lstm", 300, scale=3.0, conditions=2)
    documents = [[3, 4, EOS], [2, 3, 4, 2, 3, 4, EOS], [EOS]]
    firsts = [301, 300, EOS]
    text = replace(encoded_documents(documents), firsts=np.array(firsts))
    expected = [
        nats
        for ids, first in zip(documents, firsts, strict=True)
        for begin in range(0, len(ids), window or 9)
        for nats in naive_nats(
            model, ids[begin : begin + (window or 9)], None, ids[begin - 1] if begin else first
        )
    ]
    found = text_nats(engine(model), text, reset_every=window)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ------------------------------------------------------------------ by hand


@pytest.mark.parametrize("size", [3, 5, 64])
def test_a_uniform_model_scores_log_v_for_every_token(size: int) -> None:
    """Streams and documents have perplexity V."""
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
    strings = [np.array(ids) for ids in itertools.product(range(V), repeat=length)]
    total = math.fsum(math.exp(-nats.sum()) for nats in document_nats(ENGINES[name], strings))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_a_tally_by_hand() -> None:
    """UNK, 2, EOS and EOS at 1, 2, 4 and 8 nats."""
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


def test_reset_windows_begin_at_each_document() -> None:
    """A document that fits into a window has the score of a full pass."""
    model, documents = MODELS["lstm"], [[2, 3, 4, 1], [0, 1], [2, 2, 1]]
    text = encoded_documents(documents)
    expected = naive_nats(model, [2, 3, 4]) + naive_nats(model, [1], first_input=4)
    expected += naive_nats(model, [0, 1]) + naive_nats(model, [2, 2, 1])
    np.testing.assert_allclose(windowed_nats(engine(model), text, 3), expected, atol=1e-5)
    assert evaluate(engine(model), text, reset_every=4).nats == pytest.approx(
        evaluate(engine(model), text).nats, abs=1e-5
    )


def test_reset_windows_by_hand() -> None:
    """Five tokens with reset_every 3 are read as three and two."""
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
def test_a_stream_has_one_score_for_any_rows_and_windows(
    name: str, length: int, monkeypatch
) -> None:
    """The nats and the state are those of the naive loop, also for a network that never forgets."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 3)
    model, ids = MODELS[name], random_ids(length)
    with torch.no_grad():
        _, last = model(torch.from_numpy(np.concatenate([[EOS], ids[:-1]]))[:, None])
    for rows, window in itertools.product([1, 2, 16], [1, 7, 64]):
        monkeypatch.setattr(likelihood, "WINDOW", window)
        nats, after = stream_nats(ENGINES[name], ids, rows=rows)
        case = f"{rows=}, {window=}"
        assert nats.dtype == np.float64, case
        np.testing.assert_allclose(nats, EXPECTED[name][:length], atol=2e-4, err_msg=case)
        np.testing.assert_allclose(flat(after), flat(last), atol=2e-4, rtol=1e-5, err_msg=case)
        assert nats.sum() == pytest.approx(sum(EXPECTED[name][:length]), rel=1e-5), case


EXPECTED = {name: naive_nats(model, random_ids(100)) for name, model in MODELS.items()}


@every_model
def test_a_stream_continues_from_a_given_state(name: str, monkeypatch) -> None:
    """score(ab) = score(a) + score(b | a) at any cut."""
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


def test_reading_a_stream_does_not_change_the_given_state(monkeypatch) -> None:
    monkeypatch.setattr(likelihood, "MIN_PIECE", 3)
    model = MODELS["lstm"]
    state = random_state(model)
    kept = flat(state).copy()
    stream_nats(engine(model), random_ids(40), state)
    assert (flat(state) == kept).all()
    nats, after = stream_nats(engine(model), np.empty(0, np.int64), state)
    assert nats.shape == (0,)
    assert after is state


def test_a_piece_read_again_is_compared_with_its_latest_reading(monkeypatch) -> None:
    """Read from zero, from a wrong state and from zero again, it has its first nats again."""
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
def test_documents_in_a_batch_score_as_alone(name: str, monkeypatch) -> None:
    documents = [random_ids(length, seed=length) for length in (3, 0, 1, 12, 3, 7, 0)]
    expected = [naive_nats(MODELS[name], ids) for ids in documents]
    for rows, window in itertools.product([1, 2, 32], [1, 4, 256]):
        monkeypatch.setattr(likelihood, "WINDOW", window)
        scores = document_nats(ENGINES[name], documents, rows=rows)
        assert [len(nats) for nats in scores] == [3, 0, 1, 12, 3, 7, 0], (rows, window)
        for nats, alone in zip(scores, expected, strict=True):
            np.testing.assert_allclose(nats, alone, atol=1e-4, err_msg=f"{rows=}, {window=}")
        assert document_nats(ENGINES[name], []) == []


def test_a_long_text_beside_short_ones_takes_little_more_than_alone(monkeypatch) -> None:
    """A page among lines once took as many steps for each line as for itself."""
    monkeypatch.setattr(likelihood, "WINDOW", 4)
    model = MODELS["lstm"]
    backend = engine(model)
    steps: list[int] = []

    def read(inputs, targets, state):
        steps.append(targets.size)
        return nats_alone(backend, inputs, targets, state)

    documents = [random_ids(length, seed=length) for length in [400, *[3] * 20, *[9] * 10, 0]]
    pairs = read_documents(backend, documents, read, 32)
    for ids, (nats, others) in zip(documents, pairs, strict=True):
        np.testing.assert_allclose(nats, naive_nats(model, ids), atol=1e-4)
        assert np.array_equal(nats, others)
    assert sum(steps) == 400 + 31 * 4 + 10 * 8


@every_model
@pytest.mark.parametrize("closed", [True, False])
def test_a_tally_does_not_depend_on_windows_and_batches(name, closed: bool, monkeypatch) -> None:
    """Long documents are read as streams, short ones as a batch."""
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


@pytest.mark.parametrize("softmaxes", [1, 3])
def test_windows_are_shorter_for_a_large_vocabulary(softmaxes: int, monkeypatch) -> None:
    """This limits memory, also for a mixture, without changing the result."""
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


def test_scoring_uses_no_random_numbers_and_no_gradients() -> None:
    """Even in the middle of training."""
    model = tiny_model("lstm", V, dropout=0.5, input_dropout=0.5).train()
    before = torch.get_rng_state()
    first = evaluate(engine(model), encoded_stream(random_ids(20)))
    assert first == evaluate(engine(model), encoded_stream(random_ids(20)))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


class Counting:
    """A backend that counts its calls and tokens."""

    def __init__(self, inner) -> None:
        self.inner, self.tokens, self.calls, self.widest, self.steps = inner, 0, 0, 0, 0
        self.rows: set[int] = set()
        self.vocab_size, self.logits_each = inner.vocab_size, inner.logits_each

    def initial_state(self, rows: int):
        return self.inner.initial_state(rows)

    def nats(self, inputs, targets, state):
        self.tokens += inputs.size
        self.calls += 1
        self.steps += len(inputs)
        self.widest = max(self.widest, inputs.shape[1])
        self.rows.add(inputs.shape[1])
        return self.inner.nats(inputs, targets, state)


def test_a_network_that_never_forgets_is_read_at_most_three_times(monkeypatch) -> None:
    """Validating an untrained GRU once took 84 of the 90 seconds of a run."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 8)
    ids = random_ids(32 * 8)
    counting = Counting(ENGINES["never forgets"])
    nats, _ = stream_nats(counting, ids, rows=32)
    np.testing.assert_allclose(nats, naive_nats(MODELS["never forgets"], ids), atol=2e-4)
    assert counting.tokens <= 3 * len(ids)
    counting = Counting(ENGINES["lstm"])
    stream_nats(counting, ids, rows=32)
    assert counting.tokens <= 3 * len(ids)


def test_a_backend_says_how_many_sequences_it_reads_side_by_side(monkeypatch) -> None:
    """A GPU reads more of them; the result does not depend on it."""
    monkeypatch.setattr(likelihood, "MIN_PIECE", 2)
    monkeypatch.setattr(likelihood, "WIDE_PIECE", 2)
    ids, counting = random_ids(200), Counting(ENGINES["lstm"])
    usual = stream_nats(counting, ids)[0]
    assert counting.widest == likelihood.MAX_ROWS
    counting.max_rows = 50
    np.testing.assert_allclose(stream_nats(counting, ids)[0], usual, atol=1e-4)
    assert counting.widest == 50


def wide(inner, max_rows: int) -> Counting:
    """Return a backend that takes as long for many rows as for one, as a GPU does."""
    counting = Counting(inner)
    counting.max_rows = max_rows
    return counting


@every_model
@pytest.mark.parametrize("length", [1, 5, 100])
def test_a_wide_backend_has_the_score_of_the_naive_loop(
    name: str, length: int, monkeypatch
) -> None:
    """Also if it continues from a state, and if its pieces are shorter than the memory."""
    monkeypatch.setattr(likelihood, "WIDE_PIECE", 3)
    model, ids = MODELS[name], random_ids(length)
    start = random_state(model)
    expected, limit = naive_nats(model, ids, tensors(start), 2), likelihood.WIDE_SAME_STATE
    _, last = stream_nats(ENGINES[name], ids, start, first_input=2, rows=1)
    for rows, window in itertools.product([2, 16], [1, 7]):
        monkeypatch.setattr(likelihood, "WIDE_WINDOW", window)
        nats, after = stream_nats(wide(ENGINES[name], rows), ids, start, first_input=2)
        case = f"{rows=}, {window=}"
        np.testing.assert_allclose(nats, expected, atol=10 * limit, err_msg=case)
        assert nats.mean() == pytest.approx(np.mean(expected), abs=limit), case
        np.testing.assert_allclose(flat(after), flat(last), atol=2e-4, rtol=1e-5, err_msg=case)


def test_a_wide_backend_reads_a_stream_in_few_steps() -> None:
    """A validation on a GPU took as long as half a pass of training: 1,032 steps and more."""
    length = 256 * 200 + 100
    counting = wide(ENGINES["lstm"], 256)
    narrow = Counting(ENGINES["lstm"])
    nats, _ = stream_nats(counting, random_ids(length))
    expected, _ = stream_nats(narrow, random_ids(length))
    np.testing.assert_allclose(nats, expected, atol=10 * likelihood.WIDE_SAME_STATE)
    assert nats.mean() == pytest.approx(expected.mean(), abs=1e-6)
    assert counting.steps <= 2.5 * length / 256
    assert 3 * counting.steps < narrow.steps


def test_a_wide_backend_reads_a_short_text_at_once() -> None:
    """It has no other piece to compare states with, as the remainder of a long text."""
    backend = wide(ENGINES["lstm"], 256)
    stream_nats(backend, random_ids(2 * likelihood.WIDE_PIECE - 1))
    assert backend.calls == 1


def test_a_wide_backend_reads_as_many_rows_each_time() -> None:
    """A GPU rounds differently for other numbers of rows, and states would then not agree."""
    counting, narrow = wide(ENGINES["lstm"], 16), Counting(ENGINES["lstm"])
    ids = random_ids(16 * likelihood.MIN_PIECE)
    stream_nats(counting, ids)
    stream_nats(narrow, ids)
    assert counting.rows == {16}
    assert len(narrow.rows) > 1


def test_a_wide_backend_takes_no_more_steps_than_tokens_for_a_network_that_never_forgets(
    monkeypatch,
) -> None:
    monkeypatch.setattr(likelihood, "WIDE_PIECE", 8)
    ids, counting = random_ids(32 * 8), wide(ENGINES["never forgets"], 32)
    nats, _ = stream_nats(counting, ids)
    np.testing.assert_allclose(nats, naive_nats(MODELS["never forgets"], ids), atol=2e-4)
    assert counting.steps <= len(ids)


def test_a_wide_backend_reads_longer_windows_where_states_agree_nowhere(monkeypatch) -> None:
    """Fewer of them take less time; the states that are kept are those of their ends."""
    monkeypatch.setattr(likelihood, "WIDE_PIECE", 40)
    monkeypatch.setattr(likelihood, "WIDE_WINDOW", 4)
    ids, backend = random_ids(20 * 40), wide(ENGINES["never forgets"], 20)
    expected, _ = stream_nats(ENGINES["never forgets"], ids, rows=1)
    calls = []
    for window in (4, 16, 256):
        monkeypatch.setattr(likelihood, "WINDOW", window)
        backend.calls = 0
        np.testing.assert_allclose(stream_nats(backend, ids)[0], expected, atol=2e-4)
        calls.append(backend.calls)
    assert calls[0] == 20 * 10
    assert calls[1] == 10 + 10 + 5 + 17 * 3
    assert calls[2] == 10 + 10 + 5 + 3 + 2 + 15
    pieces = likelihood._Pieces(backend, ids, 20, EOS, None)
    pieces.read()
    ends = [pieces.kept[number] for number in (1, 3, 5, 7, 9)]
    pieces.widen()
    assert pieces.window == 8
    assert list(pieces.kept) == [0, 1, 2, 3, 4]
    assert all(pieces.kept[number] is end for number, end in enumerate(ends))


def test_a_wide_backend_keeps_late_states_when_its_windows_grow(monkeypatch) -> None:
    """Rows of long texts were then read again to their ends, though their states agreed before."""
    monkeypatch.setattr(likelihood, "WIDE_WINDOW", 2)
    pieces = likelihood._Pieces(wide(ENGINES["lstm"], 2), random_ids(2 * 140), 2, EOS, None)
    pieces.read()
    late = pieces.kept[31], pieces.kept[63]
    assert len(pieces.kept) == 16 + 2
    pieces.widen()
    assert (pieces.kept[15], pieces.kept[31]) == late and len(pieces.kept) == 8 + 2


class Rounding:
    """A wide backend whose states have other rounding in each call, as those of a GPU."""

    def __init__(self, inner, level: float) -> None:
        self.inner, self.level, self.generator = inner, level, np.random.default_rng(0)
        self.vocab_size, self.logits_each = inner.vocab_size, inner.logits_each

    def initial_state(self, rows: int):
        return self.inner.initial_state(rows)

    def nats(self, inputs, targets, state):
        nats, after = self.inner.nats(inputs, targets, state)
        return nats, tuple(
            tuple(
                (part + self.level * self.generator.standard_normal(part.shape)).astype(part.dtype)
                for part in layer
            )
            for layer in after
        )


def test_a_wide_backend_may_round_differently_in_each_call() -> None:
    """Where states had to agree more exactly than a GPU computes, all rows were read again."""
    ids = random_ids(256 * 200)
    counting = wide(Rounding(ENGINES["lstm"], 6e-6), 256)
    nats, _ = stream_nats(counting, ids)
    assert counting.steps <= 2.5 * len(ids) / 256
    assert nats.mean() == pytest.approx(stream_nats(ENGINES["lstm"], ids)[0].mean(), abs=1e-6)


def test_a_wide_backend_limits_its_own_logits(monkeypatch) -> None:
    """A GPU has memory for longer windows of words than MAX_LOGITS allows."""
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 256 * V)
    ids, lengths = random_ids(256 * 128), {}
    for most in (None, 16 * 256 * V):
        counting = wide(ENGINES["lstm"], 256)
        if most:
            counting.max_logits = most
        pieces = likelihood._Pieces(counting, ids, 256, EOS, None)
        lengths[most] = pieces.window
    assert lengths == {None: 1, 16 * 256 * V: 16}


def test_a_gpu_with_more_memory_reads_longer_windows() -> None:
    assert gpu_logits(2 << 30) == gpu_logits(8 << 30) == 1 << 25
    assert gpu_logits(80 << 30) == (80 << 30) // 512
    assert gpu_logits(1 << 40) == 1 << 28


@pytest.mark.parametrize("length", [1, 127, 300, 111_540, 92_942, 1_000_003])
def test_a_wide_backend_leaves_a_short_remainder(length: int) -> None:
    """It is read by itself, after all pieces."""
    count = likelihood._piece_count(wide(ENGINES["lstm"], 256), length, 256)
    assert 1 <= count <= max(1, min(256, length // likelihood.WIDE_PIECE))
    assert length // count + length % count <= max(1.25 * length / 256, 2 * likelihood.WIDE_PIECE)


def test_few_states_of_windows_are_kept() -> None:
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
    assert pieces.correct([1, 2, 3]) == []  # their last states are unchanged

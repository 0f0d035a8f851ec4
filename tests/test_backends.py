"""Backends against a float64 loop over the formulas, in every variant, cell and shape."""

import ctypes
import functools
import itertools
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import engine as torch_engine
from helpers import memory_errors, seeded, tiny_model
from waiting import PATIENCE

from charlm.backends import kernel_library
from charlm.backends.interface import Backend, select_rows
from charlm.backends.kernel_library import NEEDED, VARIABLE, chosen_variant, library_path, variants
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, weights_from
from charlm.config import cells
from charlm.errors import EnvironmentFailure
from charlm.nn.encoder import saved_tensors
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.built_in import built_in_run
from charlm.runs.run import load_run

V = 7
CELLS = [name for name, spec in cells.CELLS.items() if spec.numpy_step]
VARIANTS = variants()
ENGINES = ["numpy", "torch", *VARIANTS]
every_cell = pytest.mark.parametrize("cell", CELLS)
every_engine = pytest.mark.parametrize("name", ENGINES)
every_variant = pytest.mark.parametrize("variant", VARIANTS)
# hidden, embedding, layers, vocabulary, rows, steps: none a multiple of a panel, and some that are
SHAPES = [
    (3, 4, 2, 7, 1, 1),
    (16, 16, 1, 16, 2, 5),
    (17, 1, 3, 33, 13, 4),
    (48, 20, 2, 2, 5, 9),
    (33, 40, 2, 100, 29, 3),
]


def model_of(cell: str, **sizes) -> RecurrentLanguageModel:
    """Return a model with random biases: initial ones are zero and would hide a mistake."""
    model = tiny_model(cell, sizes.pop("vocab_size", V), scale=3.0, **sizes)
    generator = seeded(11)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
    return model


def weights_of(model: RecurrentLanguageModel) -> Weights:
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}
    return weights_from(model.settings, arrays)


def engine_of(name: str, model: RecurrentLanguageModel, kind: str = "fp32", threads=1) -> Backend:
    if name == "torch":
        return torch_engine(model)
    if name == "numpy":
        return NumpyBackend(weights_of(model))
    return NativeBackend(weights_of(model), name, kind, threads)


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def slow_logits(weights: Weights, inputs, state):
    """One token, one row, one layer at a time, in float64, straight from the formulas."""
    hidden = weights.hidden_size
    steps, rows = inputs.shape
    logits = np.zeros((steps, rows, weights.vocab_size))
    after = [[np.array(part, np.float64) for part in layer] for layer in state]
    for t, row in itertools.product(range(steps), range(rows)):
        x = weights.embedding[inputs[t, row]].astype(np.float64)
        for number, layer in enumerate(weights.layers):
            h = after[number][0][row]
            into = layer.weight_ih.astype(np.float64) @ x + layer.bias_ih
            rec = layer.weight_hh.astype(np.float64) @ h + layer.bias_hh
            if weights.cell == "rnn":
                h = np.tanh(into + rec)
            elif weights.cell == "lstm":
                i, f, g, o = np.split(into + rec, 4)
                c = sigmoid(f) * after[number][1][row] + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
                after[number][1][row] = c
            else:
                r = sigmoid(into[:hidden] + rec[:hidden])
                z = sigmoid(into[hidden : 2 * hidden] + rec[hidden : 2 * hidden])
                n = np.tanh(into[2 * hidden :] + r * rec[2 * hidden :])
                h = (1.0 - z) * n + z * h
            after[number][0][row] = h
            x = h
        logits[t, row] = weights.output.astype(np.float64) @ x + weights.output_bias
    return logits, after


def slow_nats(logits, targets):
    top = logits.max(axis=-1, keepdims=True)
    total = top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1))
    return total - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


def random_state(engine: Backend, rows: int, seed: int = 5):
    random = np.random.default_rng(seed)
    return tuple(
        tuple(random.uniform(-0.9, 0.9, part.shape).astype(np.float32) for part in layer)
        for layer in engine.initial_state(rows)
    )


def random_ids(vocab_size: int, steps: int, rows: int, seed: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocab_size, (steps, rows))


def assert_states_agree(state, expected, atol: float = 2e-6) -> None:
    for layer, other in zip(state, expected, strict=True):
        for part, value in zip(layer, other, strict=True):
            assert part.dtype == np.float32
            np.testing.assert_allclose(part, value, atol=atol, rtol=1e-5)


# ------------------------------------------------------------------ one truth


@functools.cache
def truth(cell: str, shape: tuple[int, ...]):
    """Return a model, inputs, targets and a state, and the logits and the state after them."""
    hidden, embedding, layers, vocab_size, rows, steps = shape
    sizes = {"hidden_size": hidden, "embedding_size": embedding, "num_layers": layers}
    model = model_of(cell, vocab_size=vocab_size, **sizes)
    inputs, targets = (random_ids(vocab_size, steps, rows, seed) for seed in (1, 2))
    state = random_state(torch_engine(model), rows)
    return model, inputs, targets, state, *slow_logits(weights_of(model), inputs, state)


@every_cell
@every_engine
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_backend_computes_the_formulas(name: str, cell: str, shape, threads: int) -> None:
    """Nats, ranks, logits, distributions and states to 1e-5, from a given state."""
    model, inputs, targets, state, logits, after = truth(cell, shape)
    engine = engine_of(name, model, threads=threads)
    kept = [[part.copy() for part in layer] for layer in state]
    expected = slow_nats(logits, targets)
    nats, ended = engine.nats(inputs, targets, state)
    assert nats.dtype == np.float64
    np.testing.assert_allclose(nats, expected, atol=1e-5, rtol=1e-5)
    assert_states_agree(ended, after)
    again, ranks, ended = engine.ranks(inputs, targets, state)
    np.testing.assert_allclose(again, nats, atol=1e-6)
    assert_states_agree(ended, after)
    own = np.take_along_axis(logits, targets[..., None], axis=-1)
    low, high = (logits > own + gap for gap in (1e-4, -1e-4))
    assert ((ranks >= 1 + low.sum(axis=-1)) & (ranks <= high.sum(axis=-1))).all()
    last, ended = engine.logits(inputs, state)
    np.testing.assert_allclose(last, logits[-1], atol=2e-5, rtol=1e-5)
    assert_states_agree(ended, after)
    every, ended = engine.distribution(inputs, state)
    assert every.dtype == np.float32
    np.testing.assert_allclose(every, logits, atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(slow_nats(every.astype(np.float64), targets), nats, atol=1e-5)
    assert_states_agree(ended, after)
    for layer, before in zip(state, kept, strict=True):
        for part, value in zip(layer, before, strict=True):
            assert (part == value).all()  # a state is a value


def formulas_hold(weights: Weights, inputs, state, values) -> None:
    """Compare the signals of each layer, given its h, with the formulas in float64."""
    x = weights.embedding[inputs].astype(np.float64)
    for number, layer in enumerate(weights.layers):
        own = {name: array[number].astype(np.float64) for name, array in values.items()}
        before = np.concatenate([state[number][0][None], own["h"][:-1]])
        into = x @ layer.weight_ih.T.astype(np.float64) + layer.bias_ih
        rec = before @ layer.weight_hh.T.astype(np.float64) + layer.bias_hh
        if weights.cell == "rnn":
            expected = {"h": np.tanh(into + rec)}
        elif weights.cell == "lstm":
            i, f, g, o = np.split(into + rec, 4, axis=-1)
            cells = np.concatenate([state[number][1][None], own["c"][:-1]])
            expected = {"i": sigmoid(i), "f": sigmoid(f), "g": np.tanh(g), "o": sigmoid(o)}
            expected["c"] = expected["f"] * cells + expected["i"] * expected["g"]
            expected["h"] = expected["o"] * np.tanh(own["c"])
        else:
            (rx, zx, nx), (rh, zh, nh) = (np.split(side, 3, axis=-1) for side in (into, rec))
            expected = {"r": sigmoid(rx + rh), "z": sigmoid(zx + zh)}
            expected["g"] = np.tanh(nx + expected["r"] * nh)
            expected["h"] = expected["g"] + expected["z"] * (before - expected["g"])
        assert own.keys() == expected.keys()
        for name, right in expected.items():
            np.testing.assert_allclose(own[name], right, atol=3e-6, err_msg=name)
        x = own["h"]


@every_cell
@every_engine
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_traced_values_follow_the_formulas(name: str, cell: str, shape, threads: int) -> None:
    """All signals of all units, or some of them, from a given state; the last are the state."""
    hidden, embedding, layers, vocab_size, rows, steps = shape
    sizes = {"hidden_size": hidden, "embedding_size": embedding, "num_layers": layers}
    model = model_of(cell, vocab_size=vocab_size, **sizes)
    engine = engine_of(name, model, threads=threads)
    inputs, state = random_ids(vocab_size, steps, rows), random_state(engine, rows)
    values, after = engine.trace(inputs, state, cells.CELLS[cell].signals)
    formulas_hold(weights_of(model), inputs, state, values)
    for signal, array in values.items():
        assert array.shape == (layers, steps, rows, hidden)
        assert array.dtype == np.float32
        alone, ended = engine.trace(inputs, state, [signal])
        assert (alone[signal] == array).all()
        assert_states_agree(ended, after, atol=0)
    for number, layer in enumerate(after):
        for signal, part in zip(cells.CELLS[cell].state, layer, strict=True):
            np.testing.assert_array_equal(values[signal][number, -1], part)
    assert_states_agree(after, engine.logits(inputs, state)[1])


@every_cell
@every_engine
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_masses_are_the_sums_of_the_softmax(name: str, cell: str, shape, threads: int) -> None:
    """For any set of entries, from none to all, with the nats and the state of `nats`."""
    model, inputs, targets, state, logits, _ = truth(cell, shape)
    engine, vocab_size = engine_of(name, model, threads=threads), logits.shape[-1]
    log_p = logits - slow_nats(logits, np.zeros_like(targets))[..., None] - logits[..., :1]
    alone, ended = engine.nats(inputs, targets, state)
    for fraction in (0.0, 0.3, 0.7, 1.0):
        entries = np.random.default_rng(4).random(vocab_size) < fraction
        nats, log_masses, after = engine.masses(inputs, targets, entries, state)
        assert (nats == alone).all()
        assert_states_agree(after, ended, atol=0)
        expected = np.exp(log_p[..., entries]).sum(axis=-1)
        np.testing.assert_allclose(np.exp(log_masses), expected, atol=1e-5)
        assert log_masses.dtype == np.float64
        assert log_masses.shape == inputs.shape


@every_engine
def test_a_mass_that_float32_cannot_hold_is_exact(name: str) -> None:
    """Entries e^-300 times as likely as the best have a finite mass."""
    model = model_of("lstm", vocab_size=40)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
        model.output.bias[3] = 300.0
    engine = engine_of(name, model)
    entries = np.arange(40) >= 20
    ids = random_ids(40, 2, 3)
    _, log_masses, _ = engine.masses(ids, ids, entries, engine.initial_state(3))
    np.testing.assert_allclose(log_masses, np.log(20) - 300.0, atol=1e-4)


@every_engine
def test_a_set_of_another_vocabulary_is_refused(name: str) -> None:
    engine = engine_of(name, model_of("lstm"))
    ids, state = random_ids(V, 2, 3), engine.initial_state(3)
    for entries in (np.ones(V + 1, bool), np.ones((1, V), bool), np.ones(V)):
        with pytest.raises(ValueError, match=f"expected {V} booleans"):
            engine.masses(ids, ids, entries, state)


WINDOWS = [  # a call of the kernels takes 2,048 tokens at once
    (1, 2100, ([2048],)),
    (4, 1100, ([1, 2], [1099], [512], [7, 519, 1031])),
]
"""Rows, steps, and where they are cut."""


@every_cell
@every_engine
def test_a_text_in_windows_equals_the_whole_text(name: str, cell: str) -> None:
    """Also for more steps than one call of the kernels takes."""
    engine = engine_of(name, model_of(cell, hidden_size=5), threads=2)
    for rows, steps, every_cut in WINDOWS:
        inputs, targets = (random_ids(V, steps, rows, seed) for seed in (1, 2))
        whole, last = engine.nats(inputs, targets, engine.initial_state(rows))
        traced, logits = (
            call(inputs, engine.initial_state(rows), *signals)[0]
            for call, signals in ((engine.trace, [["h"]]), (engine.distribution, []))
        )
        for cuts in every_cut:
            state, pieces = engine.initial_state(rows), []
            for piece, after in zip(np.split(inputs, cuts), np.split(targets, cuts), strict=True):
                nats, state = engine.nats(piece, after, state)
                pieces.append(nats)
            np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
            assert_states_agree(state, last, atol=1e-5)
        np.testing.assert_allclose(slow_nats(logits.astype(np.float64), targets), whole, atol=1e-5)
        np.testing.assert_allclose(traced["h"][:, -1], [layer[0] for layer in last], atol=1e-5)


@every_cell
@every_variant
def test_kernels_give_equal_bits_for_any_rows_and_threads(variant: str, cell: str) -> None:
    model = model_of(cell, hidden_size=40, embedding_size=9)
    inputs, targets = (random_ids(V, 6, 31, seed) for seed in (1, 2))
    one = engine_of(variant, model)
    state = random_state(one, 31)
    whole, after = one.nats(inputs, targets, state)
    for threads in (2, 3, 4):
        again, ended = engine_of(variant, model, threads=threads).nats(inputs, targets, state)
        assert (again == whole).all()
        assert all((a == b).all() for x, y in zip(after, ended, strict=True) for a, b in zip(x, y))  # noqa: B905
    for rows in ([3], [30, 0], list(range(7)), list(range(12))):
        some = tuple(tuple(part[rows] for part in layer) for layer in state)
        nats, _ = one.nats(inputs[:, rows], targets[:, rows], some)
        assert (nats == whole[:, rows]).all()


@every_variant
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@every_cell
def test_a_large_vocabulary_needs_no_table_of_inputs(variant: str, kind: str, cell: str) -> None:
    model, inputs, targets, state, logits, _ = truth(cell, (130, 18, 1, 33_000, 4, 3))
    engine = engine_of(variant, model, kind, threads=2)
    nats, _ = engine.nats(inputs, targets, state)
    bound = {"fp32": 2e-5, "bf16": 0.1, "int8": 0.3}[kind]
    np.testing.assert_allclose(nats, slow_nats(logits, targets), atol=bound)


@every_variant
@every_cell
def test_smaller_weights_change_nats_little(variant: str, cell: str) -> None:
    model = model_of(cell, hidden_size=64, embedding_size=16)
    inputs, targets = (random_ids(V, 50, 8, seed) for seed in (1, 2))
    exact, errors = engine_of(variant, model), {}
    state = exact.initial_state(8)
    nats, _ = exact.nats(inputs, targets, state)
    for kind in ("bf16", "int8"):
        rough, _ = engine_of(variant, model, kind).nats(inputs, targets, state)
        errors[kind] = np.abs(rough - nats).mean()
    assert 0.0 < errors["bf16"] < 0.01
    assert 0.0 < errors["int8"] < 0.05


@every_cell
def test_int8_gives_equal_results_on_every_processor(cell: str) -> None:
    """Integer sums are exact, so variants differ by the rounding of gates only."""
    model = model_of(cell, hidden_size=40, embedding_size=9)
    inputs, targets = (random_ids(V, 4, 13, seed) for seed in (1, 2))
    results = []
    for variant in VARIANTS:
        engine = engine_of(variant, model, "int8")
        results.append(engine.nats(inputs, targets, engine.initial_state(13))[0])
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-2)
        assert np.median(np.abs(other - results[0])) < 1e-5


@every_variant
def test_extreme_weights_give_no_nan(variant: str) -> None:
    """Gates saturate, and nats are finite."""
    model = model_of("lstm")
    for parameter in model.parameters():
        parameter.requires_grad_(False).mul_(1e4)
    engine = engine_of(variant, model)
    ids = random_ids(V, 9, 3)
    nats, state = engine.nats(ids, ids, engine.initial_state(3))
    assert np.isfinite(nats).all()
    assert (nats >= 0).all()
    assert all(np.isfinite(part).all() for layer in state for part in layer)
    _, expected = slow_logits(weights_of(model), ids, engine.initial_state(3))
    assert_states_agree(state, expected, atol=1e-5)


# ------------------------------------------------------------------ drawing


def slow_draw(engine, logits, state, uniform, temperature, barred, restart):
    """Return a sample made one token at a time."""
    ids, nats = [], []
    for numbers in uniform:
        usable = logits.copy()
        if barred >= 0:
            usable[:, barred] = -np.inf
        scaled = (usable - usable.max(axis=1, keepdims=True)) / (temperature or 1.0)
        cumulative = np.cumsum(np.exp(scaled), axis=1)
        drawn = (cumulative <= numbers[:, None] * cumulative[:, -1:]).sum(axis=1)
        if temperature == 0:
            drawn = usable.argmax(axis=1)
        nats.append(slow_nats(logits, drawn))
        going = (drawn != restart)[:, None]
        state = tuple(tuple(part * going for part in layer) for layer in state)
        logits, state = engine.logits(drawn[None, :], state)
        ids.append(drawn)
    return np.array(ids), np.array(nats), logits, state


@every_variant
@every_cell
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("barred", "restart"), [(-1, -1), (0, 1)])
def test_a_sample_of_the_kernel_equals_the_loop_over_tokens(
    variant: str, cell: str, temperature: float, barred: int, restart: int
) -> None:
    """For several rows at once."""
    engine = engine_of(variant, model_of(cell, hidden_size=20), threads=2)
    assert isinstance(engine, NativeBackend)
    state = random_state(engine, 3)
    logits, state = engine.logits(random_ids(V, 1, 3), state)
    uniform = np.random.default_rng(8).random((40, 3))
    begin = logits.copy()
    expected = slow_draw(engine, logits, state, uniform, temperature, barred, restart)
    options = {"temperature": temperature, "barred": barred, "restart": restart}
    ids, nats, last, after = engine.sample(logits, state, uniform, **options)
    assert (ids == expected[0]).all()
    np.testing.assert_allclose(nats, expected[1], atol=1e-5)
    np.testing.assert_allclose(last, expected[2], atol=1e-5)
    assert_states_agree(after, expected[3])
    assert (logits == begin).all()
    assert barred < 0 or not (ids == barred).any()


@every_variant
def test_rows_of_a_sample_have_their_own_temperature(variant: str) -> None:
    """Each to the bit as alone; the kept logits are those that `nats` are of."""
    engine = engine_of(variant, model_of("lstm", hidden_size=20), threads=1)
    assert isinstance(engine, NativeBackend)
    logits, state = engine.logits(random_ids(V, 1, 4), random_state(engine, 4))
    uniform = np.random.default_rng(8).random((12, 4))
    temperatures, kept = np.array([0.0, 0.7, 1.0, 3.0]), np.empty((12, 4, V), np.float32)
    ids, nats, last, _ = engine.sample(
        logits, state, uniform, temperature=temperatures, restart=1, kept=kept
    )
    for row, temperature in enumerate(temperatures):
        own, own_nats, own_last, _ = engine.sample(
            logits[[row]], select_rows(state, [row]), uniform[:, [row]],
            temperature=float(temperature), restart=1,
        )  # fmt: skip
        np.testing.assert_array_equal(ids[:, row], own[:, 0])
        np.testing.assert_array_equal(nats[:, row], own_nats[:, 0])
        np.testing.assert_array_equal(last[row], own_last[0])
    log_p = engine.log_probabilities(kept)
    np.testing.assert_array_equal(np.take_along_axis(log_p, ids[..., None], -1)[..., 0], -nats)
    with pytest.raises(ValueError, match="expected"):
        engine.sample(logits, state, uniform, temperature=1.0, kept=kept[:11])


@pytest.mark.parametrize("name", ["numpy", "torch", *VARIANTS])
def test_log_probabilities_are_those_of_nats(name: str) -> None:
    """To the bit, for logits of any shape, and they sum to one."""
    engine = engine_of(name, model_of("gru", hidden_size=20))
    inputs, targets = random_ids(V, 9, 3), random_ids(V, 9, 3, 1)
    state = random_state(engine, 3)
    nats, _ = engine.nats(inputs, targets, state)
    logits, _ = engine.distribution(inputs, state)
    log_p = engine.log_probabilities(logits)
    np.testing.assert_array_equal(np.take_along_axis(log_p, targets[..., None], 2)[..., 0], -nats)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=2), 1.0, atol=1e-5)


# ------------------------------------------------------------------ misuse and choice


@every_variant
def test_ids_and_states_of_the_wrong_size_are_refused(variant: str) -> None:
    """The kernels never read outside of the memory of the model."""
    engine = engine_of(variant, model_of("lstm"))
    good, state = random_ids(V, 2, 3), engine.initial_state(3)
    for value in (-1, V):
        bad = good.copy()
        bad[1, 2] = value
        for call in (
            lambda bad=bad: engine.nats(bad, good, state),
            lambda bad=bad: engine.nats(good, bad, state),
            lambda bad=bad: engine.logits(bad, state),
            lambda bad=bad: engine.distribution(bad, state),
            lambda bad=bad: engine.trace(bad, state, ["h"]),
        ):
            with pytest.raises(IndexError, match="expected 0 to V - 1"):
                call()
    wide = engine_of(variant, model_of("lstm", hidden_size=40)).initial_state(3)
    deep = engine_of(variant, model_of("lstm", num_layers=3)).initial_state(3)
    other = engine_of(variant, model_of("gru")).initial_state(3)
    for call in (
        lambda: engine.nats(good, good, engine.initial_state(2)),
        lambda: engine.nats(good, good[:, :2], state),
        lambda: engine.nats(good, good[:1], state),
        lambda: engine.nats(good, good, wide),
        lambda: engine.nats(good, good, deep),
        lambda: engine.nats(good, good, other),
        lambda: engine.nats(good[:0], good[:0], state),
        lambda: engine.nats(good[:, :0], good[:, :0], engine.initial_state(0)),
        lambda: engine.logits(good, engine.initial_state(4)),
        lambda: engine.logits(good[:0], state),
        lambda: engine.distribution(good, engine.initial_state(4)),
        lambda: engine.trace(good, engine.initial_state(4), ["h"]),
        lambda: engine.sample(np.zeros((2, V)), state, np.zeros((1, 3)), temperature=1.0),
        lambda: engine.sample(np.zeros((3, V + 1)), state, np.zeros((1, 3)), temperature=1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


@every_variant
def test_threads_of_python_can_share_a_backend(variant: str) -> None:
    """Two threads at once mixed up their numbers."""
    engine = engine_of(variant, model_of("lstm", hidden_size=30), threads=2)
    texts = [random_ids(V, 40, 3, seed) for seed in range(8)]
    expected = [engine.nats(ids, ids, engine.initial_state(3))[0] for ids in texts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            results = pool.map(lambda ids: engine.nats(ids, ids, engine.initial_state(3))[0], texts)
            for nats, right in zip(results, expected, strict=True):
                assert (nats == right).all()


@pytest.mark.skipif(not VARIANTS, reason="no kernels were built")
def test_a_forked_process_gets_an_error_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(VARIANTS[0], model_of("lstm"), threads=2)
    ids = random_ids(V, 2, 2)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="load it again"):
        engine.nats(ids, ids, engine.initial_state(2))


FORKING = """
import os, sys
import numpy as np
import charlm
from charlm.runs.run import load_run
engine = load_run(charlm.load("tales").path, engine="native", threads=2).backend
assert "torch" not in sys.modules
ids = np.zeros((2, 2), np.int64)
engine.nats(ids, ids, engine.initial_state(2))
child = os.fork()
if not child:
    del engine
    sys.exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not VARIANTS or not hasattr(os, "fork"), reason="no kernels, or no fork")
def test_a_forked_process_exits_without_waiting_for_threads() -> None:
    """Freeing a backend once joined the threads of the parent for ever."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    child = subprocess.run([sys.executable, "-c", FORKING], cwd=here, timeout=PATIENCE, check=False)
    assert child.returncode == 7


@pytest.mark.skipif(not VARIANTS, reason="no kernels were built")
def test_the_variant_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_variant() == VARIANTS[0]
    for variant in VARIANTS:
        monkeypatch.setenv(VARIABLE, variant)
        assert chosen_variant() == variant
    monkeypatch.setenv(VARIABLE, "none")
    assert chosen_variant() is None
    monkeypatch.setenv(VARIABLE, "mmx")
    with pytest.raises(EnvironmentFailure, match="'mmx'; expected none, or a variant"):
        chosen_variant()


@pytest.mark.skipif(not VARIANTS, reason="no kernels were built")
def test_kernels_of_another_version_are_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale kernels are refused if they are required; otherwise numpy computes."""
    monkeypatch.setattr(kernel_library, "INTERFACE", kernel_library.INTERFACE + 1)
    path = built_in_run("tales")
    assert load_run(path).backend.name == "numpy"
    advice = r"Install charlm again, or leave out engine='native'$"
    with pytest.raises(EnvironmentFailure, match=advice):
        load_run(path, engine="native")


@every_variant
def test_each_library_has_the_vectors_of_its_name(variant: str) -> None:
    lanes = ctypes.CDLL(str(library_path(variant))).charlm_lanes()
    assert lanes == {"avx512": 16, "avx2": 8, "dotprod": 4, "plain": 4}[variant]
    assert variant in NEEDED


def test_backends_import_no_torch() -> None:
    code = (
        "import sys, charlm; m = charlm.load(); m.sample(3, seed=1); m.score('a');"
        "m.next('a'); m.evaluate('abc'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done.stderr


class Cramped:
    """The `read` of a model on a device with room for this many tokens at once."""

    def __init__(self, model: RecurrentLanguageModel, most: int) -> None:
        self.plain, self.most, self.errors = model.read, most, itertools.cycle(memory_errors())
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, ids, state=None, generator=None):
        self.shapes.append(tuple(ids.shape))
        if ids.numel() > self.most:
            raise next(self.errors)
        return self.plain(ids, state, generator)


@pytest.mark.parametrize("most", [34, 20, 7, 2, 1])
def test_a_window_that_does_not_fit_in_memory_is_read_in_parts(most: int, monkeypatch) -> None:
    """With equal results: fewer rows at once, then fewer steps of one row; larger ones never again.

    The story: too little memory of a GPU in a validation ended the run.
    """
    model = model_of("lstm", num_layers=2)
    plain, backend = torch_engine(model), torch_engine(model)
    cramped = Cramped(model, most)
    ids, targets = (np.array(seeded_ids(seed, 7, 5)) for seed in (1, 2))
    state = plain.nats(ids, targets, plain.initial_state(5))[1]
    entries = np.arange(V) % 2 == 0
    reads = {
        "nats": (targets, state),
        "ranks": (targets, state),
        "masses": (targets, entries, state),
        "logits": (state,),
        "distribution": (state,),
        "contexts": (targets, state),
    }
    expected = {name: getattr(plain, name)(ids, *rest) for name, rest in reads.items()}
    monkeypatch.setattr(model, "read", cramped)
    for name, rest in reads.items():
        found = getattr(backend, name)(ids, *rest)
        for left, right in zip(flat(found), flat(expected[name]), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
    refused = [shape for shape in cramped.shapes if np.prod(shape) > most]
    assert len(refused) == len(set(refused)) > 0


def test_too_little_memory_for_one_token_is_an_error(monkeypatch) -> None:
    model = model_of("gru")
    backend = torch_engine(model)
    monkeypatch.setattr(model, "read", Cramped(model, 0))
    ids = np.zeros((3, 2), np.int64)
    with pytest.raises(EnvironmentFailure, match="too little memory to read one token"):
        backend.nats(ids, ids, backend.initial_state(2))


def seeded_ids(seed: int, steps: int, rows: int) -> list[list[int]]:
    return torch.randint(V, (steps, rows), generator=seeded(seed)).tolist()


def flat(value) -> list[np.ndarray]:
    """Return the arrays in nested tuples."""
    return [a for each in value for a in flat(each)] if isinstance(value, tuple) else [value]

"""Cells: each follows its formula, in pieces as at once, with the right gradients."""

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import seeded
from torch.nn import functional as F

import charlm
from charlm.config.cells import CELLS, CellSpec
from charlm.config.model import ModelSettings
from charlm.errors import UsageError
from charlm.nn.dropout import dropped
from charlm.nn.encoder import embedding_scale
from charlm.nn.layers import RecurrentLayer, build_layer, empty_parameter
from charlm.nn.parallel import scanned

T, B, E, H = 5, 2, 4, 3
TORCH = ("rnn", "lstm", "gru")
"""Cells that `torch.nn` computes."""
Arrays = tuple
Weights = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


def positive(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def rnn_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    """h' = tanh(W x + b + U h + d)."""
    w, u, b, d = p.values()
    h = np.tanh(w @ x + b + u @ state[0] + d)
    return h, (h,)


def lstm_of(i, f, g, o, c: np.ndarray) -> Arrays:
    """c' = f c + i g; h' = o tanh(c')."""
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, (h, c)


def lstm_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    w, u, b, d = p.values()
    return lstm_of(*np.split(w @ x + b + u @ state[0] + d, 4), state[1])


def gru_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    """n = tanh(W x + b + r (U h + d)); h' = (1 - z) n + z h."""
    w, u, b, d = p.values()
    (rx, zx, nx), (rh, zh, nh) = np.split(w @ x + b, 3), np.split(u @ state[0] + d, 3)
    z = sigmoid(zx + zh)
    n = np.tanh(nx + sigmoid(rx + rh) * nh)
    h = (1 - z) * n + z * state[0]
    return h, (h,)


def peephole_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    """Input and forget gate see the old cell, the output gate the new one."""
    h, c = state
    i, f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + p["bias"], 4)
    see = p["peephole"]
    c = sigmoid(f + see[1] * c) * c + sigmoid(i + see[0] * c) * np.tanh(g)
    h = sigmoid(o + see[2] * c) * np.tanh(c)
    return h, (h, c)


def layernorm_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    h, c = state
    into = layer_norm(p["weight_ih"] @ x) * p["gain_ih"]
    rec = layer_norm(p["weight_hh"] @ h) * p["gain_hh"]
    i, f, g, o = np.split(into + rec + p["bias"], 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(layer_norm(c) * p["gain_c"] + p["bias_c"])
    return h, (h, c)


def capped_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    h, c = state
    i, f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + p["bias"], 4)
    f = sigmoid(f)
    c = f * c + np.minimum(sigmoid(i), 1 - f) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, (h, c)


def mlstm_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    h, c = state
    m = (p["weight_mx"] @ x) * (p["weight_mh"] @ h)
    gates = p["weight_ih"] @ x + p["weight_hh"] @ m + p["bias"]
    return lstm_of(*np.split(gates, 4), c)


def relu_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    """h' = max(0, W x + b + U h + d)."""
    w, u, b, d = p.values()
    h = np.maximum(w @ x + b + u @ state[0] + d, 0)
    return h, (h,)


def mogrifier_step(p: Weights, x: np.ndarray, state: Arrays, rounds: int = 5) -> Arrays:
    h, c = state
    for number in range(rounds):
        weight = p[f"gating.{number}.factors.0"]
        if f"gating.{number}.factors.1" in p:
            weight = p[f"gating.{number}.factors.1"] @ weight
        if number % 2 == 0:
            x = 2 * sigmoid(weight @ h) * x
        else:
            h = 2 * sigmoid(weight @ x) * h
    return lstm_of(*np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + p["bias"], 4), c)


def low_rank_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    return mogrifier_step(p, x, state, rounds=4)


def narrow_qrnn_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    z, f, o = np.split(p["weight_ih"] @ x + p["bias"], 3)
    c = sigmoid(f) * state[0] + (1 - sigmoid(f)) * np.tanh(z)
    return sigmoid(o) * c, (c,)


def qrnn_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    c, before = state
    z, f, o = np.split(p["weight_ih"] @ x + p["weight_before"] @ before + p["bias"], 3)
    c = sigmoid(f) * c + (1 - sigmoid(f)) * np.tanh(z)
    return sigmoid(o) * c, (c, x)


def mingru_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    z, candidate = np.split(p["weight_ih"] @ x + p["bias"], 2)
    h = (1 - sigmoid(z)) * state[0] + sigmoid(z) * positive(candidate)
    return h, (h,)


def minlstm_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    f, i, candidate = np.split(p["weight_ih"] @ x + p["bias"], 3)
    f, i = sigmoid(f), sigmoid(i)
    h = f / (f + i) * state[0] + i / (f + i) * positive(candidate)
    return h, (h,)


def esn_step(p: Weights, x: np.ndarray, state: Arrays) -> Arrays:
    h = np.tanh(p["weight_ih"] @ x + p["weight_hh"] @ state[0] + p["bias"])
    return h, (h,)


STEPS: dict[str, Callable] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
    "lstm-peephole": peephole_step,
    "lstm-layernorm": layernorm_step,
    "lstm-capped": capped_step,
    "mlstm": mlstm_step,
    "mogrifier": mogrifier_step,
    "qrnn": qrnn_step,
    "mingru": mingru_step,
    "minlstm": minlstm_step,
    "esn": esn_step,
    "rnn relu": relu_step,
    "mogrifier low-rank": low_rank_step,
    "qrnn narrow": narrow_qrnn_step,
}
"""(weights by name, x, state) -> (output, state after) of one row and step."""
VARIANTS = {
    "rnn relu": ModelSettings(cell="rnn", nonlinearity="relu"),
    "mogrifier low-rank": ModelSettings(cell="mogrifier", mogrifier_rounds=4, mogrifier_rank=2),
    "qrnn narrow": ModelSettings(cell="qrnn", qrnn_window=1),
}
"""Cells with other settings than the default."""
every_cell = pytest.mark.parametrize("cell", [*CELLS, *VARIANTS])


def built(cell: str, inputs: int = E, hidden: int = H, **settings) -> RecurrentLayer:
    """Return the layer of this name with unset weights."""
    chosen = replace(VARIANTS.get(cell, ModelSettings(cell=cell.split()[0])), **settings)
    return build_layer(inputs, hidden, chosen)


def layer_of(cell: str, seed: int = 0) -> RecurrentLayer:
    """Return a layer in double precision with random biases."""
    layer = built(cell)
    layer.reset_parameters(seeded(seed))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1 or not parameter.any():
                parameter.add_(torch.randn(parameter.shape, generator=seeded(seed + 1)))
    return layer.double()


def random_inputs(layer: RecurrentLayer, seed: int = 5) -> tuple[torch.Tensor, tuple]:
    generator = seeded(seed)
    x = torch.randn(T, B, E, generator=generator, dtype=torch.float64)
    state = tuple(
        torch.randn(part.shape, generator=generator, dtype=torch.float64)
        for part in layer.initial_state(B)
    )
    return x, state


class LeakyLayer(RecurrentLayer):
    """h' = (h + tanh(W x + U h + b)) / 2, a cell that charlm does not have."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_ih = empty_parameter(hidden_size, input_size)
        self.weight_hh = empty_parameter(hidden_size, hidden_size)
        self.bias = empty_parameter(hidden_size)

    def forward(self, x, state):
        (h,) = state
        outputs = []
        for into in F.linear(x, self.weight_ih, self.bias):
            h = (h + torch.tanh(into + F.linear(h, self.weight_hh))) / 2
            outputs.append(h)
        return torch.stack(outputs), (h,)


def test_a_class_and_its_row_are_all_that_a_cell_needs(monkeypatch, tmp_path) -> None:
    """Train, save, load, score and sample with a cell that is added at run time."""
    spec = CellSpec(layer=f"{__name__}:{LeakyLayer.__name__}", summary="leaky Elman network")
    monkeypatch.setitem(CELLS, "leaky", spec)
    options = {"hidden_size": 8, "num_layers": 1, "steps": 4, "dropout": 0.1, "state_dropout": 0.1}
    model = charlm.fit(
        text="the cat sat\n" * 40, cell="leaky", seed=1, checkpoints=tmp_path, **options
    )
    loaded = charlm.load(model.path)
    assert loaded.config["model"]["cell"] == "leaky"
    assert loaded.score("the cat").rows() == model.score("the cat").rows()
    assert len(loaded.sample(20, seed=3)) == 20
    with pytest.raises(UsageError, match=r"forget_bias 2\.0 has no effect with cell leaky"):
        charlm.fit(text="ab", cell="leaky", forget_bias=2.0, checkpoints=tmp_path, steps=1)


def test_every_cell_has_a_formula_in_this_file() -> None:
    assert set(STEPS) == {*CELLS, *VARIANTS}


@every_cell
def test_a_cell_follows_its_formula(cell: str) -> None:
    """Each row alone and step by step in float64, from a random state."""
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    y, after = layer(x, state)
    weights = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    for row in range(B):
        state_of_row = tuple(part[row].numpy() for part in state)
        for step in range(T):
            expected, state_of_row = STEPS[cell](weights, x[step, row].numpy(), state_of_row)
            np.testing.assert_allclose(y[step, row].detach().numpy(), expected, atol=1e-10)
        for part, value in zip(after, state_of_row, strict=True):
            np.testing.assert_allclose(part[row].detach().numpy(), value, atol=1e-10)


@every_cell
def test_gates_and_candidate_make_the_next_state(cell: str) -> None:
    """The reported values are those of the step, by the update of each family of cells."""
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    with torch.no_grad():
        y, after = layer(x[:1], state)
        values = layer.gate_values(x[0], state)
    names = layer.spec.blocks if len(layer.spec.signals) > 1 else ()
    assert tuple(values) == names
    if not names:
        return
    if "reset" in values:
        new = values["candidate"] + values["update"] * (state[0] - values["candidate"])
    elif "update" in values:
        new = state[0] + values["update"] * (values["candidate"] - state[0])
    else:
        c = state[-1] if layer.spec.state == ("h", "c") else state[0]
        add = values.get("input", 1.0 - values["forget"])
        new = values["forget"] * c + add * values["candidate"]
    cells = [
        part for name, part in zip(layer.spec.state, after, strict=False) if name == "c"
    ] or after
    torch.testing.assert_close(new, cells[0])
    squash = {"qrnn": lambda c: c, "lstm-layernorm": lambda c: layer_normed(layer, c)}
    if "output" in values:
        cell_output = squash.get(layer.settings.cell, torch.tanh)(cells[0])
        torch.testing.assert_close(values["output"] * cell_output, y[0])


def layer_normed(layer: RecurrentLayer, c: torch.Tensor) -> torch.Tensor:
    return torch.tanh(F.layer_norm(c, c.shape[-1:], eps=1e-5) * layer.gain_c + layer.bias_c)


@every_cell
def test_gradients_equal_finite_differences(cell: str) -> None:
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    names = [name for name, _ in layer.named_parameters()]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x[:3], *state)]
    leaves += [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]

    def run(inputs: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weights = dict(zip(names, rest[len(state) :], strict=True))
        y, after = torch.func.functional_call(layer, weights, (inputs, rest[: len(state)]))
        return y, *after

    assert torch.autograd.gradcheck(run, leaves)


@every_cell
@pytest.mark.parametrize("cuts", [[1], [2, 3], [1, 2, 3, 4]])
def test_a_sequence_in_pieces_is_the_sequence_at_once(cell: str, cuts: list[int]) -> None:
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    whole, last = layer(x, state)
    parts = []
    for piece in torch.tensor_split(x, cuts):
        y, state = layer(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12, rtol=0)
    for part, value in zip(state, last, strict=True):
        torch.testing.assert_close(part, value, atol=1e-12, rtol=0)


@every_cell
def test_initial_recurrent_weights_are_orthogonal(cell: str) -> None:
    """Biases are zero, except 1 for the forget gate."""
    layer = built(cell)
    layer.reset_parameters(seeded())
    if not layer.spec.learns_input:
        return
    weights = {name.replace("rnn.", ""): value for name, value in layer.state_dict().items()}
    for name, weight in weights.items():
        for block in weight.chunk(len(layer.spec.blocks)) if name.startswith("weight") else ():
            if name.startswith("weight_hh"):
                torch.testing.assert_close(block @ block.T, torch.eye(H), atol=1e-6, rtol=0)
            elif name.startswith("weight_ih"):
                bound = 6 / E if cell == "rnn relu" else 6 / (E + H)
                assert 0 < block.abs().max() <= bound**0.5
    bias = weights["bias"] if "bias" in weights else weights["bias_ih_l0"] + weights["bias_hh_l0"]
    forget = torch.zeros(len(layer.spec.blocks) * H)
    if (gate := layer.spec.forget_gate) is not None:
        forget[gate * H : (gate + 1) * H] = 1.0
    assert torch.equal(bias, forget)


@every_cell
def test_weights_depend_on_their_seed_only(cell: str) -> None:
    """The global random state is not used."""
    before = torch.get_rng_state()
    first, again, other = (layer_of(cell, seed).state_dict() for seed in (1, 1, 2))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        if name != "rnn.weight_hh_l0" or cell != "rnn relu":  # the identity
            assert not torch.equal(value, other[name])
    assert torch.equal(torch.get_rng_state(), before)


@every_cell
def test_the_initial_state_is_zero_with_the_dtype_of_the_weights(cell: str) -> None:
    """One tensor (B, H) for each name in the cell's row; `x` is the previous input."""
    layer = layer_of(cell)
    state = layer.initial_state(B)
    names = layer.spec.state[:1] if cell == "qrnn narrow" else layer.spec.state
    for name, part in zip(names, state, strict=True):
        assert part.shape == (B, E if name == "x" else H)
        assert part.dtype == torch.float64
        assert not part.any()


@pytest.mark.parametrize("length", [1, 2, 3, 64, 1000])
def test_the_parallel_scan_equals_the_loop(length: int) -> None:
    """Its gradients too."""
    generator = seeded(4)
    keep = torch.rand(length, B, H, generator=generator, dtype=torch.float64).requires_grad_()
    add = torch.randn(length, B, H, generator=generator, dtype=torch.float64).requires_grad_()
    start = torch.randn(B, H, generator=generator, dtype=torch.float64).requires_grad_()
    h, loop = start, []
    for step in range(length):
        h = keep[step] * h + add[step]
        loop.append(h)
    expected, scan = torch.stack(loop), scanned(keep, add, start)
    torch.testing.assert_close(scan, expected, atol=1e-10, rtol=1e-10)
    weights = torch.randn(length, B, H, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((scan * weights).sum(), (keep, add, start))
    theirs = torch.autograd.grad((expected * weights).sum(), (keep, add, start))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-9, rtol=1e-9)


def test_a_reservoir_has_its_spectral_radius_and_no_parameters() -> None:
    for radius, sparsity in ((0.95, 0.9), (1.3, 0.5)):
        layer = built("esn", hidden=50, spectral_radius=radius, sparsity=sparsity)
        layer.reset_parameters(seeded())
        largest = torch.linalg.eigvals(layer.weight_hh).abs().max()
        assert float(largest) == pytest.approx(radius, rel=1e-3)
        zeros = float((layer.weight_hh == 0).float().mean())
        assert zeros == pytest.approx(sparsity, abs=0.06)
    assert list(layer.parameters()) == []
    assert {"weight_ih", "weight_hh", "bias"} == set(layer.state_dict())


def test_a_capped_cell_state_stays_within_one() -> None:
    """For any weights: c is an average of c and g, or smaller."""
    layer = layer_of("lstm-capped")
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(20.0)
    x = 5 * torch.randn(200, B, E, generator=seeded(), dtype=torch.float64)
    _, (_, c) = layer(x, layer.initial_state(B))
    assert float(c.detach().abs().max()) <= 1.0


@every_cell
def test_bfloat16_is_close_to_float32(cell: str) -> None:
    layer = built(cell, 16, 24)
    layer.reset_parameters(seeded())
    x = torch.randn(20, 4, 16, generator=seeded(1))
    exact, _ = layer(x, layer.initial_state(4))
    if cell in TORCH and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 layers on this processor")
    with torch.autocast("cpu", torch.bfloat16):
        rough, state = layer(x, layer.initial_state(4))
    error = (rough.float() - exact).norm() / exact.norm()
    assert float(error.detach()) < 0.05
    assert all(part.isfinite().all() for part in state)


def test_dropout_keeps_the_mean_and_drops_its_fraction() -> None:
    """A quarter of ten thousand ones become 0, the others 4/3."""
    x = torch.ones(100, 100)
    y = dropped(x, 0.25, seeded())
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float(y.mean()) == pytest.approx(1.0, abs=0.03)
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(y, dropped(x, 0.25, seeded()))
    assert dropped(x, 0.25, None) is x
    assert dropped(x, 0.0, seeded()) is x


def test_initial_embeddings_have_rows_of_length_one() -> None:
    """With a scale of 1 / sqrt(E), but never below 0.1."""
    assert embedding_scale(4) == 0.5
    assert embedding_scale(10_000) == 0.1


def test_the_cell_of_the_guide_trains_and_samples(here: Path, monkeypatch: Any) -> None:
    """In the module that the guide names, which registers it when it is imported."""
    guide = (Path(charlm.__file__).parent / "guide" / "cells.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```py\n(.*?)```", guide, re.DOTALL)
    (here / "light.py").write_text(block)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(CELLS, "light", raising=False)  # registers its removal at the end
    monkeypatch.setitem(CELLS, "light", None)
    importlib.import_module("light")
    model = charlm.fit(
        text="to be or not to be " * 30, cell="light", steps=2, hidden=8, name="light",
        progress=False,
    )  # fmt: skip
    assert "LIGHT" in repr(model)
    assert charlm.load("light").sample(20, seed=1) == model.sample(20, seed=1)

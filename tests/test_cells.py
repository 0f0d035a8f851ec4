"""Cells: each is what its formula says, in pieces as at once, with gradients that are right."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import seeded

from charlm.nn.cells import CELLS, RecurrentLayer, dropped, embedding_scale

T, B, E, H = 5, 2, 4, 3
TORCH = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
Arrays = tuple[np.ndarray, ...]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def rnn_step(wx: np.ndarray, uh: np.ndarray, state: Arrays) -> Arrays:
    """h' = tanh(W x + U h + b)."""
    return (np.tanh(wx + uh),)


def lstm_step(wx: np.ndarray, uh: np.ndarray, state: Arrays) -> Arrays:
    """c' = f c + i g; h' = o tanh(c')."""
    i, f, g, o = np.split(wx + uh, 4)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(wx: np.ndarray, uh: np.ndarray, state: Arrays) -> Arrays:
    """n = tanh(W x + r (U h + b)); h' = (1 - z) n + z h."""
    (rx, zx, nx), (rh, zh, nh) = np.split(wx, 3), np.split(uh, 3)
    z = sigmoid(zx + zh)
    n = np.tanh(nx + sigmoid(rx + rh) * nh)
    return ((1 - z) * n + z * state[0],)


STEPS: dict[str, Callable[[np.ndarray, np.ndarray, Arrays], Arrays]] = {
    "rnn": rnn_step,
    "lstm": lstm_step,
    "gru": gru_step,
}
every_cell = pytest.mark.parametrize("cell", CELLS)


def layer_of(cell: str, seed: int = 0) -> RecurrentLayer:
    """A layer in double precision, its biases random as well."""
    layer = CELLS[cell](E, H)
    layer.reset_parameters(seeded(seed))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=seeded(seed + 1)))
    return layer.double()


def random_inputs(layer: RecurrentLayer, seed: int = 5) -> tuple[torch.Tensor, tuple]:
    generator = seeded(seed)
    x = torch.randn(T, B, E, generator=generator, dtype=torch.float64)
    state = tuple(
        torch.randn(B, H, generator=generator, dtype=torch.float64) for _ in layer.initial_state(B)
    )
    return x, state


def test_every_cell_has_its_formula_here() -> None:
    """A new cell needs a naive loop of its own in STEPS."""
    assert set(STEPS) == set(CELLS)


@every_cell
def test_a_cell_is_its_formula_step_by_step(cell: str) -> None:
    """Row by row and step by step in float64, from a state that is not zero."""
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    y, after = layer(x, state)
    w, u, b, d = (parameter.detach().numpy() for parameter in layer.rnn.parameters())
    for row in range(B):
        now = tuple(part[row].numpy() for part in state)
        for step in range(T):
            now = STEPS[cell](w @ x[step, row].numpy() + b, u @ now[0] + d, now)
            np.testing.assert_allclose(y[step, row].detach().numpy(), now[0], atol=1e-10)
        for part, value in zip(after, now, strict=True):
            np.testing.assert_allclose(part[row].detach().numpy(), value, atol=1e-10)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell in TORCH])
def test_a_cell_is_that_of_torch(cell: str) -> None:
    """With the same weights `torch.nn` gives the same outputs and state."""
    layer = layer_of(cell)
    theirs = TORCH[cell](E, H).double()
    theirs.load_state_dict(layer.rnn.state_dict())
    x, state = random_inputs(layer)
    y, after = layer(x, state)
    before = tuple(part[None] for part in state)
    expected, last = theirs(x, before if len(before) > 1 else before[0])
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=0)
    for part, value in zip(after, last if isinstance(last, tuple) else (last,), strict=True):
        torch.testing.assert_close(part, value[0], atol=1e-12, rtol=0)


@every_cell
def test_gradients_are_those_of_finite_differences(cell: str) -> None:
    """For the inputs, the state and every weight, through output and state."""
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
    """The state carried over is all that there is to carry."""
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
def test_rows_do_not_touch_each_other(cell: str) -> None:
    """A row of the batch is what it would be alone."""
    layer = layer_of(cell)
    x, state = random_inputs(layer)
    both, _ = layer(x, state)
    alone, _ = layer(x[:, 1:], tuple(part[1:] for part in state))
    torch.testing.assert_close(both[:, 1:], alone, atol=1e-12, rtol=0)


@every_cell
def test_fresh_weights_are_orthogonal_from_state_to_state(cell: str) -> None:
    """Each gate's recurrent block keeps lengths; biases are zero but the LSTM's forget gate's 1."""
    layer = CELLS[cell](E, H)
    layer.reset_parameters(seeded())
    w, u, b, d = (parameter.detach() for parameter in layer.rnn.parameters())
    for block in u.chunk(layer.gates):
        torch.testing.assert_close(block @ block.T, torch.eye(H), atol=1e-6, rtol=0)
    for block in w.chunk(layer.gates):
        assert 0 < block.abs().max() <= (6 / (E + H)) ** 0.5
    forget = torch.zeros(layer.gates * H)
    if cell == "lstm":
        forget[H : 2 * H] = 1.0
    assert torch.equal(b + d, forget)


@every_cell
def test_the_same_seed_gives_the_same_weights(cell: str) -> None:
    """And another seed others."""
    first, again, other = (layer_of(cell, seed).state_dict() for seed in (1, 1, 2))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


@every_cell
def test_building_a_layer_leaves_the_global_random_state_alone(cell: str) -> None:
    """Randomness is an argument: nothing of torch's own generator is used up."""
    before = torch.get_rng_state()
    layer = CELLS[cell](E, H)
    layer.reset_parameters(seeded())
    assert torch.equal(torch.get_rng_state(), before)


@every_cell
def test_the_zero_state_is_zero_and_of_the_type_of_the_weights(cell: str) -> None:
    """One tensor of shape (B, H), or two for the LSTM."""
    state = layer_of(cell).initial_state(B)
    assert len(state) == (2 if cell == "lstm" else 1)
    for part in state:
        assert part.shape == (B, H)
        assert part.dtype == torch.float64
        assert not part.any()


def test_dropout_keeps_the_mean_and_drops_the_share() -> None:
    """Of ten thousand ones a quarter become 0, the others 4/3."""
    x = torch.ones(100, 100)
    y = dropped(x, 0.25, seeded())
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float(y.mean()) == pytest.approx(1.0, abs=0.03)
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(y, dropped(x, 0.25, seeded()))
    assert dropped(x, 0.25, None) is x
    assert dropped(x, 0.0, seeded()) is x


def test_embeddings_begin_with_rows_of_length_one() -> None:
    """1 / sqrt(E), but never below 0.1."""
    assert embedding_scale(4) == 0.5
    assert embedding_scale(10_000) == 0.1

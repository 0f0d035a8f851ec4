"""The backend without compiled kernels: numpy, with one product for the inputs of all steps.

Formulas as in torch.nn: i, f, g, o for the LSTM; r, z, n for the GRU, whose reset gate acts after
the recurrent product.
"""

from collections.abc import Callable, Sequence

import numpy as np

from charlm.backends.interface import (
    Array,
    Entries,
    Ids,
    LayerState,
    Logits,
    Nats,
    State,
    check_entries,
)
from charlm.backends.softmax import log_sum_exp
from charlm.backends.weights import LayerWeights, Weights
from charlm.config.cells import CELLS
from charlm.config.class_path import resolve
from charlm.products import product, quiet_products

Step = Callable[[LayerWeights, Array, LayerState], tuple[LayerState, tuple[Array, ...]]]
"""A function of the weights, W x + b of one step, and the state before it; see `CellSpec`.

It returns the state after the step and the values of the gates and the candidate."""


class NumpyBackend:
    """Compute with numpy alone, without a compiler and without torch."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.name = "numpy"
        self.vocab_size = self.logits_each = weights.vocab_size

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`; always zero."""
        layers, tensors, hidden = self.weights.state_shape
        zeros = np.zeros((layers, tensors, batch_size, hidden), np.float32)
        return tuple(tuple(layer) for layer in zeros)

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`."""
        nats, _, after = self.ranks(inputs, targets, state)
        return nats, after

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""
        hidden, after = self._read(inputs, state)
        logits = self._logits(hidden)
        own = np.take_along_axis(logits, targets[..., None], axis=-1)
        ranks = (logits > own).sum(axis=-1).astype(np.int64) + 1
        return log_sum_exp(logits) - own[..., 0], ranks, after

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        check_entries(entries, self.vocab_size)
        hidden, after = self._read(inputs, state)
        logits = self._logits(hidden)
        own, total = np.take_along_axis(logits, targets[..., None], axis=-1), log_sum_exp(logits)
        return total - own[..., 0], log_sum_exp(logits[..., entries]) - total, after

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`."""
        hidden, after = self._read(inputs, state)
        return self._logits(hidden[-1]).astype(np.float64), after

    def distribution(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """See `Backend.distribution`."""
        hidden, after = self._read(inputs, state)
        return self._logits(hidden), after

    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """See `Backend.log_probabilities`."""
        rows = np.asarray(logits, np.float32)
        return np.asarray(rows - log_sum_exp(rows)[..., None])

    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """See `Backend.trace`."""
        names = CELLS[self.weights.cell].signals
        layers, after = self._layers(inputs, state, len(names))
        places = [names.index(name) for name in signals]
        return {
            name: np.stack([values[:, place] for values in layers])
            for name, place in zip(signals, places, strict=True)
        }, after

    def _logits(self, hidden: Array) -> Array:
        return product(hidden, self.weights.output.T) + self.weights.output_bias

    def _read(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """Return hidden vectors (T, B, H) of the last layer, and the state after the inputs."""
        layers, after = self._layers(inputs, state, 1)
        return layers[-1][:, 0], after

    def _layers(self, inputs: Ids, state: State, kept: int) -> tuple[list[Array], State]:
        """Return what `run_layers` returns for inputs (T, B)."""
        weights = self.weights
        return run_layers(weights.cell, weights.layers, weights.embedding[inputs], state, kept)


@quiet_products
def run_layers(
    cell: str, layers: Sequence[LayerWeights], x: Array, state: State, kept: int = 1
) -> tuple[list[Array], State]:
    """Return the first signals of each layer, (T, kept, B, H), and the state after inputs x.

    x has shape (T, B, E). The order of signals is that of `CellSpec.signals`; h is the first one.
    """
    step: Step = resolve(CELLS[cell].numpy_step)
    signals, after = [], []
    for layer, layer_state in zip(layers, state, strict=True):
        values = []
        for from_input in x @ layer.weight_ih.T + layer.bias_ih:
            layer_state, blocks = step(layer, from_input, layer_state)
            values.append([*layer_state, *blocks][:kept])
        signals.append(np.array(values))
        x = signals[-1][:, 0]
        after.append(layer_state)
    return signals, tuple(after)


def rnn_step(
    layer: LayerWeights, from_input: Array, state: LayerState
) -> tuple[LayerState, tuple[Array, ...]]:
    """Return the state of an Elman layer after one step; it has no gates."""
    (h,) = state
    return (np.tanh(from_input + h @ layer.weight_hh.T + layer.bias_hh),), ()


def lstm_step(
    layer: LayerWeights, from_input: Array, state: LayerState
) -> tuple[LayerState, tuple[Array, ...]]:
    """Return the state of an LSTM layer after one step, and i, f, g, o."""
    h, c = state
    gates = from_input + h @ layer.weight_hh.T + layer.bias_hh
    i, f, g, o = np.split(gates, 4, axis=1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    c = f * c + i * g
    return (o * np.tanh(c), c), (i, f, g, o)


def gru_step(
    layer: LayerWeights, from_input: Array, state: LayerState
) -> tuple[LayerState, tuple[Array, ...]]:
    """Return the state of a GRU layer after one step, and r, z, n."""
    (h,) = state
    rx, zx, nx = np.split(from_input, 3, axis=1)
    rh, zh, nh = np.split(h @ layer.weight_hh.T + layer.bias_hh, 3, axis=1)
    r, z = _sigmoid(rx + rh), _sigmoid(zx + zh)
    n = np.tanh(nx + r * nh)
    return (n + z * (h - n),), (r, z, n)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5, np.float32)

"""The engine without compiled kernels: numpy, one product for the inputs of all steps.

Formulas as in torch.nn: i, f, g, o for the LSTM, r, z, n for the GRU, whose reset gate acts after
the recurrent product.
"""

from collections.abc import Callable

import numpy as np

from charlm.backends.interface import (
    Array,
    Ids,
    Logits,
    Nats,
    State,
    log_softmax_sum,
    zero_state,
)
from charlm.backends.weights import LayerWeights, Weights
from charlm.config.cells import CELLS
from charlm.config.class_path import resolve

Parts = tuple[Array, ...]
Step = Callable[[LayerWeights, Array, Parts], Parts]


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5, np.float32)


def rnn_step(layer: LayerWeights, side: Array, state: Parts) -> Parts:
    """Return the state after one step of an Elman layer; `side` is W x + b."""
    (h,) = state
    return (np.tanh(side + h @ layer.from_hidden.T + layer.hidden_bias),)


def lstm_step(layer: LayerWeights, side: Array, state: Parts) -> Parts:
    """Return the state after one step of an LSTM layer; `side` is W x + b."""
    h, c = state
    gates = side + h @ layer.from_hidden.T + layer.hidden_bias
    i, f, g, o = np.split(gates, 4, axis=1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def gru_step(layer: LayerWeights, side: Array, state: Parts) -> Parts:
    """Return the state after one step of a GRU layer; `side` is W x + b."""
    (h,) = state
    rec = np.split(h @ layer.from_hidden.T + layer.hidden_bias, 3, axis=1)
    into = np.split(side, 3, axis=1)
    r, z = _sigmoid(into[0] + rec[0]), _sigmoid(into[1] + rec[1])
    n = np.tanh(into[2] + r * rec[2])
    return (n + z * (h - n),)


class NumpyBackend:
    """Computes with numpy alone; needs no compiler and no torch."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.name = "numpy"
        self.vocab_size = self.logits_each = weights.vocab_size

    def initial_state(self, rows: int) -> State:
        """The zero state."""
        weights = self.weights
        return zero_state(
            len(weights.layers), len(CELLS[weights.cell].state), rows, weights.hidden_size
        )

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """-ln P of the targets and the state after the inputs."""
        logits, state = self._all_logits(inputs, state)
        own = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return log_softmax_sum(logits) - own, state

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """As `nats`, and the rank of each target."""
        logits, state = self._all_logits(inputs, state)
        own = np.take_along_axis(logits, targets[..., None], axis=-1)
        ranks = (logits > own).sum(axis=-1).astype(np.int64) + 1
        return log_softmax_sum(logits) - own[..., 0], ranks, state

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Logits of the token after the inputs."""
        hidden, state = self._read(inputs, state)
        weights = self.weights
        logits = hidden[-1] @ weights.output.T + weights.output_bias
        return logits.astype(np.float64), state

    def _all_logits(self, inputs: Ids, state: State) -> tuple[Array, State]:
        hidden, state = self._read(inputs, state)
        return hidden @ self.weights.output.T + self.weights.output_bias, state

    def _read(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """Hidden vectors of the last layer, (T, B, H), and the state after the inputs."""
        weights = self.weights
        step: Step = resolve(CELLS[weights.cell].numpy_step)
        x = weights.embedding[inputs]  # (T, B, E)
        after = []
        for layer, parts in zip(weights.layers, state, strict=True):
            side = x @ layer.from_input.T + layer.input_bias
            hidden = []
            for now in side:
                parts = step(layer, now, parts)
                hidden.append(parts[0])
            x = np.stack(hidden)
            after.append(parts)
        return x, tuple(after)

"""What an engine is, and the recurrent state as plain arrays.

Letters: B rows, T steps, V vocabulary, H hidden. Every engine gives the same numbers, to rounding.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
Logits = NDArray[np.float64]
Array = NDArray[np.float32]
State = tuple[tuple[Array, ...], ...]
"""For each layer its parts, (h,) or (h, c) for the LSTM, each of shape (B, H), float32.

A state is a value: engines return new arrays and leave those that they are given alone.
"""


class Backend(Protocol):
    """Computes likelihoods and logits under the weights of one model."""

    name: str
    """What computes, for people: `native avx512`, `numpy`, `torch cpu`."""
    vocab_size: int
    logits_each: int
    """Logits that are held for each token: V, or K V for a mixture of K softmaxes."""

    def initial_state(self, rows: int) -> State:
        """The state that rows begin with: zero, or what the model has learnt."""

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """-ln P of targets (T, B) after inputs (T, B), shape (T, B), and the state after them."""

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """As `nats`, and for each target one more than the number of likelier tokens, (T, B)."""

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Logits (B, V) of the token after inputs (T, B), T at least 1, and the state there."""


def zero_state(layers: int, parts: int, rows: int, hidden: int) -> State:
    """Zeros: for each layer, `parts` arrays of shape (rows, hidden)."""
    return tuple(
        tuple(np.zeros((rows, hidden), np.float32) for _ in range(parts)) for _ in range(layers)
    )


def rows_of(state: State, rows: NDArray[np.int64] | list[int]) -> State:
    """The state of some rows of the batch, in the order of `rows`, copied."""
    chosen = np.asarray(rows, np.int64)
    return tuple(tuple(part[chosen] for part in layer) for layer in state)


def log_softmax_sum(logits: NDArray[np.float32]) -> Nats:
    """ln of the sum of exponentials along the last axis, in float64."""
    top = logits.max(axis=-1).astype(np.float64)
    return np.asarray(top + np.log(np.exp(logits - top[..., None]).sum(axis=-1, dtype=np.float64)))

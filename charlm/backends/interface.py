"""The interface of backends, and the recurrent state as plain arrays.

Letters: B batch, T time, V vocabulary, H hidden. All backends return equal numbers, to rounding.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
Logits = NDArray[np.float64]
Array = NDArray[np.float32]
Entries = NDArray[np.bool_]
"""Set of entries of the vocabulary, shape (V,)."""
LayerState = tuple[Array, ...]
"""The state of one layer, such as (h, c) for an LSTM; each array has shape (B, H)."""
State = tuple[LayerState, ...]
"""The state of each layer. A state is a value: backends return new arrays and change none."""


class Backend(Protocol):
    """Likelihoods and logits under the weights of one model."""

    name: str
    """Name for people: `native avx512`, `numpy`, `torch cpu`."""
    vocab_size: int
    logits_each: int
    """Logits in memory for each token: V, or K V for a mixture of K softmaxes."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state in which a batch of documents begins: zero, or the learned one."""

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """Return -ln P (T, B) of targets (T, B) after inputs (T, B), and the state after them."""

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """Return nats, ranks (one more than the number of likelier tokens), and the state."""

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """Return nats, ln of the total probability of a set of entries at each step, and the state.

        Both have shape (T, B); the probability is of the token after each input, as in `nats`. An
        empty set has -inf. Raises ValueError if `entries` does not have shape (V,).
        """

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Return logits (B, V) of the token after inputs (T, B), T > 0, and the state there."""

    def distribution(self, inputs: Ids, state: State) -> tuple[Array | Logits, State]:
        """Return logits (T, B, V) of the token after each input (T, B), T > 0, and the state.

        Callers choose T so that this number of logits fits in memory.
        """

    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """Return ln P (..., V) by logits of this backend, to the bit the numbers of `nats`."""

    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """Return values of all units after each input (T, B), T > 0, and the state there.

        `signals` are names of `CellSpec.signals`, such as h, c, or a gate of the step that read the
        input. Each has shape (L, T, B, H); a layer with fewer units than another is filled up with
        NaN. A mixture has the units of its first network; an n-gram model has none: UsageError.
        """


def check_entries(entries: Entries, vocab_size: int) -> None:
    """Raise ValueError unless a set of entries has one boolean for each entry."""
    if entries.shape != (vocab_size,) or entries.dtype != np.bool_:
        raise ValueError(
            f"entries of shape {entries.shape} and type {entries.dtype}; expected "
            f"{vocab_size} booleans"
        )


def select_rows(state: State, rows: NDArray[np.int64] | list[int]) -> State:
    """Return a copy of the state of these sequences of the batch, in their order."""
    chosen = np.asarray(rows, np.int64)
    return tuple(tuple(array[chosen] for array in layer) for layer in state)


def join_rows(states: Sequence[State]) -> State:
    """Return the state of a batch that has the sequences of several, in their order."""
    return tuple(
        tuple(np.concatenate(arrays) for arrays in zip(*layers, strict=True))
        for layers in zip(*states, strict=True)
    )

"""The engine of compiled kernels: whole windows, and whole samples, in one call."""

import ctypes
import weakref

import numpy as np

from charlm.engine.interface import Array, Ids, Logits, Nats, State, zero_state
from charlm.engine.library import default_threads, open_library
from charlm.engine.weights import PARTS, Weights

CELLS = {"rnn": 0, "lstm": 1, "gru": 2}
KINDS = {"fp32": 0, "bf16": 1, "int8": 2}
"""How weights are kept: 4, 2 or 1 bytes each. Sums are in float32, for int8 exact in int32."""
SMALL_MODEL = 200_000
"""Weights below which one thread is faster than several that wait for each other."""


class NativeEngine:
    """Computes with the kernels of native.cpp. One call at a time: not for several threads."""

    def __init__(
        self, weights: Weights, variant: str, kind: str = "fp32", threads: int | None = None
    ) -> None:
        self.weights, self.variant, self.kind = weights, variant, kind
        self.name = f"native {variant}" + ("" if kind == "fp32" else f" {kind}")
        self.vocab_size = weights.vocab_size
        self.threads = threads or self._usual_threads()
        self._library = open_library(variant)
        handle = ctypes.c_void_p()
        layers = [
            array
            for layer in weights.layers
            for array in (
                layer.from_input, layer.from_hidden, layer.input_bias, layer.hidden_bias,
            )
        ]  # fmt: skip
        pointers = (ctypes.c_void_p * len(layers))(*[array.ctypes.data for array in layers])
        status = self._library.charlm_new(
            CELLS[weights.cell],
            len(weights.layers),
            weights.embedding.shape[1],
            weights.hidden_size,
            weights.vocab_size,
            KINDS[kind],
            self.threads,
            weights.embedding,
            pointers,
            weights.output,
            weights.output_bias,
            ctypes.byref(handle),
        )
        _check(status)
        self._handle = handle
        weakref.finalize(self, self._library.charlm_free, handle)

    def _usual_threads(self) -> int:
        weights = self.weights
        count = weights.output.size + sum(
            layer.from_input.size + layer.from_hidden.size for layer in weights.layers
        )
        return 1 if count < SMALL_MODEL else default_threads()

    def initial_state(self, rows: int) -> State:
        """The zero state."""
        weights = self.weights
        return zero_state(len(weights.layers), PARTS[weights.cell], rows, weights.hidden_size)

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """-ln P of the targets and the state after the inputs."""
        nats, after = np.empty(inputs.shape), _flat(state)
        self._nats(inputs, targets, after, nats, None)
        return nats, self._state(after)

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """As `nats`, and the rank of each target."""
        nats, after = np.empty(inputs.shape), _flat(state)
        ranks = np.empty(inputs.shape, np.int32)
        self._nats(inputs, targets, after, nats, ranks)
        return nats, ranks.astype(np.int64), self._state(after)

    def _nats(
        self, inputs: Ids, targets: Ids, state: Array, nats: Nats, ranks: np.ndarray | None
    ) -> None:
        steps, rows = inputs.shape
        _same_rows(rows, state, targets.shape[1])
        pointer = None if ranks is None else ranks.ctypes.data
        inputs, targets = _plain(inputs, self.vocab_size), _plain(targets, self.vocab_size)
        _check(
            self._library.charlm_nats(
                self._handle, steps, rows, inputs, targets, state, nats, pointer
            )
        )

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Logits of the token after the inputs."""
        steps, rows = inputs.shape
        after = _flat(state)
        _same_rows(rows, after)
        logits = np.empty((rows, self.vocab_size), np.float32)
        inputs = _plain(inputs, self.vocab_size)
        _check(self._library.charlm_logits(self._handle, steps, rows, inputs, after, logits))
        return logits.astype(np.float64), self._state(after)

    def draw(
        self,
        logits: Logits,
        state: State,
        uniform: Nats,
        *,
        temperature: float,
        barred: int = -1,
        restart: int = -1,
    ) -> tuple[Ids, Nats, Logits, State]:
        """Draw T tokens for each row by uniform numbers (T, B) from [0, 1).

        `logits` (B, V) are those of the next token. `barred` is never drawn; after `restart` a
        row begins anew from the zero state. Returns ids and nats, both (T, B), the logits of the
        token after them, and the state there.
        """
        steps, rows = uniform.shape
        after, last = _flat(state), np.array(logits, np.float32, order="C")
        _same_rows(rows, after, len(last))
        ids, nats = np.empty((steps, rows), np.int64), np.empty((steps, rows))
        _check(
            self._library.charlm_draw(
                self._handle,
                steps,
                rows,
                temperature,
                barred,
                restart,
                np.ascontiguousarray(uniform),
                after,
                last,
                ids,
                nats,
            )
        )
        return ids, nats, last.astype(np.float64), self._state(after)

    def _state(self, flat: Array) -> State:
        return tuple(tuple(layer) for layer in flat)


def _flat(state: State) -> Array:
    """One new array of shape (layers, parts, B, H)."""
    return np.array(state, np.float32, order="C")


def _plain(ids: Ids, vocab_size: int) -> Ids:
    """Contiguous int64 inside of the vocabulary: what is outside would be read from any memory."""
    plain = np.ascontiguousarray(ids, np.int64)
    if plain.size and (plain.min() < 0 or plain.max() >= vocab_size):
        raise IndexError(f"ids reach from {plain.min()} to {plain.max()}; expected 0 to V - 1")
    return plain


def _same_rows(rows: int, state: Array, others: int | None = None) -> None:
    if state.shape[2] != rows or others not in (None, rows):
        raise ValueError(f"{rows} rows of inputs with a state of {state.shape[2]}; expected equal")


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError
    if status:
        raise RuntimeError(f"the kernels failed with status {status}")

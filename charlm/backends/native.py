"""The engine of compiled kernels: whole windows, and whole samples, in one call."""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np

from charlm.backends.interface import Array, Ids, Logits, Nats, State, zero_state
from charlm.backends.kernel_library import open_library, useful_threads
from charlm.backends.weights import Weights
from charlm.config.cells import CELLS

KINDS = {"fp32": 0, "bf16": 1, "int8": 2}
"""How weights are kept: 4, 2 or 1 bytes each. Sums are in float32, for int8 exact in int32."""
WEIGHTS_PER_THREAD = 200_000
"""Weights that a thread must have to be worth waiting for. Gain of two threads over one, drawing
one text on a quiet AMD EPYC: 0.76 with 38,000 weights, 1.06 with 140,000, 1.16 with 260,000, 1.23
with 410,000, 1.57 with 820,000."""
FORKED = threading.Lock()
"""Held while an engine is loaded again in a forked process, so that two threads do it once."""


def _free(library: ctypes.CDLL, handle: ctypes.c_void_p, process: int) -> None:
    """Free an engine where it was made: after a fork its workers are not there to be joined."""
    if os.getpid() == process:
        library.charlm_free(handle)


class NativeBackend:
    """Computes with the kernels of the kernels.

    Calls from several Python threads wait for each other. In a process that began as a fork the
    kernels have no threads, so the first call there loads them again with the weights that
    `reread` returns.
    """

    def __init__(
        self,
        weights: Weights,
        variant: str,
        kind: str = "fp32",
        threads: int | None = None,
        reread: "Callable[[], Weights] | None" = None,
    ) -> None:
        self.variant, self.kind = variant, kind
        self._shape = len(weights.layers), len(CELLS[weights.cell].state), weights.hidden_size
        self.name = f"native {variant}" + ("" if kind == "fp32" else f" {kind}")
        self.vocab_size = self.logits_each = weights.vocab_size
        self.threads = threads or _usual_threads(weights)
        self._library, self._reread = open_library(variant), reread
        self._begin(weights)

    def _begin(self, weights: Weights) -> None:
        """Load the kernels with their weights and threads in this process."""
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
            CELLS[weights.cell].native_code,
            len(weights.layers),
            weights.embedding.shape[1],
            weights.hidden_size,
            weights.vocab_size,
            KINDS[self.kind],
            self.threads,
            weights.embedding,
            pointers,
            weights.output,
            weights.output_bias,
            ctypes.byref(handle),
        )
        _check(status)
        self._handle = handle
        self._lock, self._process = threading.Lock(), os.getpid()
        weakref.finalize(self, _free, self._library, handle, self._process)

    def initial_state(self, rows: int) -> State:
        """The zero state."""
        layers, parts, hidden = self._shape
        return zero_state(layers, parts, rows, hidden)

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
        self._check_shapes(inputs, state, targets.shape == inputs.shape)
        pointer = None if ranks is None else ranks.ctypes.data
        inputs, targets = _plain(inputs, self.vocab_size), _plain(targets, self.vocab_size)
        self._call("charlm_nats", steps, rows, inputs, targets, state, nats, pointer)

    def _call(self, name: str, *arguments: object) -> None:
        """One function of the library, by one thread at a time."""
        if os.getpid() != self._process:  # its workers are not here: it would wait for ever
            self._begin_in_fork()
        with self._lock:
            _check(getattr(self._library, name)(self._handle, *arguments))

    def _begin_in_fork(self) -> None:
        """Load the kernels again in a forked process. Raises RuntimeError without `reread`."""
        if self._reread is None:
            raise RuntimeError("the model was loaded before a fork; load it again in this process")
        with FORKED:
            if os.getpid() != self._process:
                self._begin(self._reread())

    def _check_shapes(self, steps_rows: Ids | Nats, state: Array, others_fit: bool) -> None:
        """Raise ValueError for shapes that do not fit: the kernels would read any memory."""
        layers, parts, hidden = self._shape
        expected = (layers, parts, steps_rows.shape[1], hidden)
        if state.shape != expected or not others_fit or 0 in steps_rows.shape:
            raise ValueError(
                f"a state of shape {state.shape} with inputs of {steps_rows.shape}; expected "
                f"{expected}, at least one step and row, and targets or logits of equal size"
            )

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Logits of the token after the inputs."""
        steps, rows = inputs.shape
        after = _flat(state)
        self._check_shapes(inputs, after, True)
        logits = np.empty((rows, self.vocab_size), np.float32)
        inputs = _plain(inputs, self.vocab_size)
        self._call("charlm_logits", steps, rows, inputs, after, logits)
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
        self._check_shapes(uniform, after, last.shape == (rows, self.vocab_size))
        ids, nats = np.empty((steps, rows), np.int64), np.empty((steps, rows))
        uniform = np.ascontiguousarray(uniform)
        options = (temperature, barred, restart)
        self._call("charlm_draw", steps, rows, *options, uniform, after, last, ids, nats)
        return ids, nats, last.astype(np.float64), self._state(after)

    def _state(self, flat: Array) -> State:
        return tuple(tuple(layer) for layer in flat)


def _usual_threads(weights: Weights) -> int:
    count = weights.output.size + sum(
        layer.from_input.size + layer.from_hidden.size for layer in weights.layers
    )
    return useful_threads(count, WEIGHTS_PER_THREAD)


def _flat(state: State) -> Array:
    """One new array of shape (layers, parts, B, H)."""
    return np.array(state, np.float32, order="C")


def _plain(ids: Ids, vocab_size: int) -> Ids:
    """Contiguous int64 inside of the vocabulary: what is outside would be read from any memory."""
    plain = np.ascontiguousarray(ids, np.int64)
    if plain.size and (plain.min() < 0 or plain.max() >= vocab_size):
        raise IndexError(f"ids reach from {plain.min()} to {plain.max()}; expected 0 to V - 1")
    return plain


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError
    if status:
        raise RuntimeError(f"the kernels failed with status {status}")

"""The backend of compiled kernels: whole windows, and whole samples, in one call."""

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from charlm.backends.interface import Array, Entries, Ids, Logits, Nats, State, check_entries
from charlm.backends.kernel_library import open_library, useful_threads
from charlm.backends.weights import Weights
from charlm.config.cells import CELLS

KINDS = {"fp32": 0, "bf16": 1, "int8": 2}
"""Number types of weights, of 4, 2 and 1 bytes. Sums are in float32, for int8 in int32."""
WEIGHTS_PER_THREAD = 200_000
"""Number of weights for which another thread pays off. Speed of two threads relative to one, for
one sample on a quiet AMD EPYC: 0.76 with 38,000 weights, 1.06 with 140,000, 1.16 with 260,000, 1.23
with 410,000, 1.57 with 820,000."""
FORKED = threading.Lock()
"""Lock under which a forked process loads its kernels, so that two threads load them once."""


class NativeBackend:
    """Compute with the kernels.

    Calls from several Python threads wait for each other. In a forked process the kernels have no
    threads, so the first call there loads them again with the weights that `reread` returns.
    """

    def __init__(
        self,
        weights: Weights,
        variant: str,
        kind: str = "fp32",
        threads: int | None = None,
        reread: Callable[[], Weights] | None = None,
    ) -> None:
        self.variant, self.kind = variant, kind
        self._shape, self._signals = weights.state_shape, CELLS[weights.cell].signals
        self.name = f"native {variant}" + ("" if kind == "fp32" else f" {kind}")
        self.vocab_size = self.logits_each = weights.vocab_size
        sizes = (layer.weight_ih.size + layer.weight_hh.size for layer in weights.layers)
        work = weights.output.size + sum(sizes)
        self.threads = threads or useful_threads(work, WEIGHTS_PER_THREAD)
        self._library, self._reread = open_library(variant), reread
        self._load(weights)

    def _load(self, weights: Weights) -> None:
        """Load the kernels with their weights and threads in this process."""
        handle = ctypes.c_void_p()
        addresses = [array.ctypes.data for layer in weights.layers for array in layer]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
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

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`; always zero."""
        layers, tensors, hidden = self._shape
        return self._state(np.zeros((layers, tensors, batch_size, hidden), np.float32))

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`."""
        nats, after = self._nats(inputs, targets, state)
        return nats, after

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""
        ranks = np.empty(inputs.shape, np.int32)
        nats, after = self._nats(inputs, targets, state, ranks=ranks)
        return nats, ranks.astype(np.int64), after

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        check_entries(entries, self.vocab_size)
        chosen, log_masses = entries.astype(np.float32), np.empty(inputs.shape)
        nats, after = self._nats(inputs, targets, state, entries=chosen, log_masses=log_masses)
        return nats, log_masses, after

    def _nats(
        self, inputs: Ids, targets: Ids, state: State, **others: np.ndarray
    ) -> tuple[Nats, State]:
        """Return the nats and the state; `others` are the further arrays of `charlm_nats`."""
        nats, after = np.empty(inputs.shape), _flat(state)
        steps, batch_size = inputs.shape
        self._check_shapes(inputs, after, targets.shape == inputs.shape)
        names = ("ranks", "entries", "log_masses")
        pointers = [others[name].ctypes.data if name in others else None for name in names]
        inputs, targets = _checked(inputs, self.vocab_size), _checked(targets, self.vocab_size)
        self._call("charlm_nats", steps, batch_size, inputs, targets, after, nats, *pointers)
        return nats, self._state(after)

    def _call(self, name: str, *arguments: object) -> None:
        """Call a function of the library, in one thread at a time."""
        if os.getpid() != self._process:  # a fork has no workers, so the call would never return
            self._load_in_fork()
        with self._lock:
            _check(getattr(self._library, name)(self._handle, *arguments))

    def _load_in_fork(self) -> None:
        """Load the kernels again in a forked process. Raises RuntimeError without `reread`."""
        if self._reread is None:
            raise RuntimeError("the model was loaded before a fork; load it again in this process")
        with FORKED:
            if os.getpid() != self._process:
                self._load(self._reread())

    def _check_shapes(self, inputs: Ids | Nats, state: Array, others_fit: bool) -> None:
        """Raise ValueError for shapes that would make the kernels read out of bounds."""
        layers, tensors, hidden = self._shape
        expected = (layers, tensors, inputs.shape[1], hidden)
        if state.shape != expected or not others_fit or 0 in inputs.shape:
            raise ValueError(
                f"a state of shape {state.shape} with inputs of {inputs.shape}; expected "
                f"{expected}, at least one step and sequence, and targets or logits of equal size"
            )

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`."""
        steps, batch_size = inputs.shape
        after = _flat(state)
        self._check_shapes(inputs, after, True)
        logits = np.empty((batch_size, self.vocab_size), np.float32)
        inputs = _checked(inputs, self.vocab_size)
        self._call("charlm_logits", steps, batch_size, inputs, after, logits)
        return logits.astype(np.float64), self._state(after)

    def distribution(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """See `Backend.distribution`."""
        steps, batch_size = inputs.shape
        after = _flat(state)
        self._check_shapes(inputs, after, True)
        logits = np.empty((steps, batch_size, self.vocab_size), np.float32)
        inputs = _checked(inputs, self.vocab_size)
        self._call("charlm_distribution", steps, batch_size, inputs, after, logits)
        return logits, self._state(after)

    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """See `Backend.trace`."""
        steps, batch_size = inputs.shape
        after = _flat(state)
        self._check_shapes(inputs, after, True)
        layers, _, hidden = self._shape
        shape = layers, steps, batch_size, hidden
        values = {name: np.empty(shape, np.float32) for name in signals}
        addresses = [values[name].ctypes.data if name in values else None for name in self._signals]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        inputs = _checked(inputs, self.vocab_size)
        self._call("charlm_trace", steps, batch_size, inputs, after, pointers)
        return values, self._state(after)

    def sample(
        self,
        logits: Logits,
        state: State,
        uniform: Nats,
        *,
        temperature: float | Nats,
        barred: int = -1,
        restart: int = -1,
        kept: Array | None = None,
    ) -> tuple[Ids, Nats, Logits, State]:
        """Sample T tokens for each sequence, by uniform numbers (T, B) from [0, 1).

        `logits` (B, V) are those of the next token. `temperature` is one for all or has shape (B,).
        `barred` is never sampled; after `restart` a sequence returns to the zero state. Return ids
        and nats, both (T, B), the logits of the token after them, and the state there. `kept` (T,
        B, V) is filled with the logits of each token.
        """
        steps, batch_size = uniform.shape
        after, last = _flat(state), np.array(logits, np.float32, order="C")
        shape = batch_size, self.vocab_size
        kept_fits = kept is None or (kept.shape == (steps, *shape) and kept.flags.c_contiguous)
        self._check_shapes(uniform, after, last.shape == shape and kept_fits)
        ids, nats = np.empty((steps, batch_size), np.int64), np.empty((steps, batch_size))
        uniform = np.ascontiguousarray(uniform)
        temperatures = np.broadcast_to(np.asarray(temperature, np.float64), batch_size).copy()
        self._call(
            "charlm_draw",
            steps,
            batch_size,
            temperatures,
            barred,
            restart,
            uniform,
            after,
            last,
            ids,
            nats,
            None if kept is None else kept.ctypes.data,
        )
        return ids, nats, last.astype(np.float64), self._state(after)

    def log_probabilities(self, logits: Logits | Array) -> Nats:
        """See `Backend.log_probabilities`."""
        rows = np.ascontiguousarray(logits, np.float32).reshape(-1, self.vocab_size)
        sums = np.empty(len(rows))
        self._call("charlm_log_sums", len(rows), rows, sums)
        return np.asarray(rows - sums[:, None]).reshape(logits.shape)

    def _state(self, flat: Array) -> State:
        return tuple(tuple(layer) for layer in flat)


def _flat(state: State) -> Array:
    """Return a state as one new array (layers, tensors, B, H)."""
    return np.array(state, np.float32, order="C")


def _checked(ids: Ids, vocab_size: int) -> Ids:
    """Return contiguous ids. Raises IndexError for ids that kernels would read out of bounds."""
    checked = np.ascontiguousarray(ids, np.int64)
    if checked.size and (checked.min() < 0 or checked.max() >= vocab_size):
        raise IndexError(f"ids are from {checked.min()} to {checked.max()}; expected 0 to V - 1")
    return checked


def _free(library: ctypes.CDLL, handle: ctypes.c_void_p, process: int) -> None:
    """Free a network in the process that made it; in a fork there are no workers to join."""
    if os.getpid() == process:
        library.charlm_free(handle)


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError
    if status:
        raise RuntimeError(f"the kernels failed with status {status}")

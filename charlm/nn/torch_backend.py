"""The backend of torch's layers: every cell, on any device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.backends.interface import (
    Array,
    Entries,
    Ids,
    Logits,
    Nats,
    State,
    check_entries,
    join_rows,
    select_rows,
)
from charlm.errors import EnvironmentFailure, named
from charlm.nn import encoder
from charlm.nn.allocation import one_memory_error
from charlm.nn.layers import layer_signals, recorded_calls
from charlm.nn.model import RecurrentLanguageModel

Figures = tuple[np.ndarray, ...]
Compute = Callable[[Tensor, Tensor, Tensor], Figures]
"""Function of the output layer's inputs (T, B, H), logits (T, B, V) and targets (T, B).

It returns arrays of the shape (T, B) or (T, B, ...)."""
GPU_ROWS = 256
"""Sequences that a GPU reads side by side: it takes little longer for them than for a few."""

GPU_BYTES_PER_LOGIT = 512
"""Bytes of a GPU for each logit of a window of a stream; a logit takes about 12 of them."""
GPU_LOGITS = 1 << 25, 1 << 28
"""Fewest and most logits of such a window: 10,000 words in 256 rows have 13 and 104 steps."""


@contextlib.contextmanager
def float32_layers() -> Iterator[None]:
    """Compute recurrent layers of a GPU in float32: by default, their products have 11 bits (TF32).

    The states of equal texts in batches of different sizes would then differ, so that `stream_nats`
    reads its pieces again and again.
    """
    place, name, exact = _layer_precision()
    before = getattr(place, name)
    setattr(place, name, exact)
    try:
        yield
    finally:
        setattr(place, name, before)


def _layer_precision() -> tuple[Any, str, Any]:
    """Return where torch keeps whether cuDNN computes in TF32, its name, and the value for no.

    A program may have used the names that are new in torch 2.9, which then hides the old one.
    """
    try:
        torch.backends.cudnn.allow_tf32  # noqa: B018
    except RuntimeError:
        return torch.backends.cudnn.rnn, "fp32_precision", "ieee"
    return torch.backends.cudnn, "allow_tf32", False


class TorchBackend:
    """Compute with a model on the device of its weights, without gradients.

    `logit_scale` multiplies all logits. A device with too little memory for a window reads fewer
    rows at once, or fewer steps of one row, from then on; that changes results by rounding alone.
    """

    def __init__(self, model: RecurrentLanguageModel, logit_scale: float = 1.0) -> None:
        self.model, self.logit_scale = model, logit_scale
        self.device, self.name = model.device, model.engine
        self.vocab_size = model.vocab_size
        if self.device.type == "cuda":
            self.max_rows = GPU_ROWS
            memory = torch.cuda.get_device_properties(self.device).total_memory
            self.max_logits = gpu_logits(memory)
        self.logits_each = model.vocab_size * model.settings.mixture
        self._most_rows: int | None = None  # None while all fit in memory
        self._most_steps: int | None = None

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`."""
        return _arrays(self.model.initial_state(batch_size))

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`; the softmax is in float32."""
        (nats,), after = self._read(
            inputs, state, lambda _, logits, correct: (_nats(logits, correct),), targets
        )
        return nats, after

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""

        def nats_and_ranks(_: Tensor, logits: Tensor, correct: Tensor) -> tuple[Nats, Ids]:
            """Return the losses of the correct tokens and their ranks."""
            own = logits.gather(-1, correct[..., None])
            ranks = (logits > own).sum(dim=-1) + 1
            return _nats(logits, correct), ranks.cpu().numpy()

        (nats, ranks), after = self._read(inputs, state, nats_and_ranks, targets)
        return nats, ranks, after

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        check_entries(entries, self.vocab_size)
        chosen = self._tensor(np.flatnonzero(entries))

        def nats_and_masses(_: Tensor, logits: Tensor, correct: Tensor) -> tuple[Nats, Nats]:
            """Return the losses of the correct tokens and the log-masses of the entries."""
            log_masses = logits[..., chosen].logsumexp(dim=-1) - logits.logsumexp(dim=-1)
            return _nats(logits, correct), log_masses.cpu().double().numpy()

        (nats, log_masses), after = self._read(inputs, state, nats_and_masses, targets)
        return nats, log_masses, after

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`."""
        (logits,), after = self._read(
            inputs, state, lambda _, logits, __: (logits.cpu().double().numpy(),), last=1
        )
        return logits[0], after

    def distribution(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """See `Backend.distribution`."""
        (logits,), after = self._read(inputs, state, lambda _, logits, __: (logits.cpu().numpy(),))
        return logits, after

    @torch.inference_mode()
    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """See `Backend.log_probabilities`; the softmax is in float32."""
        rows = torch.from_numpy(np.asarray(logits, np.float32)).to(self.device)
        return rows.log_softmax(dim=-1).cpu().double().numpy()

    @torch.inference_mode()
    @float32_layers()
    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """See `Backend.trace`; the model reads one step after another."""
        now = tuple(tuple(self._tensor(array) for array in layer) for layer in state)
        layers = self.model.recurrent_layers()
        with recorded_calls(layers) as calls:
            states = []
            for ids in self._tensor(inputs).unbind(0):
                _, _, now = self.model.read(ids[None], now)
                states.append(now)
        shape = len(layers), *inputs.shape, max(layer.hidden_size for layer in layers)
        values = {name: np.full(shape, np.nan, np.float32) for name in signals}
        for number, layer in enumerate(layers):
            after = [step[number] for step in states]
            for name, array in layer_signals(layer, calls[number], after).items():
                if name in values:
                    values[name][number, :, :, : layer.hidden_size] = array.float().cpu()
        return values, _arrays(now)

    def contexts(self, inputs: Ids, targets: Ids, state: State) -> tuple[Array, Nats, State]:
        """Return the output layer's inputs (T, B, H), the nats of the targets, and the state."""
        (contexts, nats), after = self._read(
            inputs,
            state,
            lambda hidden, logits, correct: (hidden.float().cpu().numpy(), _nats(logits, correct)),
            targets,
        )
        return contexts, nats, after

    def _read(
        self,
        inputs: Ids,
        state: State,
        compute: Compute,
        targets: Ids | None = None,
        last: int = 0,
    ) -> tuple[Figures, State]:
        """Return the results of `compute` for the inputs, and the state after them.

        Without targets, the inputs take their place. With `last`, compute gets only that many of
        the last steps. Raises EnvironmentFailure if there is too little memory for one token.
        """
        targets = inputs if targets is None else targets
        rows = inputs.shape[1]
        most = min(self._most_rows or rows, rows)
        figures, states = list[Figures](), list[State]()
        begin = 0
        while begin < rows or not figures:
            span = slice(begin, begin + most)
            own = state if most == rows else select_rows(state, list(range(rows)[span]))
            part = self._read_steps(inputs[:, span], own, compute, targets[:, span], last)
            if part is None:  # most rows do not fit
                self._most_rows = most = max(1, most // 2)
                continue
            figures.append(part[0])
            states.append(part[1])
            begin += most
        after = states[0] if len(states) == 1 else join_rows(states)
        return _joined(figures, axis=1), after

    def _read_steps(
        self, inputs: Ids, state: State, compute: Compute, targets: Ids, last: int
    ) -> tuple[Figures, State] | None:
        """Return what `_read` does for rows that are read side by side.

        None if there is too little memory for them, and fewer rows can be tried. One row is read in
        fewer steps at once.
        """
        steps, rows = inputs.shape
        most = min(self._most_steps or steps, steps) if rows == 1 else steps
        figures, begin = list[Figures](), 0
        while begin < steps or not figures:
            span = slice(begin, begin + most)
            part = self._read_part(inputs[span], state, compute, targets[span], last)
            if part is None and rows > 1:
                return None
            if part is None and most == 1:
                raise EnvironmentFailure(
                    f"{self.device.type} has too little memory to read one token with this model; "
                    "expected enough for one. Use a smaller model, or another "
                    f"{named('device')}"
                )
            if part is None:
                self._most_steps = most = most // 2
                continue
            figures.append(part[0])
            state = part[1]
            begin += most
        return (figures[-1] if last else _joined(figures, axis=0)), state

    def _read_part(
        self, inputs: Ids, state: State, compute: Compute, targets: Ids, last: int
    ) -> tuple[Figures, State] | None:
        """Return what `_read` does, or None if there is too little memory."""
        with contextlib.suppress(torch.OutOfMemoryError), one_memory_error():
            return self._read_at_once(inputs, state, compute, targets, last)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @torch.inference_mode()
    @float32_layers()
    def _read_at_once(
        self, inputs: Ids, state: State, compute: Compute, targets: Ids, last: int
    ) -> tuple[Figures, State]:
        """Return what `_read` does. Raises OutOfMemoryError."""
        before = tuple(tuple(self._tensor(array) for array in layer) for layer in state)
        _, hidden, after = self.model.read(self._tensor(inputs), before)
        hidden, correct = hidden[-last:], self._tensor(targets[-last:])
        logits = self.model.output(hidden).float() * self.logit_scale
        return compute(hidden, logits, correct), _arrays(after)

    def _tensor(self, array: Ids | np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _joined(figures: Sequence[Figures], axis: int) -> Figures:
    """Return the arrays of parts of a window as those of all of it."""
    if len(figures) == 1:
        return figures[0]
    return tuple(np.concatenate(arrays, axis=axis) for arrays in zip(*figures, strict=True))


def gpu_logits(memory: int) -> int:
    """Return the number of logits in a window of a stream, for a GPU with this many bytes."""
    fewest, most = GPU_LOGITS
    return min(max(memory // GPU_BYTES_PER_LOGIT, fewest), most)


def _nats(logits: Tensor, targets: Tensor) -> Nats:
    nats = F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1), reduction="none")
    return nats.view_as(targets).cpu().double().numpy()


def _arrays(state: encoder.State) -> State:
    return tuple(
        tuple(tensor.detach().float().cpu().numpy() for tensor in layer) for layer in state
    )

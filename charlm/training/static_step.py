"""The training step of a language model on tensors that are allocated once.

A GPU waits for the host most of the time if it starts each of a thousand operations of a step by
itself. Here the work of a step is two functions without arguments, which read and write these
tensors only and never ask the device for a number, so that they can be captured in CUDA graphs:

    host:    window, scale, state      another window          rate
    device:  gradient function         gradient function       update function
                                                               (check, clip, weights, zero)

Numbers are read when a record is due. Windows that do not fit are computed as `Step` does, by the
low-precision copy if there is one.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.nn.allocation import one_memory_error
from charlm.nn.encoder import State
from charlm.nn.low_precision import LossScale, LowCopy, can_be_static
from charlm.nn.side_by_side import PIECES
from charlm.tasks.task import Sums, Task, WindowLoss
from charlm.text.batches import MAX_LONGER, PADDING, Batch
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training.clipping import EXPLODING, Clipped
from charlm.training.graphs import Graphs
from charlm.training.optim import skips_on_device
from charlm.training.processes import ALONE, Processes
from charlm.training.step import Findings, Step
from charlm.training.train_state import TrainState

LENGTHS = 8
"""Parts of `bptt` to which short documents are padded (see `padded_steps`)."""
Run = Callable[[Hashable, Callable[[], None]], None]
"""Runs a function on static tensors. Functions with equal keys do the same operations."""


def immediately(key: Hashable, function: Callable[[], None]) -> None:  # noqa: ARG001
    """Run a function without capturing it."""
    function()


class Numbers(NamedTuple):
    """Numbers of the steps since the host last read them, as tensors or as floats.

    `failed` steps have changed nothing. `first` is the number of the first of them, counted from 1,
    `loss` its sum. `overflows` are steps that have changed only the scale of the loss and have not
    failed. `lost_tokens` are those of both. `norm` is of the newest other step, `largest` the
    largest one, of step `largest_at`.
    """

    steps: Any
    nats: Any
    clipped: Any
    lost_tokens: Any
    failed: Any
    overflows: Any
    in_a_row: Any
    first: Any
    loss: Any
    norm: Any
    largest: Any
    largest_at: Any


class Buffers:
    """The tensors of a step, for windows of up to `steps` steps and `size` sequences."""

    def __init__(self, state: TrainState, steps: int, size: int) -> None:
        device, model = state.generator.device, state.model
        integers = {"dtype": torch.int64, "device": device}
        doubles = {"dtype": torch.float64, "device": device}
        self.inputs, self.targets = torch.zeros(2, steps, size, **integers).unbind()  # type: ignore[call-overload]
        self.hidden = cast(State, tuple(
            tuple(torch.zeros_like(tensor, dtype=torch.float32) for tensor in layer)
            for layer in model.zero_state(size)
        ))  # fmt: skip
        """State before a window, and after it: (B, H) each."""
        self.scale = torch.zeros((), device=device)
        """Factor on the sum of losses of a window."""
        self.gradients = [torch.zeros_like(w) for w in model.parameters() if w.requires_grad]
        self.pending = torch.zeros(3, **doubles)  # type: ignore[call-overload]
        """Nats, losses and tokens of the windows since the last update."""
        self.numbers = torch.zeros(len(Numbers._fields), **doubles)  # type: ignore[call-overload]
        """See `Numbers`."""
        self.found_inf = torch.zeros((), device=device)
        """1 if the optimiser must change nothing, else 0."""

    def rows(self, count: int) -> State:
        """Return the state of the first sequences, as views."""
        return tuple(tuple(tensor[:count] for tensor in layer) for layer in self.hidden)


class StaticStep(Step):
    """The step on buffers that are allocated once; captured or not, the same operations run.

    `graphs` capture the functions; without them they run as they are. A number that is not finite
    is found on the device, where the optimiser then changes nothing: with `on_nonfinite` skip in
    that step, otherwise in all steps until `settle` reports it. The average of the weights counts
    skipped steps too, with unchanged weights.
    """

    def __init__(
        self,
        state: TrainState,
        task: Task,
        processes: Processes = ALONE,
        graphs: Graphs | None = None,
    ) -> None:
        super().__init__(state, task, processes)
        settings = state.settings
        assert settings.batch_size and settings.bptt, "planned settings have sizes"
        self.loss = cast(WindowLoss, task.loss)
        self.graphs, self.run = graphs, cast(Run, graphs.run if graphs else immediately)
        self.size = settings.batch_size
        self.max_steps = settings.bptt + MAX_LONGER * settings.random_bptt
        if task.low_precision == torch.float16:
            state.loss_scale = LossScale(state.generator.device)
        self.decides = skips_on_device(state.optimizer) and not settings.clip_value
        """True if the update function decides on the device; if not, the host does, as in `Step`"""
        self._buffers: Buffers | None = None
        self._low: LowCopy | None = None
        self._rows: State | None = None

    def add(self, batch: Batch, factor: float) -> None:
        """Add `factor` times the mean gradient of a batch, and move the state on."""
        shape = self._shape(batch)
        self._remember()
        try:
            buffers = self._allocated()
            if shape and not self._full:
                self._load(batch, shape, factor)
                with one_memory_error():
                    self.run(("gradient", *shape), partial(self._gradient, *shape))
                self._take(buffers.rows(len(batch.kept)))
                return
        except torch.OutOfMemoryError:
            self._full = True
        super().add(batch, factor)
        if not self._full:
            self._adopt(buffers, batch)

    def update(self, rate: float) -> None:
        """Change the weights. Raises an error only for want of memory, or if the host decides."""
        buffers = self._buffers
        if self._full or buffers is None:
            super().update(rate)
        elif self.decides:
            random = self._random
            self._begin()
            self._set_rate(rate)
            self._try(partial(self.run, "update", self._update), random)
        else:
            nats, loss, _ = buffers.pending.tolist()
            buffers.pending.zero_()
            self._nats, self._broken = [nats], 0.0 if np.isfinite(loss) else loss
            super().update(rate)
            if self._low:
                self._low.refresh()

    def settle(self) -> Findings | None:
        """Bring the counters up to date, and return what failed since the last time."""
        buffers, counters = self._buffers, self.state.counters
        if buffers is None or not self.decides:
            return None
        numbers = Numbers(*buffers.numbers.tolist())
        buffers.numbers.zero_()
        buffers.numbers[Numbers._fields.index("in_a_row")] = numbers.in_a_row
        counters.sum_nats += numbers.nats
        counters.sum_tokens -= int(numbers.lost_tokens)
        counters.sum_clipped += int(numbers.clipped)
        counters.skipped += int(numbers.overflows)
        self.clipped = Clipped(norm=numbers.norm or self.clipped.norm, cut=False)
        before = counters.step - int(numbers.steps)
        problem = explodes = ""
        if numbers.failed:
            kind = f" in {str(self._low.dtype).removeprefix('torch.')}" if self._low else ""
            what = f"the gradient is not finite{kind}"
            if not np.isfinite(numbers.loss):
                what = f"the loss is {numbers.loss:.4g}"
            problem = f"step {before + int(numbers.first)}: {what}"
        if numbers.largest > EXPLODING * max(self.state.settings.clip_norm, 1.0):
            step = before + int(numbers.largest_at)
            explodes = f"step {step}: the gradient explodes, norm {numbers.largest:.3g}"
        return Findings(int(numbers.failed), int(numbers.in_a_row), problem, explodes)

    def reset(self) -> None:
        """Drop all buffers, which belong to tensors of the train state, and what was captured."""
        super().reset()
        self.state.optimizer.zero_grad()
        self._buffers = self._low = self._rows = None
        if self.graphs:
            self.graphs.clear()

    @property
    def uncaptured(self) -> str:
        """See `Step.uncaptured`."""
        return self.graphs.failure if self.graphs else ""

    def _allocated(self) -> Buffers:
        """Return the buffers, with the gradients of the weights in them."""
        state = self.state
        if self._buffers is None:
            buffers = Buffers(state, self.max_steps, self.size)
            buffers.numbers[Numbers._fields.index("in_a_row")] = state.counters.skipped_in_a_row
            if self.task.low_precision:
                self._low = LowCopy(state.model, self.task.low_precision)
            if self.decides:
                vars(state.optimizer).update(found_inf=buffers.found_inf, grad_scale=None)
            self._buffers = buffers
        for weight, gradient in zip(self.weights, self._buffers.gradients, strict=True):
            if weight.grad is not gradient:  # a failed step has dropped it
                weight.grad = gradient.zero_()
        return self._buffers

    def _shape(self, batch: Batch) -> tuple[int, int] | None:
        """Return the steps and sequences that a batch is padded to, or None if it is not.

        Sequences that go on must end at their last step, or their state would be wrong. TAR depends
        on the number of steps. A step takes a GPU hardly longer with more sequences.
        """
        settings, steps = self.state.settings, len(batch.inputs)
        if batch.next.offset == 0 and not settings.slowness_penalty:
            bptt = settings.bptt or 0
            steps = padded_steps(steps, bptt) if batch.first else max(steps, bptt)
        fits = steps <= self.max_steps and self.state.counters.parts == 1
        return (steps, self.size) if fits else None

    def _load(self, batch: Batch, shape: tuple[int, int], factor: float) -> None:
        """Put a padded batch and the state before it into the buffers."""
        buffers, hidden = self._allocated(), self.state.hidden
        steps = shape[0]
        send(buffers.inputs[:steps], padded(batch.inputs, shape, EOS))
        send(buffers.targets[:steps], padded(batch.targets, shape, PADDING))
        buffers.scale.fill_(factor / batch.tokens)
        in_place = np.array_equal(batch.kept, np.arange(len(batch.kept)))
        resets = batch.first or self.state.settings.state_reset
        if hidden is None or resets or not in_place or hidden is not self._rows:
            state = self.state
            before = self.loss.state_before(state.model, batch, hidden, state.generator)
            put_state(buffers, before)
        clear_rows(buffers, len(batch.kept))

    def _adopt(self, buffers: Buffers, batch: Batch) -> None:
        """Move the numbers and the state of a batch that `Step` has added to the buffers."""
        numbers = [sum(self._nats), self._broken, batch.tokens]
        self._nats, self._broken = [], 0.0
        buffers.pending += torch.tensor(numbers, dtype=torch.float64).to(buffers.pending.device)
        put_state(buffers, self.state.hidden)
        self._take(buffers.rows(len(batch.kept)))

    def _take(self, rows: State) -> None:
        """Make these rows of the buffers the state of training."""
        self.state.hidden = self._rows = rows

    def _gradient(self, steps: int, size: int) -> None:
        """Add the gradient of the window in the buffers and move the state on, which comes last.

        So nothing has changed if there is too little memory.
        """
        buffers, low, state = self._allocated(), self._low, self.state
        inputs, targets = buffers.inputs[:steps], buffers.targets[:steps]
        model, hidden = (
            (low.model, low.cast(buffers.hidden)) if low else (state.model, buffers.hidden)
        )
        # after a failed capture, torch's allocator may never free what several streams have read
        with model.in_pieces(1 if self.uncaptured else PIECES):
            sums = self.loss.of_window(model, inputs, targets, hidden, state.generator)
        self._add_gradients(sums.loss * buffers.scale)
        tokens = (targets != PADDING).sum()
        loss = sums.loss.detach()
        buffers.pending += torch.stack([sums.nats.double(), loss.double(), tokens.double()])
        after = low.cut(sums.after) if low else sums.after
        for old, new in zip(buffers.hidden, after, strict=True):
            torch._foreach_copy_(list(old), list(new))

    def _sums(self, part: Batch) -> Sums:
        """See `Step._sums`. If there is a low-precision copy, it computes them."""
        low, state = self._low, self.state
        if low is None:
            return super()._sums(part)
        hidden = None if state.hidden is None else low.cast(state.hidden)
        sums = self.task.loss(low.model, part, hidden, state.generator)
        return sums._replace(after=low.cut(sums.after))

    def _backward(self, loss: Tensor) -> None:
        """See `Step._backward`."""
        if self._low:
            self._add_gradients(loss)
        else:
            super()._backward(loss)

    def _add_gradients(self, loss: Tensor) -> None:
        """Add the gradients of a loss, computed from the model or from its copy, in float32."""
        scale, low = self.state.loss_scale, self._low
        scaled = loss * scale.factor if scale else loss
        found: Sequence[Tensor | None] = (
            low.gradients(scaled)
            if low
            else torch.autograd.grad(scaled, self.weights, allow_unused=True)
        )
        gradients = self._allocated().gradients
        pairs = [(sum_, new) for sum_, new in zip(gradients, found, strict=True) if new is not None]
        torch._foreach_add_([sum_.view_as(new) for sum_, new in pairs], [new for _, new in pairs])

    @torch.no_grad()
    def _update(self) -> None:
        """Check, clip and change the weights, unless a number is not finite; count it.

        Nothing is allocated after the step of the optimiser, see `_try`.
        """
        buffers, settings, scale = self._allocated(), self.state.settings, self.state.loss_scale
        if scale:
            scale.divide_out(buffers.gradients)
        total = torch.nn.utils.get_total_norm(buffers.gradients)
        before, norm = Numbers(*buffers.numbers.unbind()), total.double()
        nats, loss, tokens = buffers.pending.unbind()
        finite = norm.isfinite() & loss.isfinite()
        unfailed = before.failed == 0
        good = finite if settings.on_nonfinite == "skip" else finite & unfailed
        bad, overflows = ~good, torch.zeros_like(good)
        if scale:
            *scale_numbers, overflows = scale.after(norm, loss)
        failed = bad & ~overflows
        if settings.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.weights, settings.clip_norm, total)
        steps, first = before.steps + 1, failed & unfailed
        norm_if_good = norm.masked_fill(bad, 0.0)
        numbers = Numbers(
            steps=steps,
            nats=before.nats + nats.masked_fill(bad, 0.0),
            clipped=before.clipped + (norm_if_good > (settings.clip_norm or torch.inf)),
            lost_tokens=before.lost_tokens + tokens.masked_fill(good, 0.0),
            failed=before.failed + failed,
            overflows=before.overflows + overflows,
            in_a_row=(before.in_a_row + failed).masked_fill(good, 0.0),
            first=torch.where(first, steps, before.first),
            loss=torch.where(first, loss, before.loss),
            norm=torch.where(good, norm, before.norm),
            largest=torch.maximum(before.largest, norm_if_good),
            largest_at=torch.where(norm_if_good > before.largest, steps, before.largest_at),
        )
        together = torch.stack(numbers)
        buffers.found_inf.copy_(bad)
        self.state.optimizer.step()
        if scale:
            scale.put(*scale_numbers)
        buffers.numbers.copy_(together)
        buffers.pending.zero_()
        self._clear_gradients()
        for layer in buffers.hidden:  # after a bad step, sequences begin in the initial state
            for tensor in layer:
                tensor.masked_fill_(bad, 0.0)
        if self._low:
            self._low.refresh()

    def _clear_gradients(self) -> None:
        """Set all gradients to zero, in their buffers."""
        torch._foreach_zero_(self._allocated().gradients)


def padded_steps(steps: int, bptt: int) -> int:
    """Return the steps to which documents of at most `steps` tokens are padded, in one window.

    A graph serves one number of steps. That is `bptt` if it is at most twice as many, else a
    multiple of an eighth of it.
    """
    if bptt <= 2 * steps:
        return max(steps, bptt)
    unit = -(-bptt // LENGTHS)
    return -(-steps // unit) * unit


def padded(array: NDArray[np.int64], shape: tuple[int, int], value: int) -> NDArray[np.int64]:
    """Return an array of this shape with the given one in its corner, and `value` elsewhere."""
    if array.shape == shape:
        return array
    whole = np.full(shape, value, np.int64)
    whole[: array.shape[0], : array.shape[1]] = array
    return whole


def send(buffer: Tensor, array: NDArray[np.int64]) -> None:
    """Copy an array into a buffer; the host does not wait for a GPU.

    Each copy has pinned memory of its own: the host may be several steps ahead of the device.
    """
    source = torch.from_numpy(array)
    if buffer.is_cuda:
        source = source.pin_memory()
    buffer.copy_(source, non_blocking=True)


def put_state(buffers: Buffers, state: State | None) -> None:
    """Put the state of some sequences into the first rows of the buffers; None is zero."""
    for index, layer in enumerate(buffers.hidden):
        for number, tensor in enumerate(layer):
            if state is None:
                tensor.zero_()
            else:
                rows = state[index][number]
                tensor[: len(rows)] = rows


def clear_rows(buffers: Buffers, first: int) -> None:
    """Set the state of the rows from `first` on, which have no sequence, to zero.

    They read padding for as long as the others have text. A state without a bound could become
    infinite in that time, and zero times infinity is a gradient that is not finite.
    """
    for layer in buffers.hidden if first < buffers.inputs.shape[1] else ():
        for tensor in layer:
            tensor[first:].zero_()


def step_of(state: TrainState, task: Task, processes: Processes = ALONE) -> Step:
    """Return the step that trains a model on a task on its device."""
    on_gpu, generator = state.generator.device.type == "cuda", state.generator
    static = isinstance(task.loss, WindowLoss) and can_be_static(state.model.settings)
    if on_gpu and processes.count == 1 and static:
        return StaticStep(state, task, processes, Graphs(generator))
    return Step(state, task, processes)

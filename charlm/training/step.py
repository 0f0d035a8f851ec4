"""One training step: gradients of one or more batches, then one change of the weights.

`Step` fits every task and every device. It reads its numbers on the host in each step.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from charlm.errors import DivergenceError, EnvironmentFailure, named
from charlm.nn.allocation import one_memory_error
from charlm.nn.encoder import State, concatenate
from charlm.tasks.task import Sums, Task
from charlm.text.batches import Batch
from charlm.training.clipping import Clipped, clip
from charlm.training.optim import is_fused
from charlm.training.processes import ALONE, Processes
from charlm.training.train_state import TrainState


class MemoryFull(Exception):
    """A batch does not fit in the memory of the device."""


class Overflow(Exception):
    """The gradients of a step are not finite only because its scaled loss was too large."""


class Findings(NamedTuple):
    """Result of a look at the device: facts about the steps since the last look."""

    failed: int
    """Number of steps that changed nothing, since a number was not finite."""
    in_a_row: int
    """Number of steps that failed in a row up to now."""
    problem: str
    """The first step that failed, and why; empty if none did."""
    explodes: str
    """The step with the largest gradient, if that is exploding."""


class Step:
    """One update of the weights: `add` each batch, then `update`.

    `clipped` describes the gradient of the newest update. What is wrong with a batch is raised by
    `update` only, after the numbers of all processes are summed: no process may decide alone.
    """

    def __init__(self, state: TrainState, task: Task, processes: Processes = ALONE) -> None:
        self.state, self.task, self.processes = state, task, processes
        self.clipped = Clipped(norm=0.0, cut=False)
        self.weights = [w for w in state.model.parameters() if w.requires_grad]
        self._full, self._broken = False, 0.0
        self._nats: list[float] = []
        self._random: Tensor | None = None

    def add(self, batch: Batch, factor: float) -> None:
        """Add `factor` times the mean gradient of a batch, and move the state on.

        The batch is read in `counters.parts` parts.
        """
        self._remember()
        nats, states = 0.0, []
        try:
            for part in () if self._full else self._parts(batch):
                with one_memory_error():
                    part_nats, after = self._add_part(part, factor, batch.tokens)
                nats += part_nats
                states.append(after)
        except torch.OutOfMemoryError:
            self._full = True
        self._nats.append(nats)
        if self._full:  # outside of the handler, whose exception holds memory
            self.state.optimizer.zero_grad()
        else:
            self.state.hidden = concatenate(states)

    def update(self, rate: float) -> None:
        """Change the weights at a learning rate, by the gradients added since the last update.

        Raises MemoryFull, DivergenceError or Overflow, and the weights are unchanged; or
        EnvironmentFailure.
        """
        counters = self.state.counters
        numbers, random = [float(self._full), self._broken, *self._nats], self._random
        self._begin()
        full, broken, *nats = self.processes.total(
            self.weights, torch.tensor(numbers, dtype=torch.float64)
        ).tolist()
        if full:
            self._raise_full(random)  # a process whose memory is full has read less than others
        if not math.isfinite(broken):
            raise DivergenceError(f"the loss is {broken:.4g}")
        self._try(partial(self._change, rate), random)
        for value in nats:
            counters.sum_nats += value
        self._clear_gradients()

    @property
    def uncaptured(self) -> str:
        """Reason why steps are not replayed as CUDA graphs although they should be, or ""."""
        return ""

    def settle(self) -> Findings | None:
        """Bring the counters up to date with the device; here they are after each update."""
        return None

    def reset(self) -> None:
        """Forget what depends on tensors of the train state or on `parts`."""
        self._begin()

    def _remember(self) -> None:
        """Keep the state of the generator before the first batch, for `MemoryFull`."""
        if self._random is None:
            self._random = self.state.generator.get_state()

    def _change(self, rate: float) -> None:
        """Clip the gradients and change the weights. Raises DivergenceError or Overflow before."""
        state, scale = self.state, self.state.loss_scale
        if scale:
            gradients = [weight.grad for weight in self.weights if weight.grad is not None]
            scale.divide_out(gradients)
            norm = torch.nn.utils.get_total_norm(gradients)
            *numbers, overflows = scale.after(norm, torch.zeros_like(norm))
            if overflows:
                scale.put(*numbers)
                raise Overflow
        self.clipped = clip(state.model, state.settings, name_largest=state.counters.warns)
        self._set_rate(rate)
        state.optimizer.step()
        if scale:
            scale.put(*numbers)

    def _try(self, change: Callable[[], None], random: Tensor | None) -> None:
        """Call a function that ends with a step of the optimiser and changes the weights by it.

        Raises MemoryFull if there is too little memory, with weights and optimiser as they were.
        That is so for fused optimisers: they allocate nothing but the state of weights that had
        none, which is dropped here, and do that before they change anything. Other optimisers may
        fail between two changes, and other processes have changed their weights already:
        EnvironmentFailure then ends the run, and nothing of this step is saved.
        """
        optimizer, full = self.state.optimizer, False
        known = set(optimizer.state)
        try:
            with one_memory_error():
                change()
        except torch.OutOfMemoryError:
            full = True
        if not full:
            return
        if self.processes.count > 1 or not is_fused(optimizer):
            raise EnvironmentFailure(
                f"{self.state.generator.device.type} has too little memory for a step of the "
                "optimiser; expected enough for one. The last checkpoint is intact. Use a smaller "
                f"{named('batch_size')} or {named('hidden_size')}"
            )
        for weight in [weight for weight in optimizer.state if weight not in known]:
            del optimizer.state[weight]
        self._raise_full(random)

    def _raise_full(self, random: Tensor | None) -> NoReturn:
        """Raise MemoryFull, with the random numbers that the step began with."""
        if random is not None:
            self.state.generator.set_state(random)
        raise MemoryFull

    def _set_rate(self, rate: float) -> None:
        """Set the learning rate, in place where it is a tensor."""
        for group in self.state.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _clear_gradients(self) -> None:
        """Drop all gradients."""
        self.state.optimizer.zero_grad()

    def _begin(self) -> None:
        """Forget the numbers of the batches since the last update."""
        self._full, self._broken, self._nats, self._random = False, 0.0, [], None

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Yield the sequences of a batch that this process reads, in parts that fit in memory.

        If they know their places, the random numbers are those for the whole batch (`Draws`).
        """
        generator = self.state.generator
        own = self.processes.own(batch, self.state.hidden)
        parts = own.split(self.state.counters.parts)
        begin, generator.rows, generator.of = generator.get_state(), None, len(batch.kept)
        for part in parts:
            if batch.places and part.places and (own is not batch or len(parts) > 1):
                generator.set_state(begin)
                columns = np.searchsorted(batch.places.now, part.places.now)
                generator.rows = torch.from_numpy(columns).to(generator.device)
            yield part
        generator.rows = None

    def _add_part(self, part: Batch, factor: float, tokens: int) -> tuple[float, State]:
        """Add to the gradients those of a part of a batch with this number of targets in all.

        Return the nats of the part and the state after it.
        """
        sums = self._sums(part)
        self._backward(sums.loss / tokens * factor)
        size = max(part.tokens, 1)  # 0 for a process that has no sequences
        mean = float(sums.loss.detach() / size)
        if not math.isfinite(mean) and not self._broken:
            self._broken = mean
        return float(sums.nats / size) * size, sums.after

    def _sums(self, part: Batch) -> Sums:
        """Return the sums of a part of a batch."""
        state = self.state
        return self.task.loss(state.model, part, state.hidden, state.generator)

    def _backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the weights, scaled if there is a scale."""
        scale = self.state.loss_scale
        (loss * scale.factor if scale else loss).backward()  # type: ignore[no-untyped-call]

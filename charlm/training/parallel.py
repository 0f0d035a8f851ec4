"""Several processes that train one model, each with its own sequences of every batch.

Each process has the whole model, and owns a fixed block of the sequences of each group. Losses are
sums over targets, so the gradients of all processes add up to those of one process, whatever their
number: one sum in each step, then the same update everywhere. torch's DistributedDataParallel takes
the mean of the processes, which is another objective where they have unequal numbers of targets.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from charlm.config.settings import Settings
from charlm.config.tasks import LANGUAGE_MODEL
from charlm.errors import DivergenceError, EnvironmentFailure, UsageError, assigned, named
from charlm.nn.encoder import State, concatenate
from charlm.text.batches import PADDING, Batch
from charlm.training.processes import Processes, Result, current_processes

TIMEOUT = timedelta(hours=2)
"""Longest wait for another process: the others wait while process 0 plans, validates, or is held by
the program that iterates over its records."""
POLL_SECONDS = 1e-4
"""Wait between two looks at the sum of a step."""
WAKE_SECONDS = 0.2
"""Wait between two looks at any other exchange, if it takes long."""
STOP_SECONDS = 20.0
"""Longest wait for an answer of others once the user has asked to stop. Slurm and torchrun kill
their processes after 30."""
CHECK_SECONDS = 10.0
"""Time between two looks of another process at whether process 0 still runs, in a long wait. gloo
misses that its connection was closed while this process was stopped, and waits for hours."""
ANOTHER = "another process of this training"


class ProcessLost(EnvironmentFailure):
    """Another process of this training has ended."""


class Unanswered(ProcessLost):
    """Another process of this training does not answer, and the user has asked to stop."""


def check_processes(settings: Settings, device: torch.device) -> None:
    """Raise an error unless the current processes can train a model together.

    Settings that are not planned yet are left out.
    """
    processes, batch_size = current_processes(), settings.training.batch_size or 0
    count, here = processes.count, processes.here
    if count == 1:
        return
    found = f"{count} processes with "
    if settings.task.task != LANGUAGE_MODEL:
        raise UsageError(
            f"{found}{named('task')} {settings.task.task}, whose batches are not shared yet; "
            f"expected {LANGUAGE_MODEL}. Use one process"
        )
    if settings.model.direction == "both":
        raise UsageError(
            f"{found}{named('direction')} both, which trains two models; expected forward or "
            "backward. Use one process, or train two runs"
        )
    if 0 < batch_size < count:
        raise UsageError(
            f"{found}a batch of {batch_size} sequences; expected one for each process. Use fewer "
            f"processes, a larger {named('batch_size')}, or a longer text"
        )
    if device.type == "mps" or (device.type == "cuda" and here > torch.cuda.device_count()):
        devices = torch.cuda.device_count() if device.type == "cuda" else 1
        raise EnvironmentFailure(
            f"{here} processes on a machine with {devices} of {device.type}; expected one process "
            f"for each. Use fewer processes, or {assigned('device', 'cpu')}"
        )


class Parallel(Processes):
    """One of several processes, which exchange numbers through torch.distributed.

    Process 0 decides when training stops: what its clock and its user say reaches the others with
    the sum of the next step. `group` are the processes in torch.distributed, by default all, and
    `store` is how they met, usually in process 0.
    """

    def __init__(self, rank: int, count: int, here: int | None = None) -> None:
        self.rank, self.count, self.here = rank, count, here or count
        self._own_news, self._news = (0.0, ""), (0.0, False)
        self._sequences: int | None = None
        self.group: distributed.ProcessGroup | None = None
        self._gpus: distributed.ProcessGroup | None = None
        self.store: Any = None
        self._hurried: float | None = None
        self._checked = 0.0

    def close(self) -> None:
        """Close the connections with the others; this frees their ports."""
        self.group = self._gpus = self.store = None
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def own(self, batch: Batch, state: State | None) -> Batch:
        """See `Processes.own`. Without sequences of its own, it reads one that is only padding."""
        assert batch.places is not None, "only batches that know their places are shared"
        now, before = batch.places.now, batch.places.before
        block = np.array_split(np.arange(batch.places.width), self.count)[self.rank]
        columns = np.flatnonzero(np.isin(now, block))
        self._sequences = len(columns)
        if not len(columns):
            nothing, first = batch.at(np.zeros(1, np.int64)), np.zeros(1, np.int64)
            targets = np.full_like(nothing.targets, PADDING)
            return replace(nothing, targets=targets, kept=first, tokens=0)
        own = batch.at(columns)
        if state is None or len(state[0][0]) == len(before):  # of all sequences, if restored
            return own
        held = before[np.isin(before, block)]
        return replace(own, kept=np.searchsorted(held, now[columns]))

    def total(self, weights: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:
        """See `Processes.total`. A weight without a gradient in all processes keeps none."""
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        seconds, reason = self._own_news if self.rank == 0 else (0.0, "")
        present = [float(weight.grad is not None) for weight in weights]
        rest = torch.tensor([*present, seconds, float(bool(reason)), *numbers.tolist()])
        flat = torch.cat([*(g.reshape(-1) for g in gradients), rest.to(gradients[0].device)])
        with watched():
            self._add(flat)
        *sums, rest = torch.split(flat, [*(g.numel() for g in gradients), len(rest)])
        torch._foreach_copy_(
            gradients, [s.view_as(g) for s, g in zip(sums, gradients, strict=True)]
        )
        sizes = [len(weights), 2, len(numbers)]
        counts, news, numbers = torch.split(rest.cpu().double(), sizes)
        for weight, gradient, count in zip(weights, gradients, counts.tolist(), strict=True):
            weight.grad = gradient if count else None
        self._news = float(news[0]), bool(news[1])
        return numbers

    def seconds(self, own: float) -> float:
        """See `Processes.seconds`."""
        self._own_news = own, self._own_news[1]
        return self._news[0]

    def stop_reason(self, own: str) -> str:
        """See `Processes.stop_reason`."""
        self._own_news = self._own_news[0], own
        return (own or "stopped") if self._news[1] else ""

    def hurry(self) -> None:
        """See `Processes.hurry`. A wait of more than `STOP_SECONDS` raises Unanswered then."""
        self._hurried = time.monotonic() if self._hurried is None else self._hurried

    def _check_answer(self, began: float) -> None:
        """Raise an error if a wait for others that began at this time is too long, or in vain.

        Raises Unanswered, or what torch raises if process 0 has ended.
        """
        now = time.monotonic()
        if self.rank and self.store and now - max(began, self._checked) > CHECK_SECONDS:
            self._checked = now
            self.store.check(["ready/0"])
        if self._hurried is None or now - max(began, self._hurried) < STOP_SECONDS:
            return
        raise Unanswered(
            f"{ANOTHER} did not answer within {STOP_SECONDS:g} seconds of the request to stop"
        )

    def from_first(self, function: Callable[[], Result]) -> Result:
        """See `Processes.from_first`. Of errors, only DivergenceError reaches the others."""
        result: tuple[Result | None, DivergenceError | None] = None, None
        if self.rank == 0:
            try:
                result = function(), None
            except DivergenceError as error:
                result = None, error
        with watched():
            value, problem = self._broadcast(result)
        if problem:
            raise problem
        return value  # type: ignore[no-any-return]

    def gathered(self, own: Result) -> list[Result] | None:
        """See `Processes.gathered`."""
        with watched():
            return self._gather(own)

    def whole_state(self, hidden: State | None) -> State | None:
        """See `Processes.whole_state`."""
        if hidden is None or self._sequences is None:  # no step was taken since the start
            return hidden
        count = self._sequences
        own = tuple(tuple(tensor[:count].cpu() for tensor in layer) for layer in hidden)
        with watched():
            states = self._gather(own)
        return concatenate(states) if states else None

    def _add(self, numbers: Tensor) -> None:
        """Replace a vector by its sum over all processes, with NCCL on GPUs, gloo elsewhere.

        gloo adds on GPUs too where torch has no NCCL, as on Windows.
        """
        if numbers.is_cuda and self._gpus is None and distributed.is_nccl_available():
            # by default, NCCL ends the program after ten minutes
            self._gpus = distributed.new_group(backend="nccl", timeout=TIMEOUT)
        group = (self._gpus if numbers.is_cuda else None) or self.group
        work, began = distributed.all_reduce(numbers, group=group, async_op=True), time.monotonic()
        try:
            while not work.is_completed():  # Python handles no signal while it waits inside torch
                self._check_answer(began)
                time.sleep(POLL_SECONDS)
        except BaseException:  # the end of Python would wait for a sum that nobody holds
            threading.Thread(target=_hold, args=(work, group), daemon=True).start()
            raise
        work.wait()

    def _broadcast(self, value: Any) -> Any:
        """Return the value of process 0."""
        values = [value]
        self._exchange(partial(distributed.broadcast_object_list, values, group=self.group))
        return values[0]

    def _gather(self, value: Any) -> list[Any] | None:
        """Return the values of all processes, in process 0."""
        values = None if self.rank else [None] * self.count
        self._exchange(partial(distributed.gather_object, value, values, group=self.group))
        return values

    def _exchange(self, function: Callable[[], None]) -> None:
        """Call a function of torch that waits for others."""
        interruptible(function, partial(self._check_answer, time.monotonic()))


def interruptible(
    function: Callable[[], Result], check: Callable[[], None] = lambda: None
) -> Result:
    """Return what a function of torch returns that waits for other processes.

    It is called in another thread, since Python handles no signal while it waits inside torch: so
    Ctrl-C ends the wait, as does an error of `check`, which is called now and then.
    """
    outcome: futures.Future[Result] = futures.Future()

    def call() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    while not futures.wait([outcome], WAKE_SECONDS).done:
        check()
    return outcome.result()


def _hold(work: "distributed.Work", group: "distributed.ProcessGroup | None") -> None:
    """Hold a sum that may never be complete, and its processes, until it fails."""
    with contextlib.suppress(RuntimeError):
        work.wait()
    del group


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise ProcessLost if an exchange fails, which tells that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ProcessLost(
            f"{ANOTHER} has ended, or did not answer; expected all of them up to the end"
        ) from error

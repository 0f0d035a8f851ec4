"""The training loop: truncated back-propagation through time, as an iterator of records.

    for record in trainer.run():

Nothing is printed and nobody is asked; the caller draws, collects or plots. Everything that the
loop needs to go on is in `Trainer.counters` and a handful of tensors, so a state can be saved
between any two steps, and a run that goes on from it equals one that never stopped.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError, EnvironmentFailure, RunError
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.nn.encoder import State, concatenate, select_rows
from charlm.nn.model import RecurrentLanguageModel, saved_tensors
from charlm.nn.torch_backend import TorchEngine
from charlm.phases import phase
from charlm.runs.checkpoints import Checkpoint
from charlm.runs.tensors import put_weights
from charlm.runs.weights import MAX_WEIGHT
from charlm.tasks.language_model import Objective
from charlm.text.batches import PADDING, Batch, Batches, BatchSpec
from charlm.text.dataset import Dataset
from charlm.training.averaging import WeightAverage
from charlm.training.clipping import clip, gradients
from charlm.training.flat import (
    optimizer_tensors,
    restore_optimizer,
    restored_state,
    state_tensors,
)
from charlm.training.optim import build_optimizer
from charlm.training.records import EvaluationRecord, Record, StepRecord, WarningRecord
from charlm.training.schedule import Schedule
from charlm.training.snapshots import check_optimizer, check_state, check_weights, counters_of
from charlm.training.train_state import TrainState
from charlm.units import Tally

LOG_EVERY = 10
"""Steps between two step records."""
GENERATOR_SIZES = {16, 5056}
"""Bytes of the state of torch's generators: on CUDA, and on a processor."""
PLATEAU_FACTOR = 0.25
MAX_WARNINGS = 10
MAX_SKIPPED = 20
"""Steps in a row that are not finite and passed over, before training gives up."""


class Trainer:
    """Trains a model on a dataset under complete settings.

    `on_best(model)` is called when the weights are the best so far. `clock` gives seconds.
    `settled` is false while a record of the last step has yet to come: a snapshot taken then
    would lose it.
    """

    def __init__(
        self,
        model: RecurrentLanguageModel,
        dataset: Dataset,
        settings: TrainingSettings,
        *,
        device: torch.device,
        precision: Precision,
        on_best: Callable[[RecurrentLanguageModel], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model.to(device)
        self.dataset, self.settings, self.device = dataset, settings, device
        self.precision, self.on_best, self.clock = precision, on_best, clock
        self.optimizer = build_optimizer(self.model.parameters(), settings)
        self.generator = torch.Generator(device)
        self.generator.manual_seed(settings.seed or 0)
        self.objective = Objective(
            self.model, settings, device=device, precision=precision, generator=self.generator
        )
        self.counters = TrainState()
        self.average = self._new_average()
        self.state: State | None = None
        self.stop_reason = ""
        self.settled = True
        self.schedule = Schedule(settings, dataset.train)
        self.batches = Batches(dataset.train, self._batch_spec())
        self._started = 0.0
        self._norm = 0.0
        self._clipped = False
        self._shares: list[float] = []  # of the rate, one for each window of the step so far
        self._before = self.counters  # as the step began, with its state
        self._state: State | None = None
        self._windows: list[Batch] = []
        self._warnings: list[str] = []

    def _new_average(self) -> WeightAverage | None:
        """The average that is kept by the settings and the counters, beginning at the weights."""
        if self.settings.average:
            return WeightAverage(self.model, self.settings.average)
        since = self.counters.averaged_from
        return WeightAverage(self.model, None, since) if since else None

    def _batch_spec(self) -> BatchSpec:
        settings = self.settings
        assert settings.batch_size and settings.bptt, "planned settings have sizes"
        return BatchSpec(
            batch_size=settings.batch_size,
            bptt=settings.bptt,
            stateless=settings.stateless,
            seed=settings.seed or 0,
            line_end=self.dataset.vocabulary.line_end,
            random_bptt=settings.random_bptt,
        )

    @property
    def progress(self) -> float:
        """Share of the run that is done, from 0 to 1."""
        return self.schedule.progress(self.counters)

    @property
    def passes(self) -> float:
        """Passes over the training text so far."""
        return self.schedule.passes(self.counters)

    def stop(self, reason: str) -> None:
        """Ask the loop to end after the step that it is in."""
        self.stop_reason = reason

    def run(self) -> Iterator[Record]:
        """Train until the run is complete or asked to stop.

        Raises DivergenceError before the update when a loss or gradient is not finite; with
        `on_nonfinite` skip, only when that happens many times in a row.
        """
        self._started = self.clock() - self.counters.seconds
        while self._shares or not self._ended():
            for window in self.batches.epoch(self.counters.position):
                try:
                    self._learn(window)
                    if len(self._shares) < self.settings.accumulate and self.progress < 1.0:
                        continue
                    self._update()
                except DivergenceError as error:
                    self._pass_over(error)
                records = self._records()
                for number, record in enumerate(records, start=1):
                    self.settled = number == len(records)
                    yield record
                if self._ended():
                    break

    def _records(self) -> list[Record]:
        """What is to be told after a step; all of it is computed before any of it is told."""
        records: list[Record] = [
            WarningRecord(**self.place(), text=text) for text in self._warnings
        ]
        self._warnings = []
        if self.counters.step % LOG_EVERY == 0:
            records.append(self._step_record())
        valid = self.dataset.valid
        if valid is not None and self.schedule.evaluation_is_due(self.counters, len(valid.ids)):
            records.append(self._evaluate())
        return records

    @property
    def completion(self) -> str:
        """Why the run is over, `complete` or `patience`; empty while it is not."""
        return self.schedule.completion(self.counters)

    def _ended(self) -> bool:
        self.counters.finished = self.completion
        return bool(self.stop_reason or self.counters.finished)

    def _learn(self, window: Batch) -> None:
        """Add the gradient of one window to that of the step.

        Where the device has too little memory, the step is begun again with the rows in two parts,
        then four and so on, and so is the rest of the run: another draw of dropout, the same
        gradient otherwise. Raises EnvironmentFailure when single rows do not fit.
        """
        if not self._shares:
            self._before, self._state, self._windows = replace(self.counters), self.state, []
        self._windows.append(window)
        waiting = [window]
        while waiting:
            try:
                self._add(waiting[0])
                del waiting[0]
                continue
            except torch.OutOfMemoryError:
                pass  # what failed is freed when the exception is gone
            waiting = list(self._windows)
            self._read_in_more_parts(max(window.inputs.shape[1] for window in waiting))

    def _read_in_more_parts(self, rows: int) -> None:
        """Go back to the beginning of the step, and halve the number of rows read at once."""
        parts = self.counters.parts
        if parts >= rows:
            raise EnvironmentFailure(
                f"{self.device.type} has too little memory for one row of this model; expected "
                "room for it. Use a smaller --bptt or --hidden"
            )
        self.optimizer.zero_grad()
        self.state, self._shares = self._state, []
        self.counters = replace(self._before, parts=min(2 * parts, rows))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._warnings.append(
            f"step {self.counters.step + 1}: too little memory for {rows} rows at once; they are "
            f"read in {self.counters.parts} parts from here on"
        )

    def _add(self, window: Batch) -> None:
        token_fraction = self.schedule.token_fraction(window)
        nats = self._gradient_in_parts(window, token_fraction / self.settings.accumulate)
        share = self.schedule.length_share(window)
        if "sgd" not in self.settings.optimizer:  # whose steps do not go with the gradient's size
            share *= token_fraction
        self._shares.append(share)
        counters = self.counters
        counters.sum_nats += nats * window.tokens
        counters.sum_tokens += window.tokens
        counters.tokens += window.tokens
        counters.epoch, counters.group = window.next.epoch, window.next.group
        counters.offset = window.next.offset

    def _gradient_in_parts(self, window: Batch, factor: float) -> float:
        """Add `factor` times a window's gradient, its rows in parts; its nats per token."""
        before, total = self._state_before(window), 0.0
        states: list[State] = []
        every = np.arange(window.inputs.shape[1])
        for rows in np.array_split(every, min(self.counters.parts, len(every))):
            chosen = torch.from_numpy(rows).to(self.device)
            part = None if before is None else select_rows(before, chosen)
            inputs, targets = window.inputs[:, rows], window.targets[:, rows]
            share = int((targets != PADDING).sum()) / window.tokens
            loss, nats, state = self.objective.of(inputs, targets, part)
            states.append(state)
            if share:  # rows that are all padding have no loss
                (loss * (factor * share)).backward()  # type: ignore[no-untyped-call]
                self._check_finite(loss)
                total += float(nats) * share
        self.state = concatenate(states)
        return total

    def _update(self) -> None:
        """One step of the optimiser."""
        counters, settings = self.counters, self.settings
        if len(self._shares) < settings.accumulate:  # the run ends here
            for _, gradient in gradients(self.model):
                gradient *= settings.accumulate / len(self._shares)
        self._clip()
        rate = self.schedule.learning_rate(counters, sum(self._shares) / len(self._shares))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._shares = []
        self.optimizer.step()
        self.optimizer.zero_grad()
        counters.step += 1
        counters.skipped_in_a_row = 0
        if self.average:
            self.average.update(counters.step - counters.skipped)
        counters.sum_clipped += int(self._clipped)
        counters.seconds = max(counters.seconds, self.clock() - self._started)

    def _pass_over(self, error: DivergenceError) -> None:
        """Count a step that was not finite, and go on behind its text; or raise the error.

        Weights, optimiser and average stay as they were; the rows go on from the first state.
        """
        before, windows = self._before, self._windows
        row = before.skipped_in_a_row + 1
        if self.settings.on_nonfinite != "skip" or row > MAX_SKIPPED:
            raise error
        after = windows[-1].next
        tokens = before.tokens + sum(window.tokens for window in windows)
        self.counters = replace(
            before, step=before.step + 1, tokens=tokens, epoch=after.epoch, group=after.group,
            offset=after.offset, parts=self.counters.parts, skipped=before.skipped + 1,
            skipped_in_a_row=row,
        )  # fmt: skip
        self.state = None
        self.counters.seconds = max(before.seconds, self.clock() - self._started)
        self._warn(f"{error.found}; this step was skipped")

    def _state_before(self, window: Batch) -> State | None:
        """The state that the rows of a window begin with; None is the model's first one."""
        if window.first or self.state is None:
            return None
        rows = torch.from_numpy(window.kept).to(self.device)
        carried = select_rows(self.state, rows)
        chance = self.settings.state_reset
        if not chance:
            return carried
        first = self.model.initial_state(len(rows))
        draws = torch.rand(len(rows), 1, generator=self.generator, device=self.device)
        return tuple(
            tuple(torch.where(draws < chance, new, old) for new, old in zip(*parts, strict=True))
            for parts in zip(first, carried, strict=True)
        )

    def _clip(self) -> None:
        """Clip the gradients. Raises DivergenceError when they are not finite."""
        try:
            told = self.counters.warnings >= MAX_WARNINGS
            clipped = clip(self.model, self.settings, name_largest=not told)
        except DivergenceError as error:
            raise self._diverged(str(error)) from error
        self._norm, self._clipped = clipped.norm, clipped.cut
        if clipped.explodes:
            self._warn(
                f"step {self.counters.step + 1}: {clipped.explodes}; {self._text_position()}"
            )

    def _warn(self, text: str) -> None:
        """Tell of something with the records of the step, a limited number of times."""
        if self.counters.warnings < MAX_WARNINGS:
            self.counters.warnings += 1
            self._warnings.append(text)

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {float(loss.detach()):.4g}")

    def _diverged(self, what: str) -> DivergenceError:
        """The error that says so, with step and place; the gradient is thrown away."""
        found = f"step {self._before.step + 1}: {what}; {self._text_position()}"
        self.optimizer.zero_grad()
        self.counters, self._shares = replace(self._before, parts=self.counters.parts), []
        return DivergenceError(
            f"training diverged at {found}. Expected finite numbers; nothing of this step was "
            "kept. Try a smaller --learning-rate or --clip-norm, or --on-nonfinite rewind",
            found,
        )

    def _text_position(self) -> str:
        """Where in the text the newest window is."""
        counters = self.counters
        return f"epoch {counters.epoch + 1}, {counters.tokens:,} tokens read"

    def kept_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model holds the weights that are evaluated and kept: the average, if any."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def check_weights(self) -> None:
        """Raise DivergenceError when a weight is not finite, or beyond any that could be used.

        Such a model is never saved.
        """
        weights = [(name, weight.detach()) for name, weight in self.model.named_parameters()]
        for name, weight in [*weights, *(self.average.tensors.items() if self.average else ())]:
            if not (weight.abs() <= MAX_WEIGHT).all():
                found = f"{name} is not finite after step {self.counters.step}"
                raise DivergenceError(
                    f"training diverged: {found}; expected finite numbers. Nothing of it was "
                    "saved. Try a smaller --learning-rate, or --on-nonfinite rewind",
                    found,
                )

    def _step_record(self) -> StepRecord:
        counters = self.counters
        spent = counters.seconds - counters.evaluation_seconds
        read = counters.sum_tokens  # none where every step was passed over
        record = StepRecord(
            **self.place(),
            progress=self.progress,
            nats_per_token=counters.sum_nats / read if read else math.nan,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=self._norm,
            clipped=counters.sum_clipped / LOG_EVERY,
            tokens_per_second=counters.tokens / spent if spent > 0 else 0.0,
        )
        counters.sum_nats, counters.sum_tokens, counters.sum_clipped = 0.0, 0, 0
        return record

    def place(self) -> dict[str, Any]:
        """What every record tells: step, epoch, tokens, seconds."""
        counters = self.counters
        return {
            "step": counters.step,
            "epoch": counters.epoch,
            "tokens": counters.tokens,
            "seconds": round(counters.seconds, 3),
        }

    def _evaluate(self) -> EvaluationRecord:
        assert self.dataset.valid is not None
        counters = self.counters
        begun = self.clock()
        self.check_weights()
        validating = phase("validating", total=len(self.dataset.valid.ids))
        with self.kept_weights():
            with validating:
                tally = evaluate(TorchEngine(self.model), self.dataset.valid)
            if not math.isfinite(tally.nats):
                raise self._broken_validation(tally.nats)
            before = self.best_tally
            if before and before.tokens != tally.tokens:  # of a part of this text: see `search`
                before, counters.without_gain, counters.validation_nats = None, 0, []
            best = before is None or tally.nats < before.nats
            if best:
                self.take_as_best(tally)
                self.on_best(self.model)
        counters.without_gain = 0 if best else counters.without_gain + 1
        if self.settings.schedule == "plateau" and not best:
            counters.plateau *= PLATEAU_FACTOR
        counters.validation_nats.append(tally.nats)
        if self.average is None and self.schedule.average_is_due(counters):
            counters.averaged_from = counters.step - counters.skipped
            self.average = WeightAverage(self.model, None, counters.averaged_from)
        counters.evaluations += 1
        counters.last_progress = self.progress
        counters.evaluation_seconds += self.clock() - begun
        counters.seconds = max(counters.seconds, self.clock() - self._started)
        return EvaluationRecord(**self.place(), progress=self.progress, best=best, tally=tally)

    def _broken_validation(self, nats: float) -> DivergenceError:
        """The error of a validation that is not finite; its stream is longer than training's."""
        found = f"step {self.counters.step}: the validation loss is {nats:.4g}"
        return DivergenceError(
            f"training diverged at {found}. Expected a finite number; best weights and checkpoint "
            "of before are kept. Try a smaller --learning-rate, or --on-nonfinite rewind",
            found,
        )

    def take_as_best(self, tally: Tally) -> None:
        """Note that the best weights are the newest ones, with these validation figures."""
        counters = self.counters
        counters.best_nats, counters.best_step = tally.nats, counters.step
        counters.best_tally = tally.sums()

    @property
    def best_tally(self) -> Tally | None:
        """The validation figures of the best weights so far."""
        found = self.counters.best_tally
        return Tally(**found) if found else None  # type: ignore[arg-type]

    def snapshot(self) -> Checkpoint:
        """Everything needed to go on from here: weights, optimiser, state, draws, counters."""
        tensors = {f"model.{k}": v for k, v in saved_tensors(self.model).items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        tensors |= {f"hidden.{k}": v for k, v in state_tensors(self.state).items()}
        if self.average:
            tensors |= {f"average.{name}": t for name, t in self.average.tensors.items()}
        tensors["generator"] = self.generator.get_state()
        counters = asdict(self.counters)
        return Checkpoint(step=self.counters.step, tensors=tensors, counters=counters)

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a snapshot. Raises RunError when it does not fit this model."""
        parts = {
            prefix: {
                name.removeprefix(f"{prefix}."): tensor
                for name, tensor in saved.tensors.items()
                if name.startswith(f"{prefix}.")
            }
            for prefix in ("model", "optimizer", "hidden", "average")
        }
        try:
            counters = counters_of(saved)
            check_weights(self.model, parts["model"])
            check_weights(self.model, parts["average"])
            check_optimizer(self.optimizer, parts["optimizer"], counters.step - counters.skipped)
            state = restored_state(parts["hidden"], self.device)
            check_state(self.model, state)
            counters.last_progress = min(counters.last_progress, self.schedule.progress(counters))
            self.counters = counters
            put_weights(self.model, parts["model"])
            restore_optimizer(self.optimizer, parts["optimizer"])
            self.average = self._new_average()
            if self.average:
                self.average.restore(parts["average"])
            self.state = state
            self._restore_draws(saved)
            self._check_position()
        except torch.OutOfMemoryError:
            raise
        except (KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
            raise RunError(f"the state of step {saved.step} does not fit: {error}") from error

    def _restore_draws(self, saved: Checkpoint) -> None:
        """Go on with the draws of dropout; another kind of device draws others, from a new seed."""
        state = saved.tensors["generator"]
        sizes = {len(state), len(self.generator.get_state())}
        if sizes != GENERATOR_SIZES:
            self.generator.set_state(state)
            return
        self.generator.manual_seed((self.settings.seed or 0) + saved.step)
        self._warnings.append(
            f"step {saved.step} was made on another kind of device; what is drawn at random "
            "differs from here on"
        )

    def _check_position(self) -> None:
        """Raise ValueError unless there is a window at the position, with rows of the state."""
        following = next(iter(self.batches.epoch(self.counters.position)), None)
        if following is None:
            raise ValueError(f"nothing is at {self.counters.position}")
        rows = 0 if following.first or self.state is None else int(following.kept.max()) + 1
        if self.state is not None and rows > len(self.state[0][0]):
            raise ValueError(f"its hidden state has {len(self.state[0][0])} rows")

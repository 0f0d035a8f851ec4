"""The training loop: truncated back-propagation through time, as an iterator of records.

    for record in trainer.run():
        ...

Nothing is printed; the caller shows, collects or plots. One step passes through this file, the
task (batches and loss), the model, and the optimiser with its schedule. `TrainState` holds
everything that changes, so that a run that resumes from a checkpoint equals one that never stopped.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from charlm.config.optimizers import SCHEDULES
from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError, assigned, named
from charlm.inference.figures import Figures
from charlm.nn.encoder import Encoder, State
from charlm.nn.heap import return_freed_memory
from charlm.runs.checkpoints import Checkpoint
from charlm.tasks.task import Task
from charlm.text.batches import Batch
from charlm.training.checkpoint import restore, to_checkpoint
from charlm.training.processes import ALONE, Processes
from charlm.training.records import EvaluationRecord, Record, StepRecord, WarningRecord
from charlm.training.recovery import Recovery, check_weights, text_position
from charlm.training.schedule import Schedule
from charlm.training.static_step import step_of
from charlm.training.stopwatch import Stopwatch
from charlm.training.train_state import Counters, TrainState

LOG_EVERY = 10
"""Steps between two step records."""
PLATEAU_FACTOR = 0.25
"""Factor on the learning rate after a validation without gain, with schedule `plateau`."""


class Trainer:
    """Trains a model on a task under complete settings, on the device of the model.

    `on_best(model)` is called when the weights are the best so far. `clock` returns seconds.
    `processes` are those that train the model together.
    `settled` is false while records of the newest step remain to be yielded: a checkpoint made then
    would lose them.
    """

    def __init__(
        self,
        model: Encoder,
        task: Task,
        settings: TrainingSettings,
        *,
        on_best: Callable[[Encoder], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.task, self.settings = model, task, settings
        self.on_best, self.clock, self.processes = on_best, Stopwatch(clock), processes
        self.state = TrainState(model, settings, task.target)
        self.schedule = Schedule(settings, task.batches)
        self.gradient_step = step_of(self.state, task, processes)
        self.recovery = Recovery(self.state, self.gradient_step)
        self.stop_reason = ""
        self.settled = True
        self._started = 0.0
        self._whole: State | None = None

    @property
    def counters(self) -> Counters:
        """The numbers of the train state."""
        return self.state.counters

    def run(self) -> Iterator[Record]:
        """Train until the run is complete or asked to stop. `Recovery.run` lists the errors."""
        self._share()
        first = self.counters.step
        self._started = self.clock() - self.counters.seconds
        steps = self._batches_of_steps()
        while not self._has_ended():
            batches = next(steps)
            self.recovery.run(partial(self.step, batches), batches)
            elapsed = self.processes.seconds(self.clock() - self._started)
            self.counters.seconds = max(self.counters.seconds, elapsed)
            records = self._records()
            if records:
                self._gather()
            for number, record in enumerate(records, start=1):
                self.settled = number == len(records)
                yield record
        self.recovery.settle()
        if self.counters.step > first:
            self._gather()
        yield from self._warning_records()

    def _share(self) -> None:
        """Put the train state of process 0 into all processes."""
        if self.processes.count > 1:
            checkpoint = self.processes.from_first(self._checkpoint_on_cpu)
            if self.processes.rank:
                restore(self.state, checkpoint, self.task.batches)
                self.gradient_step.reset()

    def _gather(self) -> None:
        """Collect in process 0 what it may save; weights that it would not save stop all."""
        if self.processes.count > 1:
            check_weights(self.state)
            self._whole = self.processes.whole_state(self.state.hidden)

    def step(self, batches: Sequence[Batch]) -> None:
        """Update the weights once, with the mean gradient of some batches in a row."""
        state, counters, schedule, factors = self.state, self.counters, self.schedule, []
        for batch in batches:
            self.gradient_step.add(batch, schedule.token_fraction(batch) / len(batches))
            factors.append(schedule.batch_factor(batch))
            counters.sum_tokens += batch.tokens
            counters.pass_batch(batch)
        rate = schedule.learning_rate(counters, sum(factors) / len(factors))
        self.gradient_step.update(rate)
        counters.step += 1
        clipped = self.gradient_step.clipped
        counters.sum_clipped += int(clipped.cut)
        if clipped.explodes:
            place = text_position(state)
            self.recovery.warn(f"step {counters.step}: {clipped.explodes}; {place}")
        if state.average:
            state.average.update(counters.updates)

    def _batches_of_steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step, epoch after epoch; the last step may have fewer."""
        ahead, batches = replace(self.counters), []
        while True:
            for batch in self.task.batches.epoch(ahead.position):
                batches.append(batch)
                ahead.pass_batch(batch)
                if len(batches) == self.settings.accumulate or self.schedule.progress(ahead) >= 1:
                    yield batches
                    batches = []

    def stop(self, reason: str) -> None:
        """Ask the loop to end after the current step."""
        self.stop_reason = reason
        self.processes.hurry()

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, from 0 to 1."""
        return self.schedule.progress(self.counters)

    @property
    def passes(self) -> float:
        """Passes over the training text so far."""
        return self.schedule.passes(self.counters)

    @property
    def completion(self) -> str:
        """Reason why the run is over, `complete` or `patience`; empty while it is not."""
        return self.schedule.completion(self.counters)

    def _has_ended(self) -> bool:
        self.counters.finished = self.completion
        return bool(self.processes.stop_reason(self.stop_reason) or self.counters.finished)

    def _records(self) -> list[Record]:
        """Return the records of a step; all are computed before any of them is yielded."""
        log_is_due = self.counters.step % LOG_EVERY == 0
        evaluate = self.task.evaluate
        evaluation_is_due = evaluate is not None and self.schedule.evaluation_is_due(
            self.counters, evaluate.tokens
        )
        if log_is_due or evaluation_is_due or self.recovery.warnings:
            self.recovery.settle()
        records = self._warning_records()
        if evaluation_is_due or (log_is_due and self._steps_on_host):
            return_freed_memory()
        if log_is_due:
            records.append(self._step_record())
        if evaluation_is_due:
            records.append(self._evaluation_record())
        return records

    @property
    def _steps_on_host(self) -> bool:
        """True if steps take memory of the processor; a GPU would wait while it is returned."""
        return self.state.generator.device.type == "cpu"

    def _warning_records(self) -> list[Record]:
        warnings, self.recovery.warnings = self.recovery.warnings, []
        fields = self.state.record_fields()
        return [WarningRecord(**fields, text=text) for text in warnings]

    def _step_record(self) -> StepRecord:
        counters = self.counters
        training_seconds = counters.seconds - counters.evaluation_seconds
        tokens = counters.sum_tokens  # 0 if every step was skipped
        record = StepRecord(
            **self.state.record_fields(),
            progress=self.progress,
            nats_per_token=counters.sum_nats / tokens if tokens else math.nan,
            learning_rate=float(self.state.optimizer.param_groups[0]["lr"]),
            gradient_norm=self.gradient_step.clipped.norm,
            clipped=counters.sum_clipped / LOG_EVERY,
            tokens_per_second=counters.tokens / training_seconds if training_seconds > 0 else 0.0,
        )
        counters.sum_nats, counters.sum_tokens, counters.sum_clipped = 0.0, 0, 0
        return record

    def _evaluation_record(self) -> EvaluationRecord:
        """Validate the weights that would be kept; update best weights, rate and average."""
        counters, started = self.counters, self.clock()
        check_weights(self.state)
        with self.state.kept_weights():
            tally, best = self.processes.from_first(self._evaluate)
            if best:
                counters.take_as_best(tally)
                self.on_best(self.model)
        counters.without_gain = 0 if best else counters.without_gain + 1
        if SCHEDULES[self.settings.schedule or "cosine"].follows_validation and not best:
            counters.plateau *= PLATEAU_FACTOR
        counters.validation_nats.append(tally.nats)
        if self.state.average is None and self.schedule.average_is_due(counters):
            counters.averaged_from = counters.updates
            self.state.begin_average()
        counters.evaluations += 1
        counters.last_progress = self.progress
        spent, elapsed = self.processes.from_first(
            lambda: (self.clock() - started, self.clock() - self._started)
        )
        counters.evaluation_seconds += spent
        counters.seconds = max(counters.seconds, elapsed)
        return EvaluationRecord(
            **self.state.record_fields(), progress=self.progress, best=best, tally=tally
        )

    def _evaluate(self) -> tuple[Figures, bool]:
        """Return the validation figures, and whether they are the best so far.

        Raises DivergenceError if they are not finite.
        """
        assert self.task.evaluate is not None
        best, badness = self.counters.best, self.task.badness
        tally = self.task.evaluate(self.model)
        if not math.isfinite(tally.nats):  # the state is carried further than in training
            problem = f"step {self.counters.step}: the validation loss is {tally.nats:.4g}"
            raise DivergenceError(
                f"training diverged at {problem}. Expected a finite number; the earlier best "
                f"weights and checkpoint are kept. Try a smaller {named('learning_rate')}, or "
                f"{assigned('on_nonfinite', 'rewind')}",
                problem,
            )
        return tally, best is None or badness(tally) < badness(best)

    def checkpoint(self) -> Checkpoint:
        """Return everything needed to resume with any number of processes, as of this record."""
        hidden = self.state.hidden if self.processes.count == 1 else self._whole
        return to_checkpoint(self.state, hidden)

    def _checkpoint_on_cpu(self) -> Checkpoint:
        """Return a checkpoint that other processes can read without the device of this one."""
        checkpoint = self.checkpoint()
        tensors = {name: tensor.cpu() for name, tensor in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint. Raises RunError if it does not fit this model."""
        self.recovery.warnings += restore(self.state, checkpoint, self.task.batches)
        self.gradient_step.reset()
        self._whole = self.state.hidden
        counters, evaluate = self.counters, self.task.evaluate
        counters.last_progress = min(counters.last_progress, self.progress)
        if evaluate and counters.best and counters.best.tokens != evaluate.tokens:
            counters.forget_validations()

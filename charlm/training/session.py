"""One training session: train, save checkpoints, and write the results of a run.

`charlm.training.start` and `charlm.training.resume` open a `Session`; iterate over its `records()`
to train. The session holds the lock of the run, so that no other process trains it.
"""

import contextlib
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from charlm.commands import resume_command
from charlm.config.settings import settings_from
from charlm.errors import DivergenceError, EnvironmentFailure, RunError
from charlm.files.atomic import append_whole, explained, is_full, write_file
from charlm.nn.encoder import Encoder
from charlm.phases import phase
from charlm.runs import checkpoints
from charlm.runs.card import model_card
from charlm.runs.layout import CARD, METRICS, RECORD, WEIGHTS, write_record
from charlm.runs.model_files import write_weights
from charlm.text.dataset import Dataset
from charlm.training.records import (
    EvaluationRecord,
    FinishedRecord,
    Record,
    SavedRecord,
    WarningRecord,
)
from charlm.training.recovery import check_weights
from charlm.training.task_training import training_of
from charlm.training.tensorboard import EventLog
from charlm.training.trainer import Trainer
from charlm.units import count_of

RETRY = "Training continues, and the next checkpoint will try again"
MIN_WAIT = 3600.0
"""Seconds for which the end of a training that cannot be saved is kept in memory, at least."""
POLL_SECONDS = 10.0
"""Time between two tries to save the end of a training."""
MAX_REWINDS = 10
REWIND_FACTOR = 0.5
"""Factor on the learning rate each time that training rewinds from a non-finite number."""


@dataclass(kw_only=True)
class Session:
    """A trainer, the run that it writes to, and the warnings that arose."""

    path: Path
    trainer: Trainer
    dataset: Dataset
    record: dict[str, Any]
    lock: FileLock
    warnings: list[str] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    unsaved: Encoder | None = None
    events: EventLog | None = None
    """Second log, for TensorBoard."""
    warned: int = 0
    """Number of warnings yielded so far."""
    save_now: bool = False
    """Request for a checkpoint at the next record of training, whatever the interval is."""
    failed_saves: int = 0
    """Number of saves that failed since the last that succeeded."""
    rewound: list[WarningRecord] = field(default_factory=list)
    """Warnings about rewinds since the last checkpoint."""
    may_wait: bool = True
    """False to raise an error at once if the end of training cannot be saved."""
    waiting: bool = False
    """True while training is over and its end cannot be saved."""

    @property
    def complete(self) -> bool:
        """True if the run is finished and all of its results are written."""
        ended = self.record["status"] == "finished" and self.record.get("whole", True)
        return ended and bool(self.trainer.completion) and (self.path / WEIGHTS).exists()

    def records(self) -> Iterator[Record]:
        """Train, save at intervals and at the end, and yield what happens, warnings included.

        A checkpoint that cannot be saved is a warning. The last one is tried again for as long as
        training took, at least an hour; then it raises EnvironmentFailure.
        """
        try:
            if self.trainer.settings.log == "tensorboard":
                step = self.trainer.counters.step
                self.events = EventLog(self.path, self.record, step)
            yield from self._new_warnings()
            yield from self._start_records()
            for record in self._train_with_rewinds():
                yield from self._new_warnings()
                yield record
        except DivergenceError:
            self.record["status"] = "diverged"
            with contextlib.suppress(EnvironmentFailure):
                write_record(self.path, self.record)
            raise
        finally:
            self.trainer.on_best = lambda _: None  # a cycle would keep the model in memory
            self.lock.release()

    def _new_warnings(self) -> Iterator[WarningRecord]:
        while self.warned < len(self.warnings):
            self.warned += 1
            text = self.warnings[self.warned - 1]
            yield WarningRecord(**self.trainer.state.record_fields(), text=text)

    def _start_records(self) -> Iterator[Record]:
        """Yield a record of the figures that a fine-tuned run starts with."""
        counters = self.trainer.counters
        if counters.step or not counters.best:
            return
        record = EvaluationRecord(
            **self.trainer.state.record_fields(), progress=0.0, best=True, tally=counters.best
        )
        self._log(record)
        yield record

    def _train_with_rewinds(self) -> Iterator[Record]:
        if self.trainer.settings.on_nonfinite == "rewind" and not checkpoints.checkpoint_folders(
            self.path
        ):
            self._try_to_save()
        while True:
            try:
                yield from self._train_and_save()
                break
            except DivergenceError as error:
                record = self._rewound(error)
                self._log(record)
                yield record
        yield self._finish()

    def _train_and_save(self) -> Iterator[Record]:
        """Train until the run ends or is stopped, and save. Raises DivergenceError."""
        saved_at = self.clock()
        every = 60.0 * self.trainer.settings.save_minutes
        for record in self.trainer.run():
            self._log(record)
            yield record
            due = self.save_now or self.clock() - saved_at >= every
            if self.trainer.settled and due and not self.trainer.completion:
                saved_at, self.save_now = self.clock(), False
                if saved := self._try_to_save():
                    yield saved
        yield from self._save_end()

    def _save_end(self) -> Iterator[Record]:
        """Save the end of training, whose weights are lost otherwise, as soon as that is possible.

        Raises EnvironmentFailure if it is not possible in time.
        """
        try:
            saved = self.save()
        except EnvironmentFailure as error:
            limit = max(MIN_WAIT, self.trainer.counters.seconds)
            if not self.may_wait:
                raise self._unsaved(error) from error
            self.waiting = True
            self.warnings.append(
                f"{error}. Training has ended, and what it learned since the last checkpoint is in "
                f"memory only: let this process run. Saving needs {self._size_to_save():.1f} MB, "
                f"and is tried every {POLL_SECONDS:g} s for {limit / 60:.0f} minutes"
            )
            yield from self._new_warnings()
            saved = self._saved_within(limit)
        yield saved

    def _saved_within(self, limit: float) -> SavedRecord:
        """Try to save for this many seconds. Raises the last EnvironmentFailure."""
        ends = self.clock() + limit
        try:
            with phase("waiting until training can be saved"):
                while True:
                    self.wait(min(POLL_SECONDS, limit))
                    try:
                        return self.save()
                    except EnvironmentFailure as error:
                        if self.clock() >= ends:
                            raise self._unsaved(error) from error
        finally:
            self.waiting = False

    def _size_to_save(self) -> float:
        """Return the size of a checkpoint and of the weights in megabytes."""
        tensors = self.trainer.checkpoint().tensors.items()
        return sum(t.nbytes * (1 + name.startswith("model.")) for name, t in tensors) / 1e6

    def _unsaved(self, error: EnvironmentFailure) -> EnvironmentFailure:
        """Return an error that says from where a training that could not be saved resumes."""
        return EnvironmentFailure(
            f"{error}. The end of training is lost; {checkpoints.describe_newest(self.path)}. Once "
            f"there is space, resume the run with: {self._resume_command()}"
        )

    def _rewound(self, error: DivergenceError) -> Record:
        """Restore the newest checkpoint with a lower learning rate, or raise the error again."""
        trainer, now = self.trainer, self.trainer.counters
        if trainer.settings.on_nonfinite != "rewind" or now.rewinds >= MAX_REWINDS:
            raise error
        checkpoint, _ = checkpoints.load_newest_checkpoint(self.path, self.record.get("id"))
        if checkpoint is None:
            raise error
        log_bytes = log_size(checkpoint)
        trainer.restore(checkpoint)
        trainer.counters.after_rewind(now, REWIND_FACTOR)
        trainer.settled = True
        cut_log(self.path, log_bytes)
        if self.events:
            self.events = EventLog(self.path, self.record, checkpoint.step)
        for earlier in self.rewound:  # to the same checkpoint
            self._log(earlier)
        text = (
            f"{error.problem}. Rewound to step {checkpoint.step}, now at "
            f"{trainer.counters.plateau:.3g} times the rate; {now.rewinds + 1} of at most "
            f"{MAX_REWINDS} times"
        )
        self.rewound.append(WarningRecord(**trainer.state.record_fields(), text=text))
        return self.rewound[-1]

    def _log(self, record: Record) -> None:
        """Add a line to each log, or nothing if the disk is full."""
        line = json.dumps(record.to_dict(), sort_keys=True, allow_nan=False) + "\n"
        with contextlib.suppress(OSError):
            append_whole(self.path / METRICS, line.encode("utf-8"))
            if self.events:
                self.events.add(record.to_dict())

    def keep_best(self, model: Encoder) -> None:
        """Write the best weights; if that fails, keep a copy for the checkpoint that follows."""
        self.save_now = True
        try:
            write_weights(self.path, model)
            self.unsaved = None
        except EnvironmentFailure as error:
            self.unsaved = copy.deepcopy(model)
            self._warn_of_failure(error)

    def _try_to_save(self) -> SavedRecord | None:
        try:
            return self.save()
        except EnvironmentFailure as error:
            self._warn_of_failure(error)
            return None

    def _warn_of_failure(self, error: EnvironmentFailure) -> None:
        """Warn of a save that failed; of many in a row, of the first, second, fourth and so on."""
        self.failed_saves += 1
        if not self.failed_saves & (self.failed_saves - 1):
            times = f" ({self.failed_saves} failures in a row)" if self.failed_saves > 1 else ""
            self.warnings.append(f"{error}{times}. {RETRY}")

    @phase("saving a checkpoint")
    def save(self) -> SavedRecord:
        """Save a checkpoint; before the first validation also the newest weights, as the best.

        On a full disk, all checkpoints but the newest make room, with a warning if some of them
        should have been kept beside the new one. Raises EnvironmentFailure.
        """
        try:
            return self._save()
        except EnvironmentFailure as error:
            dropped = is_full(error) and checkpoints.drop_older(self.path, self.record.get("id"))
            if not dropped:
                raise
            self._warn_of_dropped(min(dropped, self.trainer.settings.keep - 2))
            return self._save()

    def _warn_of_dropped(self, count: int) -> None:
        """Warn that checkpoints which should have been kept were deleted; of many times, once."""
        text = (
            f"the disk is full: {count_of(count, 'older checkpoint')} deleted to save a newer one; "
            f"expected room for {self.trainer.settings.keep}. Free some space"
        )
        if count > 0 and text not in self.warnings:
            self.warnings.append(text)

    def _save(self) -> SavedRecord:
        trainer, counters = self.trainer, self.trainer.counters
        check_weights(trainer.state)
        if self.unsaved is not None:
            write_weights(self.path, self.unsaved)
            self.unsaved = None
        lost = counters.best_nats is not None and not (self.path / WEIGHTS).exists()
        if counters.best_nats is None or lost:
            with trainer.state.kept_weights():
                write_weights(self.path, trainer.model)
                if lost and trainer.task.evaluate:
                    counters.take_as_best(trainer.task.evaluate(trainer.model))
                    self.warnings.append(f"{WEIGHTS} was missing; the newest weights replace it")
        checkpoint = trainer.checkpoint()
        log = self.path / METRICS
        checkpoint.counters["log_bytes"] = log.stat().st_size if log.exists() else 0
        folder = checkpoints.save_checkpoint(
            self.path, checkpoint, trainer.settings.keep, run_id=self.record.get("id")
        )
        self.rewound, self.failed_saves = [], 0
        return SavedRecord(**trainer.state.record_fields(), path=str(folder))

    def end_record(self, stopped: str, **figures: Any) -> FinishedRecord:
        """Return the last record of this session with these figures, and why it was `stopped`."""
        counters = self.trainer.counters
        return FinishedRecord(
            **self.trainer.state.record_fields(),
            reason=stopped or counters.finished,
            best_step=counters.best_step if counters.best else counters.step,
            path=str(self.path),
            warnings=self.warnings,
            **figures,
        )

    def _finish(self) -> FinishedRecord:
        """Write the results. Raises EnvironmentFailure with the command that tries it again."""
        settings = settings_from(self.record["settings"], str(self.path / RECORD))
        try:
            finished = training_of(settings).finish(self)
            self._log(finished)
            self.write_end(finished, whole=True)
        except EnvironmentFailure as error:
            is_over = bool(self.trainer.completion)
            found = "Training has ended" if is_over else "Training was stopped"
            do = "write its results" if is_over else "resume the run"
            raise EnvironmentFailure(
                f"{error}. {found} and is saved. Once that is possible, {do} with: "
                f"{self._resume_command()}"
            ) from error
        return finished

    def _resume_command(self) -> str:
        return resume_command(run=self.path, processes=self.trainer.processes.count)

    def write_end(self, finished: FinishedRecord, *, whole: bool) -> None:
        """Write the results into the run; they are `whole` if none is missing."""
        self.record |= {
            "status": "finished" if finished.complete else "stopped",
            "whole": whole,
            "results": finished.results(),
        }
        self.record.pop("notes", None)
        write_file(self.path / CARD, model_card(self.record["name"], self.record).encode("utf-8"))
        write_record(self.path, self.record)  # last, since it marks the run as finished


def log_size(checkpoint: checkpoints.Checkpoint) -> int:
    """Remove the size of the log from a checkpoint's counters and return it. Raises RunError."""
    size = checkpoint.counters.pop("log_bytes", 0)
    if not isinstance(size, int) or size < 0:
        raise RunError(
            f"the checkpoint of step {checkpoint.step} has log_bytes {size!r:.80}; expected a "
            "number of bytes. Restore the run from a copy"
        )
    return size


def cut_log(path: Path, size: int) -> None:
    """Cut the log to its size at a checkpoint: the steps after it will be repeated."""
    log = path / METRICS
    with explained(path):
        if log.exists() and log.stat().st_size > size:
            with log.open("r+b") as file:
                file.truncate(size)

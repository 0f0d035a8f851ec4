"""Search for good settings: random points, the worse half stopped early, all of it resumable.

Random search (Bergstra & Bengio 2012) with successive halving (Jamieson & Talwalkar 2016, in the
asynchronous form of Li et al. 2020), through Optuna (the extra `search`). A search is a folder:
`study.log` is Optuna's journal, `trial-N` the run of each trial.
"""

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.config.presets import overlay
from charlm.config.settings import Settings, find_setting, settings_from
from charlm.config.training import LENGTHS, TrainingSettings
from charlm.config.unused import drop_unused, origins_of_arguments
from charlm.errors import CharlmError, EnvironmentFailure, RunError, UsageError, named
from charlm.files.atomic import write_json
from charlm.phases import Phase, phase
from charlm.runs.folders import lock_run
from charlm.runs.layout import BEST, OLD_READING, RECORD, SEARCH
from charlm.text.sources.names import check_read_again
from charlm.training.records import EvaluationRecord
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.start import plan_run, start

STUDY, SETTINGS = "study.log", SEARCH
HALVING = 2
"""Of the trials that come to a validation, one of so many goes on."""
EVALS = 8
BEGUN, MAX_BEGUN = "begun", 3
"""A trial that was killed so many times, one after the other, is not begun again."""
JUDGED_TOKENS = 40_000
"""Of the validation text, about, that trials are judged on."""
MAX_FAILED = 5
"""Trials that may fail one after the other."""

Suggest = Callable[[Any], Any]
KNOBS: dict[str, Suggest] = {
    "num_layers": lambda trial: trial.suggest_int("num_layers", 1, 3),
    "hidden_size": lambda trial: trial.suggest_int("hidden_size", 64, 1024, log=True),
    "dropout": lambda trial: trial.suggest_float("dropout", 0.0, 0.5, step=0.05),
    "learning_rate": lambda trial: trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True),
    "batch_size": lambda trial: trial.suggest_categorical("batch_size", [8, 16, 32, 64]),
    "bptt": lambda trial: trial.suggest_categorical("bptt", [16, 32, 64, 128]),
    "weight_drop": lambda trial: trial.suggest_float("weight_drop", 0.0, 0.5, step=0.1),
}
"""What can be searched over, and where."""
USUAL_KNOBS = ("num_layers", "hidden_size", "dropout", "learning_rate", "batch_size", "bptt")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """The end of a trial: its values, the best validation figure, and how it ended.

    `state` is complete, pruned (worse than others at the same point), failed, or paused (the
    time was up; it goes on in the next sitting). `warnings` are about its text.
    """

    number: int
    values: dict[str, Any]
    state: str
    nats_per_token: float | None
    seconds: float
    problem: str = ""
    warnings: tuple[str, ...] = ()


def search(
    settings: Settings,
    folder: Path,
    *,
    minutes: float,
    trial_minutes: float,
    knobs: Sequence[str] = USUAL_KNOBS,
    seed: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[TrialRecord]:
    """Try settings for so many minutes, and yield each trial when it ends.

    Values of `knobs` take the place of those in `settings`. A search in a folder that holds one
    goes on with it. Raises UsageError for unknown knobs, RunError where the folder's search is
    another one or every trial fails, EnvironmentFailure while somebody else searches there.
    """
    unknown = [knob for knob in knobs if knob not in KNOBS]
    if unknown or not knobs:
        raise UsageError(f"{named('knobs')} is {', '.join(knobs) or 'empty'}; expected some of "
                         f"{', '.join(KNOBS)}")  # fmt: skip
    _check_free(settings, knobs)
    drop_unused(settings, origins_of_arguments(settings))
    base = replace(settings, training=replace(settings.training, evals=EVALS))
    nested = overlay(base.to_dict(), {"training": {"minutes": trial_minutes}})
    corpus = settings.corpus
    check_read_again((*corpus.sources, *corpus.valid, *corpus.test), "a search")
    _optuna()
    if not (folder / SETTINGS).exists():
        planned = plan_run(settings_from(nested))  # what is wrong with every trial is told now
        if planned.dataset.valid is None:
            raise UsageError(
                "a search without validation text, by which trials are judged; expected some: "
                "give it with --valid"
            )
    study = _opened(folder, nested, knobs, seed)
    lock = lock_run(folder)
    try:
        deadline, failed = clock() + 60.0 * minutes, 0
        while clock() < deadline:
            record = _trial(study, nested, knobs, deadline, clock)
            study.note_best()
            yield record
            failed = failed + 1 if record.state == "failed" else 0
            if failed == MAX_FAILED:
                raise RunError(
                    f"{failed} trials in a row failed, the last because: {record.problem}"
                )
    finally:
        lock.release()


def _check_free(settings: Settings, knobs: Sequence[str]) -> None:
    """Raise UsageError for settings that a search decides itself."""
    training = settings.training
    for name in LENGTHS:
        if getattr(training, name):
            raise UsageError(
                f"{named(name)} with a search, whose trials have a time each; expected "
                "--trial-minutes"
            )
    if training.evals not in (TrainingSettings().evals, EVALS):
        raise UsageError(
            f"{named('evals')} is {training.evals}; expected {EVALS}, after which a search stops "
            "the worse "
            "trials"
        )
    if settings.model.parameters and "hidden_size" in knobs:
        raise UsageError(
            f"{named('parameters')} with the knob hidden_size, which decides them; give --knobs "
            "without it"
        )


def _trial(
    study: "_Study", nested: dict[str, dict[str, Any]], knobs: Sequence[str], deadline: float,
    clock: Callable[[], float],
) -> TrialRecord:  # fmt: skip
    begun = clock()
    trial = study.next_trial()
    study.begun(trial, study.begins(trial) + 1)
    values = {knob: tidy(KNOBS[knob](trial)) for knob in knobs}
    path = study.folder / trial_name(trial.number)
    state, problem, session = "complete", "", None
    try:
        session = _session(path, nested, values)
        session.clock = session.trainer.clock = clock
        with phase(f"training trial {trial.number}") as training:
            state = _follow(session, trial, deadline, clock, training)
    except (CharlmError, MemoryError, RuntimeError) as error:  # torch's, where memory ran out
        state, problem = "failed", str(error) or type(error).__name__
    except BaseException:  # of the user: the trial is whole
        study.begun(trial, 0)
        raise
    tally = session.trainer.counters.best if session else None
    nats = tally.nats_per_token if tally else None
    study.end(trial, state, nats)
    return TrialRecord(
        number=trial.number, values=values, state=state, nats_per_token=nats,
        seconds=round(clock() - begun, 1), problem=problem,
        warnings=tuple(session.warnings) if session else (),
    )  # fmt: skip


def tidy(value: Any) -> Any:
    """A drawn number with four digits, as it is used and told."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def trial_name(number: int) -> str:
    """The folder of a trial in that of its search."""
    return f"trial-{number:03d}"


def _session(path: Path, nested: dict[str, dict[str, Any]], values: Mapping[str, Any]) -> Session:
    if (path / RECORD).exists():
        return resume(path, valid_tokens=JUDGED_TOKENS)
    chosen: dict[str, dict[str, Any]] = {}
    for knob, value in values.items():
        chosen.setdefault(find_setting(knob).section, {})[knob] = value
    settings = settings_from(overlay(nested, chosen))
    return start(settings, path.parent, name=path.name, valid_tokens=JUDGED_TOKENS)


def _follow(
    session: Session, trial: Any, deadline: float, clock: Callable[[], float], training: Phase
) -> str:
    """Train; report each validation and stop where Optuna says so or the time is up."""
    state, told = "complete", max(_reported(trial), default=0)
    for record in session.records():
        training.reached = session.trainer.progress
        if state != "complete":
            continue  # the records of the end
        if isinstance(record, EvaluationRecord):
            number = round(session.trainer.counters.last_progress * EVALS)  # without its own time
            if number > told:  # the last two can fall together
                trial.report(record.tally.nats_per_token, number)
                told = number
            if record.progress < 1.0 and trial.should_prune():
                state = "pruned"
                session.trainer.stop("pruned")
        if state == "complete" and clock() >= deadline and not session.trainer.completion:
            state = "paused"
            session.trainer.stop("the time is up")
    return "paused" if state == "complete" and session.trainer.stop_reason else state


def _reported(trial: Any) -> list[int]:
    """Points at which a trial that goes on was judged before."""
    found = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    return [int(step) for step in found]


class _Study:
    """An Optuna study in a folder."""

    def __init__(self, optuna: Any, folder: Path, seed: int) -> None:
        self.optuna, self.folder = optuna, folder
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / STUDY))
        storage = optuna.storages.JournalStorage(backend)
        known = [study.study_name for study in storage.get_all_studies()]
        drawn = (
            len(storage.get_all_trials(storage.get_study_id_from_name("charlm"))) if known else 0
        )
        self.study = optuna.create_study(
            storage=storage,
            study_name="charlm",
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=seed + drawn),  # a sitting draws new points
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING),
        )

    def unfinished(self) -> list[Any]:
        """Trials that were begun and did not end."""
        running = self.optuna.trial.TrialState.RUNNING
        return list(self.study.get_trials(deepcopy=False, states=(running,)))

    def next_trial(self) -> Any:
        """One that did not end, else a new one."""
        for waiting in self.unfinished():
            trial = self.optuna.trial.Trial(self.study, waiting._trial_id)
            if self.begins(trial) < MAX_BEGUN:
                return trial
            self.end(trial, "failed", None)
        return self.study.ask()

    def begins(self, trial: Any) -> int:
        """How often a trial was begun and its process was killed, one after the other."""
        return int(trial.user_attrs.get(BEGUN, 0))

    def begun(self, trial: Any, times: int) -> None:
        """Note how often; 0 where it came to an end that it can go on from."""
        trial.set_user_attr(BEGUN, times)

    def end(self, trial: Any, state: str, nats: float | None) -> None:
        """Tell the result; a paused trial stays open."""
        states = self.optuna.trial.TrialState
        if state == "paused":
            self.begun(trial, 0)
            return
        if state == "failed" or nats is None:
            self.study.tell(trial, state=states.FAIL)
        elif state == "pruned":
            self.study.tell(trial, state=states.PRUNED)
        else:
            self.study.tell(trial, nats)

    def note_best(self) -> None:
        """Write which trial is the best, if any, so that it is found like a run."""
        if (best := self.best_of()) is not None:
            found = {"trial": trial_name(best.number), "nats_per_token": best.value}
            write_json(self.folder / BEST, {"format": 1, **found})

    def best_of(self) -> Any | None:
        """The best complete trial, if any."""
        complete = self.optuna.trial.TrialState.COMPLETE
        found = self.study.get_trials(deepcopy=False, states=(complete,))
        return min(found, key=lambda trial: trial.value, default=None)


def _opened(
    folder: Path, nested: dict[str, dict[str, Any]], knobs: Sequence[str], seed: int
) -> _Study:
    """Open the search in a folder. Raises RunError where it is of other settings or knobs.

    One of an older version goes on with the texts as they were read then; `nested` is changed so.
    Other settings that it did not have count as the same.
    """
    optuna = _optuna()
    wanted = json.loads(json.dumps({"format": 1, "settings": nested, "knobs": list(knobs)}))
    if (folder / SETTINGS).exists():
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        before = there.get("settings", {})
        if "keep_cr" not in before.get("corpus", {}):
            nested["corpus"] |= OLD_READING
            wanted["settings"]["corpus"] |= OLD_READING
        known = {name: values | before.get(name, {}) for name, values in nested.items()}
        if there | {"settings": json.loads(json.dumps(known))} != wanted:
            raise RunError(
                f"{folder} holds a search over other texts, settings or knobs; expected the same "
                "ones to go on with it. Give another --name"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, wanted)
    return _Study(optuna, folder, seed)


def _optuna() -> Any:
    """Optuna. Raises EnvironmentFailure without it."""
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise EnvironmentFailure(
            "a search needs optuna, which is not installed; install it with: "
            "pip install 'charlm[search]'"
        ) from error


def results(folder: Path) -> list[dict[str, Any]]:
    """All trials of a search, the best first: number, state, values, nats per token."""
    study = _Study(_optuna(), folder, 0).study
    rows = []
    for trial in study.trials:
        state = trial.state.name.lower().replace("running", "paused")
        reached = list(trial.intermediate_values.values())
        whole = state == "complete"  # of a pruned one Optuna keeps the last, not the best
        nats = trial.value if whole else min(reached, default=None)
        rows.append(
            {
                "number": trial.number,
                "state": state,
                "nats_per_token": nats,
                "values": {name: tidy(value) for name, value in trial.params.items()},
            }
        )
    order = {"complete": 0}
    return sorted(
        rows, key=lambda row: (order.get(row["state"], 1), row["nats_per_token"] or float("inf"))
    )

"""Search for good settings: random values, the worse half of the trials stopped early.

Random search (Bergstra & Bengio 2012) with successive halving (Jamieson & Talwalkar 2016, in the
asynchronous form of Li et al. 2020), through Optuna (the extra `search`). A search is a folder
that can be resumed: `study.log` is Optuna's journal, `trial-N` the run of each trial. With a
storage of Optuna that several machines can reach, they share one search.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.commands import command
from charlm.config.presets import overlay
from charlm.config.settings import Nested, Settings, find_setting, settings_from
from charlm.config.tasks import LANGUAGE_MODEL, TASKS, task_name
from charlm.config.training import LENGTHS, TrainingSettings
from charlm.config.unused import drop_unused, origins_of_arguments
from charlm.errors import CharlmError, RunError, UsageError, named
from charlm.files.atomic import write_json
from charlm.phases import Phase, phase
from charlm.runs.folders import is_training, lock_run
from charlm.runs.layout import OLD_READING, RECORD, SEARCH, read_record, write_record
from charlm.text.sources.names import check_read_again
from charlm.training.planned_run import plan_run
from charlm.training.records import EvaluationRecord
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.start import start
from charlm.training.stopwatch import Stopwatch
from charlm.training.study import Study, load_optuna, trial_name

EVALS = 8
"""Validations of each trial."""
JUDGED_TOKENS = 40_000
"""Tokens of the validation text, approximately, that trials are judged on."""
MAX_FAILED = 5
"""Failed trials in a row that end a search."""

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
"""Settings that can be searched over, with their ranges."""
USUAL_KNOBS = ("num_layers", "hidden_size", "dropout", "learning_rate", "batch_size", "bptt")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial that ended: its values, the best validation figure, and how it ended.

    `state` is complete, pruned (worse than others at the same point), failed, or paused (the
    time was up; the next search resumes it). `warnings` are about its text.
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
    storage: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[TrialRecord]:
    """Try settings for `minutes` and yield each trial when it ends.

    Random values of `knobs` replace those in `settings`. A search that is in the folder is
    resumed. With a `storage`, the URL of a database or a file, all processes that name it share
    the search of this folder's name. Raises UsageError for unknown knobs, RunError if the folder
    holds another search or if trials keep failing, EnvironmentFailure while another process
    searches there alone, or if the storage cannot be opened.
    """
    _check_knobs(knobs)
    _check_free(settings, knobs)
    drop_unused(settings, origins_of_arguments(settings))
    base = replace(settings, training=replace(settings.training, evals=EVALS, ngram=0))
    nested = overlay(base.to_dict(), {"training": {"minutes": trial_minutes}})
    corpus = settings.corpus
    check_read_again((*corpus.sources, *corpus.valid, *corpus.test), "a search")
    load_optuna()
    if not (folder / SEARCH).exists():
        _check_plan(nested)
    study = _open(folder, nested, knobs, seed, storage)
    with contextlib.ExitStack() as at_end:
        if not storage:
            at_end.callback(lock_run(folder).release)
        deadline, failed = clock() + 60.0 * minutes, 0
        while clock() < deadline:
            record = _trial(study, nested, knobs, deadline, clock)
            study.write_best()
            yield record
            failed = failed + 1 if record.state == "failed" else 0
            if failed == MAX_FAILED:
                raise RunError(
                    f"{failed} trials in a row failed, the last because: {record.problem}"
                )


def _check_knobs(knobs: Sequence[str]) -> None:
    """Raise UsageError for unknown knobs, or for none."""
    unknown = [knob for knob in knobs if knob not in KNOBS]
    if unknown or not knobs:
        found = f"has an unknown setting {unknown[0]!r}" if any(unknown) else "is empty"
        raise UsageError(f"{named('knobs')} {found}; expected some of {', '.join(KNOBS)}")


def _check_plan(nested: Nested) -> None:
    """Raise now what would make every trial fail, and UsageError for no validation text."""
    if plan_run(settings_from(nested)).dataset.valid is None:
        raise UsageError(
            "a search without validation text, by which trials are judged; expected some: "
            "give it with --valid"
        )


def _check_free(settings: Settings, knobs: Sequence[str]) -> None:
    """Raise UsageError for settings that a search decides."""
    training, task = settings.training, task_name(settings.to_dict())
    if TASKS[task].labelled:
        raise UsageError(
            f"{named('task')} {task} with a search, which tries language models; expected "
            f"{LANGUAGE_MODEL}. Use: {command('train', '--task', task)}"
        )
    for name in LENGTHS:
        if getattr(training, name):
            raise UsageError(
                f"{named(name)} with a search, whose trials have a time each; expected "
                "--trial-minutes"
            )
    if training.evals not in (TrainingSettings().evals, EVALS):
        raise UsageError(
            f"{named('evals')} is {training.evals}; expected {EVALS}, after which a search stops "
            "the worse trials"
        )
    if settings.model.parameters and "hidden_size" in knobs:
        raise UsageError(
            f"{named('parameters')} with the knob hidden_size, which decides them; give --knobs "
            "without it"
        )


def _trial(
    study: Study, nested: Nested, knobs: Sequence[str], deadline: float,
    clock: Callable[[], float],
) -> TrialRecord:  # fmt: skip
    """Run or resume one trial and return its end."""
    began = clock()
    trial = study.next_trial()
    study.set_starts(trial, study.starts(trial) + 1)
    values = {knob: tidy(KNOBS[knob](trial)) for knob in knobs}
    path = study.folder / trial_name(trial.number)
    state, problem, session = "complete", "", None
    try:
        session = _session(path, nested, values)
        session.clock, session.trainer.clock = clock, Stopwatch(clock)
        with phase(f"training trial {trial.number}") as training:
            state = _follow(session, trial, deadline, clock, training)
    except (CharlmError, MemoryError, RuntimeError) as error:  # RuntimeError: torch out of memory
        elsewhere = study.shared and is_training(path)  # another process was faster
        state = "paused" if elsewhere else "failed"
        problem = str(error) or type(error).__name__
    except BaseException:  # interrupted by the user, not killed
        study.set_starts(trial, 0)
        raise
    tally = session.trainer.counters.best if session else None
    nats = tally.nats_per_token if tally else None
    study.end(trial, state, nats)
    return TrialRecord(
        number=trial.number, values=values, state=state, nats_per_token=nats,
        seconds=round(clock() - began, 1), problem=problem,
        warnings=tuple(session.warnings) if session else (),
    )  # fmt: skip


def tidy(value: Any) -> Any:
    """Round a suggested float to the four digits that are used and shown."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _session(path: Path, nested: Nested, values: Mapping[str, Any]) -> Session:
    """Start the run of a trial, or resume it; it is judged on some of the validation text."""
    if (path / RECORD).exists():
        _limit_validation(path)
        return resume(path)
    most = nested["training"].get("valid_tokens") or JUDGED_TOKENS
    chosen: Nested = {"training": {"valid_tokens": most}}
    for knob, value in values.items():
        chosen.setdefault(find_setting(knob).section, {})[knob] = value
    settings = settings_from(overlay(nested, chosen))
    return start(settings, path.parent, name=path.name)


def _limit_validation(path: Path) -> None:
    """Give a trial of an older version, whose record has no such number, that of all trials."""
    record = read_record(path)
    if not record["settings"]["training"].get("valid_tokens"):
        record["settings"]["training"]["valid_tokens"] = JUDGED_TOKENS
        write_record(path, record)


def _follow(
    session: Session, trial: Any, deadline: float, clock: Callable[[], float], training: Phase
) -> str:
    """Train and report each validation; stop if Optuna says so or the time is up."""
    state, newest = "complete", _newest_report(trial)
    session.may_wait = False  # another trial costs less than an hour
    for record in session.records():
        training.reached = session.trainer.progress
        if state != "complete":
            continue  # records after a stop
        if isinstance(record, EvaluationRecord):
            # the seconds of the validation itself do not count
            number = round(session.trainer.counters.last_progress * EVALS)
            if number > newest:  # the last two can have one number
                trial.report(record.tally.nats_per_token, number)
                newest = number
            if record.progress < 1.0 and trial.should_prune():
                state = "pruned"
                session.trainer.stop("pruned")
        if state == "complete" and clock() >= deadline and not session.trainer.completion:
            state = "paused"
            session.trainer.stop("the time is up")
    return "paused" if state == "complete" and session.trainer.stop_reason else state


def _newest_report(trial: Any) -> int:
    """Return the number of the newest validation that was reported for a trial; 0 for none."""
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    return max(map(int, frozen.intermediate_values), default=0)


def _open(
    folder: Path,
    nested: Nested,
    knobs: Sequence[str],
    seed: int,
    storage: str | None,
) -> Study:
    """Open the search in a folder. Raises RunError if it has other settings or knobs.

    A search of an older version keeps reading its texts as it did then (`nested` is changed);
    settings that it did not have yet count as equal.
    """
    content = json.loads(json.dumps({"format": 1, "settings": nested, "knobs": list(knobs)}))
    if (folder / SEARCH).exists():
        saved = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
        before = saved.get("settings", {})
        if "keep_cr" not in before.get("corpus", {}):
            nested["corpus"] |= OLD_READING
            content["settings"]["corpus"] |= OLD_READING
        known = {name: values | before.get(name, {}) for name, values in nested.items()}
        if saved | {"settings": json.loads(json.dumps(known))} != content:
            raise RunError(
                f"{folder} holds a search over other texts, settings or knobs; expected the same "
                "ones to resume it. Give another --name"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SEARCH, content)
    study = Study(folder, seed, storage)
    if storage:
        before = study.study.user_attrs.get(SEARCH, content)
        if before != content:
            raise RunError(
                f"{named('storage')} holds a search {folder.name} over other texts, settings or "
                "knobs; expected the same ones on all machines. Give another --name"
            )
        study.study.set_user_attr(SEARCH, content)
    return study


def results(folder: Path, storage: str | None = None) -> list[dict[str, Any]]:
    """Return number, state, values and nats per token of all trials of a search, best first."""
    study = Study(folder, 0, storage).study
    trials = []
    for trial in study.trials:
        state = trial.state.name.lower().replace("running", "paused")
        figures = list(trial.intermediate_values.values())
        # Optuna keeps the last figure of a pruned trial, not the best
        nats = trial.value if state == "complete" else min(figures, default=None)
        trials.append(
            {
                "number": trial.number,
                "state": state,
                "nats_per_token": nats,
                "values": {name: tidy(value) for name, value in trial.params.items()},
            }
        )
    return sorted(
        trials,
        key=lambda trial: (trial["state"] != "complete", trial["nats_per_token"] or float("inf")),
    )

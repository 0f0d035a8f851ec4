"""Logs of runs for their loss curves, without torch: `find_logs`, and `watch` while they grow."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from charlm.commands import command
from charlm.errors import RunError
from charlm.files.safe_read import file_size
from charlm.report.axes import RunLog
from charlm.runs.folders import is_training
from charlm.runs.layout import METRICS, SEARCH, read_metrics, read_record
from charlm.runs.locate import find_run, is_ngram_run, is_run, run_name
from charlm.runs.pair import BACKWARD
from charlm.units import loss_of

MAX_TRIALS = 8
"""Maximum number of trials of a search that are shown; they are the best ones."""
WATCHED_EVERY = 1.0
"""Seconds between two checks of a log that grows."""


def find_logs(runs: Sequence[str], folder: Path) -> tuple[list[RunLog], list[str]]:
    """Return the logs of runs by name or path, and sentences on what is left out.

    A search has the logs of its best trials, a run of both directions that of each half. Raises
    RunError if no run has a log, or one is damaged.
    """
    logs: list[RunLog] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for run in runs:
        trials = _trials(run, folder)
        paths = trials or _run(run, folder)
        problems = {path: missing_log(path) for path in paths if path.resolve() not in seen}
        seen |= {path.resolve() for path in paths}
        notes += [problem for problem in problems.values() if problem and not trials]
        own = [read_log(path) for path, problem in problems.items() if not problem]
        if trials and all(map(missing_log, trials)):
            notes.append(f"search {run} has no trial with a log yet")
        if len(own) > MAX_TRIALS and trials:
            notes.append(f"search {run}: the best {MAX_TRIALS} of {len(own)} trials")
            own = sorted(sorted(own, key=_best)[:MAX_TRIALS], key=lambda log: log.path)
        logs += own
    if not logs:
        raise RunError(notes[0])
    return _with_own_names(logs), notes


def missing_log(path: Path) -> str:
    """Return why a run has no log and what to do; "" if it has one, or will have one soon."""
    if is_ngram_run(path):
        return (
            f"run {run_name(path)} is an n-gram model, which is not trained in steps; expected a "
            f"network. Train one with: {command('train')}"
        )
    if _has_log(path) or is_training(path):
        return ""
    return (
        f"run {run_name(path)} has no log ({METRICS}), from which curves are drawn; expected a run "
        f"that was trained in this folder. Train one with: {command('train')}"
    )


def read_log(path: Path) -> RunLog:
    """Return the log of a run; a new one has no records. Raises RunError for damage."""
    records = read_metrics(path) if _has_log(path) else []
    return RunLog(name=run_name(path), path=path, run=read_record(path), records=records)


def _trials(run: str, folder: Path) -> list[Path]:
    """Return the trials of a search; none for another run."""
    for path in (folder / run, Path(run)):
        if is_run(path):
            return []
        if (path / SEARCH).exists():
            return sorted(trial for trial in path.glob("trial-*") if is_run(trial))
    return []


def _run(run: str, folder: Path) -> list[Path]:
    """Return a run, and behind it its backward half if that has a log."""
    path = find_run(run, folder, trained=False)
    return [path, *filter(_has_log, [path / BACKWARD])]


def _has_log(path: Path) -> bool:
    return (path / METRICS).exists()


def _best(log: RunLog) -> float:
    nats = (loss_of(record, "valid_") for record in log.records)
    return min((float(value) for value in nats if isinstance(value, float)), default=float("inf"))


def _with_own_names(logs: Sequence[RunLog]) -> list[RunLog]:
    """Return the logs; runs of one name in several folders are named by their paths."""
    names = [log.name for log in logs]
    return [log if names.count(log.name) == 1 else replace(log, name=str(log.path)) for log in logs]


def watch(
    runs: Sequence[str],
    folder: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[list[RunLog]]:
    """Yield the logs of runs as `find_logs` finds them, again when one grows or a trial begins.

    Ends when none of the runs is being trained and no search of theirs is running.
    """
    sizes: list[int] | None = None
    while True:
        paths = [path for run in runs for path in _trials(run, folder) or _run(run, folder)]
        is_over = not any(is_training(path) or is_training(path.parent) for path in paths)
        before, sizes = sizes, [file_size(path / METRICS) for path in paths if _has_log(path)]
        if sizes != before:  # complete if is_over, since that was asked before
            yield find_logs(runs, folder)[0]
        if is_over:
            return
        sleep(WATCHED_EVERY)

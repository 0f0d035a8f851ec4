"""An overview of runs: what each one is, how good it is, and its status; from small files alone.

Neither weights nor vocabularies are read, so this is fast and needs neither torch nor numpy. A
damaged run is listed with its problem; `charlm verify` finds every problem.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.errors import RunError
from charlm.files.safe_read import parse_json, read_bytes, read_json
from charlm.runs import layout
from charlm.runs.built_in import BUILT_IN_RUNS, built_in_run, is_built_in
from charlm.runs.card import model_shape, part_text
from charlm.runs.folders import is_training
from charlm.runs.locate import best_trial
from charlm.runs.pair import backward_half, is_pair
from charlm.runs.shapes import FIGURES_OF, check_shape, record_shape
from charlm.units import flat_figures, loss_of

TRAINING, FINISHED, INTERRUPTED = "training now", "finished", "interrupted"
DIVERGED, BROKEN = "diverged", "broken"
SEARCHED = "search"
"""Kind of a folder that holds the trials of a search."""
FIGURES = ("nats_per_token", "bits_per_char", "bits_per_byte", "perplexity")
"""Figures of language models; those of other tasks are in `shapes.FIGURES_OF`."""
Figures = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """One run, or one search with its trials.

    `kind` is network, ngram, search or empty (unknown). `status` is "training now", "finished",
    "interrupted", "diverged", "broken", or "pruned" (a trial); `problem` says what is broken.
    `size` counts weights, or n-grams. `figures` are those of the best model on the validation text,
    empty if there are none, and `headline` is the key of the most important one. They are of
    `valid_read` of the `valid_total` tokens of that text, None if unknown (setting `valid_tokens`
    reads a part). `changed` is the
    time of the last change in seconds since 1970, `bytes` the size on disk with everything in the
    folder.
    """

    name: str
    path: Path
    status: str
    kind: str = ""
    problem: str = ""
    text: str = ""
    unit: str = ""
    model: str = ""
    size: int | None = None
    figures: Figures = field(default_factory=dict)
    headline: str = "bits_per_byte"
    valid_read: int | None = None
    valid_total: int | None = None
    step: int | None = None
    seconds: float | None = None
    created: str = ""
    changed: float = 0.0
    bytes: int = 0
    built_in: bool = False
    trials: tuple["RunInfo", ...] = ()

    @property
    def part(self) -> str:
        """Which part of the validation text the figures are of, or "" for all of it."""
        return part_text(self.valid_read or 0, self.valid_total or 0) if self.valid_read else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = dict(vars(self)) | {"path": str(self.path)}
        figures = plain.pop("figures")
        plain |= {**dict.fromkeys(FIGURES), **figures}
        plain["trials"] = [trial.to_dict() for trial in self.trials]
        return plain


def list_runs(folder: Path) -> list[RunInfo]:
    """Return the runs and searches in a folder, newest first, then those that ship with charlm.

    Companions and backward halves belong to their runs. Folders that no command of charlm wrote
    are left out.
    """
    shipped = [built_in_run(name) for name in BUILT_IN_RUNS]
    rows = [
        row
        for path in _folders(folder)
        if not (path.name in BUILT_IN_RUNS and is_built_in(path)) and (row := _row(path))
    ]
    rows.sort(key=SORTS["age"])
    return rows + [_described(path, *_files(path), built_in=True) for path in shipped]


def _by(get: Callable[[RunInfo], Any], *, largest_first: bool = False) -> Callable[[RunInfo], Any]:
    """Return a key that sorts by a value, then by name; runs without the value come last."""

    def key(row: RunInfo) -> tuple[Any, ...]:
        value = get(row)
        missing = value is None or value == ""
        if missing:
            return True, 0, row.name
        return False, -value if largest_first else value, row.name

    return key


SORTS: dict[str, Callable[[RunInfo], Any]] = {
    "age": _by(lambda row: row.changed, largest_first=True),
    "name": lambda row: row.name,
    "text": _by(lambda row: row.text),
    "unit": _by(lambda row: row.unit),
    "size": _by(lambda row: row.size, largest_first=True),
    "figure": _by(lambda row: row.figures.get("bits_per_byte", loss_of(row.figures))),
    "status": _by(lambda row: row.status),
    "disk": _by(lambda row: row.bytes, largest_first=True),
}
"""Orders of a list of runs: newest, best and largest first."""


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without temporary and hidden ones; none if it is missing."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{folder}: {error.strerror}; expected a folder of runs") from error
    return [folder / name for name in sorted(names) if not name.startswith(".")]


MARKS = (layout.CONFIG, layout.RECORD, layout.WEIGHTS, layout.NGRAMS)
"""Files of which a folder has at least one if it is a run, damaged or not."""


def _row(path: Path) -> RunInfo | None:
    """Return the row of a folder, or None if charlm did not write it."""
    times, size = _files(path)
    if layout.SEARCH in times:
        return _search(path, times, size)
    return _described(path, times, size) if times.keys() & set(MARKS) else None


def _search(path: Path, times: Mapping[str, float], size: int) -> RunInfo:
    """Return the row of a search with its trials, the best first."""
    trials = [row for inner in _folders(path) if (row := _row(inner)) and not row.trials]
    trials.sort(key=SORTS["figure"])
    best = best_trial(path)
    chosen = next((row for row in trials if row.path == best), None)
    status = TRAINING if is_training(path) else FINISHED if chosen else INTERRUPTED
    first = chosen or (trials[0] if trials else None)
    about = RunInfo(
        name=path.name,
        path=path,
        kind=SEARCHED,
        status=status,
        text=first.text if first else "",
        unit=first.unit if first else "",
        seconds=math.fsum(row.seconds or 0.0 for row in trials),
        changed=max([times[layout.SEARCH], *(row.changed for row in trials)]),
        bytes=size,
        trials=tuple(trials),
    )
    shown = ("model", "size", "figures", "headline", "valid_read", "valid_total")
    return replace(about, **{name: getattr(chosen, name) for name in shown}) if chosen else about


def _described(
    path: Path, times: Mapping[str, float], size: int, *, built_in: bool = False
) -> RunInfo:
    """Return the row of a run; one that cannot be read is broken.

    `times` and `size` are as in `_files`.
    """
    about = partial(
        RunInfo,
        name=path.name,
        path=path,
        changed=max((times.get(name, 0.0) for name in (*MARKS, layout.METRICS)), default=0.0),
        bytes=size,
        built_in=built_in,
    )
    try:
        config = layout.read_config(path)
        record = _record(path)
    except (RunError, OSError) as error:
        if layout.RECORD not in times and is_training(path):  # about to begin
            return about(status=TRAINING)
        return about(status=BROKEN, problem=layout.named_inside(path, str(error)))
    network = layout.kind_of(config) == layout.NETWORK
    ngrams, results = record.get("ngrams"), record.get("results") or {}
    valid: Mapping[str, Any] = results.get("valid") or {}
    step, seconds = results.get("step"), results.get("seconds")
    status = _status(path, config, record)
    if not results or status == TRAINING:  # run.json has the results of the end alone
        valid, step, seconds = _logged(path, valid)
    task = layout.task_of(config)
    read, total = _extent(task, record, valid)
    model = layout.WEIGHTS if network else layout.NGRAMS
    missing = status == FINISHED and model not in times
    return about(
        status=BROKEN if missing else status,
        problem=f"{model} is missing" if missing else "",
        kind=str(layout.kind_of(config)),
        text=record["corpus"]["name"],
        unit=config["vocabulary"]["unit"],
        model=model_shape(config["model"]),
        size=record.get("parameters") if network else sum(ngrams["sizes"]) if ngrams else None,
        figures=_chosen(valid, FIGURES_OF.get(task, FIGURES)),
        headline=TASKS[task].headline(valid),
        valid_read=read,
        valid_total=total,
        step=step,
        seconds=seconds,
        created=record["created"],
    )


READ = ("name", "created", "status", "parameters?", "ngrams?", "results?")
"""Parts of run.json that are read here, beside the name of the text."""


def _record(path: Path) -> Mapping[str, Any]:
    """Read run.json without the checks that take long: its hash and its settings."""
    where = path / layout.RECORD
    record = read_json(where)
    layout.check_format(record, where)
    shape = record_shape(record)
    check_shape(
        record, {name: shape[name] for name in READ} | {"corpus": {"name": str}}, str(where)
    )
    return record


def _status(path: Path, config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Return what became of a run, with its backward half if it has one."""
    if is_training(path):
        return TRAINING
    if record["status"] == DIVERGED:
        return DIVERGED
    if record["status"] != FINISHED or not record.get("whole", True):
        reason = (record.get("results") or {}).get("reason", "")
        return reason if reason == "pruned" else INTERRUPTED
    half = backward_half(path)
    if not is_pair(config["model"]):
        return FINISHED
    try:
        return _status(half, {"model": {}}, _record(half))
    except (RunError, OSError):
        return INTERRUPTED


def _chosen(figures: Mapping[str, Any], names: Iterable[str]) -> Figures:
    """Return the figures of the list of runs, of those of a text; none if it has no loss."""
    found = {name: figures.get(name) for name in names}
    return found if any(value is not None for value in found.values()) else {}


def _extent(
    task: str, record: Mapping[str, Any], figures: Mapping[str, Any]
) -> tuple[int | None, int | None]:
    """Return how many tokens of the validation text the figures are of, and how many it has."""
    if task != LANGUAGE_MODEL:
        return None, None
    part = (record["corpus"].get("parts") or {}).get("valid") or {}
    return figures.get("tokens"), part.get("tokens")


def _logged(
    path: Path, figures: Mapping[str, Any]
) -> tuple[Mapping[str, Any], int | None, float | None]:
    """Return the best figures in the log of a run, and the step and seconds that it reached.

    `figures` are kept if the log has none; lines that charlm did not write are left out.
    """
    best, step, seconds = figures, None, None
    lines: list[bytes] = []
    with contextlib.suppress(RunError):
        lines = read_bytes(path / layout.METRICS, layout.MAX_LOG).split(b"\n")[:-1]
    for line in (*(line for line in lines if b'"evaluation"' in line), *lines[-1:]):
        with contextlib.suppress(RunError):
            record = flat_figures(parse_json(line, path / layout.METRICS))
            step, seconds = record.get("step"), record.get("seconds")
            nats = loss_of(record, "valid_")
            if isinstance(nats, float) and record.get("best", nats <= (loss_of(best) or math.inf)):
                valid = (key for key in record if key.startswith("valid_"))
                best = {key.removeprefix("valid_"): record[key] for key in valid}
    return best, step, seconds


def disk_space(path: Path) -> int:
    """Return the size in bytes of all files below a folder; links count as themselves."""
    return _files(path)[1]


def _files(path: str | Path) -> tuple[dict[str, float], int]:
    """Return the modification times of the files in a folder, and the size of all files below it.

    Links count as themselves. A folder that cannot be looked into is empty.
    """
    times: dict[str, float] = {}
    total = 0
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += _files(entry.path)[1]
            else:
                status = entry.stat(follow_symlinks=False)
                total += status.st_size
                times[entry.name] = status.st_mtime
    return times, total

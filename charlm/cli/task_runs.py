"""Commands with runs of tasks other than language models: flags, figures, comparisons."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, say_all, terminal_width, write_document, write_json
from charlm.config.class_path import resolve
from charlm.config.fields import listed_names
from charlm.config.tasks import LANGUAGE_MODEL, TASKS, TaskSpec
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.task_api import TaskApi, TaskModel
    from charlm.report.task_reports import TaskReport


def _flags_of(row: TaskSpec, verb: str) -> frozenset[str]:
    """Return the flags of eval or predict that a task knows, but not all of them."""
    if not row.api:
        return frozenset({"--with"} if verb == "eval" else ())
    flags: frozenset[str] = (
        resolve(row.report).predictions.flags
        if verb == "predict"
        else resolve(row.api).evaluation_flags
    )
    return flags


def check_typed(typed: Mapping[str, Any], path: Path, verb: str = "") -> None:
    """Raise UsageError for the first flag with a value, since the run is of another task.

    `verb` is eval or predict for flags that some tasks know; others are of language models.
    """
    from charlm.runs.layout import run_task

    flag = next((flag for flag, value in typed.items() if value is not None), None)
    if flag is None:
        return
    others = [row.gives for row in TASKS.values() if verb and flag in _flags_of(row, verb)]
    others = others or [TASKS[LANGUAGE_MODEL].gives]
    gives = TASKS[run_task(path)].gives
    raise UsageError(
        f"{flag} is for runs that give {listed_names(others)}, and run {path.name} gives {gives}; "
        f"expected no such flag. Leave out {flag}"
    )


def split_target(reading: options.SettingFlags) -> tuple[str | None, dict[str, Any]]:
    """Return the column of the labels, if it was typed, and the other flags for reading."""
    return reading.get("target"), {k: v for k, v in reading.items() if k != "target"}


def open_run(
    path: Path, engine: str, with_: Sequence[str] | None, checkpoints: Path | None
) -> "TaskModel":
    """Return the model of a run, mixed with others; report the weights of a mixture."""
    more: dict[str, Any] = {"with_": with_, "checkpoints": checkpoints} if with_ else {}
    model = api.task_api.open_task(path, engine=engine, **more)
    if model.mixture is not None:
        say(str(model.mixture))
    return model


def evaluate_task(
    path: Path,
    files: Sequence[str] | None,
    reading: options.SettingFlags,
    *,
    with_: Sequence[str] | None,
    checkpoints: Path | None,
    worst: int | None,
    beam: int | None,
    as_json: bool,
    engine: str,
) -> None:
    """Write the figures of a run of a task."""
    task, report = _parts(path)
    target, rules = split_target(reading)
    given = {"--target": target, "--worst": worst, "--beam": beam, "--with": with_}
    others = {name: value for name, value in given.items() if name not in task.evaluation_flags}
    check_typed(others, path, "eval")
    if not files:
        options.check_meant(options.reading_flags(reading), "--file")
    model = open_run(path, engine, with_, checkpoints)
    numbers = {key: value for key, value in (("worst", worst), ("beam", beam)) if value is not None}
    result = task.evaluate(model.run, files, target=target, reading=rules, **numbers)
    say_all(result.notes)
    if as_json:
        write_json(report.evaluation_json(model.name, result))
        return
    for table in report.evaluation_tables(result, terminal_width()):
        render(table)


def compare_tasks(
    paths: Sequence[Path],
    files: Sequence[str] | None,
    reading: options.SettingFlags,
    seed: int,
    *,
    as_json: bool,
    engine: str,
) -> None:
    """Write the figures of runs of one task, and their differences."""
    if not files:
        options.check_meant(options.reading_flags(reading), "--file")
    from charlm.runs.task_run import load_task_run

    task, report = _parts(paths[0])
    runs = [load_task_run(path, engine=engine) for path in paths]
    target, rules = split_target(reading)
    result = task.compare(runs, files, target=target, reading=rules, seed=seed)
    say_all(result.notes)
    if as_json:
        write_document({"runs": report.comparison_json(result)})
        return
    say(report.comparison_note)
    render(report.comparison_table(result))


def _parts(path: Path) -> tuple["TaskApi", "TaskReport"]:
    """Return the uses and the report of the task of a run."""
    from charlm.report.task_reports import report_of_task
    from charlm.runs.layout import run_task

    name = run_task(path)
    return api.task_api.api_of(name), report_of_task(name)

"""Evaluation and comparison of runs that give labels, for `charlm eval` and `charlm compare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, say_all, terminal_width, write_json
from charlm.errors import UsageError


def check_typed(typed: Mapping[str, Any], *, labelled: bool, path: Path) -> None:
    """Raise UsageError for the first flag with a value, since the run is of the other kind."""
    flags = (flag for flag, value in typed.items() if value is not None and value is not False)
    flag = next(flags, None)
    if flag:
        gives, other = ("labels", "text") if labelled else ("text", "labels")
        raise UsageError(
            f"{flag} is for runs that give {other}, and run {path.name} gives {gives}; expected no "
            f"such flag. Leave out {flag}"
        )


def split_target(reading: options.SettingFlags) -> tuple[str | None, dict[str, Any]]:
    """Return the column of the labels, if it was typed, and the other flags for reading."""
    return reading.get("target"), {k: v for k, v in reading.items() if k != "target"}


def evaluate_labels(
    path: Path,
    files: Sequence[str] | None,
    reading: options.SettingFlags,
    worst: int,
    *,
    as_json: bool,
    engine: str,
) -> None:
    """Write the figures of a run that gives labels."""
    options.check_meant(options.reading_flags(reading) if not files else set(), "--file")
    from charlm.runs.label_run import LabelRun
    from charlm.runs.task_run import load_task_run

    run = cast(LabelRun, load_task_run(path, engine=engine))
    target, rules = split_target(reading)
    result = api.label_evaluation.evaluate_labels(
        run, files, target=target, reading=rules, worst=worst
    )
    say_all(result.notes)
    from charlm.report.label_tables import evaluation_json, evaluation_tables

    if as_json:
        write_json(evaluation_json(path.name, result))
        return
    for table in evaluation_tables(result, terminal_width()):
        render(table)


def compare_labels(
    paths: Sequence[Path],
    files: Sequence[str] | None,
    reading: options.SettingFlags,
    seed: int,
    *,
    as_json: bool,
    engine: str,
) -> None:
    """Write the figures of runs that give labels, and their differences."""
    options.check_meant(options.reading_flags(reading) if not files else set(), "--file")
    from charlm.runs.label_run import LabelRun
    from charlm.runs.task_run import load_task_run

    runs = [cast(LabelRun, load_task_run(path, engine=engine)) for path in paths]
    target, rules = split_target(reading)
    result = api.label_comparison.compare_labels(
        runs, files, target=target, reading=rules, seed=seed
    )
    say_all(result.notes)
    if as_json:
        rows = [
            {"run": name, **counts.summary(), "difference": change and change.to_dict()}
            for name, counts, change in zip(
                result.names, result.counts, result.differences, strict=True
            )
        ]
        write_json({"schema_version": 1, "runs": rows})
        return
    from charlm.report.label_tables import comparison_table

    say(
        "points: difference of the accuracy from the first run, above zero is better; p: McNemar's "
        "test"
    )
    render(comparison_table(result))

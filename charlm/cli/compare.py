"""`charlm compare`: compare runs on one text, with confidence intervals."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, say_all, write_document
from charlm.cli.task_runs import check_typed, compare_tasks
from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.errors import UsageError
from charlm.units import finite

if TYPE_CHECKING:
    from charlm.api.comparison import Comparison


Runs = Annotated[list[str], typer.Argument(help="Two or more runs, each compared with the first.")]
Files = Annotated[
    list[str] | None,
    typer.Option("--file", help="Text to compare on. (default: the held-out text)"),
]


def compare(
    runs: Runs,
    files: Files = None,
    reading: options.LabelledReading = options.NO_FLAGS,
    unk_penalty: options.UnkPenalty = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    as_json: options.Json = False,
    engine: options.Engine = "auto",
    checkpoints: options.Checkpoints = None,
) -> None:
    """Compare runs on one text, with confidence intervals.

    Runs that give labels are compared by their accuracy, text by text, with McNemar's test, those
    that give tags by their span-F1 (or accuracy), with a bootstrap over sentences.
    Without --file the text is what all of the runs held out. Each unknown token (UNK) adds
    --unk-penalty to the differences, by default the penalty of its run.

    Example:  charlm compare small large --file test.txt
    """
    if len(runs) < 2:
        raise UsageError(f"found {len(runs)} run; expected two runs or more to compare")
    from charlm.runs.layout import run_task

    paths = [options.locate(name, checkpoints) for name in runs]
    task = run_task(paths[0])
    for other in paths[1:]:
        if run_task(other) != task:
            raise UsageError(
                f"run {paths[0].name} gives {TASKS[task].gives}, and run {other.name} gives "
                f"{TASKS[run_task(other)].gives}; expected runs of one kind"
            )
    if task != LANGUAGE_MODEL:
        check_typed({"--unk-penalty": unk_penalty}, paths[0])
        compare_tasks(paths, files, reading, seed, as_json=as_json, engine=engine)
        return
    target = {"--target": reading.get("target")}
    check_typed(target, paths[0], "eval")
    models = [options.open_model(str(path), checkpoints, engine) for path in paths]
    result = api.comparison.compare_runs(
        models, files, reading=reading, unk_penalty=unk_penalty, seed=seed
    )
    say_all(result.notes)
    if as_json:
        write_document({"runs": _rows(result)})
        return
    from charlm.report.tables import comparison_notes, comparison_table

    for sentence in comparison_notes(result.runs, result.differences):
        say(sentence)
    render(comparison_table(result.runs, result.differences))


def _rows(result: "Comparison") -> list[dict[str, Any]]:
    return [
        {
            "run": run.name,
            **run.tally.summary(),
            "unk_penalty": run.unk_penalty,
            "penalized_bits_per_byte": finite(run.penalized_bits_per_byte),
            "difference": change and {**asdict(change), "verdict": change.verdict},
        }
        for run, change in zip(result.runs, result.differences, strict=True)
    ]

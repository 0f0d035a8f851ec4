"""`charlm gradients`: how far back the gradient reaches, for a run or for cells side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    JsonOption,
    ReadingFlags,
    RunOption,
    as_trained,
    check_meant,
    locate,
    reading_flags,
)
from charlm.cli.output import render, say, write, write_json

if TYPE_CHECKING:
    from charlm.inspect.gradients import GradientFlow


LAGS = 200
"""Tokens back that are measured on a text."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gradients")(gradients)


def gradients(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="Text to measure on; without it, the run's held-out text, or with --compare a "
            "task with a known lag."
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", help="Train tiny models of these cells: rnn,lstm.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0.001, help="With --compare: for each cell (1; the task has steps)."
        ),
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    lags: Annotated[
        int | None, typer.Option("--lags", min=2, help="Tokens back (200; 100 for the task).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="With --compare: of the trainings (1).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Picture: .svg, .png or .pdf (charlm[plot]).")
    ] = None,
    as_json: JsonOption = False,
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """How far back the gradient of a loss reaches, and what that says about the model.

    Example:  charlm gradients --compare rnn,lstm,gru --out flow.svg
    """
    from charlm.errors import UsageError
    from charlm.report.gradients import check_picture, flow_parts, save_picture

    if out:
        check_picture(out)
    check_meant(reading_flags(reading) if not text else set(), "a text")
    if compare and run:
        raise UsageError("--compare trains models of its own and reads no run; leave out --run")
    trains = {"--minutes": minutes, "--seed": seed}
    typed = {flag for flag, value in trains.items() if value is not None}
    check_meant(typed if not compare else set(), "--compare")
    if compare:
        chosen_seed = 1 if seed is None else seed
        flows = (
            _compared(compare, text, reading, minutes or 1.0, lags or LAGS, chosen_seed)
            if text
            else _recalled(compare, minutes, lags, chosen_seed)
        )
    else:
        flows = [_of_run(locate(run, checkpoints), text or [], reading, lags or LAGS)]
    if as_json:
        write_json(
            {"schema_version": 1,
             "models": [{**asdict(flow), "diagnosis": flow.diagnosis} for flow in flows]}
        )  # fmt: skip
    else:
        for number, part in enumerate(flow_parts(flows)):
            if number:
                write("\n")
            render(part)
    if out:
        from charlm.files.atomic import explained

        with explained(out):
            save_picture(flows, out)
        say(f"wrote {out}")


def _of_run(path: Path, sources: list[str], reading: ReadingFlags, lags: int) -> "GradientFlow":
    from charlm.config.settings import Reading
    from charlm.inspect.gradients import run_flow
    from charlm.runs.run import load_run
    from charlm.text.corpus import Corpus

    corpus = None
    if sources:
        run = load_run(path)
        rules = Reading(**as_trained(reading, run))
        corpus = Corpus(sources, document=run.boundaries.document, reading=rules)
    return run_flow(path, corpus, lags)


def _compared(
    names: str, sources: list[str], reading: ReadingFlags, minutes: float, lags: int, seed: int
) -> "list[GradientFlow]":
    from charlm.config.flags import by_section
    from charlm.config.settings import settings_from
    from charlm.inspect.gradients import compared_flows

    settings = [
        settings_from(by_section(
            {"sources": tuple(sources), **reading, "cell": cell.strip(), "num_layers": 1,
             "hidden_size": 128, "minutes": minutes, "seed": seed}
        ))
        for cell in dict.fromkeys(names.split(","))
    ]  # fmt: skip
    flows = []
    for chosen, flow in zip(settings, compared_flows(settings, lags), strict=True):
        say(f"trained {chosen.model.cell} for {minutes:g} minutes")
        flows.append(flow)
    return flows


def _recalled(
    names: str, minutes: float | None, lags: int | None, seed: int
) -> "list[GradientFlow]":
    """Compare cells on the task of recalling a letter, and say what it is."""
    from charlm.inspect.recall import LAG, LETTERS, recall_flows, recall_settings, recall_text

    lag = lags or LAG
    cells = dict.fromkeys(name.strip() for name in names.split(","))
    settings = [recall_settings(cell, seed=seed, minutes=minutes) for cell in cells]
    example = recall_text(8, seed).partition("\n")[0]
    say(
        f"task   recall a letter after up to {lag} tokens, such as {example}; measured at {lag}, "
        f"guessing gives {100 / len(LETTERS):.0f} %"
    )
    flows = []
    for chosen, flow in zip(settings, recall_flows(settings, lag), strict=True):
        say(f"trained {chosen.model.cell}")
        flows.append(flow)
    return flows

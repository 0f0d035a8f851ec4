"""`charlm gradients`: show how far back the gradient reaches, in a run or in several cells."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render_all, say, write_document
from charlm.cli.stdin import Takes
from charlm.config.cells import CELLS
from charlm.errors import UsageError, check_choice

if TYPE_CHECKING:
    from charlm.inspect.gradients import GradientFlow


Text = Annotated[
    list[str] | None,
    typer.Argument(
        help="Text to measure on. (default: the held-out text, or for --compare a task with a "
        "known lag)"
    ),
]
Compare = Annotated[
    str | None,
    typer.Option("--compare", help="Train small models of these cells, such as rnn,lstm."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        min=0.001,
        help="Minutes for each cell of --compare. (default: 1; the task: 1,500 steps)",
    ),
]
Lags = Annotated[
    int | None,
    typer.Option("--lags", min=2, help="Tokens to look back. (default: 200; the task: 100)"),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of --compare. (default: 1)")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Save a picture as .svg, .png or .pdf (needs matplotlib)."),
]


@Takes(text=("text",), run_in="text", reads_run=lambda values: not values["compare"])
def gradients(
    text: Text = None,
    compare: Compare = None,
    minutes: Minutes = None,
    reading: options.Reading = options.NO_FLAGS,
    lags: Lags = None,
    seed: Seed = None,
    out: Out = None,
    as_json: options.Json = False,
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show how far back in the text the gradient reaches.

    Example:  charlm gradients --compare rnn,lstm,gru --out flow.svg
    """
    from charlm.report.gradients import flow_parts, save_picture
    from charlm.report.pictures import check_picture

    if out:
        check_picture(out)
    if not text:
        options.check_meant(options.reading_flags(reading), "a text")
    if compare and run:
        raise UsageError("--compare trains models of its own and reads no run; leave out --run")
    if not compare:
        own = {"--minutes": minutes, "--seed": seed}
        options.check_meant([flag for flag in own if own[flag] is not None], "--compare")
    if compare:
        flows = list(_compared(compare, text, reading, minutes, lags, 1 if seed is None else seed))
    else:
        path = options.locate(run, checkpoints)
        flows = [
            api.gradients.run_gradients(path, text or (), reading=reading, lags=lags, warn=say)
        ]
    if as_json:
        models = [{**asdict(flow), "diagnosis": flow.diagnosis} for flow in flows]
        write_document({"models": models})
    else:
        render_all(flow_parts(flows))
    if out:
        from charlm.files.atomic import explained

        with explained(out):
            save_picture(flows, out)
        say(f"wrote {out}")


def _compared(
    names: str,
    files: list[str] | None,
    reading: options.Reading,
    minutes: float | None,
    lags: int | None,
    seed: int,
) -> "Iterator[GradientFlow]":
    """Train a model of each cell, and report each one that is trained."""
    cells = [name.strip() for name in names.split(",")]
    for cell in cells:
        check_choice("--compare", cell, CELLS)
    flows = api.gradients.compare_gradients(
        cells, files or (), reading=reading, minutes=minutes, lags=lags, seed=seed
    )
    if not files:
        say(f"task   {api.gradients.describe_task(lags, seed)}")
    for flow in flows:
        say(f"trained {flow.cell}" + (f" for {minutes or 1.0:g} minutes" if files else ""))
        yield flow

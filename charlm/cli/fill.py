"""`charlm fill`: fill gaps in a text."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm import api
from charlm.cli.frame import App
from charlm.cli.options import (
    CheckpointsOption,
    EngineOption,
    JsonOption,
    RunOption,
    name_unknown,
    open_model,
)
from charlm.cli.output import on_terminal, render, write, write_json
from charlm.cli.takes import Takes
from charlm.files.escapes import escape_controls


def register(app: App) -> None:
    """Add the command."""
    app.command("fill", takes=Takes(literal="text"))(fill)


def fill(
    text: Annotated[
        str, typer.Argument(help="Text with gaps: ___ (three underscores); - is stdin.")
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tokens for each gap.")] = 5,
    as_json: JsonOption = False,
    engine: EngineOption = "auto",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Fill gaps in a text (needs --direction both).

    Example:  charlm fill "the ___ sat on the mat"
    """
    pieces = api.around_gaps(text)
    model = open_model(run, checkpoints, engine)
    name_unknown(model, pieces, "text")
    gaps, filled = model.fill(text, top=top)
    if as_json:
        rows = [[asdict(token) for token in gap] for gap in gaps]
        write_json({"schema_version": 1, "text": text, "filled": filled, "gaps": rows})
        return
    from charlm.report.tables import next_table

    for gap in gaps:
        render(next_table(gap))
        write("\n")
    write((escape_controls(filled) if on_terminal() else filled) + "\n")

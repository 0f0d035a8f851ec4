"""`charlm fill`: fill gaps in a text."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.output import render, write, write_document, write_text
from charlm.cli.stdin import Takes


@Takes(literal="text")
def fill(
    text: Annotated[
        str, typer.Argument(help="Text with gaps: ___ (three underscores); - is stdin.")
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tokens for each gap.")] = 5,
    as_json: options.Json = False,
    engine: options.Engine = "auto",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Fill gaps in a text (needs --direction both).

    Example:  charlm fill "the ___ sat on the mat"
    """
    from charlm.inference.infill import around_gaps

    pieces = around_gaps(text)
    model = options.open_model(run, checkpoints, engine)
    options.name_unknown(model, pieces, "text")
    gaps, filled = model.fill(text, top=top)
    if as_json:
        rows = [[asdict(token) for token in gap] for gap in gaps]
        write_document({"text": text, "filled": filled, "gaps": rows})
        return
    from charlm.report.tables import next_table

    for gap in gaps:
        render(next_table(gap))
        write("\n")
    write_text(filled + "\n")

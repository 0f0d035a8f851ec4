"""`charlm next`: show the likeliest next tokens."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli.frame import App
from charlm.cli.options import (
    CheckpointsOption,
    EngineOption,
    JsonOption,
    RunOption,
    WeightsOption,
    name_unknown,
    open_model,
)
from charlm.cli.output import render, write_json
from charlm.cli.takes import Takes


def register(app: App) -> None:
    """Add the command."""
    app.command("next", takes=Takes(text=("prompt",), literal="prompt"))(next_token)


def next_token(
    prompt: Annotated[
        str | None, typer.Argument(help="Text so far; - is stdin.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tokens to show.")] = 10,
    as_json: JsonOption = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Show the likeliest next tokens after a text.

    Example:  charlm next "To be or not to "
    """
    prompt = prompt or ""
    model = open_model(run, checkpoints, engine, weights)
    name_unknown(model, [model.context(prompt)], "prompt")
    tokens = model.next(prompt, top=top)
    if as_json:
        write_json({"schema_version": 1, "prompt": prompt, "next": [asdict(t) for t in tokens]})
        return
    from charlm.report.tables import next_table

    render(next_table(tokens))

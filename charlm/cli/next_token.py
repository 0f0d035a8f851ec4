"""`charlm next`: show the likeliest next tokens."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.output import render, write_document
from charlm.cli.stdin import Takes


@Takes(text=("prompt",), literal="prompt")
def next_token(
    prompt: Annotated[str | None, typer.Argument(help="Text so far; - is stdin.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tokens to show.")] = 10,
    as_json: options.Json = False,
    condition: options.Condition = None,
    with_: options.With = None,
    engine: options.Engine = "auto",
    weights: options.Weights = "fp32",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show the likeliest next tokens after a text.

    Example:  charlm next "To be or not to "
    """
    prompt = prompt or ""
    model = options.open_model(run, checkpoints, engine, weights, with_, condition=condition)
    options.name_unknown(model, [model.context(prompt)], "prompt")
    tokens = model.next(prompt, top=top)
    if as_json:
        write_document({"prompt": prompt, "next": [asdict(t) for t in tokens]})
        return
    from charlm.report.tables import next_table

    render(next_table(tokens))

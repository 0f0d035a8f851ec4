"""`charlm explain`: the textbook's four-letter example, with every number."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli.options import JsonOption
from charlm.cli.output import render, write, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain")(explain)


def explain(
    text: Annotated[
        str | None,
        typer.Argument(help="The word to spell; - is stdin. (default: hello)", show_default=False),
    ] = None,
    cell: Annotated[str, typer.Option("--cell", help="rnn, lstm or gru.")] = "rnn",
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="Units of the cell.")] = 3,
    updates: Annotated[int, typer.Option("--updates", min=0, help="Steps of Adam.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first weights.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train a tiny cell to spell a word, and show each step of the forward pass in numbers.

    Example:  charlm explain hello --cell lstm
    """
    from charlm.inspect.worked_example import worked_example

    example = worked_example(
        "hello" if text is None else text, cell=cell, hidden=hidden, updates=updates, seed=seed
    )
    if as_json:
        write_json({"schema_version": 1, **asdict(example)})
        return
    from charlm.report.example import example_parts

    for number, part in enumerate(example_parts(example)):
        if number:
            write("\n")
        render(part)

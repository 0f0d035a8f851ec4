"""`charlm explain`: show the numbers of the four-letter example of textbooks."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.output import render_all, write_document
from charlm.cli.stdin import Takes


@Takes(text=("text",), literal="text")
def explain(
    text: Annotated[
        str | None,
        typer.Argument(help="Word to spell; - is stdin. (default: hello)"),
    ] = None,
    cell: Annotated[str, typer.Option("--cell", help="rnn, lstm or gru.")] = "rnn",
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="Units of the cell.")] = 3,
    updates: Annotated[
        int, typer.Option("--updates", min=0, help="Number of steps of Adam.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the initial weights.")] = 1,
    as_json: options.Json = False,
) -> None:
    """Show a tiny network spell a word, with every number.

    Example:  charlm explain hello --cell lstm
    """
    from charlm.inspect.worked_example import worked_example

    word = "hello" if text is None else text
    example = worked_example(word, cell=cell, hidden=hidden, updates=updates, seed=seed)
    if as_json:
        write_document(asdict(example))
        return
    from charlm.report.example import example_parts

    render_all(example_parts(example))

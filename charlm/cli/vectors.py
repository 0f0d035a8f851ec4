"""`charlm vectors`: export the learned embedding, or show nearest neighbours in it."""

from pathlib import Path
from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.frame import add_commands
from charlm.cli.output import render, say, write_document, write_text

app = typer.Typer(
    name="vectors",
    help="Export the learned embedding or show neighbours.\n\n"
    "Example:  charlm vectors nearest king",
    no_args_is_help=True,
)


def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write. (default: stdout)")
    ] = None,
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Write the embedding in word2vec's text format.

    Example:  charlm vectors export --out vectors.txt
    """
    model = options.open_model(run, checkpoints)
    lines = model.vector_lines()
    if out is None:
        for line in lines:
            write_text(line)
        return
    from charlm.files.atomic import explained

    with explained(out), out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
    say(f"wrote {len(model.vocabulary):,} vectors to {out}")


def nearest(
    token: Annotated[str, typer.Argument(help="Token of the vocabulary.")],
    top: Annotated[int, typer.Option("--top", min=1, help="Number of tokens to show.")] = 10,
    as_json: options.Json = False,
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show the tokens with the most similar vectors, by cosine.

    Example:  charlm vectors nearest king
    """
    model = options.open_model(run, checkpoints)
    pairs = model.nearest(token, top=top)
    if as_json:
        rows = [{"token": name, "cosine": cosine} for name, cosine in pairs]
        write_document({"token": token, "nearest": rows})
        return
    from charlm.report.tables import nearest_table

    render(nearest_table(pairs))


add_commands(app, {"export": export, "nearest": nearest}, "vectors")

"""`charlm vectors`: the embedding that a model has learnt, as a file or by its neighbours."""

from pathlib import Path
from typing import Annotated

import typer

from charlm.cli.frame import App
from charlm.cli.options import CheckpointsOption, JsonOption, RunOption, open_model
from charlm.cli.output import on_terminal, render, say, write, write_json
from charlm.files.escapes import escape_controls

app = App(
    name="vectors",
    help="The embedding that a model has learnt.\n\nExample:  charlm vectors nearest king",
    no_args_is_help=True,
)


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app)


@app.command("export")
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File; without it, stdout.")] = None,
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Write the embedding in word2vec's text format.

    Example:  charlm vectors export --out vectors.txt
    """
    from charlm.files.atomic import explained
    from charlm.text.vectors import vector_lines

    model = open_model(run, checkpoints)
    names = [model.vocabulary.token_text(index) for index in range(len(model.vocabulary))]
    lines = vector_lines(names, model.embedding)
    if out is None:
        for line in lines:
            write(escape_controls(line) if on_terminal() else line)
        return
    with explained(out), out.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
    say(f"wrote {len(names):,} vectors to {out}")


@app.command("nearest")
def nearest(
    token: Annotated[str, typer.Argument(help="A token of the vocabulary.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many.")] = 10,
    as_json: JsonOption = False,
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """The tokens whose vectors point the same way: neighbours by cosine.

    Example:  charlm vectors nearest king
    """
    model = open_model(run, checkpoints)
    found = model.nearest(token, top=top)
    if as_json:
        pairs = [{"token": name, "cosine": cosine} for name, cosine in found]
        write_json({"schema_version": 1, "token": token, "nearest": pairs})
        return
    from charlm.report.tables import nearest_table

    render(nearest_table(found))

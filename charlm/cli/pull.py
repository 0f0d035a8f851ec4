"""`charlm pull`: copy a run from a repository of the Hugging Face hub."""

from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import say, write
from charlm.commands import command


def pull(
    repository: Annotated[
        str,
        typer.Argument(metavar="ORG/NAME", help="Repository; @REVISION for a branch or a commit."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run. (default: of the repository)")
    ] = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Copy a run from the Hugging Face hub to your own; it is checked, nothing is overwritten.

    Other commands use it without a copy of its own: charlm sample --run hf:me/tales.

    Example:  charlm pull me/tales --name tales-2
    """
    from charlm.runs.layout import verb_of

    path = api.hub.pull(repository, name, checkpoints)
    write(f"{path}\n")
    say(f"use it with: {command(verb_of(path), run=path)}")

"""`charlm push`: push a run to a repository of the Hugging Face hub."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, say_all, write, write_document
from charlm.cli.runs import say_shared
from charlm.commands import command


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run to push.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository of the hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    with_data: options.WithData = False,
    with_states: options.WithStates = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch to push to. (default: main)")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="License on the card, such as mit.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would go up and what would not.")
    ] = False,
    as_json: options.Json = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Push a run to the Hugging Face hub; its training text and checkpoints stay private.

    Folders, the command and the names of devices are taken out. Log in with hf auth login first.

    Example:  charlm push tales me/tales --license mit --dry-run
    """
    shared = api.hub.push(
        run, repository, private=private, with_data=with_data, with_states=with_states,
        revision=revision, license=license_, dry_run=dry_run, checkpoints=checkpoints,
    )  # fmt: skip
    if as_json:
        content = asdict(shared) | {"path": str(shared.path), "repository": repository}
        write_document(content)
        return
    if shared.commit is None:
        from charlm.report.tables import pairs_table
        from charlm.report.text import short_count

        rows = [(name, short_count(size, "B")) for name, size in shared.files.items()]
        rows += [("left out", f"{n}/, {short_count(s, 'B')}") for n, s in shared.left_out.items()]
        render(pairs_table([*rows, *(("taken out of", note) for note in shared.notes)]))
        say_all(f"warning: {warning}" for warning in shared.warnings)
        return
    from charlm.runs.locate import HUB_RUN

    say_shared(shared)
    write(f"{shared.commit.url}\n")
    address = repository.removeprefix(HUB_RUN) + (f"@{revision}" if revision else "")
    say(f"use it anywhere with: {command('sample', '--run', f'{HUB_RUN}{address}')}")

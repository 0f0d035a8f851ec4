"""`charlm runs`: list runs, remove, rename and exchange them."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from charlm import api
from charlm.cli import options
from charlm.cli.frame import DefaultGroup, add_commands
from charlm.cli.output import render, say, say_all, terminal_width, write, write_document
from charlm.commands import command
from charlm.errors import UsageError
from charlm.files.escapes import escape_controls
from charlm.units import count_of

if TYPE_CHECKING:
    from charlm.api.hub import Shared

PARTS = {
    "data": "training text",
    "states": "checkpoints",
    "ngram": "n-grams beside the network",
    "backward": "backward half",
}
"""Names of the folders of a run for people."""
LIST = "list"
"""Command that is meant if none is named: `charlm runs`."""


class _ListByDefault(DefaultGroup):
    """The commands of runs, of which `list` may be left out."""

    default = LIST

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take a first word as a command in any case, since `list` has no arguments."""
        named = args and not args[0].startswith("-")
        return TyperGroup.parse_args(self, ctx, args) if named else super().parse_args(ctx, args)


app = typer.Typer(
    name="runs",
    cls=_ListByDefault,
    help="List the runs of a folder; remove, rename, export and import them.\n\n"
    "`charlm runs` is short for `charlm runs list`.\n\n"
    "Example:  charlm runs --sort figure",
    no_args_is_help=False,
)


def list_(
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            help="Order: age, name, text, unit, size, figure, status or disk. Newest, largest and "
            "best come first.",
        ),
    ] = "age",
    as_json: options.Json = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """List the runs with their size, best validation, age, status and disk space.

    A star marks a figure of a part of the validation text (setting valid_tokens); charlm eval
    reads all of it. The trials of a search are below it. The runs that ship with charlm are last.

    Example:  charlm runs --sort figure
    """
    rows = api.runs.list_runs(checkpoints, sort)
    if as_json:
        write_document({"runs": [row.to_dict() for row in rows]})
        return
    from charlm.report.run_list import part_lines, problem_lines, run_lines

    render(run_lines(rows, datetime.now(UTC).timestamp(), terminal_width()))
    for line in [*part_lines(rows), *problem_lines(rows)]:
        write(f"{line}\n")
    if all(row.built_in for row in rows):
        say(f"no runs of your own yet; train one with: {command('train', 'corpus.txt')}")


def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs or searches.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Remove runs with everything in their folders.

    Runs that are being trained, runs that ship with charlm, links and folders with other files are
    refused, and nothing is removed then.

    Example:  charlm runs rm old-run --yes
    """
    from charlm.report.text import short_count

    def confirm(paths: list[Path], size: int) -> bool:
        """Ask on a terminal; raise UsageError if there is none."""
        what = f"{', '.join(path.name for path in paths)} ({short_count(size, 'B')})"
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                f"{what} would be removed, and stdin is not a terminal; expected a confirmation. "
                "Add --yes"
            )
        return typer.confirm(f"Remove {escape_controls(what)}?", err=True)

    removed = api.runs.remove_runs(names, checkpoints, confirm=confirm)
    say_all(f"removed {path}" for path in removed)
    if not removed:
        say("nothing was removed")


def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Run or search.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    checkpoints: options.Checkpoints = None,
) -> None:
    """Rename a run.

    Example:  charlm runs rename text-20261126 names
    """
    path = api.runs.rename(old, new, checkpoints)
    say(f"renamed to {path}")


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write: .zip, .tar.zst (extra zstd), or the model alone as .onnx (extra "
            "onnx).",
        ),
    ],
    with_data: options.WithData = False,
    with_states: options.WithStates = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Write a run into one file, without its training text and checkpoints.

    Folders, the command and the names of devices are taken out. The same run gives the same file.
    A file of ONNX is for other programs, on phones or in browsers: charlm guide onnx.

    Example:  charlm runs export tales tales.zip
    """
    shared = api.hub.export_run(
        run, file, with_data=with_data, with_states=with_states, checkpoints=checkpoints
    )
    say_shared(shared)
    say(f"wrote {count_of(len(shared.files), 'file')} to {file}")
    if file.suffix == ".onnx":
        say(f"programs that read it: {command('guide', 'onnx')}")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File by charlm runs export.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run. (default: as exported)")
    ] = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Keep an exported run; the file is checked, and nothing is overwritten.

    Example:  charlm runs import tales.zip --name copy
    """
    from charlm.runs.layout import verb_of

    path = api.hub.import_run(file, name, checkpoints)
    write(f"{path}\n")
    say(f"use it with: {command(verb_of(path), run=path)}")


def say_shared(shared: "Shared") -> None:
    """Report what stayed private, and warn about what did not."""
    from charlm.report.text import short_count

    for note in shared.notes:
        say(note, level=2)
    for folder, size in shared.left_out.items():
        part = " of the ".join(PARTS.get(name, name) for name in reversed(folder.split("/")))
        say(f"left out the {part} ({folder}/, {short_count(size, 'B')})")
    say_all(f"warning: {warning}" for warning in shared.warnings)


add_commands(
    app,
    {LIST: list_, "rm": rm, "rename": rename, "export": export, "import": import_},
    "runs",
)

"""`charlm inside`: show what a model sees in a text: surprisal, alternatives, units."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, write, write_json
from charlm.cli.stdin import Takes, read_text
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.inspect.text_view import Inspection

Text = Annotated[
    str | None, typer.Argument(help="Text to look into; - is stdin.", show_default=False)
]
File = Annotated[Path | None, typer.Option("--file", help="File with the text to look into.")]
By = Annotated[str, typer.Option("--by", metavar="PART", help="Colour each token or each word.")]
Top = Annotated[
    int | None,
    typer.Option("--top", min=1, max=50, help="Show the N likeliest tokens in each place."),
]
Other = Annotated[
    str | None,
    typer.Option("--with", metavar="RUN", help="Colour the difference to another run, in bits."),
]
Svg = Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Save a picture.")]
Csv = Annotated[bool, typer.Option("--csv", help="Write the result as CSV.")]
MAX_CHARS = 100_000
"""Maximum length of a text that is shown in colours, in characters."""
MAX_TABLE = 1_000_000
"""Maximum length of a text that becomes a table."""
MAX_FILE = 20_000
"""Maximum length of a text in a page or picture."""


@Takes(
    text=("text", "file"),
    purpose="Look into it",
    literal="text",
    option=("To look into a text, give it as an argument or with", "--file"),
)
def inside(
    text: Text = None,
    file: File = None,
    by: By = "token",
    top: Top = None,
    other: Other = None,
    svg: Svg = None,
    as_csv: Csv = False,
    as_json: options.Json = False,
    theme: options.Theme = None,
    engine: options.Engine = "auto",
    weights: options.Weights = "fp32",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show what a model sees in a text: the surprisal of each token, alternatives, and units.

    Without a terminal the result is a table.

    Example:  charlm inside "the apple and pair salad" --top 5
    """
    theme = options.checked_theme(theme)
    if as_csv and as_json:
        raise UsageError("--csv and --json were both given; expected one of them")
    if text is not None and file:
        raise UsageError("a text and --file were both given; expected one of them")
    if file:
        text = read_text(file)
    if text is None:
        raise UsageError("no text; expected one as an argument, with --file, or - for stdin")
    model = options.open_model(run, checkpoints, engine, weights)
    _check_length(text, shown=not (as_csv or as_json), file=svg)
    options.name_unknown(model, [text], "text")
    result = api.inside.inspect(
        model,
        text,
        by=by,
        top=top or 0,
        other=options.open_model(other, checkpoints, engine, weights) if other else None,
    )
    if svg:
        from charlm.report.inside import heats
        from charlm.report.inside_files import svg_picture

        _save(svg, svg_picture(heats(result)))
    if as_json:
        from charlm.report.inside_files import json_content

        write_json(json_content(result))
    elif as_csv:
        from charlm.report.inside_files import csv_lines

        write("".join(csv_lines(result)))
    elif not svg:
        _show(result, theme)


def _check_length(text: str, *, shown: bool, file: Path | None) -> None:
    """Raise UsageError for a text that is too long for what is made of it."""
    most = MAX_FILE if file else MAX_CHARS if shown else MAX_TABLE
    if len(text) > most:
        advice = "Give a part of it" if file or not shown else "Give a part of it, or add --csv"
        where = f"in {file}" if file else "here"
        raise UsageError(
            f"the text has {len(text):,} characters; expected at most {most:,} {where}, since "
            f"each of them is shown. {advice}"
        )


def _show(result: "Inspection", theme: str) -> None:
    """Write a text in colours to a terminal that has them, or a table."""
    from rich.console import Console

    from charlm.report.inside import alternatives_text, heat_text, heats, notes, table_lines

    console = Console()
    system = console.color_system
    if not console.is_terminal or console.no_color or system is None:
        write("".join(table_lines(result)))
        for note in notes(result):
            say(note)
        return
    if any(token.alternatives for token in result.view.tokens):
        render(alternatives_text(result.view, theme, system, console.width))
        return
    for number, heat in enumerate(heats(result)):
        if number:
            write("\n")
        render(heat_text(heat, theme, system))


def _save(path: Path, content: str) -> None:
    """Write a file and report its name."""
    from charlm.files.atomic import write_file

    write_file(path, content.encode("utf-8"))
    say(f"wrote {path}")

"""`charlm inside`: show what a model sees in a text: surprisal, alternatives, units."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.attention import show_attention
from charlm.cli.output import (
    render,
    render_all,
    save_text,
    say,
    write,
    write_document,
    write_json,
)
from charlm.cli.stdin import Takes, read_text
from charlm.cli.task_runs import check_typed
from charlm.commands import command
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.inspect.find_units import UnitMatches
    from charlm.inspect.text_view import Inspection

MAX_CHARS = 100_000
"""Maximum length of a text that is shown in colours, in characters."""
MAX_TABLE = 1_000_000
"""Maximum length of a text that becomes a table."""
MAX_FILE = 20_000
"""Maximum length of a text in a page or picture."""
VIEWS = ("--with", "--top", "--unit", "--find")
"""Flags that choose what is shown, beside --by."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm inside`."""

    text: Annotated[str | None, typer.Argument(help="Text to look into; - is stdin.")] = None
    file: Annotated[
        Path | None, typer.Option("--file", help="File with the text to look into.")
    ] = None
    by: Annotated[
        str, typer.Option("--by", metavar="PART", help="Colour each token or each word.")
    ] = "token"
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            min=1,
            max=50,
            help="Show the N likeliest tokens in each place, or N units of --find. "
            "(default for --find: 10)",
        ),
    ] = None
    unit: Annotated[
        list[str] | None,
        typer.Option(
            "--unit",
            metavar="LAYER:UNIT",
            help="Colour the text by this unit after each token, such as 2:8; may be repeated.",
        ),
    ] = None
    signals: Annotated[
        str | None,
        typer.Option(
            "--signal",
            help="Signals of the units, such as c or i,f,o: the state h, the cell c, the "
            "candidate g and the gates. (default: c, or h for a cell without c)",
        ),
    ] = None
    find_units: Annotated[
        str | None,
        typer.Option(
            "--find",
            metavar="REGEX",
            help="Find units that know where this matches, or the place in the line for `column`. "
            "(default text: the validation text of the run)",
        ),
    ] = None
    other: Annotated[
        str | None,
        typer.Option(
            "--with", metavar="RUN", help="Colour the difference from another run, in bits."
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Save a page that needs no server."),
    ] = None
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Save a picture.")] = (
        None
    )
    as_csv: Annotated[bool, typer.Option("--csv", help="Write the result as CSV.")] = False
    as_json: options.Json = False
    theme: options.Theme = None
    engine: options.Engine = "auto"
    weights: options.Weights = "fp32"
    run: options.Run = None
    checkpoints: options.Checkpoints = None

    @property
    def chosen(self) -> list[str]:
        """Names of the chosen signals."""
        return [] if self.signals is None else [name.strip() for name in self.signals.split(",")]


@Takes(
    text=("text", "file", "find_units"),
    purpose="Look into it",
    literal="text",
    option=("To look into a text, give it as an argument or with", "--file"),
)
def inside(asked: Asked) -> None:
    """Show what a model sees in a text: the surprisal of each token, alternatives, and units.

    Without a terminal the result is a table. Of a run that gives translations, it shows the
    translation and how much each of its tokens looks at each piece of the text.

    Example:  charlm inside "the apple and pair salad" --top 5
    """
    theme = options.checked_theme(asked.theme)
    _check_output(asked)
    _check_together(asked)
    path = options.locate(asked.run, asked.checkpoints)
    text = _read_text(asked.text, asked.file, path)
    if _gives_translations(path):
        of_models = ("--by", *VIEWS, "--signal", "--svg", "--weights")
        check_typed(options.typed_values(asked, *of_models), path)
        if text is None:
            raise _no_text()
        show_attention(
            path, text, html=asked.html, as_csv=asked.as_csv, as_json=asked.as_json, theme=theme,
            engine=asked.engine,
        )  # fmt: skip
        return
    if text is None and (asked.find_units is None or asked.html):
        raise _no_text()
    if not asked.unit and asked.find_units is None:
        options.check_meant(options.typed_values(asked, "--signal"), "--unit")
    model = options.open_model(str(path), asked.checkpoints, asked.engine, asked.weights)
    matches = None
    if asked.find_units is not None:
        matches = model.find_units(
            asked.find_units, text, top=asked.top or 10, signals=asked.chosen or None
        )
    if matches is not None and not asked.html:
        _write_matches(asked.find_units or "", matches, as_csv=asked.as_csv, as_json=asked.as_json)
    else:
        _inspect(model, asked, text or "", matches, theme)


def _inspect(
    model: "Model", asked: Asked, text: str, matches: "UnitMatches | None", theme: str
) -> None:
    """Write what a language model sees in a text, to files or to stdout."""
    is_plain = asked.as_csv or asked.as_json
    _check_length(text, shown=not is_plain, file=asked.html or asked.svg)
    options.name_unknown(model, [text], "text")
    usual, given = 5 if asked.html else 0, None if asked.find_units else asked.top
    other = None
    if asked.other:
        other = options.open_model(asked.other, asked.checkpoints, asked.engine, asked.weights)
    result = api.inside.inspect(
        model, text, by=asked.by, top=usual if given is None else given,
        units=asked.unit or [], signals=asked.chosen, other=other,
    )  # fmt: skip
    if asked.html:
        from charlm.report.page.page import page_html

        content = api.page.page_data(model, result, asked.find_units or "", matches)
        save_text(asked.html, page_html(content))
    if asked.svg:
        from charlm.report.inside import heats
        from charlm.report.inside_files import svg_picture

        save_text(asked.svg, svg_picture(heats(result)))
    if is_plain:
        _write_result(result, as_json=asked.as_json)
    elif not (asked.html or asked.svg):
        _show(result, theme)


def _gives_translations(path: Path) -> bool:
    """Return whether a run has attention to show, not a text to read."""
    from charlm.report.task_reports import report_of_task
    from charlm.runs.layout import is_label_run, run_task

    return is_label_run(path) and report_of_task(run_task(path)).has_attention


def _no_text() -> UsageError:
    return UsageError("no text; expected one as an argument, with --file, or - for stdin")


def _read_text(text: str | None, file: Path | None, run: Path) -> str | None:
    """Return the text that was given as an argument or in a file, or None.

    A table is read by the columns of the run. Raises UsageError.
    """
    from charlm.runs.locate import is_file

    if text is not None and file:
        raise UsageError("a text and --file were both given; expected one of them")
    if file:
        return read_text(file, run)
    if text and is_file(Path(text)):
        say(f"{text} is read as a text; to read the file: {command('inside', '--file', text)}")
    return text


def _write_result(result: "Inspection", *, as_json: bool) -> None:
    """Write a result to stdout as JSON, or as CSV."""
    from charlm.report.inside_files import csv_lines, json_content

    if as_json:
        write_json(json_content(result))
    else:
        write("".join(csv_lines(result)))


def _check_output(asked: Asked) -> None:
    """Raise UsageError for two formats, or a page and a picture in one file."""
    if asked.as_csv and asked.as_json:
        raise UsageError("--csv and --json were both given; expected one of them")
    html, svg = asked.html, asked.svg
    if html and svg and html.resolve() == svg.resolve():
        raise UsageError(f"--html and --svg are both {html}; expected two files")


def _check_together(asked: Asked) -> None:
    """Raise UsageError for flags of which only one can be shown, or that a file does not show."""
    flags = set(options.typed_values(asked, *VIEWS))
    flags |= {"--by word"} if asked.by == "word" else set()
    if asked.html and "--by word" in flags:
        raise UsageError("--by word with --html, whose page has tokens; expected --svg or --csv")
    for flag in sorted(flags & {"--find", "--top"}) if asked.svg else ():
        raise UsageError(
            f"{flag} with --svg, whose picture has one colour for each token; expected --html. "
            "Leave out one"
        )
    allowed = ({"--by word", "--with"}, {"--top", "--unit"}, {"--top", "--find"})
    if not asked.html and len(flags) > 1 and not any(flags <= each for each in allowed):
        found = " and ".join(sorted(flags))
        raise UsageError(f"{found} were given; expected one of them, since they colour one text")


def _check_length(text: str, *, shown: bool, file: Path | None) -> None:
    """Raise UsageError for a text that is too long for what is made of it."""
    most = MAX_FILE if file else MAX_CHARS if shown else MAX_TABLE
    if len(text) > most:
        is_row = shown and not file and len(text) <= MAX_TABLE
        advice = "Give a part of it, or add --csv" if is_row else "Give a part of it"
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
    shown = [heat_text(heat, theme, system) for heat in heats(result)]
    if any(token.alternatives for token in result.view.tokens):
        first = alternatives_text(result.view, theme, system, console.width)
        shown = [first, *(shown if result.units else ())]
    render_all(shown)


def _write_matches(pattern: str, matches: "UnitMatches", *, as_csv: bool, as_json: bool) -> None:
    """Write the units that follow a pattern."""
    from charlm.report.inside import match_table
    from charlm.report.inside_files import match_csv

    if as_json:
        write_document({"pattern": pattern, "units": matches.rows()})
    elif as_csv:
        write("".join(match_csv(matches)))
    else:
        render(match_table(matches))

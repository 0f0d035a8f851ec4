"""`charlm plot`: show the loss curves of runs in the terminal, or write them as a picture."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import on_terminal, rendered, say, say_all, write, write_document
from charlm.cli.stdin import Takes
from charlm.errors import RunError, UsageError

if TYPE_CHECKING:
    from charlm.report.curves import Plot

MAX_HEIGHT, PIPED_HEIGHT = 24, 18
"""Rows of dots on a tall terminal, and in a pipe."""
BESIDE = 7
"""Rows beside the dots and the legend: title, axis with labels and name, blank, prompt."""

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Runs or searches. (default: CHARLM_RUN, or the newest)"),
]
XAxis = Annotated[
    str | None,
    typer.Option(
        "--x",
        help="Axis across: tokens, steps, seconds or epochs; texts, tags or values for runs with "
        "other targets. (default: that of the targets; epochs for runs of several units)",
    ),
]
YAxis = Annotated[
    str | None,
    typer.Option(
        "--y",
        help="Axis upward: bits/byte, bits/char, bits/token, perplexity, rate or gradient; "
        "nats/token, nats/text, nats/tag or nats/value for runs of a task. (default: the figure of "
        "the unit; bits/byte for runs of several units)",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Write a picture as .svg or .html, or through matplotlib as .png or .pdf."
    ),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="Write all points as CSV.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Draw again as the runs go on, until they end or Ctrl-C.")
]


@Takes(reads_run=lambda values: not values["runs"])
def plot(
    runs: Runs = None,
    x: XAxis = None,
    y: YAxis = None,
    out: Out = None,
    as_csv: AsCsv = False,
    as_json: options.Json = False,
    watch: Watch = False,
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show the loss curves of runs, of training and of validation.

    Nothing is smoothed. Runs of several units are compared in bits per byte.

    Example:  charlm plot small large --out curves.svg
    """
    from charlm.report.curves import notes, plot_of
    from charlm.runs.locate import checkpoints_folder

    typed = {"--csv": as_csv, "--json": as_json, "--watch": watch, "--out": bool(out)}
    _check_one([flag for flag, is_given in typed.items() if is_given])
    if out:
        _check_out(out)
    names = [*(runs or ()), *([run] if run else ())]
    names = names or [str(options.locate(None, checkpoints, trained=False))]
    folder = checkpoints_folder(checkpoints)
    logs, left_out = api.plots.find_logs(names, folder)
    say_all(left_out)
    if watch:
        _watch(names, folder, x, y)
        return
    curves = plot_of(logs, x, y)
    say_all(notes(curves))
    _check_points(curves)
    if out:
        _save(curves, out)
    elif as_json:
        write_document(_content(curves))
    elif as_csv:
        write(_csv(curves))
    else:
        write(_drawn(curves))


def _check_one(flags: list[str]) -> None:
    """Raise UsageError for two ways to show the curves at once."""
    if len(flags) > 1:
        raise UsageError(f"{flags[0]} with {flags[1]}; expected one of them")
    if flags == ["--watch"] and not on_terminal():
        raise UsageError(
            "--watch draws on a terminal, and stdout is a file or a pipe; expected a terminal. "
            "Leave out --watch, or read the numbers with --csv"
        )


def _check_out(out: Path) -> None:
    from charlm.report.curve_files import FORMATS
    from charlm.report.pictures import check_picture

    check_picture(out, FORMATS)


def _check_points(curves: "Plot") -> None:
    """Raise RunError if there is nothing to show yet."""
    if not any(curve.end for curve in curves.curves):
        names = ", ".join(curve.name for curve in curves.curves)
        raise RunError(
            f"run {names} has no {curves.figure.label} in its log yet; expected a record, as "
            "training writes every 10 steps. Wait for it with --watch"
        )


def _drawn(curves: "Plot") -> str:
    """Return the picture for this terminal or pipe."""
    from charlm.report.curve_terminal import TerminalPicture

    height = PIPED_HEIGHT
    if on_terminal():
        rows = shutil.get_terminal_size().lines - BESIDE - len(curves.curves)
        height = min(rows, MAX_HEIGHT)
    return rendered(TerminalPicture(plot=curves, height=height))


def _watch(names: list[str], folder: Path, x: str | None, y: str | None) -> None:
    """Draw again, over the last picture, each time that a log has grown. Ctrl-C ends it."""
    from charlm.report.curves import notes, plot_of

    rows, said = 0, set[str]()
    try:
        for current in api.plots.watch(names, folder):
            curves = plot_of(current, x, y)
            new = [note for note in notes(curves) if note not in said]
            said |= set(new)
            text = _drawn(curves)
            above = f"\x1b[{rows}F\x1b[J" if rows else ""
            write(above + "".join(f"{note}\n" for note in new) + text, flush=True)
            rows = text.count("\n")
    except KeyboardInterrupt:
        say("")


def _save(curves: "Plot", out: Path) -> None:
    from charlm.report.curve_files import save

    save(curves, out)
    say(f"wrote {out}")


def _csv(curves: "Plot") -> str:
    import csv
    import io

    from charlm.report.curves import rows

    lines = io.StringIO()
    writer = csv.DictWriter(lines, ["run", "text", curves.x, curves.y], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(curves))
    return lines.getvalue()


def _content(curves: "Plot") -> dict[str, Any]:
    """Return the points as plain values, gaps as null."""
    from charlm.report.curves import rows, summary

    found: dict[str, dict[str, Any]] = {
        row["run"]: {**row, "path": str(curve.log.path), "unit": curve.log.unit, "points": []}
        for row, curve in zip(summary(curves), curves.curves, strict=True)
    }
    for row in rows(curves):
        name = row.pop("run")
        found[name]["points"].append(row)
    return {"x": curves.x, "y": curves.y, "runs": list(found.values())}

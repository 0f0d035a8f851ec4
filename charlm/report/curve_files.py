"""Files of curves: SVG and HTML without matplotlib, PNG and PDF with it (the extra `plot`)."""

import io
from collections.abc import Callable
from html import escape
from pathlib import Path

from charlm.files.atomic import write_file
from charlm.files.escapes import escape_unprintable
from charlm.report.axes import X_AXES
from charlm.report.curve_svg import STYLE, svg
from charlm.report.curves import Plot, notes, summary
from charlm.report.page.page import csp_hash
from charlm.report.pictures import figures

PAGE_STYLE = (
    STYLE
    + """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif;
  color: light-dark(#1d2026, #e9e7e2); background: light-dark(#fff, #14161a); }
figure { margin: 1rem 0; overflow-x: auto; }
svg { width: 100%; min-width: 40rem; height: auto; display: block; color: inherit; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
h1 { font-size: 1.25rem; }
"""
)
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '{hash}'">
<title>{title}</title>
<style>{style}</style>
<h1>{title}</h1>
<figure tabindex="0">
{picture}</figure>
{table}
{notes}
</html>
"""


def html_page(plot: Plot) -> str:
    """Return one self-contained page: the picture, and a table of the figures. It has no script."""
    title = f"{plot.figure.label.capitalize()} over {X_AXES[plot.x].label}"
    return PAGE.format(
        hash=csp_hash(PAGE_STYLE),
        title=escape(title),
        style=PAGE_STYLE,
        picture=svg(plot),
        table=_table(plot),
        notes="\n".join(f"<p>{escape(escape_unprintable(note))}.</p>" for note in notes(plot)),
    )


def _table(plot: Plot) -> str:
    """Return the newest and best figures of each run as a table."""
    head = ("run", "training", "validation", "best", "at step")
    rows = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"]
    for row in summary(plot):
        figure_texts = [
            "" if row[key] is None else f"{row[key]:{plot.figure.digits}}"
            for key in ("training", "validation", "best")
        ]
        step = "" if row["best_step"] is None else f"{row['best_step']:,}"
        cells = [escape(escape_unprintable(str(row["run"]))), *figure_texts, step]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def drawn_by_matplotlib(plot: Plot, ending: str) -> bytes:
    """Return the picture in a format of matplotlib, such as "png"."""
    figure = figures().Figure(figsize=(8.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("log" if plot.figure.logarithmic else "linear")
    axes.minorticks_off()
    for curve, colour in zip(plot.curves, plot.colours, strict=True):
        name = escape_unprintable(curve.name).replace("$", r"\$")
        if curve.training:
            label = name if not curve.validation else None
            axes.plot(
                *zip(*curve.training, strict=True), color=colour, lw=0.8, alpha=0.75, label=label
            )
        if curve.validation:
            axes.plot(*zip(*curve.validation, strict=True), "o-", color=colour, ms=4, label=name)
    for axis, scale in ((axes.xaxis, plot.across), (axes.yaxis, plot.up)):
        labels = scale.labels(8)
        axis.set_ticks(list(labels), list(labels.values()))
    axes.set_xlabel(X_AXES[plot.x].label)
    axes.set_ylabel(plot.figure.label)
    axes.set_title("lines: training; lines with dots: validation" if plot.figure.valid else "")
    axes.set_ylim(top=plot.up.high)
    axes.grid(alpha=0.3)
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format=ending, dpi=150)
    return content.getvalue()


FORMATS: dict[str, Callable[[Plot], str]] = {
    ".svg": lambda plot: svg(plot, STYLE),
    ".html": html_page,
}
"""Formats that charlm writes itself, by the ending of the file."""


def save(plot: Plot, path: Path) -> None:
    """Write the curves in the format of the ending of a file. Raises EnvironmentFailure."""
    ending = path.suffix.lower()
    write = FORMATS.get(ending)
    content = write(plot).encode("utf-8") if write else drawn_by_matplotlib(plot, ending[1:])
    write_file(path, content)

"""Curves in the terminal: training is a line of braille dots, validation a mark at each place.

Every colour can be read on a light and on a dark background, and every run has a mark of its own,
so nothing depends on colours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.report.axes import X_AXES
from charlm.report.braille import Canvas
from charlm.report.curves import RUN_COLOURS, Curve, Plot, summary
from charlm.report.heat import FEW_COLORS
from charlm.report.scale import lines, pieces, thinned
from charlm.report.text import cut, padded

MARKS = "●■▲◆○□△◇"
"""Marks of validations, in the order of the runs."""
FEW = (
    "bright_blue", "yellow", "green", "magenta", "red", "bright_black", "cyan", "bright_magenta",
)  # fmt: skip
"""Colours of the runs on a terminal with 16 colours."""
KEY = "⠒"
"""Piece of a line that stands for the training in a legend."""
MIN_WIDTH, MIN_HEIGHT = 30, 5
MAX_NAME = 20
"""Columns of a name at the end of its curve."""
AXIS = "dim"


@dataclass(frozen=True, kw_only=True)
class Key:
    """Colour of a run, and the mark of its validations."""

    colour: str
    mark: str

    def text(self, plot: Plot) -> Text:
        """Return the mark; a blank if the picture has no validations."""
        return Text(self.mark if plot.figure.valid else " ", f"bold {self.colour}")


@dataclass(frozen=True, kw_only=True)
class TerminalPicture:
    """Picture of curves that fits the width of the console that it is printed on."""

    plot: Plot
    height: int = 18
    """Rows of dots."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the picture in the colours of the console."""
        colours = FEW if console.color_system in FEW_COLORS else RUN_COLOURS
        yield picture(self.plot, options.max_width, self.height, colours)


def picture(
    plot: Plot, width: int = 80, height: int = 18, colours: Sequence[str] = RUN_COLOURS
) -> Text:
    """Return the curves, `height` rows of dots, with axes and a legend below them.

    No line is wider than `width`, which counts as at least MIN_WIDTH.
    """
    width, height = max(width, MIN_WIDTH), max(height, MIN_HEIGHT)
    up = plot.up
    keys = [
        Key(colour=colours[number % len(colours)], mark=MARKS[number % len(MARKS)])
        for number in range(len(plot.curves))
    ]
    ticks = up.labels(max(height // 3, 2)).items()
    labels = {round((1 - up.fraction(tick)) * (height - 1)): label for tick, label in ticks}
    left = max(cell_len(text) for text in (*labels.values(), ""))
    inner = width - left - 2
    names = _names(plot, inner)
    room = max((len(name) + 4 for name in names.values()), default=0)
    canvas = _canvas(plot, keys, inner - room, height)
    for number, name in names.items():
        _put_name(canvas, plot, plot.curves[number], keys[number], name, inner)
    text = Text(f"{plot.figure.label}\n", no_wrap=True, overflow="ignore")
    for number in range(height):
        label = labels.get(number, "")
        text.append(f"{label:>{left}} ").append("┤" if label else "│", AXIS)
        text.append_text(canvas.row(number)).append("\n")
    text.append_text(_axis_across(plot, canvas.width, left))
    text.append_text(_legend(plot, keys, width))
    return text


def _canvas(plot: Plot, keys: Sequence[Key], width: int, height: int) -> Canvas:
    """Return the lines of training, and over them the marks of validation."""
    canvas, across, up = Canvas(width, height), plot.across, plot.up
    for curve, key in zip(plot.curves, keys, strict=True):
        for line in lines(curve.training, across, up, 2 * width):
            canvas.line(line, key.colour)
    for curve, key in zip(plot.curves, keys, strict=True):
        for piece in pieces(curve.validation):
            for x, y in thinned(piece, across, max(width // 2, 1)):
                place = canvas.cell((across.fraction(x), up.fraction(y)))
                canvas.write(*place, key.mark, f"bold {key.colour}")
    return canvas


def _names(plot: Plot, inner: int) -> dict[int, str]:
    """Return the names to write at the ends of curves; none for one run, or without room."""
    if len(plot.curves) < 2 or inner < 2 * MAX_NAME:
        return {}
    names = {}
    for number, curve in enumerate(plot.curves):
        short = cut(escape_unprintable(curve.name), MAX_NAME)
        if curve.end and cell_len(short) == len(short):  # a letter takes one cell
            names[number] = short
    return names


def _put_name(canvas: Canvas, plot: Plot, curve: Curve, key: Key, name: str, inner: int) -> None:
    """Write a name to the right of the end of its curve, in the nearest row with free cells."""
    assert curve.end is not None
    x, y = curve.end
    row, column = canvas.cell((plot.across.fraction(x), plot.up.fraction(y)))
    length = len(name) + 3
    first = min(column + 2, inner - length)
    for distance in range(canvas.height):
        for place in (row + distance, row - distance):
            if canvas.is_free(place, first - 1, first + length):
                canvas.write(place, first, f"{KEY}{key.text(plot).plain}", key.colour)
                canvas.write(place, first + 3, name)
                return


def _axis_across(plot: Plot, width: int, left: int) -> Text:
    """Return the lower axis: a rule with ticks, their labels, and the name of the axis."""
    across, rule, labels, end = plot.across, ["─"] * width, [" "] * width, 0
    for tick, label in across.labels(max(width // 12, 2)).items():
        column = round(across.fraction(tick) * (width - 1))
        first = min(max(column - len(label) // 2, 0), width - len(label))
        if first >= end:
            rule[column] = "┬"
            labels[first : first + len(label)] = label
            end = first + len(label) + 1
    indent, name = " " * (left + 1), X_AXES[plot.x].label
    if end + len(name) <= width:
        labels[width - len(name) :] = name
        name = ""
    below = f"\n{indent} {name:>{width}}" if name else ""
    text = Text().append(f"{indent}└{''.join(rule)}\n", AXIS)
    return text.append(f"{indent} {''.join(labels).rstrip()}{below}\n")


def _legend(plot: Plot, keys: Sequence[Key], width: int) -> Text:
    """Return a line for each run: its mark, its name, and its newest and best figures.

    On a narrow terminal the last figures are left out, and long names are cut.
    """
    names = [escape_unprintable(curve.name) for curve in plot.curves]
    figures, longest = _legend_figures(plot), max(map(cell_len, names))
    while any(figures) and width - 5 - max(map(len, figures)) < min(longest, MAX_NAME):
        figures = [text.rpartition(", ")[0] for text in figures]
    room = max(min(width - 5 - max(map(len, figures)), longest), 1)
    text = Text()
    for key, name, figure in zip(keys, names, figures, strict=True):
        text.append(f"\n{KEY}", key.colour).append_text(key.text(plot))
        text.append(f" {padded(name, room)}  {figure}")
    return text


def _legend_figures(plot: Plot) -> list[str]:
    """Return the newest and best figures of each run, separated by commas."""
    digits, texts = plot.figure.digits, []
    for row in summary(plot):
        known = [key for key in ("training", "validation") if row[key] is not None]
        parts = [f"{key} {row[key]:{digits}}" for key in known]
        if row["best"] is not None and row["best"] != row["validation"]:
            parts.append(f"best {row['best']:{digits}} at step {row['best_step']:,}")
        texts.append(", ".join(parts))
    return texts

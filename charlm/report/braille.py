"""Curves in the terminal: dots of braille letters, 2 x 4 in each cell.

Training is a line of dots, validation a mark at each place. Every colour can be read on a light and
on a dark background, and every run has a mark of its own, so nothing depends on colours.
"""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.report.curves import RUN_COLOURS, X_AXES, Curve, Plot, summary
from charlm.report.scale import Point, lines, pieces, thinned

MARKS = "●■▲◆○□△◇"
"""Marks of validations, in the order of the runs."""
BRAILLE = 0x2800
"""Code point of the cell without dots."""
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bit of each dot in a cell, by column and row from the top."""
MIN_WIDTH, MIN_HEIGHT = 30, 5
MAX_NAME = 20
"""Columns of a name at the end of its curve."""
AXIS = "grey50"


class Canvas:
    """Grid of cells, each with the dots of all curves in the style of the last one, or a letter."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.dots: dict[tuple[int, int], int] = {}
        self.letters: dict[tuple[int, int], str] = {}
        self.styles: dict[tuple[int, int], str] = {}

    def line(self, places: Sequence[Point], style: str) -> None:
        """Draw a line through places in fractions of the canvas, from its lower left corner."""
        dots = [
            (round(x * (2 * self.width - 1)), round((1 - y) * (4 * self.height - 1)))
            for x, y in places
        ]
        for (x, y), (next_x, next_y) in zip(dots, dots[1:] or dots, strict=False):
            steps = max(abs(next_x - x), abs(next_y - y), 1)
            for step in range(steps + 1):
                across = x + round(step * (next_x - x) / steps)
                self._dot(across, y + round(step * (next_y - y) / steps), style)

    def _dot(self, x: int, y: int, style: str) -> None:
        cell = (y // 4, x // 2)
        self.dots[cell] = self.dots.get(cell, 0) | DOTS[x % 2][y % 4]
        self.styles[cell] = style

    def cell(self, place: Point) -> tuple[int, int]:
        """Return row and column of a place in fractions of the canvas."""
        row, column = round((1 - place[1]) * (self.height - 1)), round(place[0] * (self.width - 1))
        return min(max(row, 0), self.height - 1), min(max(column, 0), self.width - 1)

    def write(self, row: int, column: int, text: str, style: str = "") -> None:
        """Write a text over the dots; every letter takes one cell."""
        for number, letter in enumerate(text):
            self.letters[row, column + number] = letter
            self.styles[row, column + number] = style

    def is_free(self, row: int, first: int, last: int) -> bool:
        """Return whether there is nothing in the cells of a row from `first` to `last`."""
        cells = [(row, column) for column in range(first, last + 1)]
        return 0 <= row < self.height and not any(
            cell in self.dots or cell in self.letters for cell in cells
        )

    def row(self, number: int) -> Text:
        """Return a row of cells."""
        text = Text()
        columns = [column for row, column in (*self.dots, *self.letters) if row == number]
        for column in range(max(columns, default=-1) + 1):
            cell = (number, column)
            letter = self.letters.get(cell) or (
                chr(BRAILLE | self.dots[cell]) if cell in self.dots else " "
            )
            text.append(letter, self.styles.get(cell, "") or None)
        return text


def picture(plot: Plot, width: int = 80, height: int = 18) -> Text:
    """Return the curves, `height` rows of dots, with axes and a legend below them.

    No line is wider than `width`, which counts as at least MIN_WIDTH.
    """
    width, height = max(width, MIN_WIDTH), max(height, MIN_HEIGHT)
    up = plot.up
    ticks = up.labels(max(height // 3, 2)).items()
    labels = {round((1 - up.fraction(tick)) * (height - 1)): label for tick, label in ticks}
    left = max(cell_len(text) for text in (*labels.values(), ""))
    inner = width - left - 2
    names = _names(plot, inner)
    room = max((cell_len(name) + 3 for name in names.values()), default=0)
    canvas = _canvas(plot, inner - room, height)
    for curve, name in names.items():
        _put_name(canvas, plot.curves[curve], name, MARKS[curve % len(MARKS)], plot, inner)
    text = Text(f"{plot.figure.label}\n", no_wrap=True, overflow="ignore")
    for number in range(height):
        label = labels.get(number, "")
        text.append(f"{label:>{left}} {'┤' if label else '│'}", AXIS)
        text.append_text(canvas.row(number)).append("\n")
    text.append_text(_axis_across(plot, canvas.width, left))
    text.append_text(legend(plot, width))
    return text


def _canvas(plot: Plot, width: int, height: int) -> Canvas:
    """Return the lines of training, and over them the marks of validation."""
    canvas, across, up = Canvas(width, height), plot.across, plot.up
    for number, curve in enumerate(plot.curves):
        for line in lines(curve.training, across, up, 2 * width):
            canvas.line(line, RUN_COLOURS[number % len(RUN_COLOURS)])
    for number, curve in enumerate(plot.curves):
        style, mark = f"bold {RUN_COLOURS[number % len(RUN_COLOURS)]}", MARKS[number % len(MARKS)]
        for piece in pieces(curve.validation):
            for x, y in thinned(piece, across, max(width // 2, 1)):
                canvas.write(*canvas.cell((across.fraction(x), up.fraction(y))), mark, style)
    return canvas


def _names(plot: Plot, inner: int) -> dict[int, str]:
    """Return the names to write at the ends of curves; none for one run, or without room."""
    if len(plot.curves) < 2 or inner < 2 * MAX_NAME:
        return {}
    names = {}
    for number, curve in enumerate(plot.curves):
        name = escape_unprintable(curve.name)
        short = _cut(name, MAX_NAME)
        if curve.end and cell_len(short) == len(short):  # a letter takes one cell
            names[number] = short
    return names


def _put_name(canvas: Canvas, curve: Curve, name: str, mark: str, plot: Plot, inner: int) -> None:
    """Write a name to the right of the end of its curve, in the nearest row with free cells."""
    assert curve.end is not None
    x, y = curve.end
    row, column = canvas.cell((plot.across.fraction(x), plot.up.fraction(y)))
    text = f"{mark} {name}"
    first = min(column + 2, inner - len(text))
    for distance in range(canvas.height):
        for place in (row + distance, row - distance):
            if canvas.is_free(place, first - 1, first + len(text)):
                canvas.write(place, first, text)
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
    return Text(f"{indent}└{''.join(rule)}\n{indent} {''.join(labels).rstrip()}{below}\n", AXIS)


def legend(plot: Plot, width: int) -> Text:
    """Return a line for each run: its mark, its name, and its newest and best figures.

    On a narrow terminal the last figures are left out, and long names are cut.
    """
    names = [escape_unprintable(curve.name) for curve in plot.curves]
    figures = _legend_figures(plot)
    while True:
        beside = max(map(len, figures)) + 7
        room = width - beside
        if room >= min(max(map(cell_len, names)), MAX_NAME) or not beside > 7:
            break
        figures = [text.rpartition(", ")[0] for text in figures]
    room = max(min(room, max(map(cell_len, names))), 1)
    text = Text()
    for number, (name, figure) in enumerate(zip(names, figures, strict=True)):
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        text.append(f"\n{chr(BRAILLE | 0x12) * 2}", colour)
        text.append(MARKS[number % len(MARKS)] if plot.figure.valid else " ", f"bold {colour}")
        text.append(f" {_cut(name, room)}")
        text.append(f"{' ' * (room - cell_len(_cut(name, room)))}  {figure}")
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


def _cut(name: str, columns: int) -> str:
    """Return a name in at most `columns` columns."""
    return name if cell_len(name) <= columns else set_cell_size(name, columns - 1) + "…"

"""Drawing in the terminal with braille letters: 2 x 4 dots in each cell."""

from collections.abc import Sequence
from itertools import groupby

from rich.text import Text

from charlm.report.scale import Point

BRAILLE = 0x2800
"""Code point of the cell without dots."""
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bit of each dot in a cell, by column and row from the top."""


class Canvas:
    """Grid of cells: letters with their styles, most of them dots. Letters are written last."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows: list[dict[int, tuple[str, str]]] = [{} for _ in range(height)]

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
        """Add a dot to a cell; all its dots get the style of the last one."""
        cells, column = self.rows[y // 4], x // 2
        before, _ = cells.get(column, (chr(BRAILLE), ""))
        cells[column] = (chr(ord(before) | DOTS[x % 2][y % 4]), style)

    def cell(self, place: Point) -> tuple[int, int]:
        """Return row and column of a place in fractions of the canvas."""
        row, column = round((1 - place[1]) * (self.height - 1)), round(place[0] * (self.width - 1))
        return min(max(row, 0), self.height - 1), min(max(column, 0), self.width - 1)

    def write(self, row: int, column: int, text: str, style: str = "") -> None:
        """Write a text over the dots; every letter takes one cell."""
        for number, letter in enumerate(text):
            self.rows[row][column + number] = (letter, style)

    def is_free(self, row: int, first: int, last: int) -> bool:
        """Return whether there is nothing in the cells of a row from `first` to `last`."""
        return 0 <= row < self.height and not any(
            column in self.rows[row] for column in range(first, last + 1)
        )

    def row(self, number: int) -> Text:
        """Return a row of cells."""
        cells = self.rows[number]
        filled = [cells.get(column, (" ", "")) for column in range(max(cells, default=-1) + 1)]
        parts = groupby(filled, key=lambda cell: cell[1])
        return Text.assemble(*(("".join(letter for letter, _ in part), key) for key, part in parts))

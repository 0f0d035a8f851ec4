"""Drawing in the terminal with braille letters: 2 x 4 dots in each cell."""

from collections.abc import Sequence

from rich.text import Text

from charlm.report.scale import Point

BRAILLE = 0x2800
"""Code point of the cell without dots."""
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bit of each dot in a cell, by column and row from the top."""


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

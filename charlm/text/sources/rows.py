"""Rows of a table in which one column is text, whatever the format of the table."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from charlm.errors import CorpusError, named
from charlm.text.documents import check_text
from charlm.text.sources.files import shown
from charlm.units import count_of

Warn = Callable[[str], None]
"""Function that takes one sentence for the user."""
PEEK_ROWS = 100
"""Rows that are read ahead to find the column with the text."""
MAX_LISTED = 20
"""Columns that a message names."""

Row = Mapping[str, object]
NO_CELLS: Mapping[str, str] = {}


class Record(NamedTuple):
    """One row of a table: its text and its other cells."""

    number: int
    """Number among all rows of data, from 1."""
    line: int | None
    """Line of the file where the row begins; None if the format has no lines."""
    text: str | None
    """Cell of the text column; None if it is missing or empty."""
    cells: Mapping[str, str] = NO_CELLS
    """Other cells by column name, in the order of the file."""


@dataclass(frozen=True)
class Rows:
    """Table in which one column is text."""

    label: str
    read: Callable[..., tuple[str, Iterator[Record]]]
    """Function that opens the table and returns the text column and the records, whose other cells
    are filled in if the second argument is true: read(warn, cells, column=None). `column` takes the
    place of the column in the settings."""
    path: Path | None = None
    """File of the table, if it is one."""

    def texts(self, warn: Warn) -> Iterator[str]:
        """Yield the text of each row; warn of the number of rows without text, which are skipped.

        Raises CorpusError if the table cannot be read or has no such column, and EnvironmentFailure
        if the hub cannot be reached.
        """
        column, records = self.read(warn, False)
        skipped = 0
        for _, _, text, _ in records:
            if text is None:
                skipped += 1
            else:
                yield text
        if skipped:
            rows = count_of(skipped, "row")
            warn(f'{self.label}: {rows} without text in the column "{shown(column)}" skipped.')

    def records(self, warn: Warn) -> Iterator[Record]:
        """Yield every row, including rows without text. Raises the errors of `texts`."""
        yield from self.read(warn, True)[1]


def named_records(
    label: str,
    rows: Iterator[tuple[int | None, Row]],
    named: str | None,
    warn: Warn,
    cells: bool,
    show: Callable[[object], str] = str,
) -> tuple[str, Iterator[Record]]:
    """Return the text column and the records of rows that are mappings.

    `rows` are pairs of line and row. `show` formats a cell that is not text for `Record.cells`.
    """
    first = list(islice(rows, PEEK_ROWS))
    if not first:
        warn(f"{label} has no rows.")
        return named or "", iter(())
    columns = list(dict.fromkeys(chain.from_iterable(row for _, row in first)))
    texts = [name for name in columns if any(type(row.get(name)) is str for _, row in first)]
    column = chosen_column(label, columns, texts, named)
    if named is None and len(columns) > 1:
        warn(f'{label}: the column "{shown(column)}" is read. {listed(columns)}')
    return column, _records(label, chain(first, rows), column, cells, show)


def _records(
    label: str,
    rows: Iterable[tuple[int | None, Row]],
    column: str,
    with_cells: bool,
    show: Callable[[object], str],
) -> Iterator[Record]:
    cells = NO_CELLS
    for number, (line, row) in enumerate(rows, 1):
        text = row.get(column)
        if text is not None:
            place = f"row {number:,}" if line is None else f"line {line:,}"
            text = checked_text(text, f"{label}: {place}", column)
        if with_cells:
            cells = {
                name: cell if isinstance(cell, str) else "" if cell is None else show(cell)
                for name, cell in row.items()
                if name != column
            }
        yield Record(number, line, text, cells)


def chosen_column(
    label: str, columns: Sequence[str], texts: Sequence[str], named: str | None
) -> str:
    """Return the column that was named, else "text", else the only column that holds text.

    Raises CorpusError, with the names of the columns, if there is no such column or several.
    """
    if named is not None:
        if named in columns:
            return named
        near = {name.casefold(): name for name in columns}
        alike = difflib.get_close_matches(named.casefold(), near, n=1)
        advice = (
            f'Did you mean "{shown(near[alike[0]])}"?' if alike else "Give --column one of them."
        )
        problem = f'{label} has no column "{shown(named)}". {listed(columns)} {advice}'
        raise CorpusError(problem, columns=columns)
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    problem = "several columns of text" if texts else "no column of text"
    problem = f"{label} has {problem}. {listed(columns)} Choose one with --column."
    raise CorpusError(problem, columns=columns)


def listed(columns: Sequence[str]) -> str:
    """Return a sentence that names the columns of a table."""
    more = f" and {len(columns) - MAX_LISTED:,} more" if len(columns) > MAX_LISTED else ""
    return f"Its columns: {', '.join(shown(column) for column in columns[:MAX_LISTED])}{more}."


def checked_text(text: object, place: str, column: str) -> str:
    """Return a cell that is text. Raises CorpusError for any other cell or a lone surrogate."""
    if not isinstance(text, str) or type(text) is Number:
        raise CorpusError(
            f'{place}: the column "{shown(column)}" holds {kind_of(text)}, expected text. '
            f"Choose another with {named('column')}."
        )
    check_text(text, place, "Correct that row.")
    return text


class Number(str):
    """Number of a JSON file, as it is written there."""

    __slots__ = ()


def kind_of(value: object) -> str:
    """Return the kind of a value for a message."""
    if isinstance(value, Number) or (isinstance(value, int | float) and value not in (True, False)):
        return f"the number {value:.40}" if isinstance(value, str) else f"the number {value}"
    names = {bool: "true or false", list: "a list", dict: "an object", str: "a text"}
    return "null" if value is None else names.get(type(value), type(value).__name__)

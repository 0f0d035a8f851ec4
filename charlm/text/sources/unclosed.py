"""Rows inside a field: what is left where a stray quote encloses several lines of a table.

label,text                    The second row has one field of three lines. Its second line looks
neg,"Dull, they said.         like a row: it has as many fields, and "pos" is a value that the
pos,A stirring film.          first column has in other rows.
neg,They called it "dull"
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from charlm.errors import CorpusError, named
from charlm.text.sources.files import shown

Fields = tuple[int, list[str]]
"""Line where a row begins, and its fields."""


def without_rows_inside(
    rows: Iterable[Fields], peeked: Sequence[Fields], delimiter: str, label: str
) -> Iterator[Fields]:
    """Yield the rows of a table whose quotes enclose fields.

    `peeked` are some of its rows, which show what values each column has. Raises CorpusError for a
    field of several lines if one of them looks like a row.
    """
    usual = _usual_values([row for _, row in peeked])
    for line, row in rows:
        for place, cell in enumerate(row):
            if "\n" in cell and (inner := _row_inside(row, place, usual, delimiter)):
                raise CorpusError(
                    f"{label}: the row that begins in line {line:,} has a field of "
                    f'{cell.count(chr(10)) + 1:,} lines, and one of them ("{shown(inner[:60])}") '
                    f"looks like a row; expected a quote at the end of each quoted field. Correct "
                    f"the line, or add {named('quoting')} none if quotes are text, "
                    f"{named('quoting')} csv if the field is right."
                )
        yield line, row


def _usual_values(rows: Sequence[Sequence[str]]) -> list[set[str]]:
    """Return the values of each column that two or more rows have."""
    counts = [Counter(cells) for cells in zip(*rows, strict=True)]
    return [{cell for cell, n in column.items() if cell and n > 1} for column in counts]


def _row_inside(row: Sequence[str], place: int, usual: Sequence[set[str]], delimiter: str) -> str:
    """Return a line of the field at `place` that looks like a row of the table, or "".

    It has as many fields as the table, and another field that is a usual value of its column. The
    first line continues the fields before the place, and those after it continue the last line. A
    quote that is missing encloses whole rows, so each line after the first must have the number of
    fields: a line of a letter or a poem that looks like a row does so by chance.
    """
    width = len(row)
    lines = [line.removesuffix("\r") for line in row[place].split("\n")]
    last, found = len(lines) - 1, ""
    for number, line in enumerate(lines):
        if not line and number < last:
            continue  # a blank line
        begin = place if number == 0 else 0
        end = place + 1 if number == last else width
        cells = line.split(delimiter)
        if len(cells) != end - begin:
            if number > 0:
                return ""
        elif any(
            column != place and cell in usual[column] for column, cell in enumerate(cells, begin)
        ):
            found = found or line
    return found

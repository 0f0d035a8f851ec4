"""Fields of csv and tsv files: how lines are split at a delimiter, with quotes or without."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress

from charlm.errors import CorpusError
from charlm.text.sources.decoding import MAX_LINE_CHARS

DELIMITERS = (",", ";", "|", "\t")
"""Delimiters of .csv files in the order of preference."""
DELIMITER_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
HEAD_CHARS = 1 << 18
"""Characters at the beginning of a table on which delimiters are tried."""
Fields = tuple[int, list[str]]
"""Line where a row begins, and its fields."""


def fits(head: list[str], delimiter: str, quoted: bool) -> bool:
    """Return True if a delimiter splits all rows into as many fields as the first, two or more."""
    size = 0
    lines = [line for line in head if (size := size + len(line)) <= HEAD_CHARS] or head[:1]
    rows: list[list[str]] = []
    with suppress(CorpusError):  # the head ends inside quotes, or this delimiter splits quotes
        rows += (row for _, row in split_rows(lines, delimiter, quoted) if row)
    names = rows[0] if rows else []
    return len(names) > 1 and all(matches(row, names) for row in rows)


def matches(row: list[str], names: list[str]) -> bool:
    """Return True if a row has as many fields as the header, apart from empty ones at the end."""
    return not any(row[len(names) :]) and not any(names[len(row) :])


def split_rows(
    lines: Iterable[str], delimiter: str, quoted: bool, label: str = "", before: int = 0
) -> Iterator[Fields]:
    """Yield the rows of a table; `before` is the number of lines before it.

    Quotes enclose fields if `quoted`, else they are ordinary characters. Raises CorpusError for a
    row that is not valid CSV.
    """
    if quoted:
        yield from _quoted_rows(lines, delimiter, label, before)
        return
    for number, line in enumerate(lines, before + 1):
        bare = line.removesuffix("\n").removesuffix("\r")
        yield number, bare.split(delimiter) if bare else []


def _quoted_rows(lines: Iterable[str], delimiter: str, label: str, before: int) -> Iterator[Fields]:
    csv.field_size_limit(MAX_LINE_CHARS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = before + 1
    try:
        for row in reader:
            yield line, row
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise _malformed(label, str(error), line, before + reader.line_num) from error


def _malformed(label: str, reason: str, begin: int, line: int) -> CorpusError:
    """Return the error of a row that is not valid CSV and begins in line `begin`."""
    if "unexpected end" in reason or "limit" in reason:
        problem = f"the row that begins in line {begin:,} opens a quote that is never closed"
    elif "expected after" in reason:
        problem = f"line {line:,}: text after the closing quote of a field"
    elif "new-line" in reason:
        problem = f"line {line:,}: a carriage return inside a field without quotes"
    else:
        problem = f"line {line:,}: {reason}"
    return CorpusError(
        f"{label}: {problem}; expected CSV, where quotes enclose a whole field and a quote inside "
        f'it is doubled. Correct the line, for a table of R with qmethod = "double"; or add '
        f"--quoting none to read quotes as text."
    )

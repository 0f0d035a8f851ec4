"""Rows of tables, of which one column is text; datasets of the hub, streamed by `datasets`.

Files are read by `charlm.text.sources.tables`.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from charlm.errors import CharlmError, CorpusError, EnvironmentFailure, UsageError
from charlm.text.sources.files import shown

Note = Callable[[str], None]
"""Receives one sentence for the user."""

HUB_PREFIX = "hf:"
ROWS_AT_ONCE, CHARS_AT_ONCE = 500, 1 << 20
PEEK_ROWS = 100
"""Rows that are looked at to find the column with the text."""
MAX_LISTED = 20
"""Columns that a message lists."""

_HUB_NAME = re.compile(
    r"(?P<path>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^/#]+))?(?:/(?P<split>[^/#]+))?(?:#(?P<column>.+))?"
)

Row = Mapping[str, object]
NO_CELLS: Mapping[str, str] = {}


class Record(NamedTuple):
    """One row of a table: its text and its other cells."""

    number: int
    """Number among the rows of data, counted from 1; rows without text count too."""
    line: int | None
    """Line of the file that the row begins in; None if the format has no lines."""
    text: str | None
    """Cell of the column that is read; None if it is missing or empty."""
    cells: Mapping[str, str] = NO_CELLS
    """Other cells by the name of their column, in the order of the file."""


@dataclass(frozen=True)
class Rows:
    """A table of which one column is text."""

    label: str
    read: Callable[[Note, bool], tuple[str, Iterator[Record]]]
    """Function that opens the table: gives the column that is read, and the records.

    The second argument asks for the other cells too.
    """
    path: Path | None = None
    """File that the rows are read from, if it is one."""

    def texts(self, note: Note) -> Iterator[str]:
        """Yield the text of each row; rows without text are skipped and their number reported.

        Raises CorpusError if the table cannot be read or has no such column, EnvironmentFailure if
        the hub cannot be reached.
        """
        column, records = self.read(note, False)
        skipped = 0
        for _, _, text, _ in records:
            if text is None:
                skipped += 1
            else:
                yield text
        if skipped:
            count = "1 row" if skipped == 1 else f"{skipped:,} rows"
            note(f'{self.label}: {count} without text in the column "{shown(column)}" skipped.')

    def records(self, note: Note) -> Iterator[Record]:
        """Yield every row in the order of the file, rows without text too.

        Raises the errors of `texts`.
        """
        yield from self.read(note, True)[1]


def hub_rows(name: str, column: str | None) -> Rows:
    """Find the rows of `hf:org/name[:config][/split][#column]`. UsageError for another form."""
    parts = hub_parts(name)
    path, config, split = parts["path"], parts["config"], parts["split"] or "train"
    wanted = parts["column"] or column

    def load() -> Iterable[Row]:
        """Stream the rows of the split."""
        import datasets

        rows: Iterable[Row] = datasets.load_dataset(path, config, split=split, streaming=True)
        return rows

    def read(note: Note, cells: bool) -> tuple[str, Iterator[Record]]:
        """Open the split."""
        numbered = ((None, row) for row in _guarded(name, load))
        return named_records(name, numbered, wanted, note, cells)

    return Rows(name, read)


def hub_parts(name: str) -> dict[str, Any]:
    """The path, config, split and column in a name for the hub, each a string or None."""
    match = _HUB_NAME.fullmatch(name.removeprefix(HUB_PREFIX))
    if match is None:
        raise UsageError(f'"{name}" is not of the form hf:org/name[:config][/split][#column].')
    return match.groupdict()


# ------------------------------------------------------------------ rows whose cells have names


def named_records(
    label: str,
    rows: Iterator[tuple[int | None, Row]],
    wanted: str | None,
    note: Note,
    cells: bool,
    show: Callable[[object], str] = str,
) -> tuple[str, Iterator[Record]]:
    """Choose the column of rows that are mappings and turn them into records.

    `rows` come with their line; `show` writes a cell that is not text for `Record.cells`.
    """
    first = list(islice(rows, PEEK_ROWS))
    if not first:
        note(f"{label} has no rows.")
        return wanted or "", iter(())
    columns = list(dict.fromkeys(chain.from_iterable(row for _, row in first)))
    texts = [name for name in columns if any(type(row.get(name)) is str for _, row in first)]
    column = chosen_column(label, columns, texts, wanted)
    if wanted is None and len(columns) > 1:
        note(f'{label}: the column "{shown(column)}" is read. {listed(columns)}')
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
    label: str, columns: Sequence[str], texts: Sequence[str], wanted: str | None
) -> str:
    """Choose the column named, the one called "text", or the only one that holds text.

    Raises CorpusError if there is none, or if there are several.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        near = {name.casefold(): name for name in columns}
        alike = difflib.get_close_matches(wanted.casefold(), near, n=1)
        advice = (
            f'Did you mean "{shown(near[alike[0]])}"?' if alike else "Give --column one of them."
        )
        raise CorpusError(f'{label} has no column "{shown(wanted)}". {listed(columns)} {advice}')
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    found = "several columns of text" if texts else "no column of text"
    raise CorpusError(f"{label} has {found}. {listed(columns)} Choose one with --column.")


def listed(columns: Sequence[str]) -> str:
    """Return a sentence that names the columns of a table."""
    more = f" and {len(columns) - MAX_LISTED:,} more" if len(columns) > MAX_LISTED else ""
    return f"Its columns: {', '.join(shown(column) for column in columns[:MAX_LISTED])}{more}."


def checked_text(text: object, place: str, column: str) -> str:
    """Return a cell that is text. Raises CorpusError for any other, and for a lone surrogate."""
    if not isinstance(text, str) or type(text) is Number:
        raise CorpusError(
            f'{place}: the column "{shown(column)}" holds {kind_of(text)}, expected text. '
            f"Choose another with --column."
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{place} has half of a surrogate pair, U+{ord(text[error.start]):04X}, "
                f"which no text can hold. Correct that row."
            ) from error
    return text


class Number(str):
    """A number of a JSON file, kept as it is written there."""

    __slots__ = ()


def kind_of(value: object) -> str:
    """Name the kind of a value for a message."""
    if isinstance(value, Number) or (isinstance(value, int | float) and value not in (True, False)):
        return f"the number {value:.40}" if isinstance(value, str) else f"the number {value}"
    names = {bool: "true or false", list: "a list", dict: "an object", str: "a text"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


# ------------------------------------------------------------------ the reader of the hub


def _guarded(label: str, load: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of `load`, with every failure of the reader turned into one of ours."""
    try:
        with _quiet():
            rows = iter(load())
        while True:
            with _quiet():  # which walks through all loggers: once for many rows
                some = _some_rows(rows)
            if not some:
                return
            yield from some
    except CharlmError:
        raise
    except Exception as error:  # datasets passes on what pyarrow, fsspec and the hub raise
        raise _failure(label, error) from error


def _some_rows(rows: Iterator[Row]) -> list[Row]:
    """The next rows, fewer of them where they are long."""
    some: list[Row] = []
    size = 0
    for row in islice(rows, ROWS_AT_ONCE):
        some.append(row)
        size += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if size > CHARS_AT_ONCE:
            break
    return some


def _failure(label: str, error: Exception) -> CharlmError:
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if isinstance(error, ImportError):
        return EnvironmentFailure(f"{label} cannot be read: {reason}.")
    if isinstance(error, ConnectionError | TimeoutError) or "offline" in reason.lower():
        return EnvironmentFailure(
            f"{label} cannot be fetched: {reason}. "
            f"Check the network and HF_HUB_OFFLINE, or use a file."
        )
    return CorpusError(
        f"{label} cannot be used: {reason}. Check the name, the configuration and the split; "
        f"a gated dataset needs `hf auth login`."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps `datasets` from logging what is about to be raised."""
    from datasets.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)

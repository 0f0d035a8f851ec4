"""Text in tables: a column of .jsonl, .csv, .tsv and .parquet files and of datasets on the hub.

The reading is done by `datasets`, as a stream, so nothing is converted or kept on the disk.
"""

import glob
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from charlm.config import Reading
from charlm.errors import CharlmError, CorpusError, EnvironmentFailure, UsageError
from charlm.text.files import shown

HUB_PREFIX = "hf:"
TABLE_ROWS = 100
"""Rows of a table that are read together: 100,000 lines of JSON in 0.6 s, one by one in 2.9 s."""
TABLES = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""File suffix → name of the reader in `datasets`."""

ROWS_AT_ONCE, CHARS_AT_ONCE = 500, 1 << 20
PEEK_ROWS = 100
"""Rows that are looked at to find the column with the text."""

_HUB_NAME = re.compile(
    r"(?P<path>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^/#]+))?(?:/(?P<split>[^/#]+))?(?:#(?P<column>.+))?"
)

Row = Mapping[str, object]


@dataclass(frozen=True)
class Record:
    """One row of a table: its text and its other cells."""

    number: int
    """Number among the rows of data, counted from 1; rows without text count too."""
    line: int | None
    """Line of the file that the row begins in; None where the format has no lines."""
    text: str | None
    """Cell of the column that is read; None where it is missing or empty."""
    cells: Mapping[str, str] = field(default_factory=dict)
    """Other cells by the name of their column, in the order of the file."""


@dataclass(frozen=True)
class Rows:
    """A table of which one column is text."""

    label: str
    column: str | None
    load: Callable[[], Iterable[Row]]
    """Gives the rows with the types that `datasets` finds."""
    load_text: Callable[[list[str]], Iterable[Row]] | None = None
    """Where finding types changes the text: gives the rows as text; takes the columns' names."""
    path: Path | None = None
    """The file that they are read from, if it is one."""

    def texts(self, note: Callable[[str], None]) -> Iterator[str]:
        """The text of each row. Rows without one are skipped, and `note` is told how many.

        CorpusError where the table cannot be read or has no such column; EnvironmentFailure where
        the hub cannot be reached.
        """
        skipped, column = 0, ""
        for name, record in self._rows():
            column = name
            if record.text is None:
                skipped += 1
            else:
                yield record.text
        if skipped:
            count = "1 row" if skipped == 1 else f"{skipped:,} rows"
            note(f'{self.label}: {count} without text in the column "{shown(column)}" skipped.')

    def records(self, note: Callable[[str], None]) -> Iterator[Record]:  # noqa: ARG002
        """Every row in the order of the file, rows without text too.

        Raises the errors of `texts`.
        """
        return (record for _, record in self._rows())

    def _rows(self) -> Iterator[tuple[str, Record]]:
        rows: Iterator[Row] = _guarded(self.label, self.load)
        first = list(islice(rows, PEEK_ROWS))
        if not first:
            return
        columns = list(dict.fromkeys(chain.from_iterable(first)))
        column = self.column or _only_text(self.label, first, columns)
        if column not in columns:
            raise CorpusError(
                f'{self.label} has no column "{column}". {_listed(columns)} Use --column.'
            )
        if load_text := self.load_text:
            rows = _guarded(self.label, lambda: load_text(columns))
        else:
            rows = chain(first, rows)
        for number, row in enumerate(rows, 1):
            text = row.get(column)
            text = None if text is None else _checked(text, self.label, number, column)
            cells = {
                name: "" if cell is None else str(cell)
                for name, cell in row.items()
                if name != column
            }
            yield column, Record(number, None, text, cells)


def table_rows(path: Path, label: str, suffix: str, reading: Reading) -> Rows:
    """The rows of a file; `suffix` is one of `TABLES`, without that of a compression."""
    encoding, errors = reading.encoding, reading.errors
    options: dict[str, Any] = {}
    if TABLES[suffix] != "parquet":
        options = {"encoding": encoding, "encoding_errors": errors}
    if TABLES[suffix] == "json" and (encoding, errors) == ("utf-8", "replace"):
        options["encoding"] = "utf8"  # the reader decodes, and replaces, what is not called utf-8
    if TABLES[suffix] == "csv":  # "NA" and "null" are words here; only an empty cell is missing
        options |= {"sep": "\t" if suffix == ".tsv" else ","}
        options |= {"keep_default_na": False, "na_values": [""]}

    def load() -> Iterable[Row]:
        """The rows of the file."""
        return _load_file(path, suffix, options)

    def load_text(columns: list[str]) -> Iterable[Row]:  # else "007" is read as the number 7
        """The rows with every cell as text."""
        return _load_file(path, suffix, options | {"features": _strings(columns)})

    return Rows(label, reading.column, load, load_text if TABLES[suffix] == "csv" else None, path)


def hub_rows(name: str, column: str | None) -> Rows:
    """The rows of `hf:org/name[:config][/split][#column]`. UsageError for another form."""
    parts = hub_parts(name)
    path, config, split = parts["path"], parts["config"], parts["split"] or "train"

    def load() -> Iterable[Row]:
        """The rows of the split, streamed."""
        import datasets

        rows: Iterable[Row] = datasets.load_dataset(path, config, split=split, streaming=True)
        return rows

    return Rows(name, parts["column"] or column, load)


def hub_parts(name: str) -> dict[str, Any]:
    """The path, config, split and column in a name for the hub, each a string or None."""
    match = _HUB_NAME.fullmatch(name.removeprefix(HUB_PREFIX))
    if match is None:
        raise UsageError(f'"{name}" is not of the form hf:org/name[:config][/split][#column].')
    return match.groupdict()


def _load_file(path: Path, suffix: str, options: dict[str, Any]) -> Iterator[Row]:
    import datasets

    if path.stat().st_size == 0:  # the readers fail on it
        return
    with tempfile.TemporaryDirectory(prefix="charlm-") as folder:  # also for the lock files
        packed = path.suffix.lower().removeprefix(suffix)
        rows = datasets.load_dataset(
            TABLES[suffix],
            data_files=_plainly_named(path, Path(folder) / f"rows{suffix}{packed}"),
            split="train",
            streaming=True,
            cache_dir=folder,
            **options,
        )
        kinds = {type(kind).__name__ for kind in (rows.features or {}).values()}
        if "Json" in kinds:  # a column of mixed types, which only plain iteration decodes
            yield from rows
            return
        for table in rows.with_format("arrow").iter(batch_size=TABLE_ROWS):
            yield from table.to_pylist()


def _plainly_named(path: Path, link: Path) -> str:
    """A name for the file that `datasets` takes for no pattern or address, as it does "a[1]"."""
    try:
        link.symlink_to(path.resolve())
    except OSError:  # Windows asks for a privilege
        return glob.escape(str(path.resolve()))
    return str(link)


def _strings(columns: list[str]) -> object:
    import datasets

    return datasets.Features({column: datasets.Value("string") for column in columns})


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
    except Exception as error:  # datasets passes on what pyarrow, pandas, fsspec and the hub raise
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
    if label.startswith(HUB_PREFIX):
        return CorpusError(
            f"{label} cannot be used: {reason}. Check the name, the configuration and the split; "
            f"a gated dataset needs `hf auth login`."
        )
    return CorpusError(f"{label} cannot be read: {reason}.")


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


def _only_text(label: str, rows: list[Row], columns: list[str]) -> str:
    """The column called "text", or else the only one that holds text."""
    texts = [name for name in columns if any(isinstance(row.get(name), str) for row in rows)]
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    found = "several columns of text" if texts else "no column of text"
    raise CorpusError(f"{label} has {found}. {_listed(columns)} Choose one with --column.")


def _listed(columns: list[str]) -> str:
    return f"Its columns: {', '.join(shown(column) for column in columns)}."


def _checked(text: object, label: str, number: int, column: str) -> str:
    if not isinstance(text, str):
        raise CorpusError(
            f"{label}: row {number} holds {type(text).__name__}, not text, in the column "
            f'"{column}". Choose another with --column.'
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{label}: row {number} has half of a surrogate pair, U+{ord(text[error.start]):04X}, "
            f"which no text can hold. Correct that row."
        ) from error
    return text

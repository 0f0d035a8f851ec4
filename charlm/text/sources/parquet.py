"""Rows of Parquet files. Only the columns that are needed are read."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from charlm.errors import CorpusError
from charlm.text.sources.files import Spool, TextFile, readable, shown
from charlm.text.sources.rows import (
    PEEK_ROWS,
    TEXT_COLUMN,
    Opened,
    Row,
    TextColumn,
    Warn,
    named_records,
)
from charlm.text.sources.signatures import refuse_pointer

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

MAGIC = b"PAR1"
"""First bytes of every file."""
BATCH_ROWS = 500
"""Rows that are read at a time."""


def open_table(
    source: TextFile | Spool,
    report: Warn,
    cells: bool,
    rule: TextColumn = TEXT_COLUMN,
) -> Opened:
    """Open a table; `rule` chooses the column of the texts."""
    label, file = source.label, _parquet_file(source)
    names: list[str] = file.schema_arrow.names
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise CorpusError(
            f'{label} has {names.count(repeated[0])} columns "{shown(repeated[0])}", expected '
            f"unique names. Rename one, for example with pyarrow's Table.rename_columns."
        )

    def rows(columns: Sequence[str], size: int = BATCH_ROWS) -> Iterator[tuple[None, Row]]:
        """Yield the rows with these columns, of which `size` are in memory."""
        for batch in _batches(file, label, columns, size):
            yield from ((None, row) for row in batch.to_pylist())

    first = list(islice(rows(names, PEEK_ROWS), PEEK_ROWS))
    if first:
        unknown = [name for name in names if all(row[name] is None for _, row in first)]
        examples = {name: _example(file.schema_arrow.field(name).type) for name in unknown}
        first[0] = (None, {**first[0][1], **examples})
    return named_records(label, iter(first), report, cells, shown_cell, rule, again=rows)


def _example(kind: Any) -> object:
    """Return a cell of a type, by which a column is known whose first rows are empty, or None."""
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    is_view = getattr(types, "is_string_view", lambda _: False)
    if types.is_string(kind) or types.is_large_string(kind) or is_view(kind):
        return ""
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return 0 if is_number else None


def _parquet_file(source: TextFile | Spool) -> "pyarrow.parquet.ParquetFile":
    import pyarrow
    import pyarrow.parquet

    with readable(source.label):  # the index is at the end, so a stream is copied first
        if isinstance(source, TextFile) and not source.is_packed:
            source.open().close()
            file: Any = str(source.path)
        else:
            spool = source if isinstance(source, Spool) else Spool(source.label, source.open)
            file = spool.open()
    with readable(source.label), source.open() as stream:
        head = stream.read(1024)
    refuse_pointer(head, source.label)
    if not head.startswith(MAGIC):
        raise CorpusError(
            f"{source.label} is not Parquet: its first bytes are {head[:4]!r}, expected "
            f"{MAGIC!r}. Fetch it again, or name its format with --input-format."
        )
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise _invalid(source.label, error) from error


def _batches(
    file: "pyarrow.parquet.ParquetFile", label: str, columns: Sequence[str], size: int
) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    try:
        yield from file.iter_batches(batch_size=size, columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise _invalid(label, error) from error


def _invalid(label: str, error: Exception) -> CorpusError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return CorpusError(
        f"{label} cannot be read as Parquet ({reason}), expected a whole Parquet file. It is "
        f"damaged, cut short or misnamed: fetch it again, or name its format with --input-format."
    )


def shown_cell(cell: object) -> str:
    """Return a cell that is not text: an object or a list as JSON."""
    if isinstance(cell, bytes):
        return cell.decode(errors="backslashreplace")
    if isinstance(cell, bool | list | dict):
        return json.dumps(cell, ensure_ascii=False, default=str)
    return str(cell)

"""Rows of Parquet files. Only the columns that are needed are read."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, named
from charlm.text.sources.files import Spool, TextFile, readable, shown
from charlm.text.sources.nested import MAX_DEPTH, listed_fields, naming_advice, with_inner
from charlm.text.sources.rows import (
    NO_CELLS,
    TEXT_COLUMN,
    Opened,
    Record,
    TextColumn,
    Warn,
    cell_text,
    listed,
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
    reading: ReadSettings,
    report: Warn,
    cells: bool,
    rule: TextColumn = TEXT_COLUMN,
) -> Opened:
    """Open a table; `rule` chooses the column of the texts."""
    label = source.label
    file = _parquet_file(source)
    schema = file.schema_arrow
    names: list[str] = schema.names
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise CorpusError(
            f'{label} has {names.count(repeated[0])} columns "{shown(repeated[0])}", expected '
            f"unique names. Rename one, for example with pyarrow's Table.rename_columns."
        )
    if not file.metadata.num_rows:
        report(f"{label} has no rows. {listed(names)}")
    inner = dict(_fields(schema))
    own = [name for name in dict.fromkeys(rule.names(reading.column)) if name in inner]
    inside = [str(name) for name in own if name not in names]
    columns = [*names, *inside]
    kinds = {name: schema.field(name).type for name in names} | {n: inner[n] for n in inside}
    texts = [name for name in names if _HOLDS[rule.holds](kinds[name])]
    advice = _advice(inner, rule)
    try:
        column = rule.choose(label, columns, texts, reading.column)
    except CorpusError as error:
        is_inner = not texts or "." in (reading.column or "")
        more = advice if is_inner else ""
        raise CorpusError(f"{error}{more}", columns=error.columns) from error
    if not _HOLDS[rule.holds](kinds[column]):
        raise CorpusError(
            f'{label}: the column "{shown(column)}" holds {kinds[column]}, expected '
            f"{rule.holds}. {listed(names)} Choose another with {named('column')}.{advice}"
        )
    if advice and not inside and reading.column is None:
        report(f"{label}: texts inside objects are not read unless they are named.{advice}")
    if len(names) > 1 and not rule.is_silent(reading.column):
        report(f"{rule.described(label, column, columns)}. {listed(names)}")
    needed = names if cells or column in inside else [column]
    return Opened(column, columns, _records(file, label, column, needed, inside, cells, rule))


def _records(
    file: "pyarrow.parquet.ParquetFile",
    label: str,
    column: str,
    needed: list[str],
    inside: list[str],
    cells: bool,
    rule: TextColumn,
) -> Iterator[Record]:
    """Yield the records, read in batches; `inside` are fields of objects that are cells too."""
    number, others = 0, NO_CELLS
    for batch in _batches(file, label, needed):
        if inside:
            rows = [with_inner(row, inside) for row in batch.to_pylist()]
            texts = [row[column] for row in rows]
        else:
            texts = batch.column(column).to_pylist()
            rows = batch.to_pylist() if cells else [others] * len(texts)
        for text, row in zip(texts, rows, strict=True):
            number += 1
            if text is not None:
                text = rule.cell(text, f"{label}: row {number:,}", column)
            if cells:
                others = {k: cell_text(cell, shown_cell) for k, cell in row.items() if k != column}
            yield Record(number, None, text, others)


def _fields(schema: Any, before: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, Any]]:
    """Yield the names and types of the fields inside objects, such as translation.en."""
    import pyarrow.types as types

    for field in schema:
        name = f"{before}.{field.name}" if before else field.name
        if types.is_struct(field.type) and depth:
            yield from _fields(field.type, name, depth - 1)
        elif before:
            yield name, field.type


def _advice(inner: Mapping[str, Any], rule: TextColumn) -> str:
    """Return the names of the fields of text inside objects, for a message, or ""."""
    names = [name for name, kind in inner.items() if rule.holds == "text" and _holds_text(kind)]
    return naming_advice(listed_fields(names))


def _holds_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    is_view = getattr(types, "is_string_view", lambda _: False)
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind) or is_view(kind)
    )


def _holds_numbers(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _holds_words(kind: Any) -> bool:
    import pyarrow.types as types

    is_list = types.is_list(kind) or types.is_large_list(kind)
    return _holds_text(kind.value_type if is_list else kind)


_HOLDS: dict[str, Callable[[Any], bool]] = {
    "text": _holds_text,
    "numbers": _holds_numbers,
    "words": _holds_words,
}
"""What a column must hold → function of its type."""


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
    file: "pyarrow.parquet.ParquetFile", label: str, columns: list[str]
) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    try:
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)
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

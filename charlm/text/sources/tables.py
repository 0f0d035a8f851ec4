"""Tables in files: the reader of each format.

Reading is strict: a cell is its text, never converted to a number or date, and a row that does not
fit its table is refused with its line, so that no text is lost or moved to another column.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources import delimited, json_rows, parquet
from charlm.text.sources.decoding import AUTO, decode
from charlm.text.sources.encodings import own_encoding
from charlm.text.sources.files import Spool, TextFile, blocks
from charlm.text.sources.kinds import misnamed
from charlm.text.sources.rows import TEXT_COLUMN, Opened, Rows, TextColumn, Warn

TABLES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix → format."""


def table_rows(
    source: TextFile | Spool, kind: str, reading: ReadSettings, reported: dict[str, str]
) -> Rows:
    """Return the rows of a file; `kind` is a value of `TABLES`.

    The tables of a corpus share `reported`, so that how they are read is reported only for the
    first of several that are read in the same way.
    """
    label = source.label

    def read(
        warn: Warn, cells: bool, column: str | None = None, rule: TextColumn = TEXT_COLUMN
    ) -> Opened:
        """Open the table; see `Rows.read`."""
        rules = reading if column is None else replace(reading, column=column)

        def report(sentence: str) -> None:
            """Warn how this table is read, unless another table was read in the same way."""
            key = sentence.removeprefix(label).replace(delimited.FIRST_ROW, "")
            if reported.setdefault(key, label) == label:
                warn(sentence)

        if kind == "parquet":
            return parquet.open_table(source, rules, report, cells, rule)
        encoding = rules.encoding
        if encoding == AUTO:
            encoding = own_encoding(source, warn)
        pieces = decode(blocks(source), label, warn, encoding=encoding, errors=rules.errors)
        if kind in ("csv", "tsv") and rules.input_format == "auto":
            head = next((piece for piece in pieces if piece), "")
            if problem := misnamed(head, kind):
                raise CorpusError(f"{label} {problem}")
            pieces = chain([head], pieces)
        return READERS[kind](pieces, label, rules, warn, cells, report=report, rule=rule)

    return Rows(label, read, source.path if isinstance(source, TextFile) else None)


READERS: dict[str, Callable[..., Opened]] = {
    "csv": partial(delimited.open_table, kind="csv"),
    "tsv": partial(delimited.open_table, kind="tsv"),
    "jsonl": partial(json_rows.open_table, values=json_rows.lines_of),
    "json": partial(json_rows.open_table, values=json_rows.values_of),
}
"""Format → function that opens a table of decoded text."""

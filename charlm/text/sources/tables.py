"""Tables in files, read strictly and as a stream: which reader each format has.

A cell is the text that the file holds, never a number or a date that it looks like. A row that does
not fit its table is refused with its line, so that no text moves to another column or is lost.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources import delimited, json_rows, parquet
from charlm.text.sources.decoding import AUTO, decode
from charlm.text.sources.encodings import own_encoding
from charlm.text.sources.files import Spool, TextFile, blocks
from charlm.text.sources.kinds import misnamed
from charlm.text.sources.rows import Note, Record, Rows

TABLES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix → format of the table."""


def table_rows(
    source: TextFile | Spool, kind: str, reading: ReadSettings, reported: dict[str, str]
) -> Rows:
    """Find the rows of a file; `kind` is one of the values of `TABLES`.

    `reported` is shared by the tables of a corpus: how they are read is reported for the first of
    those that are alike.
    """
    label = source.label

    def read(note: Note, cells: bool) -> tuple[str, Iterator[Record]]:
        """Open the table."""

        def report(sentence: str) -> None:
            """Note how this table is read, unless another was read in the same way."""
            if reported.setdefault(sentence.removeprefix(label), label) == label:
                note(sentence)

        if kind == "parquet":
            return parquet.open_table(source, reading, report, cells)
        encoding = reading.encoding
        if encoding == AUTO:
            encoding = own_encoding(source, note)
        pieces = decode(blocks(source), label, note, encoding=encoding, errors=reading.errors)
        if kind in ("csv", "tsv") and reading.input_format == "auto":
            head = next((piece for piece in pieces if piece), "")
            if problem := misnamed(head, kind):
                raise CorpusError(f"{label} {problem}")
            pieces = chain([head], pieces)
        return READERS[kind](pieces, label, reading, note, cells, report=report)

    return Rows(label, read, source.path if isinstance(source, TextFile) else None)


READERS: dict[str, Callable[..., tuple[str, Iterator[Record]]]] = {
    "csv": partial(delimited.open_table, kind="csv"),
    "tsv": partial(delimited.open_table, kind="tsv"),
    "jsonl": partial(json_rows.open_table, values=json_rows.lines_of),
    "json": partial(json_rows.open_table, values=json_rows.values_of),
}
"""Function that opens a table of decoded text, by its format."""

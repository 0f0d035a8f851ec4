"""Tables in files: the reader of each format.

Reading is strict: a cell is its text, never converted to a number or date, and a row that does not
fit its table is refused with its line, so that no text is lost or moved to another column.
"""

import re
from dataclasses import replace
from itertools import chain

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, named
from charlm.text.sources import delimited, json_rows, parquet
from charlm.text.sources.encodings import decoded
from charlm.text.sources.files import Spool, TextFile
from charlm.text.sources.kinds import misnamed
from charlm.text.sources.rows import (
    TARGET_NAMES,
    TEXT_COLUMN,
    TEXT_NAMES,
    Columns,
    Opened,
    Rows,
    TextColumn,
    Warn,
)

TABLES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix → format."""
JSON_VALUES = {"jsonl": json_rows.lines_of, "json": json_rows.values_of}
"""Format → function that reads the values of a text."""
_UNLIKE_TRAINING = (
    ": the first row is read as the names of the columns, unlike in training. If it is data, add "
    "--no-header."
)
"""End of a sentence about a table, if the run was trained on tables without names."""
_QUOTED = ": quotes enclose fields, unlike in training. If they are text, add --quoting none."
"""End of a sentence about a table, if quotes were text in training."""


def table_rows(
    source: TextFile | Spool,
    kind: str,
    reading: ReadSettings,
    reported: dict[str, str],
    columns: Columns | None = None,
) -> Rows:
    """Return the rows of a file; `kind` is a value of `TABLES`.

    `columns` are those of a run, whose form a delimited table has unless settings or the rule name
    a column. The tables of a corpus share `reported`, so that how they are read is reported only
    for the first of several that are read in the same way.
    """
    label = source.label
    first_sentences: dict[str, str] = {}

    def read(warn: Warn, cells: bool, rule: TextColumn = TEXT_COLUMN) -> Opened:
        """Open the table; see `Rows.read`."""
        rule = rule.naming(reading.column)

        def report(sentence: str) -> None:
            """Warn how this table is read, unless another table was read in the same way.

            A table that is read again repeats its first sentence, which `warn` can recognise.
            """
            key = sentence.removeprefix(label).replace(delimited.FIRST_ROW, "")
            if reported.setdefault(key, label) == label:
                warn(first_sentences.setdefault(key, sentence))

        if kind == "parquet":
            return parquet.open_table(source, report, cells, rule)
        pieces = decoded(source, reading, warn)
        if values := JSON_VALUES.get(kind):
            return json_rows.open_table(
                pieces, label, cells, values=values, report=report, rule=rule
            )
        head = next((piece for piece in pieces if piece), "")
        if reading.input_format == "auto" and (problem := misnamed(head, kind)):
            raise CorpusError(f"{label} {problem}")
        rules, form = reading, columns.form if columns else {}
        bare = form.get("header") is False and reading.header is None
        numbers = bare and all(map(str.isdecimal, rule.typed))
        if columns and (numbers or not rule.typed):
            rules = _as_trained(reading, columns, head, label, report, rule)
        elif bare:
            report(f"{label}{_UNLIKE_TRAINING}")
        return delimited.open_table(
            chain([head], pieces), label, rules, warn, cells, kind=kind, report=report, rule=rule
        )

    return Rows(label, read, source.path if isinstance(source, TextFile) else None)


def _as_trained(
    reading: ReadSettings, columns: Columns, head: str, label: str, report: Warn, rule: TextColumn
) -> ReadSettings:
    """Return how a delimited table is read: as that of the run where the settings are open.

    The delimiter of the run is left out if it does not occur in the first row of `head`, or if the
    row has a tab beside it, and the quoting with it: the table has another form. So is the rule
    that quotes are text if names of columns are in quotes, which those of the run were not. A first
    row with usual names of columns is no data, nor is one of words only in a table of numbers.
    """
    usual, row = ReadSettings(), _first_row(head)
    form = {
        name: value for name, value in columns.form.items()
        if value != getattr(usual, name) == getattr(reading, name)
    }  # fmt: skip
    if (delimiter := form.get("delimiter")) and not _separates(delimiter, row):
        form = {"header": False} if form.get("header") is False else {}
    if form.get("header") is False and _holds_names(row, rule):
        del form["header"]
        report(f"{label}{_UNLIKE_TRAINING}")
    has_names = "header" not in form and reading.header is not False
    if form.get("quoting") == "none" and has_names and _has_quoted_names(row, columns):
        del form["quoting"]
        report(f"{label}{_QUOTED}")
    if form.get("header") is False:
        names = f"If it holds the names of the columns, add {named('header')}."
        report(f"{label}: the first row is read as data, as in training. {names}")
    others = [f"{named(name)} {value}" for name, value in form.items() if name != "header"]
    if others:
        report(f"{label} is read with {' and '.join(others)}, as in training.")
    return replace(reading, **form)


def _first_row(head: str) -> str:
    """Return the first line that is not blank."""
    return next((line for line in head.splitlines() if line.strip()), "")


def _has_quoted_names(row: str, columns: Columns) -> bool:
    """Return True if the first row has names in quotes, unlike the table of the run."""
    known = f"{columns.text or ''}{columns.target or ''}"
    return row[:1] == '"' and '"' not in known


def _separates(delimiter: str, row: str) -> bool:
    """Return True if a delimiter of another table may be that of the table with this row."""
    typed = "\t" if delimiter in ("tab", "\\t") else delimiter
    return typed in row and (typed == "\t" or "\t" not in row)


def _holds_names(row: str, rule: TextColumn) -> bool:
    """Return True if a first row has the cell "text", or two usual names by the rule.

    Of a table of numbers, no cell of it begins with a digit, as numbers and dates do.
    """
    if rule.holds == "numbers":
        return not re.search(r"(?:^|[\t,;|])[\s\"+-]*[.,]?\d", row)
    cells = {cell.strip(' "').casefold() for cell in re.split(r"[\t,;|]", row)}
    usual = ({*TEXT_NAMES, *rule.first_names}, {*TARGET_NAMES, *rule.target_names})
    return "text" in cells or not any(map(cells.isdisjoint, usual))

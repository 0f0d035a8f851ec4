"""Tables of separated fields: csv with fields in quotes, and tsv, whose quotes are text."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources.decoding import MAX_LINE_CHARS, line_batches
from charlm.text.sources.files import shown
from charlm.text.sources.rows import NO_CELLS, PEEK_ROWS, Note, Record, chosen_column, listed

DELIMITERS = (",", ";", "|", "\t")
"""Characters that may separate the fields of a .csv file, in the order of preference."""
DELIMITER_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
HEAD_CHARS = 1 << 18
"""Characters at the beginning of a table that delimiters are tried on."""

_EXCEL_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
"""First line that names the delimiter, for Excel."""
_MISSING = frozenset(("NA", "NaN", "nan", "<NA>"))
"""Words that R and pandas write for a missing cell."""
_NUMBER = re.compile(r"[+-]?(\d[\d,. ]*|[.,]\d+)([eE][+-]?\d+)?%?|true|false", re.IGNORECASE)
Fields = tuple[int, list[str]]
"""Line that a row begins in, and its fields."""


def open_table(
    pieces: Iterator[str],
    label: str,
    reading: ReadSettings,
    note: Note,
    cells: bool,
    *,
    kind: str,
    report: Note,
) -> tuple[str, Iterator[Record]]:
    """Open a table of the kind csv or tsv: the column that is read, and the records.

    `report` receives how the table is read, `note` what is odd in it.
    CorpusError for a row that does not fit the header or is no CSV, with its line.
    """
    batches = line_batches(pieces, label)
    head = _head(batches)
    declared = _EXCEL_LINE.fullmatch(head[0].rstrip("\r\n")) if head and kind == "csv" else None
    before = 1 if declared else 0  # lines before the table
    head = head[before:]
    lines = chain(head, chain.from_iterable(batches))
    quoted = _is_quoted(head, reading, kind)
    delimiter = declared[1] if declared else _delimiter(head, reading, kind, quoted)
    rows = (
        _quoted_rows(lines, delimiter, label, before)
        if quoted
        else _literal_rows(lines, delimiter, before)
    )
    begin: list[Fields] = []  # blank lines, and the first row after them
    for fields in rows:
        begin.append(fields)
        if "".join(fields[1]).strip():
            break
    else:
        note(f"{label} has no rows.")
        return reading.column or "", iter(())
    names = begin[-1][1]
    if quoted and reading.header is not False and _has_row_names(head, names, delimiter):
        names = ["", *names]
        report(
            f"{label}: each row begins with its number, for which the first row has no name, as R "
            f'writes it; these numbers are the column "1".'
        )
    if reading.header is False:
        names = [str(number) for number in range(1, len(names) + 1)]
        rows = chain(begin, rows)
    fitted = _fitted(rows, names, label, note)
    peeked = list(islice(fitted, PEEK_ROWS))
    if not peeked:
        note(
            f"{label} has a row of names and no other row. {listed(names)} "
            f"If that row is data, add --no-header."
        )
        return reading.column or "", iter(())
    index = _column_index(label, names, peeked, reading)
    unique = _unique(names)
    if reading.column != unique[index] or (kind == "tsv" and quoted) or delimiter not in ",\t":
        report(_choice(label, unique, index, delimiter, quoted, reading, kind))
    found = _delimited_records(chain(peeked, fitted), unique, index, cells)
    return unique[index], _watched(found, label, unique[index], note, literal=not quoted)


def _choice(
    label: str,
    names: list[str],
    index: int,
    delimiter: str,
    quoted: bool,
    reading: ReadSettings,
    kind: str,
) -> str:
    """Report how a table is read, if any of it was not typed."""
    separator = DELIMITER_NAMES.get(delimiter, repr(delimiter))
    words = f'{label}: the column "{shown(names[index])}" is read; fields are separated by '
    words += f"{separator}. {listed(names)}"
    if reading.header is None and reading.column is None and "text" not in names:
        words += " They are the first row; if it is data, add --no-header."
    if kind == "tsv" and quoted and reading.quoting == "auto":
        words += " Its names are in quotes, so quotes enclose fields; else add --quoting none."
    return words


def _delimited_records(
    rows: Iterable[Fields], names: list[str], index: int, with_cells: bool
) -> Iterator[Record]:
    others = [(place, name) for place, name in enumerate(names) if place != index]
    cells = NO_CELLS
    for number, (line, row) in enumerate(rows, 1):
        if with_cells:
            cells = {name: row[place] for place, name in others}
        yield Record(number, line, row[index] or None, cells)


def _watched(
    records: Iterable[Record], label: str, column: str, note: Note, *, literal: bool
) -> Iterator[Record]:
    """Give the records on, and report texts that are rather marks of the program that wrote them.

    These are the letters NA and, where quotes are text (`literal`), quotes that enclose fields.
    """
    missing = enclosed = doubled = 0
    for record in records:
        text = record.text
        if text in _MISSING:
            missing += 1
        elif literal and text and text[0] == text[-1] == '"':
            enclosed += 1
            inner = text[1:-1]
            doubled += '""' in inner and '"' not in inner.replace('""', "")
        yield record
    if missing:
        note(
            f'{label}: {_count(missing, "text")} of the column "{shown(column)}" '
            f"{'is' if missing == 1 else 'are'} NA or NaN, read as these letters. If they stand "
            f'for no text, leave the cells empty, in R with: na = ""'
        )
    if doubled:
        note(
            f"{label}: {_count(doubled, 'text')} of {enclosed:,} in quotes "
            f"{'has' if doubled == 1 else 'have'} doubled quotes inside, as where quotes enclose "
            f"fields; they are read as they are. To remove such quotes add --quoting csv."
        )


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _has_row_names(head: list[str], names: list[str], delimiter: str) -> bool:
    """Test whether R wrote numbers of rows, in quotes before the fields that have a name."""
    lines = [line for line in head if not line.isspace()]
    if not all(names) or not all(line[0] == '"' for line in lines):
        return False
    rows: list[list[str]] = []
    with suppress(CorpusError):  # the head ends inside quotes
        rows += (row for _, row in _quoted_rows(lines, delimiter, ""))
    numbers = {row[0] for row in rows[1:] if len(row) == len(names) + 1 and row[0].isdecimal()}
    return len(rows) > 1 and len(numbers) == len(rows) - 1


def _head(batches: Iterator[list[str]]) -> list[str]:
    """Take the first lines: a hundred of them, or all of a shorter table."""
    head: list[str] = []
    for batch in batches:
        head += batch
        if len(head) > PEEK_ROWS or sum(map(len, head)) > HEAD_CHARS:
            break
    return head


def _is_quoted(head: list[str], reading: ReadSettings, kind: str) -> bool:
    """Decide whether quotes enclose fields: in CSV, and in TSV if a name in its header has them."""
    if reading.quoting != "auto":
        return reading.quoting == "csv"
    if kind == "csv":
        return True
    if reading.header is False or not head:
        return False
    names = head[0].rstrip("\r\n").split(_typed_delimiter(reading) or "\t")
    return any(len(name) > 1 and name[0] == name[-1] == '"' for name in names)


def _typed_delimiter(reading: ReadSettings) -> str | None:
    names = {"auto": None, "tab": "\t", "\\t": "\t"}
    return names.get(reading.delimiter, reading.delimiter)


def _delimiter(head: list[str], reading: ReadSettings, kind: str, quoted: bool) -> str:
    """Choose the delimiter: as typed, a tab in TSV, in CSV one that fits every row of the head."""
    if typed := _typed_delimiter(reading):
        return typed
    if kind == "tsv":
        return "\t"
    splits = [delimiter for delimiter in DELIMITERS if any(delimiter in line for line in head[:1])]
    fitting = [delimiter for delimiter in splits if fits(head, delimiter, quoted)]
    return (fitting or splits or [","])[0]


def fits(head: list[str], delimiter: str, quoted: bool) -> bool:
    """Test whether a delimiter cuts the first row into several fields, and all others likewise."""
    size = 0
    lines = [line for line in head if (size := size + len(line)) <= HEAD_CHARS] or head[:1]
    rows = _quoted_rows(lines, delimiter, "") if quoted else _literal_rows(lines, delimiter)
    found: list[list[str]] = []
    with suppress(CorpusError):  # the head ends inside quotes, or this delimiter misplaces them
        found += (row for _, row in rows if row)
    names = found[0] if found else []
    return len(names) > 1 and all(_matches(row, names) for row in found)


def _matches(row: list[str], names: list[str]) -> bool:
    """Test whether a row has the fields of the header, but for empty ones at the end of either."""
    return not any(row[len(names) :]) and not any(names[len(row) :])


def _quoted_rows(
    lines: Iterable[str], delimiter: str, label: str, before: int = 0
) -> Iterator[Fields]:
    """Cut lines into rows by the rules of CSV; `before` counts the lines of the file before."""
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
    """Explain a row that is no CSV; `begin` is the line that it begins in."""
    if "unexpected end" in reason or "limit" in reason:
        found = f"the row that begins in line {begin:,} opens a quote that is never closed"
    elif "expected after" in reason:
        found = f"line {line:,}: text after the closing quote of a field"
    elif "new-line" in reason:
        found = f"line {line:,}: a carriage return inside a field without quotes"
    else:
        found = f"line {line:,}: {reason}"
    return CorpusError(
        f"{label}: {found}; expected CSV, where quotes enclose a whole field and a quote inside it "
        f'is doubled. Correct the line, for a table of R with qmethod = "double"; or add --quoting '
        f"none to read quotes as text."
    )


def _literal_rows(lines: Iterable[str], delimiter: str, before: int = 0) -> Iterator[Fields]:
    """Cut lines into rows at each delimiter; quotes are characters like others."""
    for number, line in enumerate(lines, before + 1):
        bare = line.removesuffix("\n").removesuffix("\r")
        yield number, bare.split(delimiter) if bare else []


def _fitted(rows: Iterable[Fields], names: list[str], label: str, note: Note) -> Iterator[Fields]:
    """Give the rows as many fields as the header has; CorpusError for a row with others.

    Empty fields at the end of a row may be too many or missing; in a table of one column they may
    be the end of a text. A blank line is an empty cell in a table of one column, and no row in
    others.
    """
    width, blank, last_blank, longer = len(names), 0, 0, 0
    headers = (names, ["\ufeff" + names[0], *names[1:]])  # as it is, as of a whole file
    repeated: list[int] = []  # lines
    for line, row in rows:
        if len(row) != width:
            if width > 1 and len(row) < 2 and not "".join(row).strip():
                last_blank += 1  # blank lines at the end of the file part nothing
                continue
            if row and (width == 1 or not _matches(row, names)):
                raise _ragged(label, line, row, names)
            longer += len(row) > width
            row = row[:width] + [""] * (width - len(row))
        blank, last_blank = blank + last_blank, 0
        if row in headers:
            repeated.append(line)
        yield line, row
    if repeated:
        first, single = f"line {repeated[0]:,}", len(repeated) == 1
        found = (
            f"{first} repeats"
            if single
            else f"{len(repeated):,} lines (the first is {first}) repeat"
        )
        note(
            f"{label}: {found} the first row, as where tables were joined, and "
            f"{'is' if single else 'are'} read as data. Remove such lines."
        )
    if blank:
        note(f"{label}: {'1 blank line' if blank == 1 else f'{blank:,} blank lines'} skipped.")
    if longer:
        count = "1 row" if longer == 1 else f"{longer:,} rows"
        note(f"{label}: empty fields after the last column in {count}; they were ignored.")


def _ragged(label: str, line: int, row: list[str], names: list[str]) -> CorpusError:
    found = "1 field" if len(row) == 1 else f"{len(row):,} fields"
    advice = "Complete the row, or name the character between fields with --delimiter."
    if len(row) < len(names) and any(cell[:1] == '"' or cell[-1:] == '"' for cell in row):
        advice = "If quotes enclose fields, add --quoting csv; else complete the row."
    elif any(cell.startswith(' "') for cell in row):
        advice = "Remove the blank before a quote: quotes enclose a field only at its beginning."
    elif len(row) == len(names) + 1 and row[0] in ("1", '"1"'):
        advice = (
            "If its first field is the name of a row, as R writes it, write the table again with "
            "row.names = FALSE; else put a field that contains the delimiter in quotes."
        )
    elif len(row) > len(names):
        advice = (
            "Put a field that contains the delimiter in quotes, or give every column a name "
            "in the first row."
        )
        if len(names) == 1:
            advice += " A list with one text on each line is read with --input-format text."
    return CorpusError(
        f"{label}: line {line:,} has {found}, expected {len(names):,} as in the first row "
        f'("{shown(names[0][:60])}"{", ..." if len(names) > 1 else ""}). {advice}'
    )


def _column_index(label: str, names: list[str], rows: list[Fields], reading: ReadSettings) -> int:
    """Choose the column that is read, by its name or its number from 1."""
    wanted = reading.column
    taken = wanted if wanted is not None else "text"
    if names.count(taken) > 1:
        places = [str(place + 1) for place, name in enumerate(names) if name == taken]
        raise CorpusError(
            f'{label} has {len(places)} columns "{shown(taken)}", expected one. Choose by number: '
            f"--column {' or --column '.join(places)}."
        )
    if taken in names:
        return names.index(taken)
    if reading.header is None and (cell := _data_like(names)):
        texts = [str(place + 1) for place in _text_places(rows, len(names))]
        number = texts[0] if len(texts) == 1 else "N (N counts from 1)"
        raise CorpusError(
            f'{label}: the first row looks like data ("{shown(cell[:60])}"), expected names of '
            f"columns. Use --no-header --column {number}, or --header if it holds names."
        )
    if wanted is not None and wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    if wanted is None and len(names) == 1:
        return 0
    unique = _unique(names)
    texts = [unique[place] for place in _text_places(rows, len(names))]
    try:
        return unique.index(chosen_column(label, unique, texts, wanted))
    except CorpusError as error:
        if reading.header is not None:
            raise
        raise CorpusError(f"{error} If its first row is data, add --no-header.") from error


def _text_places(rows: list[Fields], width: int) -> list[int]:
    return [place for place in range(width) if any(_is_text(row[place]) for _, row in rows)]


def _is_text(cell: str) -> bool:
    return bool(cell) and not _NUMBER.fullmatch(cell.strip())


def _data_like(names: Sequence[str]) -> str:
    """Return the first name that is rather a number or a sentence, else nothing."""
    for name in names:
        words = name.split()
        ends = len(words) > 1 and name.rstrip()[-1] in ".!?…。！？"
        if ends or len(words) > 4 or len(name) > 100 or _NUMBER.fullmatch(name.strip()):
            return name
    return ""


def _unique(names: Sequence[str]) -> list[str]:
    """Name columns without a name by their number, and number the second of a name, as pandas."""
    unique: list[str] = []
    for place, name in enumerate(names, 1):
        base = chosen = name or str(place)
        count = 0
        while chosen in unique:
            count += 1
            chosen = f"{base}.{count}"
        unique.append(chosen)
    return unique

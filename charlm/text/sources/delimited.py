"""Delimited tables: csv, where quotes enclose fields, and tsv, where quotes are text."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, dropwhile, islice
from typing import NamedTuple

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, ended, named
from charlm.text.sources.decoding import MAX_LINE_CHARS, line_batches
from charlm.text.sources.files import shown
from charlm.text.sources.rows import (
    MISSING,
    NO_CELLS,
    PEEK_ROWS,
    TARGET_NAMES,
    TEXT_COLUMN,
    Number,
    Opened,
    Record,
    TextColumn,
    Warn,
    listed,
)
from charlm.text.sources.unclosed import Fields, without_rows_inside
from charlm.units import count_of

DELIMITERS = (",", ";", "|", "\t")
"""Delimiters of .csv files in the order of preference."""
DELIMITER_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
HEAD_CHARS = 1 << 18
"""Characters at the beginning of a table on which delimiters are tried."""
FIRST_ROW = " They are the first row; if it is data, add --no-header."
"""Sentence that is left out once the names of the columns are known from another table."""
_EXCEL_LINE = re.compile(r"sep=(.)", re.IGNORECASE)
"""First line that tells Excel the delimiter."""
_NUMBER = re.compile(r"[+-]?(\d[\d,. ]*|[.,]\d+)([eE][+-]?\d+)?%?|true|false", re.IGNORECASE)


def open_table(
    pieces: Iterator[str],
    label: str,
    reading: ReadSettings,
    warn: Warn,
    cells: bool,
    *,
    kind: str,
    report: Warn,
    rule: TextColumn = TEXT_COLUMN,
) -> Opened:
    """Open a table of the kind csv or tsv; `rule` chooses the column of the texts.

    `report` takes how the table is read, and `warn` what is unusual in it. Raises CorpusError with
    the line of a row that does not fit the header or is not valid CSV.
    """
    batches = line_batches(pieces, label)
    head = _head(batches)
    form = _form(head, reading, kind)
    lines = islice(chain(head, chain.from_iterable(batches)), form.before, None)
    rows = split_rows(lines, form.delimiter, form.quoted, label, form.before)
    begin = _first_rows(rows)
    if not begin:
        warn(f"{label} has no rows.")
        return Opened(rule.column or "", (), iter(()))
    names = begin[-1][1]
    if form.quoted and reading.header is not False and _has_row_names(head, names, form):
        names = ["", *names]
        report(
            f"{label}: each row begins with its number, which the first row does not name, as in "
            f'files written by R; the column of these numbers is "1".'
        )
    if reading.header is False:
        names = [str(number) for number in range(1, len(names) + 1)]
        rows = chain(begin, rows)
    fitted = _fitted(rows, names, label, warn, rule.skips_blank)
    peeked = list(islice(fitted, PEEK_ROWS))
    if not peeked:
        warn(
            f"{label} has a header and no other row. {listed(names)} "
            f"If that row is data, add --no-header."
        )
        return Opened(rule.column or "", names, iter(()))
    if reading.header is None:
        _check_names(label, names, peeked, rule.names)
    index = column_index(label, names, peeked, reading, rule)
    unique = unique_names(names)
    if repeated := _repeated(names):
        report(
            f'{label} has {names.count(repeated)} columns "{shown(repeated)}"; each after the '
            f'first has a number, as in "{shown(repeated)}.1". {listed(unique)}'
        )
    if rule.column != unique[index] or not (form.is_usual and rule.is_silent):
        what = rule.described(label, unique[index], unique)
        report(what + _separation(unique, form, reading, rule))
    kept: Iterator[Fields] = chain(peeked, fitted)
    if form.quoted and reading.quoting == "auto":
        kept = without_rows_inside(kept, peeked, form.delimiter, label)
    column, records = unique[index], _records(kept, unique, index, cells)
    return Opened(column, unique, _checked(records, label, column, warn, literal=not form.quoted))


def _check_names(label: str, names: list[str], rows: list[Fields], known: Sequence[str]) -> None:
    """Raise CorpusError if the row after the first one evidently holds the names of the columns.

    Spreadsheets have such rows below a title or merged cells, and surveys below short names: cells
    of the first row are empty after a filled one, the next row is full, and it is unlike data. A
    first row with a `known` or usual name holds the names, if some columns have none.
    """
    rows = list(dropwhile(lambda row: not any(row[1]), rows)) or rows
    line, second = rows[0]
    usual = {"text", *TARGET_NAMES, *(name.casefold() for name in known)}
    if any(cell.startswith('{"ImportId"') for _, row in rows[:2] for cell in row):
        found = "rows that describe its columns, as exports of Qualtrics have"
    elif usual & {name.casefold() for name in names}:
        return
    elif _is_title(names) and all(second) and _are_names(second, rows[1:], usual):
        found = f"a title or merged cells above the names of its columns (line {line:,}: "
        found += f"{', '.join(map(shown, second[:5]))})"
    else:
        return
    raise CorpusError(
        f"{label} has {found}; expected one row of names, then data. Remove the other rows, or add "
        f"{named('header')} to read the first row as names and all others as data"
    )


def _is_title(names: Sequence[str]) -> bool:
    """Return True if cells of a first row are empty after a filled one."""
    filled = [bool(name.strip()) for name in names]
    return True in filled and False in filled[filled.index(True) :]


def _are_names(second: Sequence[str], others: Sequence[Fields], usual: set[str]) -> bool:
    """Return True if cells of a row are names: usual ones, or above a column of numbers."""
    if len(set(second)) < len(second) or _data_like(second):
        return False
    columns = list(zip(*(row for _, row in others), strict=True))
    are_numbers = any(
        all(_NUMBER.fullmatch(cell.strip()) for cell in column if cell) and any(column)
        for column in columns
    )
    return are_numbers or bool(usual & {cell.casefold() for cell in second})


def _repeated(names: Sequence[str]) -> str:
    """Return the first name that several columns have, or ""."""
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            return name
        seen.add(name)
    return ""


class Form(NamedTuple):
    """Rules by which a table separates its fields."""

    kind: str
    """csv or tsv."""
    delimiter: str
    quoted: bool
    """True if quotes enclose fields."""
    before: int
    """Number of lines before the table."""

    @property
    def is_usual(self) -> bool:
        """True if files of its kind usually have this delimiter and these quotes."""
        return self.delimiter in ",\t" and not (self.kind == "tsv" and self.quoted)


def _form(head: list[str], reading: ReadSettings, kind: str) -> Form:
    """Return how the table that begins with these lines separates its fields."""
    declared = _EXCEL_LINE.fullmatch(head[0].rstrip("\r\n")) if head and kind == "csv" else None
    before = 1 if declared else 0
    quoted = _is_quoted(head[before:], reading, kind)
    delimiter = declared[1] if declared else _delimiter(head, reading, kind, quoted)
    return Form(kind, delimiter, quoted, before)


def _first_rows(rows: Iterator[Fields]) -> list[Fields]:
    """Read the blank lines before the first row, and that row; return [] if there is none."""
    begin: list[Fields] = []
    for fields in rows:
        begin.append(fields)
        if "".join(fields[1]).strip():
            return begin
    return []


def _separation(names: list[str], form: Form, reading: ReadSettings, rule: TextColumn) -> str:
    """Return the end of a sentence about how a table is read."""
    separator = DELIMITER_NAMES.get(form.delimiter, repr(form.delimiter))
    words = f"; fields are separated by {separator}. {listed(names)}"
    if reading.header is None and rule.column is None and rule.usual not in names:
        words += FIRST_ROW
    if form.kind == "tsv" and form.quoted and reading.quoting == "auto":
        words += " Its names are in quotes, so quotes enclose fields; else add --quoting none."
    return words


def _records(
    rows: Iterable[Fields], names: list[str], index: int, with_cells: bool
) -> Iterator[Record]:
    others = [(place, name) for place, name in enumerate(names) if place != index]
    cells = NO_CELLS
    for number, (line, row) in enumerate(rows, 1):
        if with_cells:
            cells = {name: row[place] for place, name in others}
        yield Record(number, line, row[index] or None, cells)


def _checked(
    records: Iterable[Record], label: str, column: str, warn: Warn, *, literal: bool
) -> Iterator[Record]:
    """Yield the records, and warn of texts that another program may have meant differently.

    These are NA for a missing cell and, if quotes are text (`literal`), quotes around a field; if
    they are not, a blank before a quote.
    """
    missing: dict[str, int] = {}
    texts = enclosed = whole = doubled = spaced = 0
    for record in records:
        text = record.text
        texts += text is not None
        if text in MISSING:
            missing[text] = missing.get(text, 0) + 1
        elif literal and text and text[0] == text[-1] == '"':
            enclosed += 1
            inner = text[1:-1]
            is_field = '"' not in inner.replace('""', "")  # as in CSV
            whole += is_field
            doubled += is_field and '""' in inner
        elif not literal and text and text[0] == " " and text.strip(" ")[:1] == '"':
            spaced += 1
        yield record
    if missing:
        total = sum(missing.values())
        warn(
            f'{label}: {count_of(total, "text")} of the column "{shown(column)}" '
            f"{'is' if total == 1 else 'are'} {' or '.join(missing)}, read as these letters. If "
            f'they mean a missing text, leave the cells empty, in R with: na = ""'
        )
    if doubled:
        warn(
            f"{label}: {count_of(doubled, 'text')} of {enclosed:,} in quotes "
            f"{'has' if doubled == 1 else 'have'} doubled quotes inside, as in CSV; they are read "
            f"as they are. If quotes enclose fields, add --quoting csv."
        )
    elif whole > max(1, texts / 2):
        warn(
            f"{label}: {whole:,} of {texts:,} texts are in quotes, which are read as a part of "
            f"them. If quotes enclose fields, add --quoting csv."
        )
    if spaced:
        warn(
            f"{label}: {count_of(spaced, 'text')} with a blank before a quote, and both are read "
            f"as a part of it. Remove the blank: only a quote at the beginning encloses a field."
        )


def _has_row_names(head: list[str], names: list[str], form: Form) -> bool:
    """Return True if each row begins with a quoted row number without a name, as R writes it."""
    lines = [line for line in head[form.before :] if not line.isspace()]
    if not all(names) or not all(line[0] == '"' for line in lines):
        return False
    rows: list[list[str]] = []
    with suppress(CorpusError):  # the head ends inside quotes
        rows += (row for _, row in split_rows(lines, form.delimiter, True))
    numbers = {row[0] for row in rows[1:] if len(row) == len(names) + 1 and row[0].isdecimal()}
    return len(rows) > 1 and len(numbers) == len(rows) - 1


def _head(batches: Iterator[list[str]]) -> list[str]:
    """Read the first lines: about a hundred, or all of a shorter table."""
    head: list[str] = []
    for batch in batches:
        head += batch
        if len(head) > PEEK_ROWS or sum(map(len, head)) > HEAD_CHARS:
            break
    return head


def _is_quoted(head: list[str], reading: ReadSettings, kind: str) -> bool:
    """Return True if quotes enclose fields: in CSV, and in TSV with quotes around a name."""
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
    """Return the delimiter: as typed, a tab in TSV, in CSV one that fits every row of the head."""
    if typed := _typed_delimiter(reading):
        return typed
    if kind == "tsv":
        return "\t"
    splits = [delimiter for delimiter in DELIMITERS if any(delimiter in line for line in head[:1])]
    fitting = [delimiter for delimiter in splits if fits(head, delimiter, quoted)]
    return (fitting or splits or [","])[0]


def _fitted(
    rows: Iterable[Fields], names: list[str], label: str, warn: Warn, skips_blank: bool = True
) -> Iterator[Fields]:
    """Yield the rows, each with as many fields as the header. Raises CorpusError for other rows.

    Empty fields at the end of a row are added or removed, except in a table of one column, where
    they could be the end of a text. There, and without `skips_blank`, a blank line is a row of
    empty cells; elsewhere it is no row.
    """
    width, blank, last_blank, longer = len(names), 0, 0, 0
    headers = [names, ["\ufeff" + names[0], *names[1:]]]  # also with the mark of a joined file
    if names == [str(number + 1) for number in range(width)]:
        headers = []  # numbers of columns without names, which a series may hold too
    repeated: list[int] = []  # lines
    for line, row in rows:
        if len(row) != width:
            if skips_blank and width > 1 and len(row) < 2 and not "".join(row).strip():
                last_blank += 1  # counts only if another row follows
                continue
            if row and (width == 1 or not matches(row, names)):
                raise _ragged(label, line, row, names)
            longer += len(row) > width
            row = row[:width] + [""] * (width - len(row))
        blank, last_blank = blank + last_blank, 0
        if row in headers:
            repeated.append(line)
        yield line, row
    if repeated:
        first, single = f"line {repeated[0]:,}", len(repeated) == 1
        lines = first if single else f"{len(repeated):,} lines (the first is {first})"
        warn(
            f"{label}: {lines} repeat{'s' if single else ''} the first row, as in joined tables, "
            f"and {'is' if single else 'are'} read as data. Remove such lines."
        )
    if blank:
        warn(f"{label}: {count_of(blank, 'blank line')} skipped.")
    if longer:
        rows_with = count_of(longer, "row")
        warn(f"{label}: empty fields after the last column in {rows_with}; they were ignored.")


def _ragged(label: str, line: int, row: list[str], names: list[str]) -> CorpusError:
    advice = "Complete the row, or name the character between fields with --delimiter."
    has_quote = any(cell[:1] == '"' or cell[-1:] == '"' for cell in row)
    if names[0].startswith("#"):
        advice = "If the first lines are comments, remove them, apart from the names of columns."
    elif (len(row) < len(names) and has_quote) or _splits_quotes(row):
        advice = "If quotes enclose fields, add --quoting csv; else complete the row."
    elif any(cell.startswith(' "') for cell in row):
        advice = "Remove the blank before a quote: only a quote at the beginning encloses a field."
    elif len(row) == len(names) + 1 and row[0] in ("1", '"1"'):
        advice = (
            "If its first field is a row name, as R writes it, write the table again with "
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
        f"{label}: line {line:,} has {count_of(len(row), 'field')}, expected {len(names):,} as in "
        f'the first row ("{shown(names[0][:60])}"{", ..." if len(names) > 1 else ""}). {advice}'
    )


def _splits_quotes(row: list[str]) -> bool:
    """Return True if a field opens a quote and a later one closes it, as a delimiter in quotes."""
    ends = [(cell[:1] == '"') - (cell[-1:] == '"') for cell in row if cell != '"']
    return 1 in ends and -1 in ends[ends.index(1) :]


def column_index(
    label: str,
    names: list[str],
    rows: list[Fields],
    reading: ReadSettings,
    rule: TextColumn = TEXT_COLUMN,
) -> int:
    """Return the index of the column to read, chosen by its name, its number from 1, or the rule.

    Raises CorpusError if there is no such column, or if the first row is not a header.
    """
    typed = rule.column
    name = typed if typed is not None else rule.usual
    if names.count(name) > 1:
        places = [str(place + 1) for place, other in enumerate(names) if other == name]
        raise CorpusError(
            f'{label} has {len(places)} columns "{shown(name)}", expected one. Choose by number: '
            f"{named('column')} {' or '.join(places)}."
        )
    if name in names:
        return names.index(name)
    if reading.header is None and (cell := _data_like(names)):
        texts = [str(place + 1) for place in _text_places(rows, len(names), rule)]
        number = texts[0] if len(texts) == 1 else "N (N counts from 1)"
        raise CorpusError(
            f'{label}: the first row looks like data ("{shown(cell[:60])}"), expected names of '
            f"columns. Use {rule.no_header} --column {number}, or --header if it holds names.",
            columns=unique_names(names),
        )
    if typed is not None and typed.isdecimal() and 1 <= int(typed) <= len(names):
        return int(typed) - 1
    if typed is None and len(names) == 1:
        return 0
    unique = unique_names(names)
    texts = [unique[place] for place in _text_places(rows, len(names), rule)]
    try:
        return unique.index(rule.choose(label, unique, texts))
    except CorpusError as error:
        problem = ended(error)
        if reading.header is None:
            problem += " If its first row is data, add --no-header."
        problem += "" if texts else rule.numbers_advice(unique)
        raise CorpusError(problem, columns=error.columns) from error


def _text_places(rows: list[Fields], width: int, rule: TextColumn) -> list[int]:
    """Return the places of the columns that fit the rule."""
    return [place for place in range(width) if rule.fits(_typed(row[place]) for _, row in rows)]


def _typed(cell: str) -> str | None:
    """Return a cell as JSON would have it: text, a number, or None for nothing."""
    return (Number(cell) if _NUMBER.fullmatch(cell.strip()) else cell) or None


def _data_like(names: Sequence[str]) -> str:
    """Return the first name that looks like a number or a sentence, else ""."""
    for name in names:
        words = name.split()
        ends = len(words) > 1 and name.rstrip()[-1] in ".!?…。！？"
        if ends or len(words) > 4 or len(name) > 100 or _NUMBER.fullmatch(name.strip()):
            return name
    return ""


def unique_names(names: Sequence[str]) -> list[str]:
    """Return a unique name for each column: its number if it has no name, a suffix as in pandas."""
    unique: list[str] = []
    for place, name in enumerate(names, 1):
        base = chosen = name or str(place)
        count = 0
        while chosen in unique:
            count += 1
            chosen = f"{base}.{count}"
        unique.append(chosen)
    return unique


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


def quoted_field(text: str, delimiter: str) -> str:
    """Return a field as a table has it: in quotes if a reader would misread it otherwise."""
    if delimiter in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text

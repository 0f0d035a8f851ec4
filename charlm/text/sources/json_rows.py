"""Rows of JSON files: a value on each line, or an array. One row is in memory at a time."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice

from charlm.errors import CorpusError
from charlm.text.sources.decoding import MAX_LINE_CHARS, line_batches
from charlm.text.sources.files import shown
from charlm.text.sources.rows import (
    MAX_LISTED,
    TEXT_COLUMN,
    Number,
    Opened,
    TextColumn,
    Warn,
    kind_of,
    named_records,
)

_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=Number)
_BLANK = re.compile(r"[ \t\r\n]*")
_CUT_SHORT = 16
"""An error this close to the end of the characters read may be a value that continues."""


def open_table(
    pieces: Iterator[str],
    label: str,
    cells: bool,
    *,
    values: Callable[[Iterator[str], str], Iterator[tuple[int | None, object]]],
    report: Warn,
    rule: TextColumn = TEXT_COLUMN,
) -> Opened:
    """Open a table; `values` reads the rows, and `rule` chooses the column of the texts.

    `report` takes how the table is read. Nothing unusual is accepted, so nothing is warned of.
    """
    numbered: Iterator[tuple[int | None, object]] = values(pieces, label)
    if values is values_of:
        numbered = _rows_of_member(numbered, label, rule.column, report)
    rows = ((line, _json_row(label, line, value, rule)) for line, value in numbered)
    return named_records(label, rows, report, cells, json_text, rule)


def _rows_of_member(
    values: Iterator[tuple[int | None, object]], label: str, column: str | None, warn: Warn
) -> Iterator[tuple[int | None, object]]:
    """Return the values of a file, or of the array in its only object: {"data": [{...}, ...]}.

    Raises CorpusError for an object that is not a row and does not have exactly one such array.
    """
    first = list(islice(values, 2))
    only = first[0][1] if len(first) == 1 else None
    if type(only) is not dict or type(only.get("text" if column is None else column)) is str:
        return chain(first, values)
    lists = {name: member for name, member in only.items() if isinstance(member, list)}
    tables = {name: rows for name, rows in lists.items() if _all_are(dict, rows)}
    if not tables and len(lists) == 1:
        tables = {name: rows for name, rows in lists.items() if _all_are(str, rows)}
    if len(tables) == 1:
        ((name, rows),) = tables.items()
        warn(f'{label} is one object; its rows are in the array "{shown(name)}".')
        return ((None, row) for row in rows)
    nested = any(isinstance(member, list | dict) for member in only.values())
    if tables or (nested and not any(type(member) is str for member in only.values())):
        names = ", ".join(shown(name) for name in list(only)[:MAX_LISTED])
        raise CorpusError(
            f"{label} is one object ({names}) with {'several arrays' if tables else 'no array'} of "
            f"rows, expected an array of objects. Write it so, for example with pandas: "
            f'to_json(orient="records").'
        )
    return chain(first, values)


def _all_are(kind: type, values: list[object]) -> bool:
    return bool(values) and all(type(value) is kind for value in values)


def _json_row(
    label: str, line: int | None, value: object, rule: TextColumn
) -> Mapping[str, object]:
    if type(value) is dict:
        return value
    if type(value) is str:
        return {"text": value}
    place = "a row" if line is None else f"line {line:,}"
    raise CorpusError(f"{label}: {place} holds {kind_of(value)}, expected {rule.json_rows}.")


def lines_of(pieces: Iterator[str], label: str) -> Iterator[tuple[int | None, object]]:
    """Yield the value of each line that is not blank."""
    decode_line = _DECODER.decode
    for line, text in enumerate(chain.from_iterable(line_batches(pieces, label)), 1):
        if text.isspace():
            continue
        try:
            yield line, decode_line(text.rstrip())
        except (json.JSONDecodeError, RecursionError) as error:
            advice = "Correct it, or name another format with --input-format (json, text)."
            raise _invalid(label, line, error, "one JSON value on each line", advice) from error


def _invalid(label: str, line: int, error: Exception, expected: str, advice: str) -> CorpusError:
    reason = (
        f"character {error.colno:,}: {error.msg}"
        if isinstance(error, json.JSONDecodeError)
        else "lists or objects are nested too deeply"
    )
    return CorpusError(
        f"{label}: line {line:,} is not valid JSON ({reason}), expected {expected}. {advice}"
    )


class _JsonReader:
    """Reader of the values of a JSON text, with only one of them in memory."""

    def __init__(self, pieces: Iterator[str], label: str) -> None:
        self._pieces, self._label = pieces, label
        self._text, self._place = "", 0
        self._line, self._counted = 1, 0  # line ends are counted up to `_counted`
        self._more()

    def _more(self) -> bool:
        """Read at least as much as is held, so that long values take linear time."""
        held = [self._text[self._place :]]
        least, size = len(held[0]), 0
        for piece in self._pieces:
            held.append(piece)
            size += len(piece)
            if size > least:
                break
        self.line()
        self._text, self._place, self._counted = "".join(held), 0, 0
        return size > 0

    def peek(self) -> str:
        """Return the next character that is not blank, or "" at the end."""
        while True:
            match = _BLANK.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Skip one character."""
        self._place += 1

    def line(self) -> int:
        """Return the number of the current line."""
        self._line += self._text.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def value(self) -> object:
        """Read the value that begins here. Raises CorpusError if there is none."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except (json.JSONDecodeError, RecursionError) as error:
                problem = self._problem(error)
                near_end = isinstance(error, json.JSONDecodeError) and (
                    error.msg.startswith("Unterminated") or error.pos > len(self._text) - _CUT_SHORT
                )
                if near_end:
                    self._check_size()
                    if self._more():
                        continue
                raise problem from error
            self._place = end
            return value

    def _check_size(self) -> None:
        if len(self._text) - self._place > MAX_LINE_CHARS:
            raise CorpusError(
                f"{self._label}: the value that begins in line {self.line():,} has more than "
                f"{MAX_LINE_CHARS:,} characters, expected an array of shorter rows. "
                f"Write JSON lines, or correct a quote that is never closed."
            )

    def _problem(self, error: Exception) -> CorpusError:
        place = getattr(error, "pos", self._place)
        line = self.line() + self._text.count("\n", self._place, place)
        return _invalid(
            self._label, line, error, "an array of objects, or objects one after another",
            "Correct it, or name another format with --input-format (jsonl, text).",
        )  # fmt: skip


def values_of(pieces: Iterator[str], label: str) -> Iterator[tuple[int | None, object]]:
    """Yield the line and value of each element of an array, or of values one after another."""
    reader = _JsonReader(pieces, label)
    in_array = reader.peek() == "["
    if in_array:
        reader.skip()
    after = ""
    while (char := reader.peek()) and not (in_array and char == "]" and after != ","):
        yield reader.line(), reader.value()
        after = reader.peek()
        if in_array and after == ",":
            reader.skip()
        elif in_array and after != "]":
            break
    if in_array:
        if reader.peek() != "]":
            unexpected = repr(after) if after else "the end of the file"
            raise CorpusError(
                f"{label}: line {reader.line():,} holds {unexpected}, "
                f"expected , or ] in an array of JSON. The file is incomplete or damaged; download "
                f"it again, or name another format with --input-format."
            )
        reader.skip()
        if reader.peek():
            raise CorpusError(
                f"{label}: line {reader.line():,} continues after the end of the array, expected "
                f"one array. Put each array into its own file."
            )


def json_text(value: object) -> str:
    """Return a value as JSON, with numbers as they were written."""
    if type(value) is Number:
        return value
    if isinstance(value, dict):
        pairs = (f"{json.dumps(k, ensure_ascii=False)}: {json_text(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)

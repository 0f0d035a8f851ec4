"""Kinds of text that are more than plain text, recognised at the beginning of a file.

They are only reported: the file is still read as plain text, and the warning says what helps.
"""

import json
import re
from collections.abc import Sequence
from contextlib import suppress

from charlm.text.sources.delimited import DELIMITER_NAMES, fits
from charlm.text.sources.record_formats import record_advice

HEAD_CHARS = 1 << 16
MAX_LINES = 200
"""Lines at the beginning of a file that are checked."""
TABLE_LINES = 0.9
"""Fraction of lines with a tab from which a text is a table."""

LABEL_PREFIX = "__label__"
"""Beginning of a label in lines of fastText."""

_MARKUP = re.compile(r"\s*<(!doctype\s+html|html|\?xml)\b", re.IGNORECASE)
_CLOSING_TAG = re.compile(
    r"</(p|div|a|span|td|tr|li|ul|b|i|h[1-6]|table|body|doc|text|page|title|em|strong)>",
    re.IGNORECASE,
)
_MIN_TAGS = 5
ENTITY_TAG = re.compile(r"O|[BIESLU]-\S+")
"""Tags of the CoNLL shared tasks on named entities."""


def advice_for(head: str, document: str = "stream") -> str:
    """Return advice on a text that is more than plain text, to follow its name, or "".

    `document` is the unit that it is read in.
    """
    head, lines = _beginning(head)
    if kind := _json(head, lines):
        return (
            f"looks like JSON and is read as plain text, quotes and brackets included. To read its "
            f"texts add --input-format {kind}."
        )
    if _MARKUP.match(head) or len(_CLOSING_TAG.findall(head)) >= _MIN_TAGS:
        return (
            "looks like HTML or XML and is read as plain text, tags included. Convert it first, "
            "for example with: pandoc -t plain."
        )
    if program := _conll(lines):
        return (
            "looks like CoNLL, a word and its tags on each line, and is read as plain text, tags "
            "included. To learn the tags add --task tag; to read the sentences write one on each "
            f"line, for example with: awk '{program}'."
        )
    if lines and sum(line.startswith(LABEL_PREFIX) for line in lines) > len(lines) / 2:
        return (
            f"has lines with labels ({LABEL_PREFIX}); --task classify reads them, and so does "
            "predict --file. Here they are read as a part of the text."
        )
    if table := table_of(lines):
        return (
            f"looks like a table ({table[1]} between the fields) and is read as plain text, with "
            f"all columns. To read one column add --input-format {table[0]} --column N, and "
            f"--no-header if the first line is data."
        )
    return record_advice(lines, document)


def misnamed(head: str, kind: str) -> str:
    """Return the problem of a file that is no table of its kind, csv or tsv, or "".

    It is to follow the name of the file.
    """
    head, lines = _beginning(head)
    if json_kind := _json(head, lines):
        return (
            f"looks like JSON, expected a table by its name. Add --input-format {json_kind} or "
            f"{kind}."
        )
    if _MARKUP.match(head):
        return (
            "looks like HTML or XML, expected a table by its name. It may be an error page: open "
            f"it and download the table again, or add --input-format {kind}."
        )
    table = table_of(lines) if kind == "tsv" and not any("\t" in line for line in lines) else None
    if table:
        return (
            f"has {table[1]} between the fields, expected tabs by its name. Add --input-format "
            f"{table[0]} or {kind}."
        )
    return ""


def is_conll(head: str) -> bool:
    """Return True if a text looks like CoNLL: a word and its tags on each line."""
    return bool(_conll(_beginning(head)[1]))


def _beginning(head: str) -> tuple[str, list[str]]:
    """Return the characters and the complete lines that are checked."""
    head = head[:HEAD_CHARS]
    lines = [line.removesuffix("\r") for line in head.split("\n")]
    if len(head) == HEAD_CHARS or not lines[-1]:
        lines = lines[:-1]  # incomplete, or empty after the last line end
    return head, lines[:MAX_LINES]


def _json(head: str, lines: list[str]) -> str:
    begin = head.lstrip()
    if begin[:1] == "{":
        with suppress(ValueError, RecursionError):
            values = [json.loads(line) for line in lines[:2]]
            if lines and all(isinstance(value, dict) and value for value in values):
                return "jsonl"
        return "json" if re.match(r'\{\s*"[^"\n]*"\s*:', begin) else ""
    inner = begin[1:].lstrip()
    is_array = begin[:1] == "[" and re.match(r'\{\s*"[^"\n]*"\s*:|"[^"\n]*"\s*[,\]]', inner)
    return "json" if is_array else ""


def _conll(lines: list[str]) -> str:
    """Return an awk program that writes one sentence on each line if these are CoNLL, or ""."""
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        return ""
    rows_of_ten = [line for line in lines if re.match(r"[\d.-]+\t", line) and line.count("\t") == 9]
    if len(rows_of_ten) == len(rows):
        return r'/^[0-9]+\t/ {printf "%s ", $2} /^$/ {print ""}'
    in_groups = len(rows) < len([line for line in lines if not line.startswith("#")])
    tagged = all(ENTITY_TAG.fullmatch(row[-1]) for row in rows)
    if tagged and (in_groups or any(row[-1] != "O" for row in rows)):
        return r'NF {printf "%s ", $1} !NF {print ""}'
    return ""


def table_of(lines: Sequence[str]) -> tuple[str, str] | None:
    """Return the format and delimiter name if the lines are rows of a table, or None."""
    rows = [line for line in lines if line.strip()]
    if len(rows) < 2:
        return None
    inside = sum("\t" in row.strip() for row in rows)
    empty = inside and len({row.count("\t") for row in rows}) == 1  # first or last cells are empty
    if empty or inside >= TABLE_LINES * len(rows):
        return "tsv", DELIMITER_NAMES["\t"]
    for delimiter in ",;|":
        count = sum(row.count(delimiter) for row in rows)
        in_prose = sum(f"{row} ".count(f"{delimiter} ") for row in rows)  # commas of sentences
        if count > 2 * in_prose and fits([row + "\n" for row in rows], delimiter, quoted=True):
            return "csv", DELIMITER_NAMES[delimiter]
    return None

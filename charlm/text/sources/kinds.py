"""Kinds of text that are no plain text: recognised at the beginning of a file, with advice.

Nothing is decided here: plain text is read as it is, and a person who gave a table or a web page by
another name learns how to read it.
"""

import json
import re

from charlm.text.sources.delimited import DELIMITER_NAMES, fits

HEAD_CHARS = 1 << 16
MAX_LINES = 200
"""Lines at the beginning that are looked at."""
TABLE_LINES = 0.9
"""Fraction of the lines with a tab that makes a text a table."""

_MARKUP = re.compile(r"\s*<(!doctype\s+html|html|\?xml)\b", re.IGNORECASE)
_CLOSING_TAG = re.compile(
    r"</(p|div|a|span|td|tr|li|ul|b|i|h[1-6]|table|body|doc|text|page|title|em|strong)>",
    re.IGNORECASE,
)
_MIN_TAGS = 5
_ENTITY_TAG = re.compile(r"O|[BIESLU]-\S+")  # of the CoNLL shared tasks on names


def advice_for(head: str) -> str:
    """Return how to read a text whose beginning shows that it is more than plain text.

    The sentence goes on after the name of the file; it is empty for plain text.
    """
    head, lines = _beginning(head)
    if kind := _json(head, lines):
        return (
            f"looks like JSON and is read as plain text, with its marks. To read its texts add "
            f"--input-format {kind}."
        )
    if _MARKUP.match(head) or len(_CLOSING_TAG.findall(head)) >= _MIN_TAGS:
        return (
            "looks like HTML or XML and is read as plain text, with its tags. Convert it first, "
            "for example with: pandoc -t plain."
        )
    if program := _conll(lines):
        return (
            "looks like CoNLL, a word and its tags on each line, and is read as plain text, with "
            f"its tags. Put one sentence on each line first, for example with: awk '{program}'."
        )
    if table := _table(lines):
        return (
            f"looks like a table ({table[1]} between the fields) and is read as plain text, all "
            f"columns. To read one add --input-format {table[0]} --column N, and --no-header if "
            f"the first line is data."
        )
    return ""


def misnamed(head: str, kind: str) -> str:
    """Return what is the matter with a file that is no table of its kind, csv or tsv.

    The sentences go on after the name of the file; they are empty for a table.
    """
    head, lines = _beginning(head)
    if found := _json(head, lines):
        return (
            f"looks like JSON, expected a table by its name. Add --input-format {found} or {kind}."
        )
    if _MARKUP.match(head):
        return (
            "looks like HTML or XML, expected a table by its name. It may be a page with an error: "
            f"look into it and fetch the table again, or add --input-format {kind}."
        )
    table = _table(lines) if kind == "tsv" and not any("\t" in line for line in lines) else None
    if table:
        return (
            f"has {table[1]} between the fields, expected tabs by its name. Add --input-format "
            f"{table[0]} or {kind}."
        )
    return ""


def _beginning(head: str) -> tuple[str, list[str]]:
    """Return the characters and the whole lines that are looked at."""
    head = head[:HEAD_CHARS]
    lines = [line.removesuffix("\r") for line in head.split("\n")]
    if len(head) == HEAD_CHARS or not lines[-1]:
        lines = lines[:-1]  # cut short, or nothing after the last line end
    return head, lines[:MAX_LINES]


def _json(head: str, lines: list[str]) -> str:
    begin = head.lstrip()
    if begin[:1] == "{":
        values = [_parsed(line) for line in lines[:2]]
        if lines and all(isinstance(value, dict) and value for value in values):
            return "jsonl"
        return "json" if re.match(r'\{\s*"[^"\n]*"\s*:', begin) else ""
    inner = begin[1:].lstrip()
    is_array = begin[:1] == "[" and re.match(r'\{\s*"[^"\n]*"\s*:|"[^"\n]*"\s*[,\]]', inner)
    return "json" if is_array else ""


def _parsed(line: str) -> object:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value


def _conll(lines: list[str]) -> str:
    """Return the program of awk that puts sentences on lines if the lines are CoNLL."""
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        return ""
    rows_of_ten = [line for line in lines if re.match(r"[\d.-]+\t", line) and line.count("\t") == 9]
    if len(rows_of_ten) == len(rows):
        return r'/^[0-9]+\t/ {printf "%s ", $2} /^$/ {print ""}'
    in_groups = len(rows) < len([line for line in lines if not line.startswith("#")])
    tagged = all(_ENTITY_TAG.fullmatch(row[-1]) for row in rows)
    if tagged and (in_groups or any(row[-1] != "O" for row in rows)):
        return r'NF {printf "%s ", $1} !NF {print ""}'
    return ""


def _table(lines: list[str]) -> tuple[str, str] | None:
    """Return the format and the name of the delimiter if the lines are rows of a table."""
    rows = [line for line in lines if line.strip()]
    if len(rows) < 2:
        return None
    if sum("\t" in row.strip() for row in rows) >= TABLE_LINES * len(rows):
        return "tsv", DELIMITER_NAMES["\t"]
    for delimiter in ",;|":
        found = sum(row.count(delimiter) for row in rows)
        in_prose = sum(row.count(f"{delimiter} ") for row in rows)  # commas of sentences
        if found > 2 * in_prose and fits([row + "\n" for row in rows], delimiter, quoted=True):
            return "csv", DELIMITER_NAMES[delimiter]
    return None

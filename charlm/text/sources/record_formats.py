"""Formats of records in plain text: sequences, games, tunes and quotations.

They are recognised by their first lines. A text in such a format is read as plain text, and the
advice says how to read each record as a document.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

FASTA_PROGRAM = (
    r'{sub(/\r$/, "")} /^>/ {if (s) print s; s = ""; next} {s = s $0} END {if (s) print s}'
)
"""Awk program that writes each sequence of FASTA on one line, without its header."""
FASTQ_PROGRAM = r'NR % 4 == 2 {sub(/\r$/, ""); print}'
"""Awk program that writes each sequence of FASTQ on one line."""
PGN_PROGRAM = (
    r'{sub(/\r$/, "")} /^\[[A-Z]/ {if (g) print g; g = ""; next} '
    r'NF {g = g (g ? " " : "") $0} END {if (g) print g}'
)
"""Awk program that writes the moves of each game of PGN on one line, without its tags."""
SEPARATED_PROGRAM = r'{gsub(/"/, "\"\""); print "\"" $0 "\""}'
"""Awk program that writes each record as a row of a CSV table with one column."""

SEPARATORS = ("%", "<|endoftext|>", "$$$$")
"""Lines that separate records: of fortune files, of texts for GPT-2, of molecules in SDF."""
MIN_SEPARATORS = 2
MIN_TAGS = 3
"""Tags at the beginning of PGN."""

_HEADER = re.compile(r">[^\s>]")  # not prompts of Python, nor lines quoted from a mail
_SEQUENCE = re.compile(r"[A-Za-z*.-]+")
_TAG = re.compile(r'\[[A-Z]\w* ".*"\]')
_TUNE, _KEY = re.compile(r"X:\s*\d+\s*"), re.compile(r"K:.*")


class _Format(NamedTuple):
    """A format of records, by the lines at its beginning, and the advice about it."""

    is_in: Callable[[Sequence[str]], bool]
    advice: str


def record_advice(lines: Sequence[str], document: str) -> str:
    """Return advice on records of a known format, to follow the name of the text, or "".

    `lines` are its first lines, without line ends; `document` is the unit that it is read in.
    """
    for each in _FORMATS:
        if each.is_in(lines):
            return each.advice
    if document == "stream" and _is_abc(lines):
        return (
            "looks like tunes in ABC notation and is read as one stream. If blank lines separate "
            "the tunes, add --document paragraph to read each as a document of its own."
        )
    separator = next((line for line in SEPARATORS if _separates(line, lines)), "")
    if not separator:
        return ""
    ends = re.sub(r"[$|]", lambda match: f"[{match[0]}]", separator)
    return (
        f'has lines "{separator}" between its texts, which are read as a part of the text. To '
        f"make a table with one text in each row, use for example: awk -v "
        f"RS='\\r?\\n{ends}\\r?\\n' '{SEPARATED_PROGRAM}'. Read it with --input-format csv "
        "--quoting csv --no-header."
    )


def _separates(separator: str, lines: Sequence[str]) -> bool:
    """Return True if a separator is alone on several lines, and none begins with it otherwise.

    In TeX and PostScript a line with "%" alone is a comment, and others have words behind it.
    """
    alone = lines.count(separator)
    return alone >= MIN_SEPARATORS and alone == sum(line.startswith(separator) for line in lines)


def _is_fasta(lines: Sequence[str]) -> bool:
    """Return True if letters without blanks follow a header that begins with ">"."""
    rows = [line for line in lines if line.strip()]
    if len(rows) < 2 or not _HEADER.match(rows[0]) or _HEADER.match(rows[1]):
        return False
    return all(_HEADER.match(row) or _SEQUENCE.fullmatch(row) for row in rows)


def _is_fastq(lines: Sequence[str]) -> bool:
    """Return True if groups of four lines have a name, letters, "+" and as many qualities."""
    groups = [lines[at : at + 4] for at in range(0, len(lines) - 3, 4)]
    return bool(groups) and all(
        name.startswith("@") and plus.startswith("+") and len(letters) == len(qualities)
        for name, letters, plus, qualities in groups
    )


def _is_pgn(lines: Sequence[str]) -> bool:
    """Return True if a text begins with the tags of a game of chess."""
    rows = [line for line in lines if line.strip()][:MIN_TAGS]
    return len(rows) == MIN_TAGS and all(map(_TAG.fullmatch, rows))


def _is_abc(lines: Sequence[str]) -> bool:
    """Return True if there are two tunes, each with a number and a key."""
    return all(sum(map(bool, map(field.fullmatch, lines))) >= 2 for field in (_TUNE, _KEY))


def _rewritten(name: str, extra: str, records: str, program: str) -> str:
    """Return advice to write each record on one line, without what it has beside its text."""
    return (
        f"looks like {name} and is read as plain text, {extra} included. To learn the {records} "
        f"alone, write each on one line, for example with: awk '{program}'. Then add --document "
        "line."
    )


_FORMATS = (
    _Format(_is_fasta, _rewritten("FASTA", "headers and line ends", "sequences", FASTA_PROGRAM)),
    _Format(_is_fastq, _rewritten("FASTQ", "names and qualities", "sequences", FASTQ_PROGRAM)),
    _Format(_is_pgn, _rewritten("PGN", "tags", "moves", PGN_PROGRAM)),
)

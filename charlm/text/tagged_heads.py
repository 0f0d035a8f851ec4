"""What the first lines of a file show: words with tags, names of columns, or another format.

EU NNP B-ORG          token pos ner         EU/NNP rejects/VBZ          NNP EU
rejects VBZ O         EU NNP B-ORG          Peter/NNP Blackburn/NNP     VBZ rejects
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from charlm.errors import CorpusError
from charlm.text.sentences import split_words
from charlm.text.sources.kinds import ENTITY_TAG, table_of
from charlm.text.tagged_tables import TAG_NAMES, WORD_NAMES

Head = Sequence[tuple[int, str]]
"""First lines of a file with their numbers."""
DOCUMENT = "-DOCSTART-"
"""Word of the line that begins a document."""
MIN_EQUAL = 20
"""Rows with one cell in column 1 from which it does not hold words."""
MIN_GROUPED = 6
"""Rows with one number of columns, in groups, from which they are words and not sentences."""
MIN_JOINED = 8
"""Words with a tag behind them from which they are not words alone."""
_RANGE = re.compile(r"[0-9]+[-.][0-9]+")
"""Number of a word of CoNLL-U that has several, or is left out."""
_CLAUSE = re.compile(r".*\w[。！？、，；]")
"""Line of Chinese or Japanese whose marks are not apart from the words."""
_JOINED = re.compile(r".+([/_|])([^\s/_|]+)")


def is_row(line: str) -> bool:
    """Return True for a line that may be a word: not empty, no comment, no start of a document."""
    return bool(line.strip(" \t")) and not line.startswith(("#", DOCUMENT))


def cells_of(line: str, tabs: bool) -> list[str]:
    """Return the columns of a row, cut at tabs, or at blanks and tabs."""
    if tabs:
        return [cell.strip(" ") for cell in line.rstrip(" \t").split("\t")]
    return [word for word, _ in split_words(line)] or [""]


def has_groups(lines: Sequence[str]) -> bool:
    """Return True if lines are words with equally many columns, and empty lines end sentences.

    No cell has a blank: a line of a dialogue, with the speaker before a tab, has no tag. Lines of
    Chinese or Japanese prose have none either, but marks behind their words.
    """
    rows = [line for line in lines if is_row(line)]
    tabs = bool(rows) and "\t" in rows[0].strip()
    cells = [cells_of(line, tabs) for line in rows]
    widths = {len(each) for each in cells}
    ends = sum(
        is_row(line) and not after.strip(" \t") for line, after in pairwise([*lines, ""])
    )  # each sentence has one
    if len(widths) != 1 or len(rows) < MIN_GROUPED or not 1 < ends <= len(rows) / 2:
        return False
    if any(" " in cell for each in cells for cell in each):
        return False
    return widths != {1} or (table_of(lines) is None and not any(map(_CLAUSE.match, rows)))


def names_columns(line: str, tabs: bool) -> bool:
    """Return True for a row of names of columns: a usual one of words, then one of tags."""
    first, *others = (cell.casefold() for cell in cells_of(line, tabs))
    return first in WORD_NAMES and not {*TAG_NAMES}.isdisjoint(others)


def check_words_alone(lines: Sequence[str], label: str) -> None:
    """Raise CorpusError if each word of the first lines has its tag behind it, as in the/DT."""
    words = [word for line in lines for word, _ in split_words(line)]
    found = [_JOINED.fullmatch(word) for word in words]
    joined = [match.groups() for match in found if match]
    marks, tags = ({*each} for each in (zip(*joined, strict=True) if joined else ((), ())))
    if len(joined) < len(words) or len(words) < MIN_JOINED or len(marks) > 1:
        return
    if 2 * len(tags) > len(words) or len(tags) >= len({*words}):
        return
    if all(map(str.isdecimal, tags)):  # dates, fractions
        return
    end = "NF == 0 " if len(words) <= len(lines) else ""  # a word on each line, or a sentence
    (mark,) = marks
    tag = f'n = split($i, p, "{mark}")'
    row = r'print substr($i, 1, length($i) - length(p[n]) - 1) "\t" p[n]'
    raise CorpusError(
        f"{label} has a tag behind each word ({words[0]!r:.40}); expected a word and its tag on "
        "each line, with a tab between them, and an empty line after each sentence. Write it so, "
        f"for example with: awk '{{for (i = 1; i <= NF; i++) {{{tag}; {row}}}}} "
        f'{end}{{print ""}}\''
    )


def check_words(head: Head, tabs: bool, width: int, label: str) -> None:
    """Raise CorpusError if column 1 of the first lines evidently holds something else than words.

    In other formats it holds the number of the word, the document (CoNLL-2012), or the tag.
    """
    rows = [(number, cells_of(line, tabs)) for number, line in head]
    first = [cells[0] for _, cells in rows if len(cells) == width]
    if len(first) < 3:
        return
    ids = [cell for cell in first if not _RANGE.fullmatch(cell)] or first
    numbers = [int(cell) if cell.isdecimal() else -1 for cell in ids]
    follows = (after in (0, 1, before + 1) for before, after in pairwise(numbers))
    if numbers[0] in (0, 1) and max(numbers) > 1 and min(numbers) >= 0 and all(follows):
        found = "numbers of words"
    elif width > 2 and len(set(first)) == 1 and len(first) >= MIN_EQUAL:
        found = "the same in each row"
    elif all(map(ENTITY_TAG.fullmatch, first)) and set(first) != {"O"}:
        found = "tags"
    else:
        return
    number, cells = rows[0]
    cut = "cut -f2-" if tabs else "cut -d' ' -f2-"
    raise CorpusError(
        f"{label}: column 1 holds {found} (line {number:,}: {' '.join(cells)!r:.60}); expected "
        f"words. Leave out the columns before the words, for example with: {cut}"
    )

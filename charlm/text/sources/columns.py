"""Columns of a table: which one is read as text."""

import difflib
import re
from collections.abc import Sequence

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources.fields import Fields
from charlm.text.sources.files import shown

MAX_LISTED = 20
"""Columns that a message names."""
_NUMBER = re.compile(r"[+-]?(\d[\d,. ]*|[.,]\d+)([eE][+-]?\d+)?%?|true|false", re.IGNORECASE)


def chosen_column(
    label: str, columns: Sequence[str], texts: Sequence[str], named: str | None
) -> str:
    """Return the column that was named, else "text", else the only column that holds text.

    Raises CorpusError if there is no such column, or if there are several.
    """
    if named is not None:
        if named in columns:
            return named
        near = {name.casefold(): name for name in columns}
        alike = difflib.get_close_matches(named.casefold(), near, n=1)
        advice = (
            f'Did you mean "{shown(near[alike[0]])}"?' if alike else "Give --column one of them."
        )
        raise CorpusError(f'{label} has no column "{shown(named)}". {listed(columns)} {advice}')
    if "text" in texts:
        return "text"
    if len(texts) == 1:
        return texts[0]
    problem = "several columns of text" if texts else "no column of text"
    raise CorpusError(f"{label} has {problem}. {listed(columns)} Choose one with --column.")


def listed(columns: Sequence[str]) -> str:
    """Return a sentence that names the columns of a table."""
    more = f" and {len(columns) - MAX_LISTED:,} more" if len(columns) > MAX_LISTED else ""
    return f"Its columns: {', '.join(shown(column) for column in columns[:MAX_LISTED])}{more}."


def column_index(label: str, names: list[str], rows: list[Fields], reading: ReadSettings) -> int:
    """Return the index of the column to read, chosen by its name or its number from 1.

    Raises CorpusError if there is no such column, or if the first row is not a header.
    """
    named = reading.column
    name = named if named is not None else "text"
    if names.count(name) > 1:
        places = [str(place + 1) for place, other in enumerate(names) if other == name]
        raise CorpusError(
            f'{label} has {len(places)} columns "{shown(name)}", expected one. Choose by number: '
            f"--column {' or --column '.join(places)}."
        )
    if name in names:
        return names.index(name)
    if reading.header is None and (cell := _data_like(names)):
        texts = [str(place + 1) for place in _text_places(rows, len(names))]
        number = texts[0] if len(texts) == 1 else "N (N counts from 1)"
        raise CorpusError(
            f'{label}: the first row looks like data ("{shown(cell[:60])}"), expected names of '
            f"columns. Use --no-header --column {number}, or --header if it holds names."
        )
    if named is not None and named.isdecimal() and 1 <= int(named) <= len(names):
        return int(named) - 1
    if named is None and len(names) == 1:
        return 0
    unique = unique_names(names)
    texts = [unique[place] for place in _text_places(rows, len(names))]
    try:
        return unique.index(chosen_column(label, unique, texts, named))
    except CorpusError as error:
        if reading.header is not None:
            raise
        raise CorpusError(f"{error} If its first row is data, add --no-header.") from error


def _text_places(rows: list[Fields], width: int) -> list[int]:
    return [place for place in range(width) if any(_is_text(row[place]) for _, row in rows)]


def _is_text(cell: str) -> bool:
    return bool(cell) and not _NUMBER.fullmatch(cell.strip())


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

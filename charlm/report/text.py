"""Formats of tokens, numbers and durations for reports."""

import math
from collections.abc import Iterable

from charlm.config.text_units import UNITS
from charlm.files.escapes import escape_unprintable

SYMBOLS = {"\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍", "": "∅"}
"""Symbols for blanks in a table."""
MAX_UNKNOWN = 10
"""Maximum number of unknown pieces that a note names."""


def visible(token: str) -> str:
    """Return a token for a table: blanks as symbols, control characters escaped."""
    shown = SYMBOLS.get(token)
    if shown is not None:
        return shown
    if token.isspace():
        return "".join(SYMBOLS.get(character, repr(character)[1:-1]) for character in token)
    return "".join(c if c.isprintable() else SYMBOLS.get(c) or escape_unprintable(c) for c in token)


def number(value: float | int | None, digits: int = 4) -> str:
    """Format a figure for a table, with thousands separators; `-` for None and NaN."""
    if value is None or value != value:  # NaN is not equal to itself
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}"


def word_perplexity(value: float | None, unit: str) -> str:
    """Format the perplexity per word as an addition to that per token; "" for letters.

    A word model that keeps blanks counts them as tokens, so its perplexity per token is far lower.
    """
    known = value is not None and not math.isnan(value)
    letters = unit in UNITS and UNITS[unit].letter  # a damaged run may name any unit
    return f" ({number(value, 1)} per word)" if known and not letters else ""


def duration(seconds: float) -> str:
    """Format seconds as `45 s`, `3:07 min` or `1:02:03 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def shortened(text: str, width: int) -> str:
    """Return a text on one line, cut to `width` characters."""
    line = visible(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def unknown_note(what: str, pieces: Iterable[str]) -> str:
    """Return a note that names the first pieces of a text that are not in the vocabulary."""
    unknown = list(dict.fromkeys(pieces))
    shown = ", ".join(repr(piece) for piece in unknown[:MAX_UNKNOWN])
    more = f" and {len(unknown) - MAX_UNKNOWN} more" if len(unknown) > MAX_UNKNOWN else ""
    return f"{what}: not in the vocabulary, read as UNK: {shown}{more}"

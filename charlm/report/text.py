"""Small pieces of text that every report shares."""

import math

from charlm.config.text_units import UNITS
from charlm.files.escapes import escape_unprintable

SYMBOLS = {"\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍", "": "∅"}
"""How blanks show in a table."""


def visible(token: str) -> str:
    """A token as it reads in a table: blanks as symbols, control characters escaped."""
    shown = SYMBOLS.get(token)
    if shown is not None:
        return shown
    if token.isspace():
        return "".join(SYMBOLS.get(character, repr(character)[1:-1]) for character in token)
    return "".join(c if c.isprintable() else SYMBOLS.get(c) or escape_unprintable(c) for c in token)


def number(value: float | int | None, digits: int = 4) -> str:
    """A figure for a table: thousands apart, `-` where there is none."""
    if value is None or value != value:  # NaN is not equal to itself
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 step`, `2,000 steps`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def word_perplexity(value: float | None, unit: str) -> str:
    """The perplexity per word as an addition to that per token, of units that are not letters.

    A word model that keeps blanks counts them as tokens, so its perplexity per token is far lower.
    """
    known = value is not None and not math.isnan(value)
    return f" ({number(value, 1)} per word)" if known and not UNITS[unit].letter else ""


def duration(seconds: float) -> str:
    """Seconds as `45 s`, `3:07 min` or `1:02:03 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d} h"


def shortened(text: str, width: int) -> str:
    """A text on one line of at most `width` characters."""
    line = visible(text)
    return line if len(line) <= width else line[: width - 1] + "…"

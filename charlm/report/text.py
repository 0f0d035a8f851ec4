"""Formats of tokens, numbers and durations for reports."""

import math
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size

from charlm.config.text_units import UNITS
from charlm.files.escapes import escape_unprintable
from charlm.units import first_few

SYMBOLS = {"\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍", "": "∅"}
"""Symbols for blanks in a table."""
BARS = "▁▂▃▄▅▆▇█"

MAX_PLAIN = 1e9
"""Figures from which a table has powers of ten, so that its columns stay narrow."""
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
    """Format a figure for a table, with thousands separators or a power of ten if it is long.

    None and NaN are `-`.
    """
    if value is None or value != value:  # NaN is not equal to itself
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if MAX_PLAIN <= abs(value) < math.inf:
        return f"{value:.2e}"
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


def age(seconds: float) -> str:
    """Format the time since something as `now`, `45 s`, `3 min`, `5 h` or `12 days`."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds // size:.0f} {unit}" if seconds >= 1 else "now"
    return f"{seconds // 86400:,.0f} days"


def short_count(value: int, suffix: str = "") -> str:
    """Format a count or a size with three digits: `960`, `1.44 M`; with suffix "B" `1.44 MB`."""
    amount = float(value)
    for unit in ("", "k", "M", "G"):
        if amount < 999.5 or unit == "G":
            break
        amount /= 1000
    shown = f"{amount:.0f}" if not unit or amount >= 99.95 else f"{amount:.3g}"
    return f"{shown} {unit}{suffix}".rstrip()


def shortened(text: str, width: int) -> str:
    """Return a text on one line, cut to `width` characters."""
    line = visible(text)
    return line if len(line) <= width else line[: width - 1] + "…"


def cut(text: str, columns: int) -> str:
    """Return a text in at most `columns` columns of a terminal."""
    return text if cell_len(text) <= columns else set_cell_size(text, columns - 1) + "…"


def padded(text: str, columns: int, *, left: bool = True) -> str:
    """Return a text in exactly `columns` columns: cut, or with blanks on the other side."""
    shown = cut(text, columns)
    blanks = " " * (columns - cell_len(shown))
    return shown + blanks if left else blanks + shown


def bars(heights: Iterable[float]) -> str:
    """Return a bar for each height: the lowest for 0, the highest for 1, a blank below 0."""
    count = len(BARS)
    return "".join(
        " " if height < 0 else BARS[min(int(height * count), count - 1)] for height in heights
    )


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Return values as bars between the least and the greatest; one that is not finite is a blank.

    Of more than `width` values, some at equal distances are shown, and the last one.
    """
    if len(values) > width:
        values = [values[at * (len(values) - 1) // (width - 1)] for at in range(width)]
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return bars(
        (value - low) / ((high - low) or 1.0) if math.isfinite(value) else -1.0 for value in values
    )


def unknown_note(what: str, pieces: Iterable[str]) -> str:
    """Return a note that names the first pieces of a text that are not in the vocabulary."""
    named = first_few(map(repr, dict.fromkeys(pieces)), MAX_UNKNOWN)
    return f"{what}: not in the vocabulary, read as UNK: {named}"

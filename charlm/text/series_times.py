"""Times of a series: is a table in their order, and are they equally far apart?

date        value     The newest row comes first, so the numbers would be learned backwards. Other
2024-03-02  1.25      doubts are times that occur again, as of several series in one column, steps
2024-03-01  1.5       that are not equal, and rows without a time, such as a sum.
"""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from charlm.text.sources.files import shown
from charlm.text.sources.rows import Record
from charlm.units import count_of

ISO = ""
NUMBER = "number"
MONTH_NUMBER = "%Y%m"
QUARTER = "quarter"
_YEAR = re.compile(r"(1[5-9]|20)\d\d", re.ASCII)
_QUARTERS = re.compile(r"(\d{4})[- ]?Q([1-4])|Q([1-4])[- /]?(\d{4})", re.ASCII | re.IGNORECASE)
_ZONE = re.compile(r" ?(UTC|GMT)$")
_MONTH = re.compile(r"(1[6-9]|2[01])\d\d(0[1-9]|1[0-2])", re.ASCII)
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d")
_MONTH_NAMES = (
    *("%b %d, %Y", "%d %b %Y", "%d-%b-%Y", "%b %Y", "%Y %b", "%b-%Y", "%Y-%b", "%b-%y", "%b %y"),
    *("%B %d, %Y", "%d %B %Y", "%B %Y", "%Y %B"),
)
_SHORT_YEARS = ("%b-%y", "%b %y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMATS = (
    ISO,
    *(date + time for date in _DATES for time in _CLOCKS),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%Y-%m", "%m/%Y", *_MONTH_NAMES, QUARTER),
)
"""Formats of times that are known, ISO 8601 first."""
NUMBER_NAMES = frozenset(("date", "datetime", "epoch", "t", "time", "timestamp", "year"))
"""Names, in lower case, of columns whose numbers are times."""
PART_NAMES = frozenset(("day", "hour", "minute", "month", "quarter", "second", "time", "week"))
"""Names, in lower case, of columns with a part of a time whose rest is in another column."""
_ALL_NAMES = NUMBER_NAMES | PART_NAMES
MIN_TIMES = 0.9
"""Fraction of the first rows with a time from which a column is one of times."""
MAX_TRIED = 3
"""Cells at the beginning of a column of which one must have a format for it to be tried."""
LONG_STEP = 1.5
"""Steps of this many times the median or more are long; those of months are not."""
DAY = 86_400.0
"""Seconds of a day."""
HOLIDAYS = 5
"""Days between two times that are usual where no time is of a Saturday or Sunday."""


class TimeColumn(NamedTuple):
    """Column with the times of a series."""

    name: str
    formats: Sequence[str]
    """Formats that fit equally well: 01/02/2024 has two."""
    is_part: bool = False
    """True if a second column holds the hour, the month or another part of each time."""


class Time(NamedTuple):
    """Time of a row."""

    place: str
    cell: str
    value: float
    """Seconds, or the number in the cell."""


def time_column(head: Sequence[Record]) -> TimeColumn | None:
    """Return the first column of the first rows of a table that holds times, or None."""
    names = list(head[0].cells) if head else []
    folded = [name.strip().casefold() for name in names]
    has_parts = not PART_NAMES.isdisjoint(folded) and len(set(folded) & _ALL_NAMES) > 1
    for name in names:
        if has_parts and name.strip().casefold() in PART_NAMES:
            continue
        cells = [record.cells.get(name, "").strip() for record in head]
        numbers = _number_formats(name.strip().casefold(), cells)
        others = _SHORT_YEARS if _are_days(cells) else ()
        fitting = {
            form: sum(_value(cell, form) is not None for cell in cells)
            for form in (*FORMATS, *numbers)
            if form not in others
            and any(_value(cell, form) is not None for cell in cells[:MAX_TRIED])
        }
        most = max(fitting.values(), default=0)
        if most > 1 and most >= MIN_TIMES * len(head):
            formats = [form for form, count in fitting.items() if count == most]
            column = TimeColumn(name, formats, has_parts)
            if column.formats != [NUMBER] or _has_direction(cells):
                return column
    return None


def _are_days(cells: Sequence[str]) -> bool:
    """Return whether Jan 02 and Jan 03 follow each other: days without a year, and no months."""
    return any(cell != after and cell[:3] == after[:3] for cell, after in pairwise(cells))


def _number_formats(name: str, cells: Sequence[str]) -> list[str]:
    """Return the formats of times that are numbers, if they may be: by their name, or as years."""
    named = name in NUMBER_NAMES
    if (named or name in PART_NAMES) and all(map(_MONTH.fullmatch, cells)):
        return [MONTH_NUMBER]
    return [NUMBER] if named or _are_years(cells) else []


def _are_years(cells: Sequence[str]) -> bool:
    """Return whether cells count the years up or down."""
    if len(cells) < 3 or not all(map(_YEAR.fullmatch, cells)):
        return False
    steps = {int(after) - int(before) for before, after in pairwise(cells)}
    return steps in ({1}, {-1})


def _has_direction(cells: Sequence[str]) -> bool:
    """Return whether most numbers are not below, or most not above, the one before.

    Those of a column T with temperatures, or of a time that something took, go up and down.
    """
    values = [value for cell in cells if (value := _value(cell, NUMBER)) is not None]
    steps = [after - before for before, after in pairwise(values)]
    most = max(sum(step >= 0 for step in steps), sum(step <= 0 for step in steps))
    return most >= MIN_TIMES * len(steps)


def doubts_of_times(column: TimeColumn, cells: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield sentences about what is unusual in the places and cells of a column of times.

    Of several formats, the one counts that fits most cells and leaves the fewest out of order.
    """
    readings = {form: _times(cells, form) for form in column.formats}
    form = min(readings, key=lambda each: (-len(readings[each]), len(_falls(readings[each]))))
    times, name = readings[form], f'the column "{shown(column.name)}"'
    if len(times) < len(cells):
        known = {time.place for time in times}
        place, cell = next(item for item in cells if item[0] not in known)
        yield (
            f"{place} has {f'{cell!r:.40}' if cell else 'nothing'} in {name}, where other rows "
            f"have a time; its number is read. Remove the row if it is a sum or a note."
        )
    if column.is_part:  # a date occurs with each of its hours, and its steps are none
        yield from _doubts_of_falls([times[0], *_changes(times)] if times else [], name)
    else:
        yield from _doubts_of_order(times, name) or _doubts_of_steps(times, name, form == NUMBER)


def _times(cells: Sequence[tuple[str, str]], form: str) -> list[Time]:
    values = ((place, cell, _value(cell, form)) for place, cell in cells)
    return [Time(place, cell, value) for place, cell, value in values if value is not None]


def _doubts_of_order(times: Sequence[Time], column: str) -> list[str]:
    """Return a sentence about times that occur again or fall, if there are any."""
    first: dict[float, Time] = {}
    again = [time for time in times if first.setdefault(time.value, time) is not time]
    if again:
        earlier = first[again[0].value]
        return [
            f"{count_of(len(again), 'time')} of {column} {'occurs' if len(again) == 1 else 'occur'}"
            f" again, such as {again[0].cell[:40]} ({earlier.place} and {again[0].place}); expected"
            f" one series. If the column of numbers holds several, keep the rows of one."
        ]
    return _doubts_of_falls(times, column)


def _doubts_of_falls(times: Sequence[Time], column: str) -> list[str]:
    """Return a sentence about times that are earlier than the one before, if there are any."""
    falls = _falls(times)
    if falls and len(falls) == len(times) - 1:
        return [
            f"the times of {column} fall, from {times[0].cell[:40]} to {times[-1].cell[:40]}, and "
            f"numbers are read in the order of the rows, so the series runs backwards. Sort the "
            f"rows, the oldest first."
        ]
    if falls:
        return [
            f"{falls[0].place} is earlier than the row before it by {column}, "
            f"{count_of(len(falls), 'such row')}; numbers are read in the order of the rows. Sort "
            f"them, the oldest first."
        ]
    return []


def _doubts_of_steps(times: Sequence[Time], column: str, numbers: bool) -> list[str]:
    """Return a sentence about times that rise in unequal steps, if they do."""
    steps = [(after.value - before.value, after.place) for before, after in pairwise(times)]
    usual = median(step for step, _ in steps) if steps else 0.0
    most = LONG_STEP * usual
    if not numbers and usual == DAY and all(_is_weekday(time.value) for time in times):
        most = (HOLIDAYS + 1) * DAY
    long = [step for step in steps if step[0] >= most]
    if not long:
        return []

    def shown_step(step: float) -> str:
        return f"{step:g}" if numbers else str(timedelta(seconds=step)).removesuffix(", 0:00:00")

    longest, place = max(long, key=lambda step: step[0])
    return [
        f"{len(long):,} of {len(steps):,} steps between the times of {column} are longer than the "
        f"usual {shown_step(usual)}, the longest ({shown_step(longest)}) before {place}; numbers "
        f"are read as if they were equally far apart. Fill the gaps that matter."
    ]


def _is_weekday(seconds: float) -> bool:
    return datetime.fromtimestamp(seconds, UTC).weekday() < 5


def _changes(times: Sequence[Time]) -> list[Time]:
    """Return the times that differ from the one before."""
    return [after for before, after in pairwise(times) if after.value != before.value]


def _falls(times: Sequence[Time]) -> list[Time]:
    """Return the times that are earlier than the one before."""
    return [after for before, after in pairwise(times) if after.value < before.value]


def _value(cell: str, form: str) -> float | None:
    """Return the time of a cell in a format, or None if it has another one."""
    try:
        if form == NUMBER:
            number = float(cell)
            return number if math.isfinite(number) else None
        if form == QUARTER:
            return _quarter(cell)
        if form == MONTH_NUMBER and not _MONTH.fullmatch(cell):
            return None
        cell = _ZONE.sub("", cell)
        time = datetime.fromisoformat(cell) if form == ISO else datetime.strptime(cell, form)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _quarter(cell: str) -> float | None:
    """Return the first second of a quarter such as 2024-Q1 or Q1 2024, or None."""
    if (match := _QUARTERS.fullmatch(cell)) is None:
        return None
    year, number = match[1] or match[4], match[2] or match[3]
    return datetime(int(year), 3 * int(number) - 2, 1, tzinfo=UTC).timestamp()

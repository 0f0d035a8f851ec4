"""Rows of a table with a series: its numbers, and what beside them shows that they are misread."""

import re
from collections.abc import Iterator
from itertools import chain, islice

from charlm.text.series_times import TimeColumn, doubts_of_times, time_column
from charlm.text.sources.rows import PEEK_ROWS, Record
from charlm.units import count_of

_THOUSANDS = re.compile(r"[+-]?[1-9]\d?\d?\.\d{3}", re.ASCII)
_BELOW_THOUSAND = re.compile(r"[+-]?\d{1,3}", re.ASCII)


class SeriesRows:
    """Rows of a table, which are watched as their numbers are read."""

    def __init__(self, records: Iterator[Record]) -> None:
        head = list(islice(records, PEEK_ROWS))
        self._records = chain(head, records)
        self._column: TimeColumn | None = time_column(head)
        self._times: list[tuple[str, str]] = []  # place and cell of each row
        self._rows = self._below = self._others = 0
        self._thousands: list[str] = []

    def cells(self) -> Iterator[tuple[str, str | None]]:
        """Yield the place of each row and the number in it, as text."""
        for record in self._records:
            self._rows += 1
            if self._column:
                cell = record.cells.get(self._column.name, "").strip()
                self._times.append((record.place, cell))
            self._count((record.text or "").strip())
            yield record.place, record.text

    def _count(self, text: str) -> None:
        if _THOUSANDS.fullmatch(text):
            self._thousands.append(text)
        elif _BELOW_THOUSAND.fullmatch(text):
            self._below += 1
        else:
            self._others += bool(text)

    def doubts(self, count: int) -> Iterator[str]:
        """Yield sentences about what may be misread; the first `count` rows have a number."""
        if left := self._rows - count:
            yield f"{count_of(left, 'row')} without a number at the end left out."
        if self._thousands and self._below and not self._others:
            yield (
                f"{count_of(len(self._thousands), 'number')} such as {self._thousands[0]} with a "
                f"point before three digits, while all others are whole and below 1,000; it is "
                f"read as a decimal point. Remove it if it separates thousands."
            )
        if self._column:
            yield from doubts_of_times(self._column, self._times[:count])

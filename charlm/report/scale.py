"""Scales of pictures: the range of an axis, its ticks in round numbers, and thinning.

scale = Scale(0.0, 1_500_000.0, kind="count")
list(scale.labels(4).values())      ["0", "500 k", "1 M", "1.5 M"]
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
"""A place (x, y) of a curve in the units of its axes; y is NaN where the curve has a gap."""
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances of ticks, times a power of ten."""
TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Distances of ticks in seconds."""
LOG_ROUND = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
"""Ticks of a logarithmic scale in each power of ten, from few to many."""
LETTERS = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))
MAX_DECIMALS = 5
"""Decimals of ticks at equal distances; ticks that need more are written as `2.5e-06`."""
CLOCK = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True)
class Scale:
    """Range of an axis from `low` to `high`.

    `kind` is the form of its labels: "number", "count" (with k and M) or "time" (of seconds).
    """

    low: float
    high: float
    logarithmic: bool = False
    kind: str = "number"

    def fraction(self, value: float) -> float:
        """Return the place of a value: 0 at `low`, 1 at `high`, beyond them outside the range."""
        if self.logarithmic:
            value = math.log(value) if value > 0.0 else -math.inf
            return (value - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int) -> list[float]:
        """Return at most `most` round values of the range, in order, at equal distances.

        Those of a logarithmic scale are round in each power of ten.
        """
        if self.logarithmic:
            powers = self._powers((1,))
            if len(powers) > most:
                return powers[:: math.ceil(len(powers) / most)]
            found = [ticks for digits in LOG_ROUND if len(ticks := self._powers(digits)) <= most]
            enough = [ticks for ticks in found if len(ticks) > 1]
            return max(enough, key=len) if enough else self._multiples(most)
        return self._multiples(most)

    def _powers(self, digits: Sequence[float]) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = (digit * 10.0**exponent for exponent in exponents for digit in digits)
        return [value for value in values if self.low <= value <= self.high]

    def _multiples(self, most: int) -> list[float]:
        raw = (self.high - self.low) / max(most, 1)
        for distance in self._distances(raw):
            first = math.ceil(self.low / distance - 1e-9)
            last = math.floor(self.high / distance + 1e-9)
            if last - first < most:
                return [number * distance for number in range(first, last + 1)]
        return []

    def _distances(self, raw: float) -> Iterable[float]:
        """Return round distances from `raw` on."""
        if self.kind == "time" and raw >= 1.0:
            days = math.ceil(raw / 86400) + 1
            return [
                *(float(t) for t in TIMES if t >= raw),
                *(86400.0 * n for n in (days, 2 * days)),
            ]
        power = 10.0 ** math.floor(math.log10(raw))
        values = [digit * power * ten for ten in (1.0, 10.0) for digit in ROUND]
        if self.kind == "count":
            values = [max(value, 1.0) for value in values if value == int(value) or value < 1.0]
        return [value for value in values if value >= raw * (1 - 1e-9)]

    def labels(self, most: int) -> dict[float, str]:
        """Return at most `most` ticks with their texts, all with the same number of decimals."""
        ticks = self.ticks(most)
        distance = ticks[1] - ticks[0] if len(ticks) > 1 else sum(ticks)
        decimals = [
            n for n in range(MAX_DECIMALS + 1) if math.isclose(round(distance, n), distance)
        ]
        if self.kind != "number" or self.logarithmic or not decimals or self.high >= 1e7:
            return {tick: self.label(tick) for tick in ticks}
        return {tick: f"{tick + 0.0:,.{decimals[0]}f}" for tick in ticks}

    def label(self, value: float) -> str:
        """Return a value as text, in as few digits as it needs."""
        if self.kind == "time":
            size, letter = next((row for row in CLOCK if self.high >= 2 * row[0]), CLOCK[-1])
            return f"{_short(value / size)} {letter}" if value else "0"
        if self.kind == "count":
            if value >= 1e12:
                return f"{value:.3g}"
            size, letter = next((row for row in LETTERS if value >= row[0]), LETTERS[-1])
            return f"{_short(value / size)}{letter}"
        return f"{value:,.8g}"


def _short(value: float) -> str:
    """Return a number with up to four decimals and no zeros at its end."""
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def range_of(values: Iterable[float], *, logarithmic: bool = False) -> tuple[float, float]:
    """Return the least and the greatest finite value, apart even if there is only one.

    A logarithmic scale takes positive values only. Without any value it is 0 and 1, or 1 and 10.
    """
    known = [v for v in values if math.isfinite(v) and (v > 0.0 or not logarithmic)]
    if not known:
        return (1.0, 10.0) if logarithmic else (0.0, 1.0)
    low, high = min(known), max(known)
    if math.isclose(low, high, rel_tol=1e-9, abs_tol=1e-300):
        margin = abs(low) * 0.1 or 1.0
        return low - (margin if not logarithmic else low * 0.1), high + margin
    return low, high


def pieces(points: Iterable[Point]) -> list[list[Point]]:
    """Split a curve at its gaps: the points whose y is not finite."""
    parts: list[list[Point]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def thinned(points: Sequence[Point], scale: Scale, columns: int) -> list[Point]:
    """Return the first, least, greatest and last point of each of `columns` columns, in order.

    A picture of that many columns looks the same with them as with all points: nothing is
    averaged, and no spike is lost. The points have no gap.
    """
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(round(scale.fraction(point[0]) * (columns - 1)), []).append(point)
    kept: list[Point] = []
    for group in groups.values():
        places = {
            0,
            min(range(len(group)), key=lambda at: group[at][1]),
            max(range(len(group)), key=lambda at: group[at][1]),
            len(group) - 1,
        }
        kept += [group[at] for at in sorted(places)]
    return kept


def lines(points: Iterable[Point], across: Scale, up: Scale, columns: int) -> list[list[Point]]:
    """Return the lines of a curve as places in a picture of `columns` columns.

    Places are fractions of both axes. Lines end at gaps and at the upper edge of the picture.
    """
    found: list[list[Point]] = []
    for piece in pieces(points):
        kept = thinned(piece, across, columns)
        found += _below_top([(across.fraction(x), up.fraction(y)) for x, y in kept])
    return found


def _below_top(places: Sequence[Point]) -> list[list[Point]]:
    """Cut a line where it crosses the upper edge, at 1."""
    parts: list[list[Point]] = [[]]
    before: Point | None = None
    for place in places:
        if before and (before[1] > 1.0) != (place[1] > 1.0):
            part = (1.0 - before[1]) / (place[1] - before[1])
            crossing = (before[0] + part * (place[0] - before[0]), 1.0)
            parts[-1].append(crossing)
            if place[1] > 1.0:
                parts.append([])
        if place[1] <= 1.0:
            parts[-1].append(place)
        before = place
    return [part for part in parts if part]

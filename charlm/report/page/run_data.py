"""Data of the page: runs with the curves of their training, thinned to the points of a picture."""

import math
from collections.abc import Sequence
from typing import Any

from charlm.report.axes import FIGURES, X_AXES, Record, RunLog, number_in
from charlm.report.scale import Point, Scale, pieces, thinned
from charlm.runs.overview import RunInfo
from charlm.units import bits, finite

PLACES = ("tokens", "steps", "seconds")
"""Axes across, among X_AXES."""
LOSSES = ("bits/byte", "bits/token")
"""Axes upward, among FIGURES."""
MAX_POINTS = 400
"""Maximum number of points of a curve."""


def run_data(run: RunInfo, name: str, log: RunLog | None, note: str = "") -> dict[str, Any]:
    """Return a run with its best figures and the curves of its log, or with a note on their lack.

    A curve has a list for each of PLACES and LOSSES; None in a list of LOSSES is a value that is
    not finite. Raises RunError for a damaged log.
    """
    records = log.records if log else ()
    nats = run.figures.get("nats_per_token")
    return {
        "id": name,
        "model": run.model.replace(" x ", " × "),
        "unit": run.unit,
        "text": run.text,
        "status": run.status,
        "built_in": run.built_in,
        "best": {
            "bits/byte": run.figures.get("bits_per_byte"),
            "bits/token": None if nats is None else finite(bits(nats)),
        },
        "note": note,
        "training": log and _curve(log, [r for r in records if r["kind"] == "step"]),
        "validation": log
        and _curve(log, [r for r in records if r["kind"] == "evaluation"], valid=True),
    }


def _curve(log: RunLog, records: Sequence[Record], *, valid: bool = False) -> dict[str, Any]:
    """Return the places and losses of records, thinned if there are many."""
    losses = {
        name: [
            number_in(log, record, FIGURES[name].valid) if valid else FIGURES[name].of(log, record)
            for record in records
        ]
        for name in LOSSES
    }
    kept = places_kept(losses["bits/token"])
    return {name: [_short(X_AXES[name].of(log, records[at])) for at in kept] for name in PLACES} | {
        name: [_short(value) if math.isfinite(value := values[at]) else None for at in kept]
        for name, values in losses.items()
    }


def places_kept(values: Sequence[float], most: int = MAX_POINTS) -> list[int]:
    """Return the places of at most `most` values of a curve, in order.

    The values are divided into columns of equal width; of each column the first, the least, the
    greatest and the last value are kept, and one value that is not finite for each gap.
    """
    if len(values) <= most:
        return list(range(len(values)))
    points: list[Point] = [(float(at), value) for at, value in enumerate(values)]
    parts = pieces(points)
    if len(parts) > most // 8:  # hardly a curve
        parts = [[point for part in parts for point in part]]
    scale = Scale(0.0, len(values) - 1.0)
    kept, columns = points, most
    while len(kept) > most:
        kept = [point for part in parts for point in _with_gap(thinned(part, scale, columns))]
        columns = columns * 3 // 4
    return [int(at) for at, _ in kept if at < len(values)]


def _with_gap(part: Sequence[Point]) -> list[Point]:
    """Return points, and after them the place behind the last one, where there is a gap."""
    return [*part, (part[-1][0] + 1.0, math.nan)]


def _short(value: float) -> float | int:
    """Return a number with six significant digits, as an integer where it is one."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() else rounded

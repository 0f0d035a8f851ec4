"""Curves of training: the figures of runs over tokens, steps, time or passes.

Nothing is smoothed; a value that is not finite is a gap.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from charlm.config.tasks import is_labelled
from charlm.config.text_units import UNITS
from charlm.errors import UsageError, check_choice, named
from charlm.report.axes import FIGURES, X_AXES, Axis, Figure, RunLog, number_in
from charlm.report.scale import Point, Scale, range_of

RUN_COLOURS = (
    "#2a78d2", "#c8601a", "#0ea96d", "#5d44fc", "#df0043", "#7a7a7a", "#b14295", "#f136f0",
)  # fmt: skip
"""Colours of the runs, in order.

Each has a contrast of at least 3:1 to white and to #14161a, and all differ for every kind of colour
vision.
"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Training and validation of a run as points, with the step of each validation.

    `best` is true for validations that were better than all before, by the figure that chooses the
    weights.
    """

    log: RunLog
    training: list[Point]
    validation: list[Point]
    steps: list[int]
    best: list[bool]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.log.name

    @property
    def end(self) -> Point | None:
        """The newest validation, or else the newest point of training; None without any."""
        known = [p for p in self.validation or self.training if math.isfinite(p[1])]
        return known[-1] if known else None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Curves of some runs, over the axis `x` and in the figure `y`."""

    x: str
    y: str
    curves: list[Curve]

    @property
    def figure(self) -> Figure:
        """The row of `y` in FIGURES."""
        return FIGURES[self.y]

    @property
    def colours(self) -> list[str]:
        """The colour of each curve, from RUN_COLOURS."""
        return [RUN_COLOURS[number % len(RUN_COLOURS)] for number in range(len(self.curves))]

    @property
    def across(self) -> Scale:
        """The scale from 0 to the end of the longest curve."""
        ends = [x for c in self.curves for x, _ in (*c.training, *c.validation)]
        return Scale(0.0, max(ends, default=0.0) or 1.0, kind=X_AXES[self.x].kind)

    @property
    def up(self) -> Scale:
        """The scale of the figure. The first records of training do not count for a loss.

        They are at most five, and at most an eighth of each curve. Where they are above the scale,
        the curve enters the picture from above.
        """
        figure, values = self.figure, []
        for curve in self.curves:
            skipped = min(5, len(curve.training) // 8) if figure.is_loss else 0
            values += [y for _, y in (*curve.training[skipped:], *curve.validation)]
        low, high = range_of(values, logarithmic=figure.logarithmic)
        return Scale(low, high, logarithmic=figure.logarithmic)


def plot_of(logs: Sequence[RunLog], x: str | None = None, y: str | None = None) -> Plot:
    """Return the curves of runs; without `x` and `y` in what suits these runs.

    Runs of one unit are shown in its usual figure over tokens, others in bits per byte over passes.
    Those that give labels are shown in nats per text. Raises UsageError for a figure in which the
    runs cannot be compared, RunError for a damaged log.
    """
    y = y or usual_figure(logs)
    first, same_unit = logs[0], len({log.unit for log in logs}) == 1
    x = x or (f"{first.target}s" if same_unit else "epochs")
    check_choice("x", x, X_AXES)
    check_choice("y", y, FIGURES)
    for name, chosen, axis in (("x", x, X_AXES[x]), ("y", y, FIGURES[y])):
        log = next((log for log in logs if axis.target not in ("", log.target)), None)
        if log:
            raise UsageError(
                f"{named(name)} {chosen} is of {axis.target}s, and run {log.name} counts "
                f"{log.target}s; expected runs of one task. Plot {log.name} alone, or with others "
                f"that count {log.target}s: --x {log.target}s --y "
                f"{_own_figure(log) or 'bits/byte'}"
            )
    other = next((log for log in logs if log.token_kind != first.token_kind), None)
    if FIGURES[y].per_token and other:
        raise UsageError(
            f"{named('y')} {y} counts tokens, which differ between {first.name} ({first.unit}) "
            f"and {other.name} ({other.unit}); expected runs of one vocabulary. Use bits/byte, "
            "which compares all runs of a text"
        )
    return Plot(x=x, y=y, curves=[_curve(log, X_AXES[x], FIGURES[y]) for log in logs])


def usual_figure(logs: Sequence[RunLog]) -> str:
    """Return the figure that suits runs: that of their unit, or bits per byte if it differs."""
    if len({log.target for log in logs}) == 1 and (own := _own_figure(logs[0])):
        return own
    if len({log.token_kind for log in logs}) > 1:
        return "bits/byte"
    letter = UNITS[logs[0].unit].letter
    return f"bits/{letter}" if letter else "perplexity"


def _own_figure(log: RunLog) -> str:
    """Return the figure of the targets of a run that is no language model, or ""."""
    return f"nats/{log.target}" if is_labelled(log.run["settings"]) else ""


def _curve(log: RunLog, x: Axis, y: Figure) -> Curve:
    steps = [record for record in log.records if record["kind"] == "step"]
    validations = [record for record in log.records if record["kind"] == "evaluation"]
    validations = validations if y.valid else []
    return Curve(
        log=log,
        training=[(x.of(log, record), _known(y, y.of(log, record))) for record in steps],
        validation=[
            (x.of(log, record), _known(y, number_in(log, record, y.valid)))
            for record in validations
        ],
        steps=[int(number_in(log, record, "step")) for record in validations],
        best=[bool(record.get("best")) for record in validations],
    )


def _known(figure: Figure, value: float) -> float:
    """Return a value, or NaN if the scale has no place for it."""
    return value if math.isfinite(value) and (value > 0 or not figure.logarithmic) else math.nan


def notes(plot: Plot) -> list[str]:
    """Return sentences on what a reader of the picture must know beyond it."""
    logs, sentences = [curve.log for curve in plot.curves], []
    for curve in plot.curves:
        gaps = sum(math.isnan(y) for _, y in (*curve.training, *curve.validation))
        if gaps:
            are = "value is" if gaps == 1 else "values are"
            sentences.append(f"run {curve.name}: {gaps:,} {are} not finite, and left out")
        if curve.log.run["status"] == "diverged":
            sentences.append(f"run {curve.name} diverged; its curve ends there")
    if plot.figure.is_loss and len({log.run["corpus"]["fingerprint"] for log in logs}) > 1:
        texts = ", ".join(dict.fromkeys(log.run["corpus"]["name"] for log in logs))
        sentences.append(
            f"the runs read different texts ({texts}): a lower curve may be an easier text"
        )
    kinds = {log.token_kind for log in logs if log.target == "token"}
    if plot.figure.is_loss and len(kinds) > 1:
        sentences += filter(None, map(_unknown_note, logs))
    return sentences


def _unknown_note(log: RunLog) -> str:
    """Return a warning about a run that reads some of its text as unknown tokens, or ""."""
    last = next((r for r in reversed(log.records) if r["kind"] == "evaluation"), {})
    oov, tokens = last.get("valid_oov"), last.get("valid_tokens")
    if not oov or not tokens:
        return ""
    return (
        f"run {log.name} reads {100 * oov / tokens:.1f} % of its validation tokens as UNK, so its "
        "bits are too low; charlm compare corrects that"
    )


def rows(plot: Plot) -> Iterable[dict[str, Any]]:
    """Yield a row for each point of each curve: run, text, x and y."""
    for curve in plot.curves:
        for text, points in (("training", curve.training), ("validation", curve.validation)):
            for x, y in points:
                yield {
                    "run": curve.name,
                    "text": text,
                    plot.x: int(x) if plot.across.kind == "count" else x,
                    plot.y: y if math.isfinite(y) else None,
                }


def summary(plot: Plot) -> list[dict[str, Any]]:
    """Return a row of figures for each run: the newest of each text, and the best validation.

    That is the one that chose the weights; in a log that marks none, the lowest.
    """
    table = []
    for curve in plot.curves:
        training = [y for _, y in curve.training if math.isfinite(y)]
        valid = [
            (y, step, is_best)
            for (_, y), step, is_best in zip(curve.validation, curve.steps, curve.best, strict=True)
            if math.isfinite(y)
        ]
        marked = [each for each in valid if each[2]]
        best = marked[-1] if marked else min(valid, default=(None, None))
        table.append(
            {
                "run": curve.name,
                "training": training[-1] if training else None,
                "validation": valid[-1][0] if valid else None,
                "best": best[0],
                "best_step": best[1],
            }
        )
    return table

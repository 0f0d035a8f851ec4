"""Curves of training: the figures of runs over tokens, steps, time or passes.

A run logs nats per token. Runs of different units share no token, so they are compared in bits per
byte or per character of the text: nats per token / ln 2, times the tokens of the training text,
divided by its bytes. Nothing is smoothed; a value that is not finite is a gap.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.config.text_units import UNITS
from charlm.errors import RunError, UsageError, check_choice, named
from charlm.report.scale import Point, Scale, range_of
from charlm.runs.layout import METRICS
from charlm.units import bits, perplexity

Record = Mapping[str, Any]
RUN_COLOURS = (
    "#2a78d2", "#c8601a", "#1f8f5f", "#a04fc0", "#8a7a10", "#d0407c", "#12889a", "#7a7a7a",
)  # fmt: skip
"""Colours of the runs, in order; each has a contrast of at least 3:1 to white and to #14161a."""


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """Log of a run: its name in the picture, the content of run.json, and its records."""

    name: str
    path: Path
    run: Record
    records: Sequence[Record]

    @property
    def unit(self) -> str:
        """The unit of text, such as "char"."""
        return str(self.run["settings"]["vocabulary"]["unit"])

    @property
    def tokens(self) -> tuple[Any, ...]:
        """What the tokens are: runs that agree in it can be compared per token."""
        corpus = self.run["corpus"]
        text = () if UNITS[self.unit].letter else (corpus["fingerprint"], corpus["vocabulary"])
        return (self.unit, *text)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows: its name in pictures, and how its numbers are written."""

    label: str
    of: Callable[[RunLog, Record], float]
    kind: str = "number"


@dataclass(frozen=True, kw_only=True)
class Figure(Axis):
    """What the axis upward shows; `of` is the figure of training."""

    valid: str = ""
    """Key of the figure of a validation; empty if there is none."""
    per_token: bool = False
    """True if only runs of the same tokens can be compared in it."""
    logarithmic: bool = False
    digits: str = ".3f"
    """Format of a single value."""
    is_loss: bool = False
    """True if it falls steeply at the start, so that the first records do not set the range."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Training and validation of a run as points, with the step of each validation."""

    log: RunLog
    training: list[Point]
    validation: list[Point]
    steps: list[int]

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


def _number(log: RunLog, record: Record, key: str) -> float:
    """Return a number of a record; NaN for None. Raises RunError if there is no number."""
    value = record.get(key, "")
    if value is None:
        return math.nan
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RunError(
            f"{log.path / METRICS}: a record of kind {record['kind']} has {key} {value!r:.40}; "
            "expected a number, as charlm train writes. Restore the run from a copy"
        )
    return float(value)


def _field(key: str) -> Callable[[RunLog, Record], float]:
    return lambda log, record: _number(log, record, key)


def _passes(log: RunLog, record: Record) -> float:
    tokens = int(log.run["corpus"]["parts"]["train"]["tokens"])
    return _number(log, record, "tokens") / max(tokens, 1)


def _bits_per(size: str) -> Callable[[RunLog, Record], float]:
    """Return a function for bits of training per character or byte, by the size of its text."""

    def value(log: RunLog, record: Record) -> float:
        """Return the bits of a record. Raises RunError if the size of the text is unknown."""
        part = log.run["corpus"]["parts"]["train"]
        if not part[size]:
            raise RunError(
                f"run {log.name} does not record the {size} of its training text; expected them "
                f"for bits per {size[:-1]}. Use --y bits/token"
            )
        tokens_per_letter = int(part["tokens"]) / int(part[size])
        return bits(_number(log, record, "nats_per_token")) * tokens_per_letter

    return value


X_AXES: dict[str, Axis] = {
    "tokens": Axis(label="tokens", of=_field("tokens"), kind="count"),
    "steps": Axis(label="steps", of=_field("step"), kind="count"),
    "seconds": Axis(label="training time", of=_field("seconds"), kind="time"),
    "epochs": Axis(label="passes", of=_passes),
}
"""What the axis across can show."""
FIGURES: dict[str, Figure] = {
    "bits/byte": Figure(
        label="bits per byte", of=_bits_per("bytes"), valid="valid_bits_per_byte", is_loss=True
    ),
    "bits/char": Figure(
        label="bits per character", of=_bits_per("chars"), valid="valid_bits_per_char",
        is_loss=True,
    ),
    "bits/token": Figure(
        label="bits per token",
        of=lambda log, record: bits(_number(log, record, "nats_per_token")),
        valid="valid_bits_per_token", per_token=True, is_loss=True,
    ),
    "perplexity": Figure(
        label="perplexity", kind="count",
        of=lambda log, record: perplexity(_number(log, record, "nats_per_token"), 1),
        valid="valid_perplexity", per_token=True, logarithmic=True, digits=",.1f", is_loss=True,
    ),
    "rate": Figure(label="learning rate", of=_field("learning_rate"), digits=".3g"),
    "gradient": Figure(
        label="gradient norm before clipping", of=_field("gradient_norm"), logarithmic=True,
        digits=".3g",
    ),
}  # fmt: skip
"""What the axis upward can show."""


def plot_of(logs: Sequence[RunLog], x: str | None = None, y: str | None = None) -> Plot:
    """Return the curves of runs; without `x` and `y` in what suits these runs.

    Runs of one unit are shown in its usual figure over tokens, others in bits per byte over passes.
    Raises UsageError for a figure in which the runs cannot be compared, RunError for a damaged log.
    """
    y = y or usual_figure(logs)
    x = x or ("tokens" if len({log.unit for log in logs}) == 1 else "epochs")
    check_choice("x", x, X_AXES)
    check_choice("y", y, FIGURES)
    first = logs[0]
    other = next((log for log in logs if log.tokens != first.tokens), None)
    if FIGURES[y].per_token and other:
        raise UsageError(
            f"{named('y')} {y} counts tokens, and {first.name} ({first.unit}) has others than "
            f"{other.name} ({other.unit}); expected runs of one vocabulary. Use bits/byte, which "
            "compares all runs of a text"
        )
    return Plot(x=x, y=y, curves=[_curve(log, X_AXES[x], FIGURES[y]) for log in logs])


def usual_figure(logs: Sequence[RunLog]) -> str:
    """Return the figure that suits runs: that of their unit, or bits per byte if it differs."""
    if len({log.tokens for log in logs}) > 1:
        return "bits/byte"
    letter = UNITS[logs[0].unit].letter
    return f"bits/{letter}" if letter else "perplexity"


def _curve(log: RunLog, x: Axis, y: Figure) -> Curve:
    steps = [record for record in log.records if record["kind"] == "step"]
    validations = [record for record in log.records if record["kind"] == "evaluation"]
    validations = validations if y.valid else []
    return Curve(
        log=log,
        training=[(x.of(log, record), _known(y, y.of(log, record))) for record in steps],
        validation=[
            (x.of(log, record), _known(y, _number(log, record, y.valid))) for record in validations
        ],
        steps=[int(_number(log, record, "step")) for record in validations],
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
    if plot.figure.is_loss and len({log.tokens for log in logs}) > 1:
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
        "bits are too few; charlm compare corrects that"
    )


def rows(plot: Plot) -> Iterable[dict[str, Any]]:
    """Yield a row for each point of each curve: run, text, x and y."""
    for curve in plot.curves:
        for text, points in (("training", curve.training), ("validation", curve.validation)):
            for x, y in points:
                known = y if math.isfinite(y) else None
                yield {"run": curve.name, "text": text, plot.x: x, plot.y: known}


def summary(plot: Plot) -> list[dict[str, Any]]:
    """Return a row of figures for each run: the newest of each text, and the best validation."""
    table = []
    for curve in plot.curves:
        training = [y for _, y in curve.training if math.isfinite(y)]
        valid = [
            (y, step)
            for (_, y), step in zip(curve.validation, curve.steps, strict=True)
            if math.isfinite(y)
        ]
        best = min(valid) if valid else (None, None)
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

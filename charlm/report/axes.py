"""Axes of curves: the logs of runs, and the figures of a record that each axis shows.

A run logs nats per token. Runs of different units share no token, so they are compared in bits per
byte or per character of the text: nats per token / ln 2, times the tokens of the training text,
divided by its bytes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.config.tasks import TASKS, task_name
from charlm.config.text_units import UNITS
from charlm.errors import RunError
from charlm.runs.layout import METRICS, train_targets
from charlm.units import bits, perplexity

Record = Mapping[str, Any]
TARGETS = tuple(dict.fromkeys(row.target for row in TASKS.values() if row.target != "token"))
"""Nouns of targets other than tokens."""
PLACES = ("step", "tokens", "seconds", *(f"{target}s" for target in TARGETS))
"""Fields that every record has: how far training was."""


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
    def target(self) -> str:
        """Noun of one target of the run: "token", "text" if it gives labels, "value"."""
        return TASKS[task_name(self.run["settings"])].target

    @property
    def token_kind(self) -> tuple[Any, ...]:
        """The kind of the tokens: runs of one kind can be compared per token."""
        corpus = self.run["corpus"]
        text = () if UNITS[self.unit].letter else (corpus["fingerprint"], corpus["vocabulary"])
        return (self.unit, *text)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Axis of a picture: its name, its figure of a record, and the form of its numbers."""

    label: str
    of: Callable[[RunLog, Record], float]
    kind: str = "number"
    target: str = ""
    """Target that it counts or divides by, which only some runs have; empty if all have it."""


@dataclass(frozen=True, kw_only=True)
class Figure(Axis):
    """Axis upward; `of` is the figure of training."""

    valid: str = ""
    """Key of the figure of a validation; empty if there is none."""
    per_token: bool = False
    """True if only runs of the same tokens can be compared in it."""
    logarithmic: bool = False
    digits: str = ".3f"
    """Format of a single value."""
    is_loss: bool = False
    """True if it falls steeply at the start, so that the first records do not set the range."""


def number_in(log: RunLog, record: Record, key: str) -> float:
    """Return a number of a record; NaN for None, which stands for a figure that is not finite.

    Raises RunError if there is no number, or for a place in training that is None or negative.
    """
    value, is_place = record.get(key, ""), key in PLACES
    if value is None and not is_place:
        return math.nan
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (is_place and value < 0):
        raise RunError(
            f"{log.path / METRICS}: a record of kind {record['kind']} has {key} {value!r:.40}; "
            "expected a number, as charlm train writes. Restore the run from a copy"
        )
    return float(value)


def _field(key: str) -> Callable[[RunLog, Record], float]:
    return lambda log, record: number_in(log, record, key)


def _passes(log: RunLog, record: Record) -> float:
    return number_in(log, record, f"{log.target}s") / max(train_targets(log.run), 1)


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
        return bits(number_in(log, record, "nats_per_token")) * tokens_per_letter

    return value


X_AXES: dict[str, Axis] = {
    "tokens": Axis(label="tokens", of=_field("tokens"), kind="count", target="token"),
    "steps": Axis(label="steps", of=_field("step"), kind="count"),
    "seconds": Axis(label="training time", of=_field("seconds"), kind="time"),
    "epochs": Axis(label="passes", of=_passes),
} | {
    f"{target}s": Axis(label=f"{target}s", of=_field(f"{target}s"), kind="count", target=target)
    for target in TARGETS
}
"""Axes across, by the name that `--x` takes."""
FIGURES: dict[str, Figure] = {
    "bits/byte": Figure(
        label="bits per byte", of=_bits_per("bytes"), valid="valid_bits_per_byte",
        is_loss=True, target="token",
    ),
    "bits/char": Figure(
        label="bits per character", of=_bits_per("chars"), valid="valid_bits_per_char",
        is_loss=True, target="token",
    ),
    "bits/token": Figure(
        label="bits per token",
        of=lambda log, record: bits(number_in(log, record, "nats_per_token")),
        valid="valid_bits_per_token", per_token=True, is_loss=True, target="token",
    ),
    "perplexity": Figure(
        label="perplexity", kind="count",
        of=lambda log, record: perplexity(number_in(log, record, "nats_per_token"), 1),
        valid="valid_perplexity", per_token=True, logarithmic=True, digits=",.1f", is_loss=True,
        target="token",
    ),
    "rate": Figure(label="learning rate", of=_field("learning_rate"), digits=".3g"),
    "gradient": Figure(
        label="gradient norm before clipping", of=_field("gradient_norm"), logarithmic=True,
        digits=".3g",
    ),
} | {
    f"nats/{target}": Figure(
        label=f"nats per {target}", of=_field(f"nats_per_{target}"),
        valid=f"valid_nats_per_{target}", is_loss=True, target=target,
    )
    for target in TARGETS
} | {
    "nats/token": Figure(
        label="nats per token", of=_field("nats_per_token"), valid="valid_nats_per_token",
        per_token=True, is_loss=True, target="token",
    ),
}  # fmt: skip
"""Axes upward, by the name that `--y` takes."""

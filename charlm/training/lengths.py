"""Length of a resumed run: extend it, refuse a shorter one, warn of a jump in the learning rate."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings, counted_length, length_of
from charlm.errors import UsageError
from charlm.runs.pair import length_factor
from charlm.training.trainer import Trainer

NEAR = 0.02
"""Fraction of its length by which a complete run may be longer or shorter."""
NOTABLE_CHANGE = 1.2
"""Factor above which a change of the learning rate is reported."""


def trained_so_far(counters: Mapping[str, Any], train_tokens: int) -> dict[str, float]:
    """Return how long a run was trained, in each unit, from the counters of its checkpoint."""
    return {
        "epochs": counters.get("tokens", 0) / max(train_tokens, 1),
        "steps": float(counters.get("step", 0)),
        "minutes": counters.get("seconds", 0.0) / 60.0,
    }


def with_more(
    more: Mapping[str, float],
    training: Mapping[str, Any],
    trained: Mapping[str, float],
    model: ModelSettings,
) -> dict[str, float]:
    """Return the total length of a run that is trained `more`, in the same unit.

    Raises UsageError unless `more` has one unit and a finite number above 0.
    """
    if len(more) != 1 or not 0 < min(more.values()) < math.inf:
        flags = ", ".join(f"--more-{unit} {value:g}" for unit, value in more.items())
        one = "a finite number above 0" if len(more) == 1 else "one of them, a number above 0"
        raise UsageError(f"{flags}; expected {one}")
    ((unit, added),) = more.items()
    before, recorded = trained[unit], training[unit]
    if recorded and abs(before - recorded) <= NEAR * recorded:
        before = recorded  # a round number
    before *= length_factor(unit, model)
    digits = ".3g" if unit == "minutes" and added >= 0.01 * before else ".6g"
    total = float(f"{before + added:{digits}}")
    return {unit: round(before + added) if unit == "steps" else total}


def is_shorter(
    requested: Mapping[str, Any], training: Mapping[str, Any], trained: Mapping[str, float]
) -> bool:
    """Return whether the requested length is below what the run was trained already."""
    unit, total = length_of(requested)
    return total < trained[unit] and total != training[unit]


def check_not_shorter(
    requested: Mapping[str, Any],
    training: Mapping[str, Any],
    trained: Mapping[str, float],
    model: ModelSettings,
) -> None:
    """Raise UsageError if the requested length is below what the run was trained already."""
    if not is_shorter(requested, training, trained):
        return
    unit, total = length_of(requested)
    factor = length_factor(unit, model)
    given, before = factor * total, factor * trained[unit]
    before = before if unit == "steps" else float(f"{before:.3g}")
    raise UsageError(
        f"--{unit} {given:.15g} sets the length of the whole run, which already has "
        f"{counted_length(unit, before)}; expected more than that. To train it for "
        f"{counted_length(unit, given, 'more ')}, use --more-{unit} {given:.15g}"
    )


def last_progress(before: TrainingSettings, trainer: Trainer) -> float:
    """Return the progress at the newest validation, as a fraction of the new length of a run."""
    schedule, counters = trainer.schedule, trainer.counters
    old = replace(schedule, settings=before).progress(counters)
    if not old or trainer.progress <= old:  # a longer run: the trainer has adapted it
        return counters.last_progress
    return min(counters.last_progress * trainer.progress / old, trainer.progress)


def rate_warning(before: TrainingSettings, trainer: Trainer) -> str | None:
    """Return a warning if a new length makes the learning rate jump, else None."""
    schedule, counters = trainer.schedule, trainer.counters
    old = replace(schedule, settings=before).learning_rate(counters, 1.0)
    new, highest = schedule.learning_rate(counters, 1.0), trainer.settings.learning_rate or 0.0
    if not old or not new or 1.0 / NOTABLE_CHANGE < new / old < NOTABLE_CHANGE:
        return None
    return (
        f"the learning rate goes from {old:.2g} to {new:.2g} at once: the run has a new length, "
        f"and is at {100 * trainer.progress:.0f} % of its {trainer.settings.schedule} schedule. "
        f"To keep {old:.2g}, add --learning-rate {highest * old / new:.2g}"
    )

"""Planning of runs that learn what lies beside the text: what the defaults of the task and the user
left open.

Sizes, rates and dropout come from the defaults of the task. The length is a few passes, as many as
the usual time allows: a model that reads a text more often than `MAX_PASSES` times only becomes
more confident.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import counted_length
from charlm.text.dataset import Dataset
from charlm.training.plan import constants, speed
from charlm.training.plan.planner import Plan, check_unused_settings
from charlm.training.plan.speed import PlanInputs
from charlm.training.plan.usual import (
    affordable_passes,
    choices,
    passes_of,
    with_hidden,
    with_layers,
    with_rates,
)

MAX_PASSES, MAX_STEPS_OF_FEW = 4.0, 1000
"""Passes of a run without a given length, and steps up to which a small text gets more passes."""
SURE = 3.0
"""Factor by which the assumed speed may be too high.

Useful passes that take less than a third of the minutes at that speed fit in any case and end the
run. If they take longer, their time at that speed ends it.
"""


class Costs(NamedTuple):
    """Costs of training, as functions of settings."""

    weights: Callable[[ModelSettings], int]
    """Number of weights of a model."""
    work: Callable[[ModelSettings], float]
    """Weights that are multiplied for a token, times the tokens of a pass."""
    memory: Callable[[Settings], int]
    """Bytes under complete settings; the batch with the longest text decides."""
    longest: int
    """Steps of the longest text."""
    passes: float = MAX_PASSES
    """Passes of a run without a given length."""
    efficiency: float = 1.0
    """Fraction of the assumed speed that is reached."""
    most: float = math.inf
    """Multiple of the usual length above which more minutes gain nothing."""


def plan_labelled(settings: Settings, dataset: Dataset, inputs: PlanInputs, costs: Costs) -> Plan:
    """Decide what is open: batches, sizes, length, rates, seed. Raises UsageError."""
    reasons: dict[str, str] = {}
    choose = choices(reasons)
    usual = f"for the task {settings.task.task}"

    texts, training, model = dataset.train.documents, settings.training, settings.model
    check_unused_settings(training, dataset)
    batch = training.batch_size or choose("training.batch_size", 32, usual)
    if batch > texts:
        batch = choose("training.batch_size", texts, constants.SHORT_TEXT)
    embedding = len(dataset.vocabulary) if model.one_hot else model.embedding_size or 128
    model = replace(with_layers(model, choose, usual), embedding_size=embedding)
    model = with_hidden(model, 128, costs.weights, choose, usual)
    bptt = choose("training.bptt", costs.longest, "the longest text")
    training = with_rates(training, choose, "for a few passes")
    training = replace(training, batch_size=batch, bptt=bptt)
    pace = costs.efficiency * inputs.nominal_speed(model, training)
    seconds = speed.OPERATIONS_PER_WEIGHT_AND_TOKEN * costs.work(model) / pace  # of a pass
    steps = texts / (batch * training.accumulate)  # of a pass
    if not (training.epochs or training.steps or training.minutes):
        epochs, reason = _useful_passes(costs.passes, seconds, steps, usual)
        training = replace(training, epochs=choose("training.epochs", epochs, reason))
    passes = passes_of(training, steps, seconds)
    most = costs.most * _usual_passes(costs.passes, steps)
    if training.minutes and passes > SURE * most:
        given = counted_length("minutes", training.minutes)
        reason = f"instead of {given}: more passes over a text of this size gain nothing"
        length = {name: choose(f"training.{name}", value, reason)
                  for name, value in (("minutes", None), ("epochs", most))}  # fmt: skip
        training, passes = replace(training, **length), most
    elif training.minutes and passes > most:
        reason = f"of {training.minutes:g}: more passes over a text of this size gain nothing"
        minutes = max(round(training.minutes * most / passes, 2), 0.01)
        training = replace(training, minutes=choose("training.minutes", minutes, reason))
        passes = most
    if inputs.are_evals_open(training) and dataset.valid is not None and passes > training.evals:
        evals = choose("training.evals", math.ceil(passes), "one for each pass")
        training = replace(training, evals=evals)
    planned = replace(settings, model=model, training=training)
    return Plan(
        settings=planned,
        reasons=reasons,
        passes=passes,
        steps=passes * steps,
        memory=costs.memory(planned),
        speed=pace,
    )


def _useful_passes(usual: float, seconds: float, steps: float, otherwise: str) -> tuple[float, str]:
    """Return the passes of a run without a given length, and the reason.

    `seconds` and `steps` are those of one pass.
    """
    most = _usual_passes(usual, steps)
    possible = affordable_passes(constants.DEFAULT_MINUTES, seconds)
    if possible < most:
        reason = f"about {constants.DEFAULT_MINUTES:.0f} minutes at the assumed speed"
        return max(float(int(possible)), 1.0), reason
    return most, otherwise


def _usual_passes(usual: float, steps: float) -> float:
    """Return the passes of a run with time for them: more than usual for a small text."""
    return max(usual, float(round(MAX_STEPS_OF_FEW / steps)))

"""Planning of runs on a series of numbers: what the defaults of the task and the user left open."""

import math
from dataclasses import replace

import torch

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.tasks import SERIES, TASKS
from charlm.config.text_units import UNITS
from charlm.nn.model import multiplied_weights
from charlm.nn.series import SeriesModel
from charlm.text.dataset import Dataset
from charlm.training.plan import constants, speed
from charlm.training.plan.memory import memory_of
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.plan.usual import choices, passes_of, with_hidden, with_layers, with_rates

FOR_NUMBERS = "for a series of numbers"
USUAL_BATCH = TASKS[SERIES].defaults["training"]["batch_size"]
"""Sequences side by side, in a series that is long enough."""
SECONDS_PER_STEP = 5e-5
"""Seconds of training for each time step and layer that small layers take whatever their size."""
MAX_EVALS = 40
"""Greatest number of validations that is planned. A short series is over-fitted after few of its
hundreds of passes, so that the best weights are missed between 8 validations."""


def plan_series(settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
    """Decide what is open for a series: windows, sizes, length, rates, seed."""
    steps = len(dataset.train.ids)
    reasons: dict[str, str] = {}
    choose = choices(reasons)
    training, model = settings.training, settings.model
    bptt = training.bptt or choose("training.bptt", UNITS["number"].bptt, FOR_NUMBERS)
    if bptt > steps:
        bptt = choose("training.bptt", steps, constants.SHORTER_TEXT)
    batch = training.batch_size or choose("training.batch_size", USUAL_BATCH, FOR_NUMBERS)
    if batch > (most := max(steps // (4 * bptt), 1)):
        usual = batch == USUAL_BATCH  # nobody asked for it
        reason = "the series is short" if usual else constants.SHORT_TEXT
        batch = choose("training.batch_size", most, reason)
    embedding = model.embedding_size or choose("model.embedding_size", 32, FOR_NUMBERS)
    model = replace(with_layers(model, choose, FOR_NUMBERS), embedding_size=embedding)
    model = with_hidden(model, 64, series_weights_count, choose, FOR_NUMBERS)
    training = with_rates(training, choose, FOR_NUMBERS)
    minutes = training.minutes
    if not (training.epochs or training.steps or minutes):
        minutes = choose("training.minutes", 1.0, FOR_NUMBERS)
    training = replace(training, batch_size=batch, bptt=bptt, minutes=minutes)
    weights = multiplied_weights(model, 2)
    pace = inputs.nominal_speed(model, training)
    seconds = speed.OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * steps / pace  # of a pass
    seconds = max(seconds, SECONDS_PER_STEP * (model.num_layers or 1) * steps / batch)
    updates = steps / (batch * bptt * training.accumulate)  # of a pass
    passes = passes_of(training, updates, seconds)
    if inputs.are_evals_open(training) and dataset.valid is not None and passes > training.evals:
        evals = choose("training.evals", min(math.ceil(passes), MAX_EVALS), FOR_NUMBERS)
        training = replace(training, evals=evals)
    return Plan(
        settings=replace(settings, model=model, training=training),
        reasons=reasons,
        passes=passes,
        steps=passes * updates,
        memory=memory_of(model, training, series_weights_count(model)),
        speed=pace,
    )


def series_weights_count(model: ModelSettings) -> int:
    """Return the number of weights of a series model, without building it."""
    with torch.device("meta"):
        return SeriesModel(model, 2).parameter_count()

"""Planning of runs on a series of numbers: what the defaults of the task and the user left open."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings
from charlm.config.tasks import SERIES, TASKS
from charlm.config.text_units import UNITS
from charlm.nn.devices import Precision
from charlm.nn.model import multiplied_weights
from charlm.nn.series import SeriesModel
from charlm.training.plan import constants, speed
from charlm.training.plan.memory import memory_of
from charlm.training.plan.model_size import hidden_of_parameters
from charlm.training.plan.planner import Plan

FOR_NUMBERS = "for a series of numbers"
USUAL_BATCH = TASKS[SERIES].defaults["training"]["batch_size"]
"""Sequences side by side, in a series that is long enough."""
SECONDS_PER_STEP = 5e-5
"""Seconds of training for each time step and layer that small layers take whatever their size."""


def plan_series(
    settings: Settings,
    steps: int,
    device: torch.device,
    choose_precision: Callable[[ModelSettings], Precision],
) -> Plan:
    """Decide what is open for a series of so many steps: windows, sizes, length, rates, seed."""
    reasons: dict[str, str] = {}

    def choose(name: str, value: Any, reason: str) -> Any:
        """Return a value, and record why it was chosen."""
        reasons[name] = reason
        return value

    training, model = settings.training, settings.model
    bptt = training.bptt or choose("training.bptt", UNITS["number"].bptt, FOR_NUMBERS)
    if bptt > steps:
        bptt = choose("training.bptt", steps, constants.SHORTER_TEXT)
    batch = training.batch_size or choose("training.batch_size", USUAL_BATCH, FOR_NUMBERS)
    if batch > (most := max(steps // (4 * bptt), 1)):
        usual = batch == USUAL_BATCH  # nobody asked for it
        reason = "the series is short" if usual else constants.SHORT_TEXT
        batch = choose("training.batch_size", most, reason)
    model = replace(
        model,
        num_layers=model.num_layers or choose("model.num_layers", 1, FOR_NUMBERS),
        embedding_size=model.embedding_size or choose("model.embedding_size", 32, FOR_NUMBERS),
        tie_weights=False, dropout=model.dropout or 0.0, input_dropout=model.input_dropout or 0.0,
        output_dropout=model.output_dropout or 0.0,
    )  # fmt: skip
    if model.hidden_size is None:
        hidden, reason = _hidden(model)
        hidden = choose("model.hidden_size", hidden, reason)
        model = replace(model, hidden_size=hidden, parameters=None)
    optimizer = OPTIMIZERS[training.optimizer]
    training = replace(
        training, batch_size=batch, bptt=bptt, ngram=0, average=training.average or 0.0,
        learning_rate=training.learning_rate
        or choose("training.learning_rate", optimizer.learning_rate, f"for {training.optimizer}"),
        weight_decay=choose(
            "training.weight_decay", optimizer.weight_decay, f"for {training.optimizer}"
        ) if training.weight_decay is None else training.weight_decay,
        schedule=training.schedule or choose("training.schedule", "cosine", FOR_NUMBERS),
        minutes=training.minutes if training.epochs or training.steps
        else training.minutes or choose("training.minutes", 1.0, FOR_NUMBERS),
        seed=choose("training.seed", secrets.randbelow(2**32), "random")
        if training.seed is None else training.seed,
    )  # fmt: skip
    weights = multiplied_weights(model, 2)
    threads = training.threads or speed.training_threads(model, 2, batch, device)
    pace = speed.nominal_speed(device, choose_precision(model).name, threads)
    seconds = speed.OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * steps / pace  # of a pass
    seconds = max(seconds, SECONDS_PER_STEP * (model.num_layers or 1) * steps / batch)
    updates = steps / (batch * bptt * training.accumulate)  # of a pass
    passes = (
        training.epochs
        or (training.steps or 0) / updates
        or 0.9 * 60.0 * (training.minutes or 0.0) / seconds
    )
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


def _hidden(model: ModelSettings) -> tuple[int, str]:
    """Return the largest hidden size that `parameters` allows, and the reason."""
    if model.parameters is None:
        return 64, FOR_NUMBERS
    reason = f"at most {model.parameters:,} weights"
    plain = replace(model, parameters=None)
    size = hidden_of_parameters(
        lambda hidden: series_weights_count(replace(plain, hidden_size=hidden)), model.parameters
    )
    return size, reason

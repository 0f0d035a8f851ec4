"""Planning of runs that learn what lies beside the text: what the defaults of the task and the user
left open.

Sizes, rates and dropout come from the defaults of the task. The length is a few passes, as many as
the usual time allows: a model that reads a text more often than `MAX_PASSES` times only becomes
more confident.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.nn.devices import Precision
from charlm.text.dataset import Dataset
from charlm.training.plan import constants, speed
from charlm.training.plan.model_size import hidden_of_parameters
from charlm.training.plan.planner import Plan, check_unused_settings

MAX_PASSES, MAX_STEPS_OF_FEW = 4.0, 1000
"""Passes of a run without a given length, and steps up to which a small text gets more passes."""


class Costs(NamedTuple):
    """What training costs, as functions of settings."""

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


def plan_labelled(
    settings: Settings,
    dataset: Dataset,
    device: torch.device,
    choose_precision: Callable[[ModelSettings], Precision],
    costs: Costs,
) -> Plan:
    """Decide what is open: batches, sizes, length, rates, seed. Raises UsageError."""
    reasons: dict[str, str] = {}
    usual = f"for the task {settings.task.task}"

    def choose(name: str, value: Any, reason: str) -> Any:
        """Return a value, and record why it was chosen."""
        reasons[name] = reason
        return value

    texts, training, model = dataset.train.documents, settings.training, settings.model
    check_unused_settings(training, dataset)
    batch = training.batch_size or choose("training.batch_size", 32, usual)
    if batch > texts:
        batch = choose("training.batch_size", texts, constants.SHORT_TEXT)
    model = replace(
        model,
        num_layers=model.num_layers or choose("model.num_layers", 1, usual),
        embedding_size=len(dataset.vocabulary) if model.one_hot else model.embedding_size or 128,
        tie_weights=False, dropout=model.dropout or 0.0, input_dropout=model.input_dropout or 0.0,
        output_dropout=model.output_dropout or 0.0,
    )  # fmt: skip
    if model.hidden_size is None:
        hidden, reason = _hidden(model, costs, usual)
        hidden = choose("model.hidden_size", hidden, reason)
        model = replace(model, hidden_size=hidden, parameters=None)
    optimizer = OPTIMIZERS[training.optimizer]
    training = replace(
        training, batch_size=batch, ngram=0, average=training.average or 0.0,
        bptt=choose("training.bptt", costs.longest, "the longest text"),
        learning_rate=training.learning_rate
        or choose("training.learning_rate", optimizer.learning_rate, f"for {training.optimizer}"),
        weight_decay=choose(
            "training.weight_decay", optimizer.weight_decay, f"for {training.optimizer}"
        ) if training.weight_decay is None else training.weight_decay,
        schedule=training.schedule or choose("training.schedule", "cosine", "for a few passes"),
        seed=choose("training.seed", secrets.randbelow(2**32), "random")
        if training.seed is None else training.seed,
    )  # fmt: skip
    pace = _speed(model, training, device, choose_precision)
    seconds = speed.OPERATIONS_PER_WEIGHT_AND_TOKEN * costs.work(model) / pace  # of a pass
    steps = texts / (batch * training.accumulate)  # of a pass
    if not (training.epochs or training.steps or training.minutes):
        epochs, reason = _useful_passes(costs.passes, seconds, steps, usual)
        training = replace(training, epochs=choose("training.epochs", epochs, reason))
    passes = (
        training.epochs
        or (training.steps or 0) / steps
        or 0.9 * 60.0 * (training.minutes or 0.0) / seconds
    )
    if training.evals == TrainingSettings().evals < passes and dataset.valid is not None:
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


def _speed(
    model: ModelSettings,
    training: TrainingSettings,
    device: torch.device,
    choose_precision: Callable[[ModelSettings], Precision],
) -> float:
    """Return the assumed operations per second."""
    threads = training.threads or speed.training_threads(model, 2, training.batch_size or 1, device)
    return speed.nominal_speed(device, choose_precision(model).name, threads)


def _useful_passes(usual: float, seconds: float, steps: float, otherwise: str) -> tuple[float, str]:
    """Return the passes of a run without a given length, and the reason.

    `seconds` and `steps` are those of one pass.
    """
    most = max(usual, float(round(MAX_STEPS_OF_FEW / steps)))
    possible = 0.85 * 60.0 * constants.DEFAULT_MINUTES / seconds
    if possible < most:
        reason = f"about {constants.DEFAULT_MINUTES:.0f} minutes at the assumed speed"
        return max(float(int(possible)), 1.0), reason
    return most, otherwise


def _hidden(model: ModelSettings, costs: Costs, usual: str) -> tuple[int, str]:
    """Return the largest hidden size that `parameters` allows, and the reason."""
    if model.parameters is None:
        return 128, usual

    def weights(hidden: int) -> int:
        """Return the number of weights with this hidden size."""
        return costs.weights(replace(model, hidden_size=hidden, parameters=None))

    reason = f"at most {model.parameters:,} weights"
    return hidden_of_parameters(weights, model.parameters), reason

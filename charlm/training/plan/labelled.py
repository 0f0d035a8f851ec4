"""Planning of runs that learn labels: what the defaults of the task and the user left open.

Sizes, rates and dropout come from the defaults of the task. The length is a few passes, as many as
the usual time allows: a model that reads a text more often than `MAX_PASSES` times only becomes
more confident.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from charlm.backends.weights import feature_count
from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.nn.classifier import Classifier
from charlm.nn.devices import Precision
from charlm.nn.model import multiplied_weights
from charlm.text.dataset import Dataset
from charlm.text.groups import text_lengths
from charlm.text.labelled import labelled_of
from charlm.training.plan import constants, speed
from charlm.training.plan.memory import memory_of
from charlm.training.plan.model_size import hidden_of_parameters
from charlm.training.plan.planner import Plan, check_unused_settings

MAX_PASSES, MAX_STEPS_OF_FEW = 4.0, 1000
"""Passes of a run without a given length, and steps up to which a small text gets more passes."""


def plan_labelled(
    settings: Settings,
    dataset: Dataset,
    device: torch.device,
    choose_precision: Callable[[ModelSettings], Precision],
) -> Plan:
    """Decide what is open: batches, sizes, length, rates, seed. Raises UsageError."""
    reasons: dict[str, str] = {}

    def choose(name: str, value: Any, reason: str) -> Any:
        """Return a value, and record why it was chosen."""
        reasons[name] = reason
        return value

    texts, lengths = dataset.train.documents, text_lengths(dataset.train)
    training, model = settings.training, settings.model
    check_unused_settings(training, dataset)
    batch = training.batch_size or choose("training.batch_size", 32, "for texts with labels")
    if batch > texts:
        batch = choose("training.batch_size", texts, constants.SHORT_TEXT)
    model = replace(
        model,
        num_layers=model.num_layers or choose("model.num_layers", 1, "for texts with labels"),
        embedding_size=len(dataset.vocabulary) if model.one_hot else model.embedding_size or 128,
        tie_weights=False, dropout=model.dropout or 0.0, input_dropout=model.input_dropout or 0.0,
        output_dropout=model.output_dropout or 0.0,
    )  # fmt: skip
    if model.hidden_size is None:
        hidden, reason = _hidden(settings, model, dataset)
        hidden = choose("model.hidden_size", hidden, reason)
        model = replace(model, hidden_size=hidden, parameters=None)
    optimizer = OPTIMIZERS[training.optimizer]
    training = replace(
        training, batch_size=batch, ngram=0, average=training.average or 0.0,
        bptt=choose("training.bptt", int(lengths.max()), "the longest text"),
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
    operations = speed.OPERATIONS_PER_WEIGHT_AND_TOKEN * encoder_weights(settings, model)
    seconds = operations * float(lengths.sum()) / pace  # of a pass
    steps = texts / (batch * training.accumulate)  # of a pass
    if not (training.epochs or training.steps or training.minutes):
        epochs, reason = _useful_passes(seconds, steps)
        training = replace(training, epochs=choose("training.epochs", epochs, reason))
    passes = (
        training.epochs
        or (training.steps or 0) / steps
        or 0.9 * 60.0 * (training.minutes or 0.0) / seconds
    )
    usual = TrainingSettings().evals
    if training.evals == usual < passes and dataset.valid is not None:
        evals = choose("training.evals", math.ceil(passes), "one for each pass")
        training = replace(training, evals=evals)
    planned = replace(settings, model=model, training=training)
    return Plan(
        settings=planned,
        reasons=reasons,
        passes=passes,
        steps=passes * steps,
        memory=labelled_memory(planned, dataset),
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


def _useful_passes(seconds: float, steps: float) -> tuple[float, str]:
    """Return the passes of a run without a given length, and the reason.

    `seconds` and `steps` are those of one pass.
    """
    most = max(MAX_PASSES, float(round(MAX_STEPS_OF_FEW / steps)))
    possible = 0.85 * 60.0 * constants.DEFAULT_MINUTES / seconds
    if possible < most:
        reason = f"about {constants.DEFAULT_MINUTES:.0f} minutes at the assumed speed"
        return max(float(int(possible)), 1.0), reason
    return most, "for texts with labels"


def classifier_of(settings: Settings, model: ModelSettings, dataset: Dataset) -> Classifier:
    """Build the classifier of a dataset; its weights are not initialised."""
    task, labels = settings.task, len(labelled_of(dataset).labels)
    return Classifier(model, len(dataset.vocabulary), labels, task.pooling, task.both_ways)


def count_weights(settings: Settings, model: ModelSettings, dataset: Dataset) -> int:
    """Return the number of weights of a classifier, without building it."""
    with torch.device("meta"):
        return classifier_of(settings, model, dataset).parameter_count()


def encoder_weights(settings: Settings, model: ModelSettings) -> int:
    """Return the number of weights that are multiplied for each token, in one or both ways."""
    ways = 1 + settings.task.both_ways
    return ways * multiplied_weights(model, 2)


def labelled_memory(settings: Settings, dataset: Dataset) -> int:
    """Return the bytes that training needs; the batch with the longest text decides.

    The features of a frozen encoder are kept for every text.
    """
    task, weights = settings.task, count_weights(settings, settings.model, dataset)
    kept = 0
    if task.freeze:
        texts = dataset.train.documents + (dataset.valid.documents if dataset.valid else 0)
        kept = 4 * texts * feature_count(settings.model, task.pooling, task.both_ways)
    return kept + memory_of(settings.model, settings.training, weights, ways=1 + task.both_ways)


def _hidden(settings: Settings, model: ModelSettings, dataset: Dataset) -> tuple[int, str]:
    """Return the largest hidden size that `parameters` allows, and the reason."""
    if model.parameters is None:
        return 128, "for texts with labels"

    def weights(hidden: int) -> int:
        """Return the number of weights with this hidden size."""
        sized = replace(model, hidden_size=hidden, parameters=None)
        return count_weights(settings, sized, dataset)

    reason = f"at most {model.parameters:,} weights"
    return hidden_of_parameters(weights, model.parameters), reason

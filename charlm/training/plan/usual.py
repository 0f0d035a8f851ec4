"""Sizes, rates and passes by default, for the plans of all tasks but the language model."""

import secrets
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from charlm.config.model import MAX_SIZE, ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError, named
from charlm.training.plan import constants

Choose = Callable[[str, Any, str], Any]
"""Records a name, a value and the reason why it was chosen, and returns the value."""


def choices(reasons: dict[str, str]) -> Choose:
    """Return a function that records the reasons of its choices."""

    def choose(name: str, value: Any, reason: str) -> Any:
        """Return a value, and record why it was chosen."""
        reasons[name] = reason
        return value

    return choose


def with_layers(model: ModelSettings, choose: Choose, reason: str) -> ModelSettings:
    """Return a model of one layer, without dropout or tied weights unless they are given."""
    layers = model.num_layers or choose("model.num_layers", 1, reason)
    model = replace(model, num_layers=layers, tie_weights=False, dropout=model.dropout or 0.0)
    return with_outer_dropout(model, choose)


def with_outer_dropout(model: ModelSettings, choose: Choose) -> ModelSettings:
    """Return a model whose dropout before and after the layers follows the one between them."""
    dropout, before, after = model.dropout or 0.0, model.input_dropout, model.output_dropout
    if before is None:
        before = choose("model.input_dropout", dropout / 2, "half of --dropout")
    if after is None:
        after = choose("model.output_dropout", dropout, "as --dropout")
    return replace(model, input_dropout=before, output_dropout=after)


def with_hidden(
    model: ModelSettings,
    usual: int,
    weights: Callable[[ModelSettings], int],
    choose: Choose,
    reason: str,
) -> ModelSettings:
    """Return a model of the usual hidden size, or of the largest that `parameters` allows.

    `weights` counts those of a model. A given hidden size is kept.
    """
    if model.hidden_size is not None:
        return model
    most, plain = model.parameters, replace(model, parameters=None)
    if most is not None:
        usual = hidden_of_parameters(
            lambda hidden: weights(replace(plain, hidden_size=hidden)), most
        )
        reason = f"at most {most:,} weights"
    return replace(plain, hidden_size=choose("model.hidden_size", usual, reason))


def hidden_of_parameters(weights: Callable[[int], int], most: int, least: int = 1) -> int:
    """Return the largest hidden size for which `weights` gives at most `most`, from `least` on.

    Raises UsageError if there is none.
    """
    fitting = bisect_right(range(least, MAX_SIZE), most, key=weights)
    if not fitting:
        units = "one hidden unit needs" if least == 1 else f"{least} hidden units need"
        raise UsageError(
            f"{named('parameters')} is {most:,}; expected at least {weights(least):,}, which "
            f"{units} with this vocabulary"
        )
    return least + fitting - 1


def with_rates(training: TrainingSettings, choose: Choose, reason: str) -> TrainingSettings:
    """Return settings with rate, decay, schedule and seed; `reason` is that of the schedule."""
    spec, by_optimizer = OPTIMIZERS[training.optimizer], f"for {training.optimizer}"
    rate, decay, seed = training.learning_rate, training.weight_decay, training.seed
    if decay is None:
        decay = choose("training.weight_decay", spec.weight_decay, by_optimizer)
    if seed is None:
        seed = choose("training.seed", secrets.randbelow(2**32), "random")
    return replace(
        training, ngram=0, average=training.average or 0.0, weight_decay=decay, seed=seed,
        learning_rate=rate or choose("training.learning_rate", spec.learning_rate, by_optimizer),
        schedule=training.schedule or choose("training.schedule", "cosine", reason),
    )  # fmt: skip


def passes_of(training: TrainingSettings, steps: float, seconds: float) -> float:
    """Return the passes over the text in the given length, for the steps and seconds of a pass."""
    if training.epochs or training.steps:
        return training.epochs or (training.steps or 0) / steps
    return affordable_passes(training.minutes or 0.0, seconds)


def affordable_passes(minutes: float, seconds: float) -> float:
    """Return the passes for which a time is long enough, for the seconds of training of a pass."""
    return constants.TRAINING_FRACTION * 60.0 * minutes / seconds

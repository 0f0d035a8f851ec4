"""Planning: the sizes and lengths that the user left open, from the text and this machine.

The rule, in short. Training costs 6 operations for each weight and token, and some for each logit,
so a time and a measured speed give a number of operations C. The model gets sqrt(C / 6r) weights,
so that it reads about r tokens for each weight (r = 2 for letters, 0.4 for words, most of whose
weights are the output's, where those of rare words do not count); a small text limits the size. One
layer while it is not too wide: it learns more in minutes than two with as many weights. The numbers
are in `plan.constants`, each with its measurement.
"""

import math
import secrets
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from charlm.config.cells import CELLS
from charlm.config.fields import VALIDATION
from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings, table
from charlm.config.training import TrainingSettings
from charlm.config.unused import missing_need
from charlm.errors import UsageError, named
from charlm.nn.model import check_model
from charlm.text.batches import Batches, BatchSpec
from charlm.text.dataset import Dataset
from charlm.training.averaging import NON_MONOTONE_INTERVAL
from charlm.training.plan import constants
from charlm.training.plan.basis import Basis
from charlm.training.plan.memory import training_memory
from charlm.training.plan.model_size import plan_model
from charlm.training.plan.speed import PlanInputs
from charlm.training.plan.usual import with_outer_dropout


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Complete settings, and the reason for each value that was chosen."""

    settings: Settings
    reasons: dict[str, str]
    passes: float = 0.0
    """Expected passes over the training text."""
    steps: float = 0.0
    """Expected steps of the optimiser."""
    memory: int = 0
    """Approximate number of bytes that training needs."""
    speed: float | None = None
    """Operations per second that the plan assumes, if any value depends on it."""
    measured: bool = False
    """True if that speed was measured, so that another load makes another plan."""
    expected: dict[str, Any] | None = None
    """Loss to expect, as in run.json; None if unknown."""


def plan(settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
    """Decide what the user left open: batches, model, length, dropout and rates, in this order."""
    basis = Basis(settings, dataset, inputs)
    training = _plan_batches(basis)
    model = plan_model(basis, training)
    training = _plan_length(basis, training, model)
    model = _plan_dropout(basis, model, training)
    _check_buildable(basis, model)
    training = _plan_rates(basis, training, model)
    training = _plan_ngrams(basis, training)
    passes = basis.passes(training, model)
    return Plan(
        settings=replace(settings, model=model, training=training),
        reasons=basis.reasons,
        passes=passes,
        steps=passes * basis.tokens / basis.step_tokens(training),
        memory=training_memory(model, training, basis.vocab_size),
        speed=basis.known_speed,
        measured=basis.known_speed is not None and bool(settings.training.minutes),
    )


def check_unused_settings(training: TrainingSettings, dataset: Dataset) -> None:
    """Raise UsageError for a setting that acts on validations if there is no validation text."""
    facts = vars(training) | {VALIDATION: dataset.valid is not None}
    settings = table()
    for name in ("patience", "schedule", "average_trigger"):
        need = missing_need(settings[name], facts)
        if need and facts[name] != settings[name].default:
            raise UsageError(
                f"{named(name)} {facts[name]} has no effect without validation text; expected "
                f"{need.describe(named)}. Leave out {named(name)}"
            )


def _check_buildable(basis: Basis, model: ModelSettings) -> None:
    """Raise UsageError for a model that cannot be built, before anything is written."""
    if model.adaptive_softmax and basis.dataset.vocabulary.spec.byte_level:
        raise UsageError(
            f"{named('adaptive_softmax')} with {basis.dataset.vocabulary.unit} units, whose "
            "entries are not in the order of frequency; expected words or characters"
        )
    check_model(model, basis.vocab_size)


def _plan_batches(basis: Basis) -> TrainingSettings:
    """Return batch size and window length, smaller if the text is too short for them."""
    training, documents = basis.settings.training, basis.dataset.train.documents
    bptt = training.bptt or _window_length(basis, training)
    if bptt > basis.tokens:
        bptt = basis.choose("training.bptt", basis.tokens, constants.SHORTER_TEXT)
    batch = training.batch_size or _batch_size(basis, training, bptt)
    most = max(1, basis.tokens // (4 * bptt), documents if documents > 1 else 1)
    if batch > most:
        batch = basis.choose("training.batch_size", most, constants.SHORT_TEXT)
    basis.batch_size = batch
    spec = BatchSpec(batch_size=batch, bptt=bptt, stateless=training.stateless, seed=0)
    basis.stats = Batches(basis.dataset.train, spec).stats()
    return replace(training, bptt=bptt, batch_size=batch)


def _batch_size(basis: Basis, training: TrainingSettings, bptt: int) -> int:
    """Return the number of sequences that a batch should have."""
    if not basis.is_stream:
        mean = basis.tokens / max(basis.dataset.train.documents, 1)
        batch = min(max(round(constants.TOKENS_PER_STEP / min(mean, bptt) / 8) * 8, 16), 256)
        reason = f"documents have {mean:.0f} tokens on average"
    else:
        kind = basis.device.type
        batch = constants.DEFAULT_BATCH[kind] // (2 if _small_step_reason(basis, training) else 1)
        if kind == "cuda" and basis.tokens > constants.LARGE_TEXT:
            batch *= 2
        reason = ", ".join(filter(None, (f"on {kind}", _time_reason(basis, training))))
    return int(basis.choose("training.batch_size", batch, reason))


def _window_length(basis: Basis, training: TrainingSettings) -> int:
    """Return the window for the unit and the time, up to 4 times longer for longer documents."""
    usual = basis.unit.bptt
    if _small_step_reason(basis, training) and not training.stateless:
        usual //= 2
    if not basis.is_stream:
        longest = int(np.diff(basis.dataset.train.ends, prepend=0).max())
        if longest > usual:
            fit = "documents fit" if longest <= 4 * usual else "most documents fit"
            return int(basis.choose("training.bptt", min(longest, 4 * usual), fit))
    reason = f"for {basis.dataset.vocabulary.unit} units {_time_reason(basis, training)}"
    return int(basis.choose("training.bptt", usual, reason.rstrip()))


def _small_step_reason(basis: Basis, training: TrainingSettings) -> str:
    """Return why a CPU should make more steps rather than fast ones; "" if it should not."""
    seconds = basis.budget_seconds(training)
    if basis.device.type != "cpu" or seconds is None:
        return ""
    if seconds < constants.SHORT_RUN:
        return "for a short time"
    is_read_often = basis.is_stream and seconds > constants.MANY_PASSES * basis.tokens
    return "for a text that is read many times" if is_read_often else ""


def _time_reason(basis: Basis, training: TrainingSettings) -> str:
    has_length = bool(training.steps or training.epochs)
    return _small_step_reason(basis, training) or ("" if has_length else "for this time")


def _plan_length(
    basis: Basis, training: TrainingSettings, model: ModelSettings
) -> TrainingSettings:
    """Return the settings with a length: the user's, or passes for the default time."""
    if training.minutes:
        return _useful_minutes(basis, training, model)
    if training.epochs or training.steps:
        return training
    possible = basis.affordable_passes(constants.DEFAULT_MINUTES, model)
    useful = _useful_passes(basis)
    passes = max(min(possible, useful), basis.step_tokens(training) / basis.tokens)
    passes = float(round(passes)) if passes >= 2.0 else float(f"{passes:.3g}")
    reason = "a text this size"
    if possible < useful:
        reason = f"about {constants.DEFAULT_MINUTES:.0f} minutes at the assumed speed"
    return replace(training, epochs=basis.choose("training.epochs", passes, reason))


def _useful_passes(basis: Basis) -> float:
    """Return the passes after which a model mostly memorises a text of this size."""
    most = (
        constants.MAX_PASSES_SMALL_CORPUS
        if basis.is_small_corpus_of_documents
        else constants.MAX_PASSES
    )
    passes = min(60.0, most * max(1.0, math.sqrt(1e6 / basis.tokens)))
    return passes * (constants.FINE_TUNING_PASSES if basis.parent else 1.0)


def _useful_minutes(
    basis: Basis, training: TrainingSettings, model: ModelSettings
) -> TrainingSettings:
    """Return fewer minutes than the user gave if a small text, or any on a GPU, needs no more.

    A model whose size the user chose gets all of its minutes.
    """
    assert training.minutes
    own = basis.settings.model
    is_own_size = (own.hidden_size or own.parameters) and not basis.parent
    is_fast = basis.device.type == "cuda"
    if is_own_size or (basis.tokens > constants.FEW_TOKENS and not is_fast):
        return training
    fraction = _useful_passes(basis) / basis.passes(training, model)
    if fraction >= 1.0:
        return training
    reason = f"of {training.minutes:g}: more passes over a text of this size gain nothing"
    minutes = max(round(fraction * training.minutes, 2), 0.01)
    return replace(training, minutes=basis.choose("training.minutes", minutes, reason))


def _plan_dropout(basis: Basis, model: ModelSettings, training: TrainingSettings) -> ModelSettings:
    """Return the model with dropout that grows with the number of passes."""
    dropout = model.dropout
    if dropout is None:
        passes = basis.passes(training, model)
        slope, most = constants.FINE_TUNING_DROPOUT if basis.parent else constants.DROPOUT
        dropout = 0.02 * min(passes, 4.0) + slope * max(passes - 4.0, 0.0)
        if _is_wide(model) and not basis.parent:
            begin, more, most = constants.MORE_DROPOUT_OF_WIDE
            dropout += more * max(passes - begin, 0.0)
        dropout = round(round(min(dropout, most) / 0.05) * 0.05, 2)
        dropout = float(basis.choose("model.dropout", dropout, f"{passes:.1f} passes"))
    return with_outer_dropout(replace(model, dropout=dropout), basis.choose)


def _plan_rates(basis: Basis, training: TrainingSettings, model: ModelSettings) -> TrainingSettings:
    """Return the settings with rates, seed, validations, average and schedule."""
    check_unused_settings(training, basis.dataset)
    rate, decay, seed = training.learning_rate, training.weight_decay, training.seed
    by_optimizer = f"for {training.optimizer}"
    if rate is None and (parent := basis.parent):
        factor, reason = 1.0, f"the rate of run {parent.name}"
        if basis.foreign:
            reason = f"a foreign text, {reason}"
        elif parent.fine_tuned:
            reason += ", which was fine-tuned"
        else:
            factor, reason = constants.FINE_TUNING_RATE, f"{constants.FINE_TUNING_RATE} of {reason}"
        rate = float(f"{factor * _parent_rate(basis, training, model):.6g}")
        basis.choose("training.learning_rate", rate, reason)
    elif rate is None:
        rate = basis.choose("training.learning_rate", _rate(basis, training, model), by_optimizer)
    if decay is None:
        decay = _weight_decay(basis, training, model)
    if seed is None:
        seed = basis.choose("training.seed", secrets.randbelow(2**32), "random")
    average = _average(basis, training, model)
    spec = OPTIMIZERS[training.optimizer]
    averages = bool(average or training.average_trigger or spec.averages)
    schedule = training.schedule or basis.choose(
        "training.schedule",
        "constant" if averages else "cosine",
        "an average of weights is kept" if averages else "no average of weights is kept",
    )
    return replace(
        training, learning_rate=rate, weight_decay=decay, seed=seed, average=average,
        evals=_evals(basis, training), schedule=schedule,
        valid_tokens=_valid_tokens(basis, training, model),
    )  # fmt: skip


def _rate(basis: Basis, training: TrainingSettings, model: ModelSettings) -> float:
    """Return the learning rate for the optimiser, the cell and the size."""
    rate = OPTIMIZERS[training.optimizer].learning_rate
    if OPTIMIZERS[training.optimizer].scales_with_gradient:
        return rate
    factor = CELLS[model.cell].rate_factor
    if basis.is_small_corpus_of_documents:  # one layer at twice the rate: 2.105, not 2.085
        factor = min(factor, 1.0)
    return rate * (factor * (0.5 if _is_wide(model) else 1.0))


def _is_wide(model: ModelSettings) -> bool:
    """Report whether the layers are wider than a single layer of a plan."""
    return (model.hidden_size or 0) > constants.MAX_HIDDEN_OF_ONE_LAYER


def _weight_decay(basis: Basis, training: TrainingSettings, model: ModelSettings) -> float:
    """Return the weight decay of the optimiser, or more for a stream that is read several times."""
    decay, reason = OPTIMIZERS[training.optimizer].weight_decay, f"for {training.optimizer}"
    passes = basis.passes(training, model) if decay and basis.is_stream else 0.0
    least, most, most_of_wide = constants.PASSES_WITH_DECAY
    most = most_of_wide if _is_wide(model) else most
    if least <= passes <= most and not basis.parent:
        decay, reason = constants.WEIGHT_DECAY, f"{passes:.1f} passes"
    return float(basis.choose("training.weight_decay", decay, reason))


def _parent_rate(basis: Basis, training: TrainingSettings, model: ModelSettings) -> float:
    """Return the rate of the parent, or the usual one if that had another optimiser."""
    assert basis.parent
    before = basis.parent.settings.training
    same = before.optimizer == training.optimizer
    return (same and before.learning_rate) or _rate(basis, training, model)


def _plan_ngrams(basis: Basis, training: TrainingSettings) -> TrainingSettings:
    """Return the settings with the order of the n-grams beside the network."""
    if training.ngram is not None:
        return training
    order, reason = usual_order(basis.dataset)
    return replace(training, ngram=basis.choose("training.ngram", order, reason))


def usual_order(dataset: Dataset) -> tuple[int, str]:
    """Return the order of the n-grams beside a network, 0 for none, and the reason."""
    if dataset.valid is None:
        return 0, "no validation text for their weight"
    if len(dataset.train.ids) > constants.MAX_TOKENS_OF_NGRAMS:
        return 0, f"more than {constants.MAX_TOKENS_OF_NGRAMS:,} training tokens"
    vocabulary = dataset.vocabulary
    return vocabulary.spec.ngram_order, f"for {vocabulary.unit} units"


def _average(basis: Basis, training: TrainingSettings, model: ModelSettings) -> float:
    """Return the decay of an average over the last third of the run, for a small corpus."""
    if training.average is not None:
        return training.average
    decay = 0.0
    if OPTIMIZERS[training.optimizer].averages or training.average_trigger:
        reason = "validations decide when it begins"
    elif not basis.is_small_corpus_of_documents:
        reason = "the text is not a small corpus of documents"
    else:
        steps = basis.passes(training, model) * basis.tokens / basis.step_tokens(training)
        decay = round(min(max(1.0 - 3.0 / steps, 0.9), 0.9999), 5)
        reason = "short documents are memorised early"
    return float(basis.choose("training.average", decay, reason))


def _evals(basis: Basis, training: TrainingSettings) -> int:
    """Return fewer validations if one takes more than a quarter of the training before it."""
    valid = basis.dataset.valid
    if OPTIMIZERS[training.optimizer].averages:
        return _evals_of_nt_asgd(basis, training)
    if valid is None or training.minutes or not basis.are_evals_open(training):
        return training.evals
    tokens = basis.tokens * (training.epochs or 1.0)
    if training.steps:
        tokens = training.steps * basis.step_tokens(training)
    one = min(len(valid.ids), training.valid_tokens or len(valid.ids))
    affordable = max(1, int(tokens / (4.0 * one)))
    if affordable < training.evals:
        basis.reasons["training.evals"] = "the validation text is long for so little training"
    return min(training.evals, affordable)


def _valid_tokens(basis: Basis, training: TrainingSettings, model: ModelSettings) -> int | None:
    """Return fewer validation tokens if reading all takes long beside the training.

    A run reads them two to four times after its last step: to validate, to calibrate, and to weigh
    its n-grams.
    """
    valid, given = basis.dataset.valid, training.valid_tokens
    if given or valid is None or len(valid.ids) <= constants.MIN_VALID_TOKENS:
        return given
    read = basis.passes(training, model) * basis.tokens
    most = max(int(constants.VALID_FRACTION * read), constants.MIN_VALID_TOKENS)
    if len(valid.ids) <= most:
        return None
    rounded = round(most, 3 - len(str(most)))
    reason = f"of {len(valid.ids):,}: reading all takes long beside {read:,.0f} training tokens"
    return int(basis.choose("training.valid_tokens", rounded, reason))


def _evals_of_nt_asgd(basis: Basis, training: TrainingSettings) -> int:
    """Return one validation per pass, unless the user gave a number. Raises UsageError."""
    number = 0 if basis.dataset.valid is None else training.evals
    least = NON_MONOTONE_INTERVAL + 2
    if number < least:
        raise UsageError(
            f"nt-asgd with {number} validations; expected validation text and at least {least} "
            f"{named('evals')}, since it begins to average when they stop improving"
        )
    passes = math.ceil(training.epochs or 0)
    if not basis.are_evals_open(training) or passes <= training.evals:
        return training.evals
    return int(basis.choose("training.evals", passes, "validations decide when nt-asgd averages"))

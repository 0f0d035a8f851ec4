"""Planning: the sizes and lengths that the user left open, from the corpus and this machine.

The rule, in short. Training costs 6 operations for each weight and token, so a time and a measured
speed give a number of operations C. The model gets sqrt(C / 6r) weights, which lets it read about r
tokens for each weight (r = 2 for letters, 0.3 for words, most of whose weights are the output's); a
small text caps the size. One layer, while it is not too wide: it learns more in minutes than two of
the same weights. The numbers are in `rules`, with the measurements that they come from.
"""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.text_units import UNITS, UnitSpec
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError, named
from charlm.nn.devices import Precision
from charlm.nn.model import (
    check_model,
    count_parameters,
    multiplied_weights,
)
from charlm.nn.output import MIN_HIDDEN
from charlm.text.batches import Batches, BatchSpec, BatchStats
from charlm.text.dataset import Dataset
from charlm.training.optim import NON_MONOTONE_INTERVAL, OPTIMIZERS
from charlm.training.plan.constants import (
    CAPS,
    DEFAULT_MINUTES,
    DEFAULT_ROWS,
    LADDER,
    LARGEST,
    LETTERS,
    LONG_DOCUMENTS,
    MAX_PASSES,
    MAX_PASSES_MEMORISED,
    MAX_WITHOUT_TIME,
    MEASURING_SHARE,
    SHORT_RUN,
    SHORT_TEXT,
    SHORTER_TEXT,
    SOON_FULL,
    SOON_MEMORISED,
    SOON_READ,
    TOKENS_IN_A_STEP,
    WIDEST_ALONE,
)
from charlm.training.plan.memory import memory_problem, training_memory
from charlm.training.plan.speed import (
    OPERATIONS_PER_WEIGHT_AND_TOKEN,
    measured_speed,
    nominal_speed,
    set_threads,
    training_threads,
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings with nothing left open, and for each value that was chosen, why."""

    settings: Settings
    reasons: dict[str, str]
    passes: float = 0.0
    """Expected passes over the training text."""
    steps: float = 0.0
    """Expected steps of the optimiser."""
    memory: int = 0
    """Bytes that training needs, about."""
    speed: float | None = None
    """Operations a second that the plan counts with, if any value depends on it."""
    measured: bool = False
    """Whether that speed was measured, so that another load makes another plan."""


def plan(
    settings: Settings,
    dataset: Dataset,
    device: torch.device,
    choose_precision: Callable[[ModelSettings], Precision],
    measure: Callable[[], float] | None = None,
) -> Plan:
    """Fill in what the user left open.

    `choose_precision` decides fp32 or bf16 for a model. `measure` gives the machine's speed in
    operations a second; by default it is measured if minutes were given, whose sizes and passes
    depend on it, and nominal otherwise, so that the plan is the same under any load.
    """
    planner = _Planner(settings, dataset, device, choose_precision, measure)
    return planner.plan()


def check_unused_settings(training: TrainingSettings, dataset: Dataset) -> None:
    """Raise UsageError for what listens to validations where there are none."""
    listeners = {"patience": training.patience > 0, "plateau": training.schedule == "plateau"}
    for name, given in listeners.items():
        if given and dataset.valid is None:
            raise UsageError(
                f"{named(name)} without validation text, which it listens to; expected some"
            )


class _Planner:
    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        device: torch.device,
        choose_precision: Callable[[ModelSettings], Precision],
        measure: Callable[[], float] | None,
    ) -> None:
        self.settings, self.dataset, self.device = settings, dataset, device
        self.choose_precision = choose_precision
        self.measure = measure
        self.reasons: dict[str, str] = {}
        self.tokens = max(len(dataset.train.ids), 1)
        self.vocab_size = len(dataset.vocabulary)
        self.speed: float | None = None
        self.filling = BatchStats(tokens=1.0, steps=1.0, token_fraction=1.0)
        self.rows = 1

    def plan(self) -> Plan:
        """Decide windows, model, length, dropout and rates, in this order."""
        training = self._windows(self.settings.training)
        assert training.batch_size and training.bptt, "windows are decided"
        self.rows = training.batch_size
        spec = BatchSpec(
            batch_size=self.rows, bptt=training.bptt, stateless=training.stateless, seed=0
        )
        self.filling = Batches(self.dataset.train, spec).stats()
        model = self._model(training)
        training = self._length(training, model)
        model = self._dropout(model, training)
        if model.adaptive_softmax and self.dataset.vocabulary.spec.byte_level:
            raise UsageError(
                f"{named('adaptive_softmax')} with {self.dataset.vocabulary.unit} units, whose "
                "entries are "
                "not in the order of frequency; expected words or characters"
            )
        check_model(model, self.vocab_size)  # before anything is written
        training = self._rates(training, model)
        settings = replace(self.settings, model=model, training=training)
        passes = self._passes(training, model)
        return Plan(
            settings=settings,
            reasons=self.reasons,
            passes=passes,
            steps=passes * self.tokens / self._step_tokens(training),
            memory=training_memory(model, training, self.vocab_size),
            speed=self.speed,
            measured=self.speed is not None and bool(self.settings.training.minutes),
        )

    def _chosen(self, name: str, value: Any, reason: str) -> Any:
        self.reasons[name] = reason
        return value

    def _windows(self, training: TrainingSettings) -> TrainingSettings:
        """Window length and rows, shrunk where the text is too short for them."""
        text = self.dataset.train
        bptt = training.bptt or self._bptt(training)
        if bptt > self.tokens:
            bptt = self._chosen("training.bptt", self.tokens, SHORTER_TEXT)
        mean = self.tokens / max(text.documents, 1)
        rows = training.batch_size
        if rows is None and not self._as_stream():
            rows = min(max(round(TOKENS_IN_A_STEP / min(mean, bptt) / 8) * 8, 16), 256)
            self.reasons["training.batch_size"] = f"documents have {mean:.0f} tokens on average"
        elif rows is None:
            kind = self.device.type
            rows = DEFAULT_ROWS[kind] // (2 if self._small_steps(training) else 1)
            reason = ", ".join(filter(None, (f"on {kind}", self._time(training))))
            rows = self._chosen("training.batch_size", rows, reason)
        most = max(1, self.tokens // (4 * bptt), text.documents if text.documents > 1 else 1)
        if rows > most:
            rows = self._chosen("training.batch_size", most, SHORT_TEXT)
        return replace(training, bptt=bptt, batch_size=rows)

    def _small_steps(self, training: TrainingSettings) -> str:
        """For what a processor should make more steps rather than fast ones; empty for nothing."""
        budget = self._budget_seconds(training)
        if self.device.type != "cpu" or budget is None:
            return ""
        if budget < SHORT_RUN:
            return "for a short time"
        often = self._as_stream() and budget > SOON_READ * self.tokens
        return "for a text that is read many times" if often else ""

    def _time(self, training: TrainingSettings) -> str:
        """For what windows were chosen, as a reason."""
        given = bool(training.steps or training.epochs)
        return self._small_steps(training) or ("" if given else "for this time")

    def _as_stream(self) -> bool:
        """Whether documents are so long that they are read as one text is: in rows that go on."""
        text = self.dataset.train
        return self.tokens > LONG_DOCUMENTS * max(text.documents, 1) or text.documents <= 1

    def _unit(self) -> UnitSpec:
        """Return the facts of the text's unit; tokens of few types are planned as characters."""
        return UNITS["char"] if self.vocab_size < LETTERS else self.dataset.vocabulary.spec

    def _bptt(self, training: TrainingSettings) -> int:
        """By unit and time; where documents are longer, so that they fit, up to 4 times that."""
        usual, text = self._unit().bptt, self.dataset.train
        if self._small_steps(training) and not training.stateless:
            usual //= 2
        if not self._as_stream():
            lengths = np.diff(text.ends, prepend=0)
            longest = int(lengths.max())
            if longest > usual:
                fit = "documents fit" if longest <= 4 * usual else "most documents fit"
                return int(self._chosen("training.bptt", min(longest, 4 * usual), fit))
        reason = f"for {self.dataset.vocabulary.unit} units {self._time(training)}".rstrip()
        return int(self._chosen("training.bptt", usual, reason))

    def _model(self, training: TrainingSettings) -> ModelSettings:
        """Layers and widths: as many weights as the time allows, capped by the text."""
        model = self.settings.model
        layers = model.num_layers or self._layers(training)
        hidden = model.hidden_size
        whole = model.last_hidden_size is None
        equal = whole and model.mixture == 1
        if hidden is None and equal and model.tie_weights and model.embedding_size:
            hidden = self._chosen("model.hidden_size", model.embedding_size, "tied weights")
            self._check_most(replace(model, num_layers=layers), hidden)
        model = replace(model, num_layers=layers)
        if hidden is None and model.parameters:
            hidden = self._within(model, model.parameters)
            reason = f"at most {model.parameters:,} weights"
            hidden = self._chosen("model.hidden_size", hidden, reason)
        hidden = hidden or self._hidden_size(training, layers)
        if model.embedding_size is None:
            self.reasons["model.embedding_size"] = "for these units"
        if model.tie_weights is None:
            self.reasons["model.tie_weights"] = f"for {self.dataset.vocabulary.unit} units"
        return replace(self._completed(model, hidden), parameters=None)

    def _layers(self, training: TrainingSettings) -> int:
        """One, while it need not be too wide; two where no time is given or it is long."""
        if self._budget_seconds(training) is None:
            return int(self._chosen("model.num_layers", 2, "the length is given, not the time"))
        model = self.settings.model
        hidden = model.hidden_size or self._fitting(training, 1)
        if not CELLS[model.cell].best_with_one_layer or self._is_small_corpus_of_documents():
            return int(self._chosen("model.num_layers", 2, "two layers serve well"))
        if hidden <= WIDEST_ALONE:
            return int(self._chosen("model.num_layers", 1, "one learns more in this time than two"))
        return int(self._chosen("model.num_layers", 2, "one would have to be too wide"))

    def _completed(self, model: ModelSettings, hidden: int) -> ModelSettings:
        """The model with this hidden size, embedding and tying as they follow from it."""
        letters = bool(self._unit().letter)
        width, tie = model.embedding_size, model.tie_weights
        if width is None and model.one_hot:
            width = self.vocab_size
        if width is None:
            narrow = letters and not tie
            width = min(hidden, 128) if narrow else hidden
        alone = model.last_hidden_size is None and model.mixture == 1
        if tie and alone and not model.one_hot:
            width = hidden
        if tie is None:
            learned = CELLS[model.cell].learns_input and not self.settings.training.freeze_vectors
            fixed = model.one_hot or not learned
            fits = width == (model.last_hidden_size or hidden) or model.mixture > 1
            tie = not letters and fits and not fixed and not model.adaptive_softmax
        return replace(
            model, parameters=None, hidden_size=hidden, embedding_size=width, tie_weights=tie
        )

    def _within(self, model: ModelSettings, most: int) -> int:
        """The largest hidden size whose model has at most so many weights. Raises UsageError."""

        def weights(hidden: int) -> int:
            """Of the whole model."""
            return count_parameters(self._completed(model, hidden), self.vocab_size)

        least = MIN_HIDDEN if model.adaptive_softmax else 1
        low, high = least - 1, least
        while high < 65536 and weights(high) <= most:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if weights(middle) <= most else (low, middle)
        if low < least:
            units = "one hidden unit needs" if least == 1 else f"{least} hidden units need"
            raise UsageError(
                f"{named('parameters')} is {most:,}; expected at least {weights(least):,}, which "
                f"{units} with this vocabulary"
            )
        return low

    def _check_most(self, model: ModelSettings, hidden: int) -> None:
        """Raise UsageError where a size that follows from others makes too many weights."""
        found = count_parameters(self._completed(model, hidden), self.vocab_size)
        if model.parameters and found > model.parameters:
            raise UsageError(
                f"{named('parameters')} is {model.parameters:,}, but tied weights with "
                f"{named('embedding_size')} {hidden} make {found:,}; expected one of them, or "
                "--no-tie"
            )

    def _hidden_size(self, training: TrainingSettings, layers: int) -> int:
        budget, cap = self._budget_seconds(training), self._cap()
        if budget is None:
            self.reasons["model.hidden_size"] = f"{self.tokens:,} training tokens"
            return min(cap, MAX_WITHOUT_TIME)
        hidden = self._fitting(training, layers)
        limit = "the time" if hidden < cap else "the text" if cap < LARGEST else "the largest"
        self.reasons["model.hidden_size"] = (
            f"{self.tokens:,} training tokens, {budget / 60:.1f} minutes at "
            f"{self._speed() / 1e9:.0f} billion operations a second "
            f"({'measured' if training.minutes else 'assumed'}); {limit} sets the size"
        )
        return hidden

    def _cap(self) -> int:
        """The largest hidden size for a text of this length."""
        return next((size for limit, size in CAPS if self.tokens < limit), LARGEST)

    def _fitting(self, training: TrainingSettings, layers: int) -> int:
        """The largest hidden size that the time and the text allow."""
        budget = self._budget_seconds(training)
        assert budget is not None, "asked for where a time is known"
        each = self._unit().tokens_per_weight
        weights = math.sqrt(self._speed() * budget / (OPERATIONS_PER_WEIGHT_AND_TOKEN * each))
        cap = self._cap()
        fitting = [n for n in LADDER if self._weights(n, layers) <= weights and n <= cap]
        return max(fitting, default=LADDER[0])

    def _sized(self, hidden: int, layers: int) -> ModelSettings:
        """The model that the user's settings make with this hidden size, and as many layers."""
        model = self.settings.model
        return self._completed(replace(model, num_layers=model.num_layers or layers), hidden)

    def _weights(self, hidden: int, layers: int) -> int:
        """Weights that are multiplied for each token, for a hidden size."""
        return multiplied_weights(self._sized(hidden, layers), self.vocab_size)

    def _budget_seconds(self, training: TrainingSettings) -> float | None:
        """Seconds that the run may take; None when its length is given in steps or passes."""
        if training.steps or training.epochs:
            return None
        return 60.0 * (training.minutes or DEFAULT_MINUTES)

    def _speed(self) -> float:
        """Operations a second that are spent on tokens; padding takes its share."""
        if self.speed is None:
            self.speed = (self.measure or self._middling_speed)() * self.filling.token_fraction
        return self.speed

    def _middling_speed(self) -> float:
        """Return the speed of a middling model: measured if minutes were given, else nominal."""
        settings = self._sized(min(self._cap(), 384), 1)
        threads = self.settings.training.threads or training_threads(
            settings, self.vocab_size, self.rows, self.device
        )
        precision = self.choose_precision(settings)
        if not self.settings.training.minutes:
            return nominal_speed(self.device, precision.name, threads)
        set_threads(threads)
        return self._measured_speed(settings, precision)

    def _measured_speed(self, settings: ModelSettings, precision: Precision) -> float:
        """Measure a model in windows of the run's own shape; longer for a longer run."""
        seconds = min(60.0 * MEASURING_SHARE * (self.settings.training.minutes or 0.0), 5.0)
        steps, rows = min(max(round(self.filling.steps), 1), 64), min(self.rows, 64)
        while True:
            shape, smallest = (steps, rows), steps * rows == 1
            try:
                if smallest or not self._too_large(settings, *shape):
                    return measured_speed(
                        settings, self.vocab_size, shape, self.device, precision, seconds
                    )
            except torch.OutOfMemoryError:
                if smallest:
                    raise
            steps, rows = (steps, rows // 2) if rows > 1 else (steps // 2, rows)

    def _too_large(self, model: ModelSettings, steps: int, rows: int) -> bool:
        """Whether a step of this shape has no room here."""
        shape = replace(self.settings.training, batch_size=rows, bptt=steps)
        needed = training_memory(model, shape, self.vocab_size)
        return memory_problem(needed, self.settings, self.device) is not None

    def _length(self, training: TrainingSettings, model: ModelSettings) -> TrainingSettings:
        """Passes over the text, where neither passes, steps nor minutes were given."""
        if training.minutes:
            return self._within_use(training, model)
        if training.epochs or training.steps:
            return training
        weights = multiplied_weights(model, self.vocab_size)
        cost = OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * self.tokens
        possible = 0.85 * 60.0 * DEFAULT_MINUTES * self._speed() / cost
        wanted = self._useful_passes()
        passes = max(min(possible, wanted), self._step_tokens(training) / self.tokens)
        passes = float(round(passes)) if passes >= 2.0 else float(f"{passes:.3g}")
        self.reasons["training.epochs"] = (
            f"about {DEFAULT_MINUTES:.0f} minutes at the assumed speed"
            if possible < wanted
            else "a text this size"
        )
        return replace(training, epochs=passes)

    def _useful_passes(self) -> float:
        """Passes beyond which a text of this size is rather learnt by heart."""
        most = MAX_PASSES_MEMORISED if self._is_small_corpus_of_documents() else MAX_PASSES
        return min(60.0, most * max(1.0, math.sqrt(1e6 / self.tokens)))

    def _within_use(self, training: TrainingSettings, model: ModelSettings) -> TrainingSettings:
        """Fewer minutes than were given, where a small text fills no more of them usefully.

        A model whose size the user chose is not learnt by heart by rule; it gets its minutes.
        """
        assert training.minutes
        own = self.settings.model
        if own.hidden_size or own.parameters or self.tokens > SOON_FULL:
            return training
        share = self._useful_passes() / self._passes(training, model)
        if share >= 1.0:
            return training
        reason = f"of {training.minutes:g}: more passes over a text of this size gain nothing"
        minutes = max(round(share * training.minutes, 2), 0.01)
        return replace(training, minutes=self._chosen("training.minutes", minutes, reason))

    def _passes(self, training: TrainingSettings, model: ModelSettings) -> float:
        """Expected passes over the text."""
        if training.epochs:
            return training.epochs
        if training.steps:
            return training.steps * self._step_tokens(training) / self.tokens
        cost = OPERATIONS_PER_WEIGHT_AND_TOKEN * multiplied_weights(model, self.vocab_size)
        return self._speed() * 60.0 * (training.minutes or 0.0) * 0.9 / (cost * self.tokens)

    def _dropout(self, model: ModelSettings, training: TrainingSettings) -> ModelSettings:
        share = model.dropout
        if share is None:
            passes = self._passes(training, model)
            share = 0.03 * min(passes, 4.0) + 0.015 * max(passes - 4.0, 0.0)
            share = round(min(share, 0.4) / 0.05) * 0.05
            share = self._chosen("model.dropout", round(share, 2), f"{passes:.1f} passes")
        into = model.input_dropout
        into = into if into is not None else self._chosen("model.input_dropout", share / 2, "half")
        out = model.output_dropout
        out = out if out is not None else self._chosen("model.output_dropout", share, "the same")
        return replace(model, dropout=share, input_dropout=into, output_dropout=out)

    def _rates(self, training: TrainingSettings, model: ModelSettings) -> TrainingSettings:
        check_unused_settings(training, self.dataset)
        rate = training.learning_rate
        if rate is None:
            rate = OPTIMIZERS[training.optimizer][1]
            large = (model.hidden_size or 0) > WIDEST_ALONE
            if "sgd" not in training.optimizer:
                share = CELLS[model.cell].rate_factor
                if (
                    self._is_small_corpus_of_documents()
                ):  # one layer at twice the rate: 2.105, not 2.085
                    share = min(share, 1.0)
                rate *= share * (0.5 if large else 1.0)
            rate = self._chosen("training.learning_rate", rate, f"for {training.optimizer}")
        decay = training.weight_decay
        if decay is None:
            decay = 0.01 if training.optimizer == "adamw" else 0.0
            self._chosen("training.weight_decay", decay, f"for {training.optimizer}")
        seed = training.seed
        if seed is None:
            seed = self._chosen("training.seed", secrets.randbelow(2**32), "drawn at random")
        average = self._average(training, model)
        averaged = bool(average or training.average_trigger) or training.optimizer == "nt-asgd"
        schedule = training.schedule or self._chosen(
            "training.schedule",
            "constant" if averaged else "cosine",
            "an average of weights is kept" if averaged else "no average of weights is kept",
        )
        return replace(
            training,
            learning_rate=rate,
            weight_decay=decay,
            seed=seed,
            evals=self._evals(training),
            average=average,
            schedule=schedule,
        )

    def _is_small_corpus_of_documents(self) -> bool:
        """Whether the text is short documents of letters, and not many."""
        vocabulary, text = self.dataset.vocabulary, self.dataset.train
        short = text.documents > 1 and not self._as_stream()
        return bool(vocabulary.spec.letter) and short and self.tokens <= SOON_MEMORISED

    def _average(self, training: TrainingSettings, model: ModelSettings) -> float:
        """An average over about the last third of the run, where documents are soon memorised."""
        if training.average is not None:
            return training.average
        if training.average_trigger and self.dataset.valid is None:
            raise UsageError(
                f"{named('average_trigger')} without validation text, which it listens to; "
                "expected some, or "
                "average_trigger=0"
            )
        if training.optimizer == "nt-asgd" or training.average_trigger:
            return float(self._chosen("training.average", 0.0, "it begins by the validations"))
        if not self._is_small_corpus_of_documents():
            return float(self._chosen("training.average", 0.0, "the text is not soon memorised"))
        steps = self._passes(training, model) * self.tokens / self._step_tokens(training)
        reason = "such documents are soon memorised"
        decay = round(min(max(1.0 - 3.0 / steps, 0.9), 0.9999), 5)
        return float(self._chosen("training.average", decay, reason))

    def _evals_to_listen_to(self, training: TrainingSettings) -> int:
        """For nt-asgd one for each pass, unless the user said how many. Raises UsageError."""
        least = NON_MONOTONE_INTERVAL + 2
        if self.dataset.valid is None or training.evals < least:
            there = 0 if self.dataset.valid is None else training.evals
            raise UsageError(
                f"nt-asgd with {there} validations; expected validation text and at least {least} "
                "--evals, since it begins to average when they stop to gain"
            )
        passes = math.ceil(training.epochs or 0)
        if training.evals != TrainingSettings().evals or passes <= training.evals:
            return training.evals
        return int(self._chosen("training.evals", passes, "nt-asgd listens to them"))

    def _evals(self, training: TrainingSettings) -> int:
        """Fewer validations where one costs more than a share of the training between two."""
        valid = self.dataset.valid
        if training.optimizer == "nt-asgd":
            return self._evals_to_listen_to(training)
        if valid is None or training.minutes or training.evals != TrainingSettings().evals:
            return training.evals
        tokens = self.tokens * (training.epochs or 1.0)
        if training.steps:
            tokens = training.steps * self._step_tokens(training)
        affordable = max(1, int(tokens / (4.0 * len(valid.ids))))
        if affordable < training.evals:
            self.reasons["training.evals"] = "the validation text is long beside the training"
        return min(training.evals, affordable)

    def _step_tokens(self, training: TrainingSettings) -> float:
        """Tokens of one step of the optimiser, on average."""
        return self.filling.tokens * training.accumulate

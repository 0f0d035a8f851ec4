"""The facts that a plan is made from: the text, the time, and the speed of this machine."""

from dataclasses import replace

import torch

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.text_units import UNITS, UnitSpec
from charlm.config.training import TrainingSettings
from charlm.nn.allocation import one_memory_error
from charlm.nn.devices import Precision
from charlm.text.batches import BatchStats
from charlm.text.dataset import Dataset
from charlm.training.plan import constants, speed
from charlm.training.plan.memory import memory_problem, training_memory
from charlm.training.plan.usual import choices
from charlm.training.processes import current_processes
from charlm.training.step import MemoryFull

MEASURED_HIDDEN = 384
"""Largest hidden size of the model whose speed is measured on a processor. A GPU is several times
faster with larger layers and batches, so that those of the run are measured."""
MEASURED_DROPOUT = 0.2
"""Dropout of that model on a GPU if it is open. Without any, one call of cuDNN computes all layers:
3.0 ms a step with 2 x 512 units on an H200, and 4.6 with a call for each."""
MAX_LETTER_EMBEDDING = 128
"""Largest planned width of an embedding of letters."""


class Basis:
    """Facts for a plan, with the reasons of the values that were chosen so far."""

    def __init__(self, settings: Settings, dataset: Dataset, inputs: speed.PlanInputs) -> None:
        self.settings, self.dataset, self.device = settings, dataset, inputs.device
        self.choose_precision, self.measure = inputs.choose_precision, inputs.measure
        self.parent, self.foreign = inputs.parent, inputs.foreign
        self.are_evals_open = inputs.are_evals_open
        self.reasons: dict[str, str] = {}
        self.choose = choices(self.reasons)
        self.tokens = max(len(dataset.train.ids), 1)
        self.vocab_size = len(dataset.vocabulary)
        self.known_speed: float | None = None
        """Operations per second, once a value depends on it."""
        self.stats = BatchStats(tokens=1.0, steps=1.0, token_fraction=1.0)
        self.batch_size = 1

    @property
    def unit(self) -> UnitSpec:
        """The row of the text's unit; a text of few types is planned as characters."""
        if self.vocab_size < constants.MAX_CHARACTER_TYPES:
            return UNITS["char"]
        return self.dataset.vocabulary.spec

    @property
    def is_stream(self) -> bool:
        """True if the text is read as one stream: it is one, or its documents are long."""
        documents = self.dataset.train.documents
        return documents <= 1 or self.tokens > constants.LONG_DOCUMENT_TOKENS * documents

    @property
    def is_small_corpus_of_documents(self) -> bool:
        """True if the text is a small corpus of short documents of letters."""
        letters = bool(self.dataset.vocabulary.spec.letter)
        return letters and not self.is_stream and self.tokens <= constants.SMALL_CORPUS_TOKENS

    @property
    def max_hidden(self) -> int:
        """The largest hidden size for a text of this length."""
        sizes = (size for limit, size in constants.MAX_HIDDEN_OF_TEXT if self.tokens < limit)
        return next(sizes, constants.MAX_HIDDEN)

    def budget_seconds(self, training: TrainingSettings) -> float | None:
        """Return the seconds that the run may take; None if its length is in steps or passes."""
        if training.steps or training.epochs:
            return None
        return 60.0 * (training.minutes or constants.DEFAULT_MINUTES)

    def step_tokens(self, training: TrainingSettings) -> float:
        """Return the mean number of tokens in one step of the optimiser."""
        return self.stats.tokens * training.accumulate

    def pass_operations(self, model: ModelSettings) -> float:
        """Return the operations of one pass over the text."""
        return speed.operations_per_token(model, self.vocab_size) * self.tokens

    def passes(self, training: TrainingSettings, model: ModelSettings) -> float:
        """Return the expected passes over the text."""
        if training.epochs:
            return training.epochs
        if training.steps:
            return training.steps * self.step_tokens(training) / self.tokens
        return self.affordable_passes(training.minutes or 0.0, model)

    def affordable_passes(self, minutes: float, model: ModelSettings) -> float:
        """Return the passes over the text for which a time is long enough."""
        seconds = constants.TRAINING_FRACTION * 60.0 * minutes
        return seconds * self.speed() / self.pass_operations(model)

    def sized(self, hidden: int, layers: int) -> ModelSettings:
        """Return the user's model with this hidden size, and this depth if that is open."""
        model = self.settings.model
        return self.completed(replace(model, num_layers=model.num_layers or layers), hidden)

    def completed(self, model: ModelSettings, hidden: int) -> ModelSettings:
        """Return a model with this hidden size, and the embedding and tying that follow from it."""
        letters = bool(self.unit.letter)
        width, tie = model.embedding_size, model.tie_weights
        if width is None and model.one_hot:
            width = self.vocab_size
        if width is None:
            width = min(hidden, MAX_LETTER_EMBEDDING) if letters and not tie else hidden
        if tie and not model.one_hot and model.last_hidden_size is None and model.mixture == 1:
            width = hidden
        if tie is None:
            learned = CELLS[model.cell].learns_input and not self.settings.training.freeze_vectors
            fits = width == (model.last_hidden_size or hidden) or model.mixture > 1
            possible = fits and learned and not model.one_hot and not model.adaptive_softmax
            tie = possible and not letters
        return replace(
            model, parameters=None, hidden_size=hidden, embedding_size=width, tie_weights=tie
        )

    def speed(self) -> float:
        """Return the operations per second that are spent on tokens and not on padding."""
        if self.known_speed is None:
            measure = self.measure or self._middling_speed
            each = measure() * self.stats.token_fraction
            self.known_speed = each * current_processes().count
        return self.known_speed

    def _middling_speed(self) -> float:
        """Return the speed of a middling model: measured if minutes were given, else nominal."""
        model = self._middling_model()
        threads = self.settings.training.threads or speed.training_threads(
            model, self.vocab_size, self.batch_size, self.device
        )
        minutes = self.settings.training.minutes
        if not minutes and self.device.type in constants.NOMINAL_SPEED_OF_DEVICE:
            return speed.nominal_speed(self.device, "", threads)
        precision = self.choose_precision(model, self.batch_size)
        if not minutes:
            return speed.nominal_speed(self.device, precision.name, threads)
        speed.set_threads(threads)
        return self._measured_speed(model, precision)

    def _middling_model(self) -> ModelSettings:
        """Return the model of which the speed is known.

        On a GPU it has the size, the depth and the dropout that the run will probably have: there,
        the time grows with the number of layers and steps more than with that of operations.
        """
        if self.device.type == "cpu":
            return self.sized(min(self.max_hidden, MEASURED_HIDDEN), 1)
        hidden = self.settings.model.hidden_size or self.max_hidden
        model = self.sized(hidden, 2 if hidden > constants.MAX_HIDDEN_OF_ONE_LAYER else 1)
        return replace(model, dropout=MEASURED_DROPOUT) if model.dropout is None else model

    def _measured_speed(self, model: ModelSettings, precision: Precision) -> float:
        """Measure a model with batches of the run's own shape; longer for a longer run."""
        minutes = self.settings.training.minutes or 0.0
        seconds = min(60.0 * constants.MEASURING_FRACTION * minutes, 5.0)
        steps, batch = max(round(self.stats.steps), 1), self.batch_size
        if self.device.type == "cpu":
            steps, batch = min(steps, 64), min(batch, 64)
        while True:
            is_smallest = steps * batch == 1
            try:
                if is_smallest or self._fits(model, steps, batch):
                    with one_memory_error():
                        return speed.measured_speed(
                            model, self.vocab_size, (steps, batch), self.device, precision, seconds
                        )
            except (torch.OutOfMemoryError, MemoryFull):
                if is_smallest:
                    raise
            steps, batch = (steps, batch // 2) if batch > 1 else (steps // 2, batch)

    def _fits(self, model: ModelSettings, steps: int, batch: int) -> bool:
        shape = replace(self.settings.training, batch_size=batch, bptt=steps)
        needed = training_memory(model, shape, self.vocab_size)
        return memory_problem(needed, self.settings, self.device) is None

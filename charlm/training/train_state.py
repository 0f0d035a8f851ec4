"""The train state: everything that changes while a model is trained."""

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

from charlm.config.training import TrainingSettings
from charlm.inference.figures import Figures, figures_from
from charlm.nn.dropout import Draws
from charlm.nn.encoder import Encoder, State
from charlm.nn.low_precision import LossScale
from charlm.text.batches import Batch, Position
from charlm.training.averaging import WeightAverage
from charlm.training.optim import build_optimizer

MAX_WARNINGS = 10
"""Warnings about numbers in one run; later ones are left out."""


@dataclass(kw_only=True)
class Counters:
    """The part of the train state that is plain numbers; `state.json` keeps them by these names.

    `epoch`, `group` and `offset` are the position of the next batch. `without_gain` counts the
    validations since the best one, `plateau` is the factor of schedule `plateau`, `parts` the
    number of parts that a batch is split into to fit in memory. `averaged_from` is the number of
    updates before the weight average began. The `sum_...` fields are totals since the last step
    record.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epoch: int = 0
    group: int = 0
    offset: int = 0
    evaluations: int = 0
    last_progress: float = 0.0
    evaluation_seconds: float = 0.0
    best_nats: float | None = None
    best_step: int = 0
    best_tally: dict[str, Any] | None = None
    without_gain: int = 0
    plateau: float = 1.0
    validation_nats: list[float] = field(default_factory=list)
    averaged_from: int = 0
    warnings: int = 0
    parts: int = 1
    skipped: int = 0
    skipped_in_a_row: int = 0
    rewinds: int = 0
    sum_nats: float = 0.0
    sum_tokens: int = 0
    sum_clipped: int = 0
    finished: str = ""

    @property
    def position(self) -> Position:
        """Position of the next batch."""
        return Position(epoch=self.epoch, group=self.group, offset=self.offset)

    @property
    def updates(self) -> int:
        """Number of steps that changed the weights."""
        return self.step - self.skipped

    @property
    def warns(self) -> bool:
        """True if more warnings about numbers are shown."""
        return self.warnings < MAX_WARNINGS

    @property
    def best(self) -> Figures | None:
        """Validation figures of the best weights so far."""
        return figures_from(self.best_tally) if self.best_tally else None

    def take_as_best(self, tally: Figures) -> None:
        """Record that the newest weights are the best ones, with these validation figures."""
        self.best_nats, self.best_step, self.best_tally = tally.nats, self.step, tally.sums()

    def forget_validations(self) -> None:
        """Forget the figures of earlier validations, which later ones cannot be compared with."""
        self.best_nats, self.best_tally, self.without_gain, self.validation_nats = None, None, 0, []

    def pass_batch(self, batch: Batch) -> None:
        """Count a batch as read, and move on to the next one."""
        self.tokens += batch.tokens
        self.epoch, self.group = batch.next.epoch, batch.next.group
        self.offset = batch.next.offset

    def after_rewind(self, now: "Counters", factor: float) -> None:
        """Adapt these counters of an older checkpoint to a run that rewound to it from `now`.

        The rate is multiplied by `factor` for each rewind. The best figures stay, since the best
        weights are kept, and so does the time that has passed.
        """
        self.rewinds = now.rewinds + 1
        self.plateau = min(self.plateau, now.plateau) * factor
        self.parts = now.parts
        self.seconds = max(self.seconds, now.seconds)
        self.evaluations = max(self.evaluations, now.evaluations)
        self.evaluation_seconds = max(self.evaluation_seconds, now.evaluation_seconds)
        self.best_nats, self.best_step = now.best_nats, now.best_step
        self.best_tally = now.best_tally


class TrainState:
    """Everything that changes during training.

    `hidden` is the recurrent state after the newest batch, `average` the average of the weights,
    `generator` the source of all dropout. `loss_scale` is the one of training in float16, None in
    other number types. `target` is the noun of what `tokens` count.
    """

    def __init__(self, model: Encoder, settings: TrainingSettings, target: str = "token") -> None:
        device = model.device
        self.model, self.settings, self.target = model, settings, target
        self.optimizer = build_optimizer(model.parameters(), settings)
        self.generator = Draws(device)
        self.generator.manual_seed(settings.seed or 0)
        self.counters = Counters()
        self.hidden: State | None = None
        self.loss_scale: LossScale | None = None
        self.average: WeightAverage | None = None
        self.begin_average()

    def begin_average(self) -> None:
        """Begin the average that settings and counters ask for, if any, at the current weights."""
        self.average, since = None, self.counters.averaged_from
        if self.settings.average:
            self.average = WeightAverage(self.model, self.settings.average)
        elif since:
            self.average = WeightAverage(self.model, None, since)

    def kept_weights(self) -> contextlib.AbstractContextManager[None]:
        """Put the weights that are evaluated and kept into the model: the average, if any."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def mark(self) -> tuple[Counters, State | None]:
        """Return what `return_to` needs to undo a step that has not yet changed the weights.

        The recurrent state is copied: a step may write the new one to the same memory.
        """
        hidden = self.hidden
        if hidden is not None:
            hidden = tuple(tuple(tensor.clone() for tensor in layer) for layer in hidden)
        return replace(self.counters), hidden

    def return_to(self, mark: tuple[Counters, State | None]) -> None:
        """Undo a step that has not yet changed the weights; `parts` stay."""
        self.optimizer.zero_grad()
        counters, self.hidden = mark
        self.counters = replace(counters, parts=self.counters.parts)

    def record_fields(self) -> dict[str, Any]:
        """Return the fields that every record has: step, epoch, tokens, seconds, target."""
        counters = self.counters
        return {
            "step": counters.step,
            "epoch": counters.epoch,
            "tokens": counters.tokens,
            "seconds": round(counters.seconds, 3),
            "target": self.target,
        }

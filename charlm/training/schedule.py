"""The schedule of a run: its progress, what is due next, and the learning rate."""

import math
from dataclasses import dataclass

from charlm.config.class_path import resolve
from charlm.config.optimizers import OPTIMIZERS, SCHEDULES
from charlm.config.training import TrainingSettings
from charlm.tasks.task import Order
from charlm.text.batches import Batch
from charlm.training.averaging import non_monotone
from charlm.training.train_state import Counters

EVALUATION_FRACTION = 0.1
"""Fraction of a time budget that validations take at most, approximately."""


@dataclass(frozen=True)
class Schedule:
    """The schedule of a run under complete settings on batches of a text; it never changes."""

    settings: TrainingSettings
    batches: Order

    def progress(self, counters: Counters) -> float:
        """Return the fraction of the run that is done, from 0 to 1."""
        settings = self.settings
        if settings.steps:
            return min(counters.step / settings.steps, 1.0)
        if settings.minutes:
            return min(counters.seconds / (60.0 * settings.minutes), 1.0)
        total = (settings.epochs or 1.0) * self.batches.total
        return min(counters.tokens / total, 1.0)

    def passes(self, counters: Counters) -> float:
        """Return the passes over the training text so far."""
        return counters.tokens / max(self.batches.total, 1)

    def completion(self, counters: Counters) -> str:
        """Return why the run is over, `complete` or `patience`; empty while it is not."""
        if self.settings.patience and counters.without_gain >= self.settings.patience:
            return "patience"
        return "complete" if self.progress(counters) >= 1.0 else ""

    def evaluation_is_due(self, counters: Counters, tokens: int) -> bool:
        """Return whether a validation on `tokens` tokens follows this step.

        The first validation is expected to take as long as training on as many tokens.
        """
        settings, progress = self.settings, self.progress(counters)
        if progress >= 1.0:
            return True
        gap = 1.0 / settings.evals
        if settings.minutes:
            seconds = counters.seconds * tokens / max(counters.tokens, 1)
            if counters.evaluations:
                seconds = counters.evaluation_seconds / counters.evaluations
            gap = max(gap, seconds / (EVALUATION_FRACTION * 60.0 * settings.minutes))
        return progress - counters.last_progress >= gap - 1e-9

    def average_is_due(self, counters: Counters) -> bool:
        """Return whether the mean of all weights begins after the newest validation."""
        settings = self.settings
        if OPTIMIZERS[settings.optimizer].averages:
            return non_monotone(counters.validation_nats)
        late = self.progress(counters) >= settings.average_latest
        return settings.average_trigger > 0 and (
            late or counters.without_gain >= settings.average_trigger
        )

    def learning_rate(self, counters: Counters, batch_factor: float) -> float:
        """Return the learning rate of a step; see `batch_factor`."""
        factor = rate_factor(self.settings, self.progress(counters), self.passes(counters))
        return (self.settings.learning_rate or 0.0) * (factor * counters.plateau) * batch_factor

    def token_fraction(self, batch: Batch) -> float:
        """Return 1, or less if a batch has fewer than half of the usual targets (end of a group).

        The gradient of such a batch is noisier than that of a full one; unscaled, it would be
        clipped to the same length and inflate Adam's second moments.
        """
        return min(1.0, 2.0 * batch.tokens / self.batches.typical(batch))

    def batch_factor(self, batch: Batch) -> float:
        """Return the factor on the rate for the size of a batch.

        If window lengths are random, the rate is proportional to them (Merity et al. 2018). The
        steps of SGD are proportional to the gradient, which has its token fraction already.
        """
        factor = 1.0
        if self.settings.random_bptt:
            factor = len(batch.inputs) / (self.settings.bptt or 1)
        if not OPTIMIZERS[self.settings.optimizer].scales_with_gradient:
            factor *= self.token_fraction(batch)
        return factor


def rate_factor(settings: TrainingSettings, progress: float, passes: float = 0.0) -> float:
    """Return the factor on the highest learning rate, warm-up included.

    `progress` runs from 0 to 1; `passes` are the passes over the text so far.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < settings.warmup:
        return max(progress / settings.warmup, 1e-3)
    after_warmup = (progress - settings.warmup) / max(1.0 - settings.warmup, 1e-12)
    factor = resolve(SCHEDULES[settings.schedule or "cosine"].factor)
    return float(factor(settings, after_warmup, passes))


def cosine(settings: TrainingSettings, progress: float, passes: float) -> float:  # noqa: ARG001
    """Fall from 1 to the final rate along half a cosine (Loshchilov & Hutter 2017)."""
    final = settings.final_rate
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def linear(settings: TrainingSettings, progress: float, passes: float) -> float:  # noqa: ARG001
    """Fall from 1 to the final rate along a line."""
    return 1.0 - (1.0 - settings.final_rate) * progress


def constant(settings: TrainingSettings, progress: float, passes: float) -> float:  # noqa: ARG001
    """Stay at 1."""
    return 1.0


def step(settings: TrainingSettings, progress: float, passes: float) -> float:  # noqa: ARG001
    """Stay at 1 for half of the run, then halve at every tenth of it, down to the final rate."""
    halvings = max(0, math.floor((progress - 0.4) * 10.0 + 1e-9))
    return max(float(0.5**halvings), settings.final_rate)


def decay(settings: TrainingSettings, progress: float, passes: float) -> float:  # noqa: ARG001
    """Multiply by `decay` after `decay_from` passes and then every `decay_every`.

    Do so `decay_times` times at most, or until the end if that is 0.
    """
    times = math.floor((passes - settings.decay_from) / settings.decay_every + 1e-9) + 1
    times = max(times, 0)
    return float(settings.decay ** min(times, settings.decay_times or times))

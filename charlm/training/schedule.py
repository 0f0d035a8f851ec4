"""What a run's settings ask for at a given moment: how far it is, what is due, at which rate."""

import math
from dataclasses import dataclass

from charlm.config.training import TrainingSettings
from charlm.text.batches import Batch
from charlm.text.encoded import EncodedText
from charlm.training.optim import non_monotone, rate_share
from charlm.training.train_state import TrainState

EVALUATION_SHARE = 0.1
"""With a time budget, validations take at most about this share of it."""


@dataclass(frozen=True)
class Schedule:
    """Of a run under complete settings, on a training text. Holds nothing that changes."""

    settings: TrainingSettings
    text: EncodedText

    def progress(self, counters: TrainState) -> float:
        """Share of the run that is done, from 0 to 1."""
        settings = self.settings
        if settings.steps:
            return min(counters.step / settings.steps, 1.0)
        if settings.minutes:
            return min(counters.seconds / (60.0 * settings.minutes), 1.0)
        whole = (settings.epochs or 1.0) * len(self.text.ids)
        return min(counters.tokens / whole, 1.0)

    def passes(self, counters: TrainState) -> float:
        """Passes over the training text so far."""
        return counters.tokens / max(len(self.text.ids), 1)

    def completion(self, counters: TrainState) -> str:
        """Why the run is over, `complete` or `patience`; empty while it is not."""
        if self.settings.patience and counters.without_gain >= self.settings.patience:
            return "patience"
        return "complete" if self.progress(counters) >= 1.0 else ""

    def evaluation_is_due(self, counters: TrainState, tokens: int) -> bool:
        """Whether a validation comes after this step, on a text of so many tokens.

        Until there was one, it is expected to take as long as training on as many tokens does.
        """
        settings, progress = self.settings, self.progress(counters)
        if progress >= 1.0:
            return True
        gap = 1.0 / settings.evals
        if settings.minutes:
            each = counters.seconds * tokens / max(counters.tokens, 1)
            if counters.evaluations:
                each = counters.evaluation_seconds / counters.evaluations
            gap = max(gap, each / (EVALUATION_SHARE * 60.0 * settings.minutes))
        return progress - counters.last_progress >= gap - 1e-9

    def average_is_due(self, counters: TrainState) -> bool:
        """Whether a mean of all weights begins after the newest validation."""
        settings = self.settings
        if settings.optimizer == "nt-asgd":
            return non_monotone(counters.validation_nats)
        late = self.progress(counters) >= settings.average_latest
        return settings.average_trigger > 0 and (
            late or counters.without_gain >= settings.average_trigger
        )

    def learning_rate(self, counters: TrainState, token_fraction: float) -> float:
        """Return the scheduled rate times the token fraction of the step (see `token_fraction`)."""
        share = rate_share(self.settings, self.progress(counters), self.passes(counters))
        return (self.settings.learning_rate or 0.0) * (share * counters.plateau) * token_fraction

    def token_fraction(self, batch: Batch) -> float:
        """1, or less for windows with fewer than half of the usual tokens (the end of a group).

        Their gradient is noise beside that of a full batch; unscaled, it would be clipped to the
        same length and swell Adam's second moments.
        """
        settings = self.settings
        steps = len(batch.inputs) if settings.random_bptt else settings.bptt or 1
        mean = len(self.text.ids) / max(self.text.documents, 1)
        typical = math.ceil((settings.batch_size or 1) * min(steps, mean))
        return min(1.0, 2.0 * batch.tokens / typical)

    def length_share(self, batch: Batch) -> float:
        """Where batch lengths are drawn the rate goes with them (Merity et al. 2018)."""
        if not self.settings.random_bptt:
            return 1.0
        return len(batch.inputs) / (self.settings.bptt or 1)

"""Where a run stands, in plain values that a snapshot keeps."""

from dataclasses import dataclass, field

from charlm.text.batches import Position


@dataclass(kw_only=True)
class TrainState:
    """Where a run stands, in plain values."""

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
    best_tally: dict[str, float | int] | None = None
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
        """Where reading goes on."""
        return Position(epoch=self.epoch, group=self.group, offset=self.offset)

    def after_rewind(self, now: "TrainState", factor: float) -> None:
        """Make these, of an older state, those of a run that went back to it from `now`.

        The rate is multiplied by `factor` once more for each time that the run went back; the
        best figures belong to weights that are kept, and time that has passed has passed.
        """
        self.rewinds = now.rewinds + 1
        self.plateau = min(self.plateau, now.plateau) * factor
        self.parts = now.parts
        self.seconds = max(self.seconds, now.seconds)
        self.evaluations = max(self.evaluations, now.evaluations)
        self.evaluation_seconds = max(self.evaluation_seconds, now.evaluation_seconds)
        self.best_nats, self.best_step = now.best_nats, now.best_step
        self.best_tally = now.best_tally

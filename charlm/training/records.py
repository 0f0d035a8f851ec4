"""What a trainer yields: plain records of what happened, ready for a log, a bar or a plot."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from charlm.units import Tally, finite, flat_figures


@dataclass(frozen=True, kw_only=True)
class Record:
    """Something that happened at a step. `seconds` is the time trained so far, all sittings."""

    kind: ClassVar[str] = "record"
    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that the short form shows, beside the step."""

    step: int
    epoch: int
    tokens: int
    seconds: float

    def __repr__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.shown)
        parts = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value!r:.100}"
            for name, value in values
            if value is not None
        ]
        return f"{type(self).__name__}({', '.join([f'step {self.step:,}', *parts])})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None."""
        values = {"kind": self.kind, **asdict(self)}
        return {
            key: finite(value) if isinstance(value, float) else value
            for key, value in values.items()
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class StepRecord(Record):
    """Training since the last such record: mean nats per token, gradient norm before clipping."""

    kind: ClassVar[str] = "step"
    shown: ClassVar[tuple[str, ...]] = ("progress", "nats_per_token")

    progress: float
    nats_per_token: float
    learning_rate: float
    gradient_norm: float
    clipped: float
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True, repr=False)
class WarningRecord(Record):
    """Something that the user should know of, as a sentence."""

    kind: ClassVar[str] = "warning"
    shown: ClassVar[tuple[str, ...]] = ("text",)

    text: str


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationRecord(Record):
    """A full pass over the validation text; `best` when no earlier one was better."""

    kind: ClassVar[str] = "evaluation"
    shown: ClassVar[tuple[str, ...]] = ("tally", "best")

    progress: float
    best: bool
    tally: Tally

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; the figures are named `valid_nats_per_token` and so on."""
        return flat_figures(Record.to_dict(self) | {"tally": self.tally.summary()})


@dataclass(frozen=True, kw_only=True, repr=False)
class SavedRecord(Record):
    """A checkpoint from which training can go on."""

    kind: ClassVar[str] = "saved"
    shown: ClassVar[tuple[str, ...]] = ("path",)

    path: str


@dataclass(frozen=True, kw_only=True)
class Memory:
    """How much of what a model writes stands in its training text.

    `overlap` tokens of `text` in a row stand there; `novel` is the share of its windows of eight
    tokens that do not, `novel_held_out` the same share of the validation text.
    """

    overlap: int
    text: str
    novel: float | None
    novel_held_out: float | None


@dataclass(frozen=True, kw_only=True)
class Review:
    """Nats per token of a piece of the training text, what follows, and what was memorised."""

    train_nats_per_token: float
    advice: list[str]
    memory: Memory | None


@dataclass(frozen=True, kw_only=True, repr=False)
class FinishedRecord(Record):
    """The end of this sitting: why, and the figures of the best weights.

    `logit_scale` is the factor that calibration found on the validation text, 1 where it found
    nothing to gain; `valid_uncalibrated` are the figures without it. `path` is the run's folder;
    it is not in `to_dict`, since files of a run can be moved.
    """

    kind: ClassVar[str] = "finished"
    shown: ClassVar[tuple[str, ...]] = ("reason", "valid", "test", "path")

    reason: str
    best_step: int
    path: str = ""
    valid: Tally | None = None
    test: Tally | None = None
    valid_uncalibrated: Tally | None = None
    logit_scale: float = 1.0
    warnings: list[str] = field(default_factory=list)
    review: Review | None = None

    @property
    def complete(self) -> bool:
        """Whether the run came to its end (and not to an interruption)."""
        return self.reason in ("complete", "patience")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; the figures are named `valid_...`, `test_...` and so on."""
        return flat_figures(self.results())

    def results(self) -> dict[str, Any]:
        """Return plain values, the figures of each text in a table of its own, as in run.json."""
        plain = Record.to_dict(self)
        del plain["path"]
        plain["notes"] = plain.pop("warnings")
        for name in ("valid", "test", "valid_uncalibrated"):
            tally = getattr(self, name)
            plain[name] = tally.summary() if tally else None
        return plain

"""Records: what a trainer yields, as plain values for a log, a progress bar or a plot."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from charlm.inference.figures import Figures
from charlm.units import finite, flat_figures


@dataclass(frozen=True, kw_only=True)
class Record:
    """An event at a step. `seconds` is the time trained so far, in all sessions.

    `tokens` counts targets. If they are texts, plain values are named `texts`, `nats_per_text` and
    so on.
    """

    kind: ClassVar[str] = "record"
    shown: ClassVar[tuple[str, ...]] = ()
    """Fields that `repr` shows after the step."""

    step: int
    epoch: int
    tokens: int
    seconds: float
    target: str = "token"

    def __repr__(self) -> str:
        values = ((self._named(name), getattr(self, name)) for name in self.shown)
        figures = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value!r:.100}"
            for name, value in values
            if value is not None
        ]
        return f"{type(self).__name__}({', '.join([f'step {self.step:,}', *figures])})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; numbers that are not finite become None."""
        values = {"kind": self.kind, **asdict(self)}
        del values["target"]
        return {
            self._named(key): finite(value) if isinstance(value, float) else value
            for key, value in values.items()
        }

    def _named(self, field_name: str) -> str:
        return field_name.replace("token", self.target)


@dataclass(frozen=True, kw_only=True, repr=False)
class StepRecord(Record):
    """Training since the last step record.

    `nats_per_token` is the mean over its tokens, `gradient_norm` the newest norm before clipping,
    `clipped` the fraction of its steps that were clipped.
    """

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
    """A warning, as a sentence."""

    kind: ClassVar[str] = "warning"
    shown: ClassVar[tuple[str, ...]] = ("text",)

    text: str


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationRecord(Record):
    """A validation; `best` if no earlier one was better."""

    kind: ClassVar[str] = "evaluation"
    shown: ClassVar[tuple[str, ...]] = ("tally", "best")

    progress: float
    best: bool
    tally: Figures

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; the figures are named `valid_nats_per_token` and so on.

        Tables such as a confusion are left out: the log would have one of each validation.
        """
        summary = self.tally.summary().items()
        figures = {key: value for key, value in summary if not isinstance(value, list | dict)}
        return flat_figures(Record.to_dict(self) | {"tally": figures})


@dataclass(frozen=True, kw_only=True, repr=False)
class SavedRecord(Record):
    """A checkpoint that was written."""

    kind: ClassVar[str] = "saved"
    shown: ClassVar[tuple[str, ...]] = ("path",)

    path: str


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A comparison of samples of a model with its training text.

    `text` is the longest piece of a sample that is in the training text, `overlap` its tokens.
    `novel` is the fraction of 8-token sequences in samples that are new, `novel_held_out` the
    fraction in the validation text.
    """

    overlap: int
    text: str
    novel: float | None
    novel_held_out: float | None


@dataclass(frozen=True, kw_only=True)
class Review:
    """Sentences about the fit of a run, and what was memorised by a model that gives text.

    `train` has figures on a part of the training text, by name, such as `nats_per_token`.
    """

    train: dict[str, float]
    advice: list[str]
    memory: Memory | None = None


@dataclass(frozen=True, kw_only=True)
class Companion:
    """The n-gram companion of a run: its order, its size, and figures on the validation text.

    `weight` is the mean weight of the n-grams in the mixture with the network, whose own figure is
    `network_nats_per_token`. `bytes` is the size of the file of n-grams.
    """

    order: int
    weight: float
    network_nats_per_token: float
    ngram_nats_per_token: float
    mixture_nats_per_token: float
    bytes: int


@dataclass(frozen=True, kw_only=True, repr=False)
class FinishedRecord(Record):
    """The end of a training session: its reason, and the figures of the best weights.

    `logit_scale` is the factor on all logits that calibration chose, 1 if none gains;
    `valid_uncalibrated` holds the figures without it. `old_valid` holds those of a fine-tuned run
    on the validation text of the run it started from. `companion` describes the n-grams that were
    fitted beside the network. `floors` compares a run that gives labels with simple rules. `path`
    is the folder of the run; `to_dict` leaves it out, since runs can be moved.
    """

    kind: ClassVar[str] = "finished"
    shown: ClassVar[tuple[str, ...]] = ("reason", "valid", "test", "path")

    reason: str
    best_step: int
    path: str = ""
    valid: Figures | None = None
    test: Figures | None = None
    valid_uncalibrated: Figures | None = None
    old_valid: Figures | None = None
    logit_scale: float = 1.0
    warnings: list[str] = field(default_factory=list)
    review: Review | None = None
    companion: Companion | None = None
    floors: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """True if the run is over and was not interrupted."""
        return self.reason in ("complete", "patience")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; the figures are named `valid_...`, `test_...` and so on."""
        return flat_figures(self.results())

    def results(self) -> dict[str, Any]:
        """Return plain values with one table of figures for each text, as in run.json."""
        plain = Record.to_dict(self)
        del plain["path"]
        if self.floors is None:
            del plain["floors"]
        plain["notes"] = plain.pop("warnings")
        for name in ("valid", "test", "valid_uncalibrated", "old_valid"):
            tally = getattr(self, name)
            plain[name] = tally.summary() if tally else None
        return plain

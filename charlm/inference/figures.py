"""Figures of texts, of whatever task: evaluations, comparisons, and rebuilding from sums."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

from charlm.config.class_path import resolve
from charlm.config.tasks import CLASSIFY, TASKS
from charlm.units import Tally, finite

NOT_SHOWN = "no difference shown"
"""Verdict on two runs that may be equally good."""


class Figures(Protocol):
    """Figures of a text: a `Tally`, or those of another task."""

    @property
    def nats(self) -> float:
        """Negative log-likelihood of all targets."""

    @property
    def tokens(self) -> int:
        """Number of targets."""

    @property
    def nats_per_token(self) -> float:
        """Nats of one target."""

    def sums(self) -> dict[str, Any]:
        """Return the raw sums, from which `figures_from` rebuilds the figures.

        Their key `kind` names the task; those of a `Tally` and of labels have none.
        """

    def summary(self) -> dict[str, Any]:
        """Return every figure by its name, None if it is not finite."""


@dataclass(frozen=True, kw_only=True)
class TaskEvaluation:
    """Figures of texts by their names, those of floors, and the texts that are answered worst.

    `floors` and `worst` are by the names of the texts too; the task decides what they hold. The
    `labels` of the run are empty if it has none, and `beam` is the width of a search. `notes` are
    about the texts.
    """

    counts: Mapping[str, Any]
    notes: list[str]
    labels: tuple[str, ...] = ()
    floors: Mapping[str, Any] = field(default_factory=dict)
    worst: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    beam: int | None = None


@dataclass(frozen=True)
class TaskDifference:
    """Difference of a figure of two runs on the same texts; positive if the second is better.

    `low` and `high` bound 95 % of the bootstrap samples, `p` is the p-value of no difference.
    """

    figure: str
    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, by p."""
        if not self.p < 0.05:  # NaN too
            return NOT_SHOWN
        return "better" if self.value > 0.0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        figures = {k: v if isinstance(v, str) else finite(v) for k, v in asdict(self).items()}
        return {**figures, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """Figures of runs of a task on the same texts, and how each differs from the first.

    A difference is a `TaskDifference`, or a dictionary of some by figure; None for the first run.
    """

    names: list[str]
    counts: list[Any]
    differences: list[Any]
    notes: list[str]


def figures_from(sums: Mapping[str, Any]) -> Figures:
    """Rebuild figures from their sums, or from JSON of these; without rows for intervals."""
    kind = sums.get("kind", CLASSIFY if "confusion" in sums else "")
    counts = resolve(TASKS[kind].counts) if kind else Tally
    values = {key: _in_tuples(value) for key, value in sums.items() if key != "kind"}
    return cast(Figures, counts(**values))


def _in_tuples(value: Any) -> Any:
    """Return a value with tuples in place of lists."""
    return tuple(map(_in_tuples, value)) if isinstance(value, list) else value

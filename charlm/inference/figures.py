"""Figures of a text, of whatever task, and their rebuilding from sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from charlm.config.class_path import resolve
from charlm.config.tasks import CLASSIFY, TASKS
from charlm.units import Tally


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
class TaskComparison:
    """Figures of runs of a task on the same texts, and how each differs from the first.

    A difference is one of the class of the task, or a dictionary of some by figure; it is None for
    the first run.
    """

    names: list[str]
    counts: list[Any]
    differences: list[Any]
    notes: list[str]


def figures_from(sums: Mapping[str, Any]) -> Figures:
    """Rebuild figures from their sums, or from JSON of these."""
    kind = sums.get("kind", CLASSIFY if "confusion" in sums else "")
    return cast(Figures, resolve(TASKS[kind].counts).from_sums(sums) if kind else Tally(**sums))

"""The interface of a task to the reports about its runs.

Rows of `charlm.config.tasks.TASKS` name objects of the class `TaskReport`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from charlm.config.class_path import resolve
from charlm.config.tasks import TASKS, task_name

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Json = Mapping[str, Any]
Pairs = list[tuple[str, str]]


class TaskReport:
    """What is said about the runs of a task. A task has what its verbs use."""

    comparison_note = ""
    """Sentence before the table of a comparison."""

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """Return lines about the text, and those about the model and the run, from run.json."""
        raise NotImplementedError

    def facts(self, record: Json) -> Pairs:
        """Return names and values that describe what lies beside the text, from run.json."""
        raise NotImplementedError

    def figures_text(self, figures: Json) -> str:
        """Return the figures of a text in one line, from their summary."""
        raise NotImplementedError

    def result_pairs(self, record: Json, results: Json) -> Pairs:
        """Return names and values of the results of a run, as they are in run.json."""
        raise NotImplementedError

    def evaluation_tables(self, result: Any, width: int) -> Iterator["RenderableType"]:
        """Yield the tables of an evaluation for a terminal of this width."""
        raise NotImplementedError

    def evaluation_json(self, run: str, result: Any) -> dict[str, Any]:
        """Return an evaluation as plain values."""
        raise NotImplementedError

    def comparison_table(self, result: Any) -> "Table":
        """Return a row for each run of a comparison."""
        raise NotImplementedError

    def comparison_json(self, result: Any) -> list[dict[str, Any]]:
        """Return the runs of a comparison as plain values."""
        raise NotImplementedError


def report_of(settings: Mapping[str, Any]) -> TaskReport | None:
    """Return the report of the task of nested plain settings; None for a language model."""
    row = TASKS.get(task_name(settings))
    return cast(TaskReport, resolve(row.report)) if row and row.report else None

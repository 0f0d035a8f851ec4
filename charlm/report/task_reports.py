"""The interface of a task to the reports about its runs.

Rows of `charlm.config.tasks.TASKS` name objects of the class `TaskReport`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from charlm.config.class_path import resolve
from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.tasks import TASKS, task_name
from charlm.config.training import counted_length, length_of
from charlm.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Json = Mapping[str, Any]
Pairs = list[tuple[str, str]]


class Predictions:
    """Answers to texts for people and for programs. A task overrides what it needs.

    A text without words, such as an empty line, has no answer (None): its line is empty, so that
    lines of the input and of the output stay side by side.
    """

    formats: tuple[str, ...] = ("table", "jsonl")
    """Names that `--format` takes beside auto."""
    shown, piped = "table", "jsonl"
    """Formats of auto, on a terminal and for programs."""
    flags: frozenset[str] = frozenset()
    """Flags of `charlm predict` that it knows, of --top, --tokens, --beam, --with."""
    act, done = "label", "labelled"
    """Verbs for what is done to a text."""

    def check(self, output: str, *, tokens: bool, top: int, as_json: bool) -> None:
        """Raise UsageError for options of the output that are invalid together."""
        if as_json and output != "auto":
            raise UsageError(f"--json with --format {output}; expected one of them. Leave one out")
        if tokens and output not in ("auto", self.shown, "jsonl"):
            raise UsageError(
                f"--tokens with --format {output}, which has one answer for each text only; "
                "expected jsonl. Use --format jsonl"
            )

    def header(self, output: str, top: int) -> str:
        """Return the first line of a format, or ""; `top` is the number of answers to a text."""
        return ""

    def line(self, output: str, text: Any, answer: Any, top: int) -> str:
        """Return the lines of an answer in a format other than table."""
        raise NotImplementedError

    def table(self, rows: Iterable[tuple[Any, Any]], top: int, width: int) -> "RenderableType":
        """Return texts and their answers for a terminal of this width."""
        raise NotImplementedError

    def json(self, answer: Any, top: int = 1) -> dict[str, Any]:
        """Return an answer as plain values, without its text."""
        raise NotImplementedError

    def reading(
        self, text: Any, steps: list[Any], top: int, *, as_json: bool
    ) -> "RenderableType | str":
        """Return how an answer comes about, from `TaskModel.as_read`: a str (a line) for JSON."""
        raise NotImplementedError


def json_line(content: Json) -> str:
    """Return plain values as a line of JSON."""
    return json.dumps(content, ensure_ascii=False) + "\n"


class TaskReport:
    """Texts and tables about the runs of a task. A task has those that its verbs use."""

    predictions: Predictions = Predictions()
    has_attention = False
    """True if answers are texts that look at their source, which `charlm inside` shows."""
    comparison_note = ""
    """Sentence before the table of a comparison."""
    tables = ""
    """Module that makes tables of its results; imported when needed, since it imports rich."""

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
        return cast(
            Iterator["RenderableType"], import_module(self.tables).evaluation_tables(result, width)
        )

    def evaluation_json(self, run: str, result: Any) -> dict[str, Any]:
        """Return an evaluation as plain values: of one text alone, or by the names of the texts."""
        about = {"schema_version": 1, "run": run}
        contents = {name: about | self.text_json(result, name) for name in result.counts}
        return next(iter(contents.values())) if len(contents) == 1 else contents

    def text_json(self, result: Any, name: str) -> dict[str, Any]:
        """Return the part of an evaluation that is about one text as plain values."""
        return dict(import_module(self.tables).text_json(result, name))

    def comparison_table(self, result: Any) -> "Table":
        """Return a row for each run of a comparison."""
        return cast("Table", import_module(self.tables).comparison_table(result))

    def comparison_json(self, result: Any) -> list[dict[str, Any]]:
        """Return figures and difference of each run of a comparison as plain values."""
        every = zip(result.names, result.counts, result.differences, strict=True)
        return [
            {"run": name, **counts.summary(), "difference": change and self.change_json(change)}
            for name, counts, change in every
        ]

    def change_json(self, change: Any) -> dict[str, Any]:
        """Return the difference of two runs as plain values."""
        return dict(change.to_dict())


def text_sizes(record: Json) -> str:
    """Return the number of documents of each split: "train 900, valid 100"."""
    parts = record["corpus"]["parts"]
    return ", ".join(f"{name} {part['documents']:,}" for name, part in parts.items())


def run_line(record: Json, batches: str) -> str:
    """Return the line of a plan about the length of the run, its batches and its optimizer.

    `batches` has names of settings in braces.
    """
    training = record["settings"]["training"]
    length, why = counted_length(*length_of(training)), (record.get("planned") or {}).get("length")
    return (
        f"run    {length}{f' ({why})' if why else ''}, {batches.format(**training)}, "
        f"{training['optimizer']} {training['learning_rate']:g}, seed {training['seed']}"
    )


def held_out_figures(results: Json) -> Iterator[tuple[str, str, Json]]:
    """Yield each held-out text of a run that has figures: its split, its heading, the figures."""
    for name, heading in HELD_OUT_NAMES.items():
        if figures := results.get(name):
            yield name, heading, figures


def report_of(settings: Mapping[str, Any]) -> TaskReport | None:
    """Return the report of the task of nested plain settings; None for a language model."""
    task = task_name(settings)
    return report_of_task(task) if task in TASKS and TASKS[task].report else None


def report_of_task(task: str) -> TaskReport:
    """Return the report of a task that is no language model."""
    return cast(TaskReport, resolve(TASKS[task].report))

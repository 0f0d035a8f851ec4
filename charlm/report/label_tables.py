"""Tables of evaluations and comparisons of runs that give labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from charlm.inference.counts import Confident, LabelCounts, LabelFigures
from charlm.inference.figures import NOT_SHOWN, TaskComparison, TaskEvaluation
from charlm.inference.labelling import WrongText
from charlm.report.tables import add_estimates, add_figures, change_cells, plain_table
from charlm.report.text import number, shortened
from charlm.units import finite

MAX_SQUARE = 10
"""Maximum number of labels whose confusion is a square table."""
MAX_ERRORS = 10
"""Number of errors that are listed if there are more labels."""
TEXT_LINES = 3
"""Maximum number of lines of a text in a table."""
LABEL_WIDTH = 24
"""Maximum width of a label in a table."""


def evaluation_tables(result: TaskEvaluation, width: int) -> Iterator[RenderableType]:
    """Yield the figures of all texts, then for the last text each label and the confusion.

    The worst texts of each come last; `width` is that of the terminal.
    """
    yield figure_table(result)
    yield from label_parts(result, "label", "texts")
    for name, texts in result.worst.items():
        if texts:
            yield heading(f"{name}: least probable gold labels")
            yield worst_table(texts, width)


def heading(text: str) -> Text:
    """Return the line above a table."""
    return Text(f"\n{text}", style="italic")


def figure_table(result: TaskEvaluation) -> Table:
    """Return a column of figures for each text."""
    table, every = plain_table("<", *result.counts), list(result.counts.items())
    intervals = [counts.intervals() for _, counts in every]
    row = partial(add_figures, table)
    row("texts", [number(counts.texts) for _, counts in every])
    if any(counts.unseen for _, counts in every):
        row("of unknown labels", [number(counts.unseen) for _, counts in every])
    for key, label in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"),
                       ("macro_recall", "macro-recall")):  # fmt: skip
        values = [getattr(counts, key) for _, counts in every]
        add_estimates(table, label, values, [found.get(key) for found in intervals])
    row("nats per text", [number(counts.nats_per_text, 3) for _, counts in every])
    row("calibration error", [number(counts.ece, 3) for _, counts in every])
    for place, (least, *_) in enumerate(every[0][1].confident()):
        row(
            f"accuracy at {least:g} and above",
            [_at(counts.confident()[place]) for _, counts in every],
        )
    for key, label in (("majority", "floor: most frequent label"),
                       ("bag_of_words", "floor: bag of words")):  # fmt: skip
        row(label, [number(result.floors[name].get(key), 3) for name, _ in every])
    return table


def _at(answers: Confident) -> str:
    """Return "0.912 of 63 %"; "-" without such answers."""
    if not answers.fraction:  # none, or NaN without texts
        return "-"
    return f"{number(answers.accuracy, 3)} of {100 * answers.fraction:.0f} %"


def label_parts(result: TaskEvaluation, head: str, noun: str) -> Iterator[RenderableType]:
    """Yield for the last text the figures of each label, and its errors.

    `head` is the noun of a label, `noun` names what has one.
    """
    name, counts = list(result.counts.items())[-1]
    labels = result.labels
    yield heading(f"{name}: {head}s")
    yield label_table(zip(labels, counts.per_label(), strict=True), head, noun)
    many = len(labels) > MAX_SQUARE
    yield heading(f"{name}: {'most frequent errors' if many else 'confusion'}")
    yield error_table(labels, counts, noun) if many else confusion_table(labels, counts)


def label_table(rows: Iterable[tuple[str, LabelFigures]], head: str, noun: str) -> Table:
    """Return a row for each label with its figures, as in `label_parts`."""
    table = plain_table(f"<{head}", "precision", "recall", "F1", noun)
    for label, row in rows:
        figures = (number(finite(value), 3) for value in row[:3])
        table.add_row(Text(shortened(label, LABEL_WIDTH)), *figures, number(row.texts))
    return table


def confusion_table(labels: Sequence[str], counts: LabelCounts) -> Table:
    """Return a row for each gold label, with a column for each predicted one."""
    names = [Text(shortened(label, LABEL_WIDTH)) for label in labels]
    table = plain_table("<gold")
    for label in names:
        table.add_column(label, justify="right", no_wrap=True)
    for at, (label, row) in enumerate(zip(names, counts.confusion, strict=True)):
        cells = (Text(number(n), "green" if at == to else "") for to, n in enumerate(row))
        table.add_row(label, *cells)
    return table


def error_table(labels: Sequence[str], counts: LabelCounts, noun: str) -> Table:
    """Return the most frequent pairs of a gold and another predicted label."""
    table = plain_table("<gold", "<predicted", noun)
    errors = counts.table * (1 - np.eye(len(labels), dtype=np.int64))
    for cell in np.argsort(-errors, axis=None, kind="stable")[:MAX_ERRORS].tolist():
        gold, predicted = divmod(cell, len(labels))
        if texts := int(errors[gold, predicted]):
            names = (shortened(labels[label], LABEL_WIDTH) for label in (gold, predicted))
            table.add_row(*map(Text, names), number(texts))
    return table


def worst_table(texts: Sequence[WrongText], width: int) -> Table:
    """Return the texts whose gold label is least probable."""
    table = plain_table("P(gold)", "<gold", "<predicted", "probability", "<text")
    rows = [
        (f"{each.gold_probability:.4f}", shortened(each.gold, LABEL_WIDTH),
         shortened(each.predicted, LABEL_WIDTH), f"{each.probability:.4f}")
        for each in texts
    ]  # fmt: skip
    heads = ("P(gold)", "gold", "predicted", "probability")
    used = sum(2 + max(map(len, column)) for column in zip(heads, *rows, strict=True))
    for cells, each in zip(rows, texts, strict=True):
        table.add_row(
            *map(Text, cells), Text(shortened(each.text, TEXT_LINES * max(width - used, 16)))
        )
    return table


def text_json(result: TaskEvaluation, name: str) -> dict[str, Any]:
    """Return the figures of one text as plain values."""
    counts = result.counts[name]
    per_label = zip(result.labels, counts.per_label(), strict=True)
    return {
        "labels": list(result.labels),
        **counts.summary(),
        "intervals": counts.intervals(),
        "confident": [_finite(each._asdict()) for each in counts.confident()],
        "per_label": {label: _finite(row._asdict()) for label, row in per_label},
        "floors": result.floors[name],
        "worst": [each._asdict() for each in result.worst[name]],
    }


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: finite(value) for key, value in row.items()}


def comparison_table(result: TaskComparison) -> Table:
    """Return a row for each run: its figures, and its difference from the first, in points."""
    table = plain_table(
        "<run", "accuracy", "macro-F1", "nats/text", "points", "<95 % interval", "p",
        "<difference",
    )  # fmt: skip
    table.columns[5].no_wrap = True
    for name, counts, change in zip(result.names, result.counts, result.differences, strict=True):
        figures = [
            number(counts.accuracy, 4), number(counts.macro_f1, 4), number(counts.nats_per_text, 4)
        ]  # fmt: skip
        more = change_cells(change) if change else []
        more[-1:] = ["not shown" if text == NOT_SHOWN else text for text in more[-1:]]  # 80 columns
        table.add_row(Text(name), *figures, *more)
    return table

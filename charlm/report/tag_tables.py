"""Tables of evaluations and comparisons of runs that give tags."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from charlm.inference.counts import LabelFigures
from charlm.inference.figures import TaskComparison, TaskEvaluation
from charlm.inference.tag_counts import TagCounts, span_types
from charlm.inference.tagging import WrongSentence
from charlm.report.label_tables import heading, label_parts, label_table
from charlm.report.tables import add_estimates, add_figures, change_cells, plain_table
from charlm.report.text import number, shortened
from charlm.units import finite, ratio

NAMES = {"f1": "span-F1", "precision": "precision", "recall": "recall", "accuracy": "accuracy"}
"""Figures with an interval, by their keys."""
SEEN = {
    "seen_spans": "recall of spans in training",
    "new_spans": "recall of new spans",
    "seen_words": "accuracy of words in training",
    "new_words": "accuracy of new words",
}
OTHER_TYPES = "(other types)"
"""Name of the types of spans that training lacks, together."""


def evaluation_tables(result: TaskEvaluation, width: int) -> Iterator[RenderableType]:
    """Yield the figures of all texts, then for the last one each type or tag, and its errors.

    The worst sentences of each come last; `width` has no part, since rows are wrapped.
    """
    del width
    yield figure_table(result)
    name, counts = list(result.counts.items())[-1]
    if counts.spans:
        yield Text("spans are counted as the script conlleval does", style="italic")
        yield heading(f"{name}: types of spans")
        types = type_figures(result.labels, counts)
        known = [(name, row) for name, row in types if name != OTHER_TYPES or row.texts]
        yield label_table(known, "type", "spans")
    else:
        yield from label_parts(result, "tag", "words")
    for name, sentences in result.worst.items():
        if sentences:
            yield heading(f"{name}: sentences with the least probable tags (gold → predicted)")
            yield worst_table(sentences)


def figure_table(result: TaskEvaluation) -> Table:
    """Return a column of figures for each text."""
    table, every = plain_table("<", *result.counts), list(result.counts.items())
    intervals = [counts.intervals() for _, counts in every]
    row = partial(add_figures, table)
    row("words", [number(counts.tags) for _, counts in every])
    if any(counts.unseen for _, counts in every):
        row("of unknown tags", [number(counts.unseen) for _, counts in every])
    spans = any(counts.spans for _, counts in every)
    for key, label in NAMES.items():
        if spans or key == "accuracy":
            values = [finite(getattr(counts, key)) for _, counts in every]
            add_estimates(table, label, values, [found.get(key) for found in intervals])
    row("nats per tag", [number(counts.nats_per_tag, 3) for _, counts in every])
    row("calibration error", [number(counts.ece, 3) for _, counts in every])
    for key, label in SEEN.items():
        row(label, [_share(getattr(counts, key)) for _, counts in every])
    floor = f"floor: most frequent tag, {NAMES[every[0][1].headline]}"
    row(floor, [number(result.floors[name], 3) for name, _ in every])
    return table


def _share(pair: tuple[int, int]) -> str:
    """Return "0.912 of 1,234"; "-" of none."""
    every, right = pair
    return f"{ratio(right, every):.3f} of {every:,}" if every else "-"


def type_figures(labels: Sequence[str], counts: TagCounts) -> list[tuple[str, LabelFigures]]:
    """Return each type of span with its figures; those that training lacks come last."""
    names = [*span_types(labels), OTHER_TYPES]
    return list(zip(names, counts.per_type(), strict=False))  # there are none without spans


def worst_table(sentences: Sequence[WrongSentence]) -> Table:
    """Return sentences with the gold and the predicted tag behind each wrong word."""
    table = plain_table("nats", "<sentence")
    for each in sentences:
        text = Text()
        for word, gold, predicted in zip(each.words, each.gold, each.predicted, strict=True):
            text.append(" " if text else "")
            text.append(shortened(word, 60), "" if gold == predicted else "bold")
            if gold != predicted:
                text.append(f" [{gold} → {predicted}]", "red")
        table.add_row(f"{each.nats:.1f}", text)
    return table


def text_json(result: TaskEvaluation, name: str) -> dict[str, Any]:
    """Return the figures of one text as plain values."""
    counts = result.counts[name]
    types = type_figures(result.labels, counts)
    per_tag = zip(result.labels, counts.per_label(), strict=True)
    return {
        "labels": list(result.labels),
        **counts.summary(),
        "per_type": {kind: {**_ratios(row), "spans": row.texts} for kind, row in types},
        "per_tag": {tag: {**_ratios(row), "words": row.texts} for tag, row in per_tag},
        "floor": result.floors[name],
        "worst": [each._asdict() for each in result.worst[name]],
    }


def _ratios(row: Any) -> dict[str, Any]:
    return {key: finite(getattr(row, key)) for key in ("precision", "recall", "f1")}


def comparison_table(result: TaskComparison) -> Table:
    """Return a row for each run: its figures, and its difference from the first, in points."""
    figure = result.counts[0].headline
    table = plain_table("<run", NAMES[figure], "nats/tag", "points", "<95 % interval", "p", "<")
    table.columns[4].no_wrap = True
    for name, counts, change in zip(result.names, result.counts, result.differences, strict=True):
        figures = [
            number(finite(getattr(counts, figure)), 4), number(finite(counts.nats_per_tag), 4)
        ]  # fmt: skip
        more = change_cells(change) if change else []
        table.add_row(Text(name), *figures, *more)
    return table

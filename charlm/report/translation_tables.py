"""Tables of evaluations and comparisons of runs that give translations."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from charlm.inference.figures import TaskComparison, TaskEvaluation
from charlm.inference.text_metrics import SIGNATURE
from charlm.inference.translation_counts import WorstTranslation
from charlm.report.tables import add_estimates, add_figures, change_cells, plain_table
from charlm.report.text import number, shortened
from charlm.report.translations import NAMES, digits_of, shown_figures

TEXT_LINES = 2
"""Maximum number of lines of a text in a table."""


def evaluation_tables(result: TaskEvaluation, width: int) -> Iterator[RenderableType]:
    """Yield the figures of all texts, then the worst outputs; `width` is that of the terminal."""
    table = figure_table(result)
    yield table
    is_shown = NAMES["bleu"] in table.columns[0].cells
    yield Text(f"\n{f'BLEU: {SIGNATURE}; ' if is_shown else ''}beam {result.beam}", style="dim")
    for name, texts in result.worst.items():
        if texts:
            yield Text(f"\n{name}: outputs with the least chrF", style="italic")
            yield worst_table(texts, width)


def figure_table(result: TaskEvaluation) -> Table:
    """Return a column of figures for each text."""
    table, every = plain_table("<", *result.counts), list(result.counts.values())
    intervals = [counts.intervals() for counts in every]
    shown = shown_figures(every[0].reference_letters)
    row = partial(add_figures, table)
    row("texts", [number(counts.texts) for counts in every])
    for name in shown:
        values = [getattr(counts, name) for counts in every]
        ends = [found.get(name) for found in intervals]
        add_estimates(table, NAMES[name], values, ends, digits_of(name))
    row("nats per token", [number(counts.nats_per_token, 3) for counts in every])
    row("length ratio", [number(counts.length_ratio, 3) for counts in every])
    for name, label in (
        ("repeated", "outputs that repeat themselves"),
        ("shared", "outputs equal to another text's"),
        ("copied", "unknown tokens copied"),
    ):
        if any(getattr(counts, name) for counts in every):
            row(label, [number(getattr(counts, name)) for counts in every])
    for name in shown:
        floors = [result.floors[part].get(name) for part in result.counts]
        row(f"floor: {NAMES[name]} of a copy", [number(f, digits_of(name)) for f in floors])
    return table


def worst_table(texts: Sequence[WorstTranslation], width: int) -> Table:
    """Return the texts whose outputs have the least chrF: source, reference and output."""
    table = plain_table("chrF", "<", "<text")
    room = TEXT_LINES * max(width - 20, 16)
    for each in texts:
        lines = {"source": each.text, "reference": each.reference, "output": each.output}
        for place, (name, text) in enumerate(lines.items()):
            score = "" if place else number(each.chrf, 1)
            table.add_row(score, Text(name, "dim"), Text(shortened(text, room)))
    return table


def text_json(result: TaskEvaluation, name: str) -> dict[str, Any]:
    """Return the figures of one text as plain values."""
    return {
        **result.counts[name].summary(),
        "signature": SIGNATURE,
        "beam": result.beam,
        "floors": {"copy": result.floors[name]},
        "worst": [each._asdict() for each in result.worst.get(name, [])],
    }


def comparison_table(result: TaskComparison) -> Table:
    """Return a row for each run and figure, and its difference from the first run."""
    table = plain_table("<run", "<", "figure", "difference", "<95 % interval", "p", "<")
    table.columns[4].no_wrap = True
    shown = shown_figures(result.counts[0].reference_letters)
    for name, counts, changes in zip(result.names, result.counts, result.differences, strict=True):
        for place, figure in enumerate(shown):
            digits = digits_of(figure)
            cells: list[Text | str] = [
                Text("" if place else name), NAMES[figure], number(getattr(counts, figure), digits)
            ]  # fmt: skip
            if changes:
                change = changes[figure]
                cells += change_cells(change, scale=1.0, digits=digits)
            table.add_row(*cells)
    return table

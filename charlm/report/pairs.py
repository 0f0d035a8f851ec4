"""Minimal pairs for people and programs: a table of accuracies, and a line for each pair."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from charlm.inference.bootstrap import fraction_interval
from charlm.inference.pairs import Accuracy, PairsResult
from charlm.report.tables import plain_table
from charlm.report.text import number, shortened
from charlm.text.sources.delimited import quoted_field
from charlm.units import LOG_BASES

MAX_NAME = 36
"""Maximum width of a name in a table, so that lines have at most 80 columns."""
LOGARITHMS = frozenset(("log_probability_good", "log_probability_bad", "margin"))
"""Columns that are converted to the base of the output."""


def accuracy_table(accuracies: Sequence[Accuracy], title: str) -> Table:
    """Return a row for each paradigm or phenomenon: its pairs, and those with equal UNK."""
    table = plain_table(f"<{title}", "pairs", "ties", "correct", "equal UNK", "correct")
    for each in accuracies:
        table.add_row(
            Text(shortened(each.name, MAX_NAME)),
            number(each.pairs),
            number(each.ties),
            percent(each.accuracy),
            number(each.equal_oov_pairs),
            percent(each.equal_oov_accuracy),
        )
    return table


def total_table(result: PairsResult) -> Table:
    """Return the figures of all pairs with their 95 % intervals, and the means over paradigms."""
    table = plain_table("<", "pairs", "ties", "correct", "", "<95 % interval")
    total = result.total
    for name, pairs, ties, correct in (
        ("all pairs", total.pairs, total.ties, total.correct),
        (
            "pairs with equally many UNK",
            total.equal_oov_pairs,
            total.equal_oov_ties,
            total.equal_oov_correct,
        ),
    ):
        fraction, shown = None, "-"
        if pairs:
            fraction, (low, high) = correct / pairs, fraction_interval(correct, pairs)
            shown = f"{100 * low:.1f} to {100 * high:.1f} %"
        figures = (number(pairs), number(ties), number(correct))
        table.add_row(name, *figures, percent(fraction), shown)
    if len(result.paradigms) > 1:
        count = f"mean of {len(result.paradigms)} paradigms"
        table.add_row(count, "", "", "", percent(result.mean_accuracy))
        table.add_row(f"{count}, equal UNK", "", "", "", percent(result.mean_equal_oov_accuracy))
    return table


def percent(fraction: float | None) -> str:
    """Format a fraction with one decimal; `-` for None and NaN."""
    return f"{number(None if fraction is None else 100 * fraction, 1)} %"


def pair_lines(result: PairsResult, log_base: str) -> Iterator[str]:
    """Yield a header and a line for each pair, as tab-separated values.

    The name of the paradigm is in quotes, so charlm knows that fields may be quoted.
    """
    rows = result.rows()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    names = [f"{name}_base_{log_base}" if name in LOGARITHMS else name for name in columns]
    marked = [f'"{name}"' if name == "paradigm" else quoted_field(name, "\t") for name in names]
    yield "\t".join(["pair_id", *marked]) + "\n"
    for place, row in enumerate(rows, start=1):
        for name in row.keys() & LOGARITHMS:
            row[name] = f"{row[name] / LOG_BASES[log_base] + 0.0:.6f}"
        cells = (quoted_field(str(row.get(name, "")), "\t") for name in columns)
        yield "\t".join([str(place), *cells]) + "\n"

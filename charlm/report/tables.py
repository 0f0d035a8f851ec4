"""Tables for people: evaluations, next tokens, comparisons, benchmarks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.report.text import number, visible
from charlm.units import Tally

if TYPE_CHECKING:
    from charlm.benchmark import Figure
    from charlm.inference.comparison import Difference, LineNats
    from charlm.inference.figures import TaskDifference
    from charlm.inference.generation import NextToken
    from charlm.inference.word_errors import ErrorChange, ErrorRate

LABELS = {
    "tokens": "tokens",
    "words": "words",
    "chars": "characters",
    "bytes": "bytes",
    "oov": "unknown tokens (OOV)",
    "documents": "documents",
    "nats_per_token": "nats per token",
    "bits_per_token": "bits per token",
    "bits_per_char": "bits per character",
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity per token",
    "perplexity_without_oov": "perplexity without OOV",
    "perplexity_without_eos": "perplexity without EOS",
    "word_perplexity": "perplexity per word",
}
BAR_WIDTH = 24


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return a table without frames; columns whose name begins with `<` are left-aligned."""
    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        left = column.startswith("<")
        justify: JustifyMethod = "left" if left else "right"
        name = column.removeprefix("<")
        table.add_column(name, justify=justify, no_wrap=not left, overflow="fold")
    return table


def add_figures(table: Table, label: str, cells: Sequence[str]) -> None:
    """Add a row of figures, unless all of them are missing ("-")."""
    if any(cell != "-" for cell in cells):
        table.add_row(label, *cells)


def add_estimates(
    table: Table,
    label: str,
    values: Sequence[float | None],
    ends: Sequence[tuple[float, float] | None],
    digits: int = 3,
) -> None:
    """Add a row of figures, and a row of their 95 % intervals, of which some may be missing."""
    add_figures(table, label, [number(value, digits) for value in values])
    shown = [f"{each[0]:.{digits}f} to {each[1]:.{digits}f}" if each else "-" for each in ends]
    add_figures(table, "  95 % interval", shown)


def change_cells(change: "TaskDifference", *, scale: float = 100.0, digits: int = 2) -> list[str]:
    """Return the cells of a difference from the first run: value, interval, p and verdict.

    The value and the ends of the interval are multiplied by `scale`: fractions become points.
    """
    low, high = scale * change.low, scale * change.high
    return [
        f"{scale * change.value:+.{digits}f}", f"{low:+.{digits}f} to {high:+.{digits}f}",
        f"{change.p:.2g}", change.verdict,
    ]  # fmt: skip


def advice_pairs(advice: Sequence[str]) -> list[tuple[str, str]]:
    """Return the sentences of a review, of which the first has the name."""
    return [("" if number else "review", text) for number, text in enumerate(advice)]


def tally_table(tallies: Mapping[str, Tally]) -> Table:
    """Return a column of figures for each text."""
    table = plain_table("<", *tallies)
    for key, label in LABELS.items():
        table.add_row(label, *(number(tally.summary()[key]) for tally in tallies.values()))
    return table


def method_table(tallies: Mapping[str, Tally], plain: Mapping[str, Tally]) -> Table:
    """Return a row for each text and method, below the plain figures of the text."""
    table = plain_table(
        "<text, method", "nats/token", "bits/char", "perplexity", "per word", "gain"
    )
    for name, own in plain.items():
        rows = {key: t for key, t in tallies.items() if key.startswith(f"{name}, ")}
        for key, tally in {name: own, **rows}.items():
            gain = 1.0 - tally.nats / own.nats if own.nats else 0.0
            table.add_row(
                Text(key),
                number(tally.nats_per_token),
                number(tally.bits_per_char),
                number(tally.perplexity, 2),
                number(tally.word_perplexity, 1),
                "" if tally is own else f"{100 * gain:+.2f} %",
            )
    return table


def next_table(tokens: "Sequence[NextToken]") -> Table:
    """Return the likeliest continuations with bars."""
    table = plain_table("probability", "<token", "<")
    most = max((token.probability for token in tokens), default=1.0) or 1.0
    for token in tokens:
        bar = "█" * round(BAR_WIDTH * token.probability / most)
        table.add_row(
            f"{token.probability:.4f}", Text(visible(token.token)), Text(bar, style="cyan")
        )
    return table


def comparison_notes(
    runs: "Sequence[LineNats]", differences: "Sequence[Difference | None]"
) -> list[str]:
    """Return sentences that explain the table of a comparison."""
    last = differences[-1]
    over = ""
    if last and last.low is not None:
        parts = f"blocks of {last.block} tokens" if last.block else "lines"
        over = f", over {last.parts:,} {parts}"
    notes = [f"differences in bits per byte from the first run{over}; below zero is better"]
    if any(run.tally.oov and run.unk_penalty for run in runs):
        notes.append("differences include the penalty for unknown tokens; --unk-penalty changes it")
    if any(run.tally.oov and not run.unk_penalty for run in runs):
        notes.append(
            "OOV: unknown tokens without a penalty cost a run next to nothing, so they favour it"
        )
    return notes


def comparison_table(
    runs: "Sequence[LineNats]", differences: "Sequence[Difference | None]"
) -> Table:
    """Return a row for each run: its figures, and its difference from the first."""
    unknown = any(run.tally.oov for run in runs)
    penalized = any(run.tally.oov and run.unk_penalty for run in runs)
    table = plain_table(
        "<run", "nats/token", "bits/byte", *(["OOV"] if unknown else []),
        *(["penalized"] if penalized else []), "difference",
        "<95 % interval", "won", "<",
    )  # fmt: skip
    for run, change in zip(runs, differences, strict=True):
        figures = [number(run.tally.nats_per_token), number(run.tally.bits_per_byte)]
        figures += [f"{run.tally.oov:,}"] if unknown else []
        figures += [number(run.penalized_bits_per_byte)] if penalized else []
        if change is None:
            table.add_row(Text(run.name), *figures)
            continue
        table.add_row(
            Text(run.name),
            *figures,
            f"{change.bits_per_byte:+.4f}",
            "" if change.low is None else f"{change.low:+.4f} to {change.high:+.4f}",
            f"{100 * change.wins:.1f} %",
            change.verdict,
        )
    return table


def error_table(rates: "Mapping[str, ErrorRate]", change: "ErrorChange") -> Table:
    """Return a row for each way to choose hypotheses: its error rate as Kaldi prints it.

    The last row is the change by rescoring.
    """
    table = plain_table("<", "<", "<95 % interval")
    for name, rate in rates.items():
        interval = "(few utterances)"
        if rate.low is not None and rate.high is not None:
            interval = f"{100 * rate.low:.2f} to {100 * rate.high:.2f}"
        table.add_row(name, str(rate), interval)
    interval = ""
    if change.low is not None and change.high is not None:
        interval = f"{100 * change.low:+.2f} to {100 * change.high:+.2f}"
    table.add_row("change", f"{100 * change.rate:+.2f}, rescored minus as given", interval)
    for column in table.columns:
        column.no_wrap = True  # other programs search for the lines
    return table


def nearest_table(pairs: Sequence[tuple[str, float]]) -> Table:
    """Return neighbours and their cosines."""
    table = plain_table("cosine", "<token")
    for token, cosine in pairs:
        table.add_row(f"{cosine:.4f}", Text(visible(token)))
    return table


def bench_table(figures: "Sequence[Figure]") -> Table:
    """Return a row for each speed, with its ratio to the first of its group and to the ceiling."""
    table = plain_table("<", "<", "speed", "<unit", "ratio", "of the ceiling")
    group = ""
    for figure in figures:
        table.add_row(
            figure.group if figure.group != group else "",
            figure.name,
            f"{figure.value:,.3g}" if figure.value < 100 else f"{figure.value:,.0f}",
            figure.unit,
            "" if figure.ratio is None else f"{figure.ratio:.2f}x",
            "" if figure.share is None else f"{100 * figure.share:.0f} %",
        )
        group = figure.group
    return table


def pairs_table(pairs: Sequence[tuple[str, Any]]) -> Table:
    """Return a table of names and values; unprintable characters are escaped."""
    table = plain_table("<", "<")
    table.show_header = False
    for name, value in pairs:
        shown = Text(escape_unprintable(str(value), kept="\n"))
        table.add_row(Text(escape_unprintable(name), style="bold"), shown)
    return table

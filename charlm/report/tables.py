"""Tables for people: evaluations, scores, next tokens, vocabularies, runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from charlm.escapes import escape_unprintable
from charlm.inference.generation import NextToken
from charlm.inference.scoring import Score
from charlm.report.text import number, shortened, visible
from charlm.units import LOG_BASES, Tally

if TYPE_CHECKING:
    from charlm.benchmark import Figure
    from charlm.inference.comparison import Difference, LineNats

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
    "perplexity": "perplexity",
    "perplexity_without_oov": "perplexity without OOV",
    "perplexity_without_eos": "perplexity without EOS",
    "word_perplexity": "perplexity per word",
}
BAR_WIDTH = 24


def plain_table(*columns: str, title: str | None = None) -> Table:
    """A table without frames, numbers to the right; a name that begins with `<` is left-aligned."""
    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        left = column.startswith("<")
        justify: JustifyMethod = "left" if left else "right"
        name = column.removeprefix("<")
        table.add_column(name, justify=justify, no_wrap=not left, overflow="fold")
    return table


def tally_table(tallies: Mapping[str, Tally]) -> Table:
    """One column of figures for each text."""
    table = plain_table("<", *tallies)
    for key, label in LABELS.items():
        table.add_row(label, *(number(tally.summary()[key]) for tally in tallies.values()))
    return table


def method_table(tallies: Mapping[str, Tally], plain: Mapping[str, Tally]) -> Table:
    """One row for each text and method, under that of the plain figures of the text."""
    table = plain_table("<text, method", "nats/token", "bits/char", "perplexity", "gain")
    for name, own in plain.items():
        rows = {key: t for key, t in tallies.items() if key.startswith(f"{name}, ")}
        for key, tally in {name: own, **rows}.items():
            gain = 1.0 - tally.nats / own.nats if own.nats else 0.0
            table.add_row(
                Text(key),
                number(tally.nats_per_token),
                number(tally.bits_per_char),
                number(tally.perplexity, 2),
                "" if tally is own else f"{100 * gain:+.2f} %",
            )
    return table


def score_table(scores: Sequence[Score], log_base: str, width: int) -> Table:
    """One row for each text; among several all are ranked, and the likeliest is marked.

    Texts without tokens have no rank; nothing is marked where numbers of unknown tokens differ,
    which cost next to nothing.
    """
    unit = LOG_BASES[log_base]
    held = [at for at, score in enumerate(scores) if score.tally.tokens]
    ranked = sorted(held, key=lambda at: -scores[at].log_probability)
    marked = len(ranked) > 1 and len({scores[at].tally.oov for at in held}) == 1
    places = {at: place for place, at in enumerate(ranked, start=1)}
    table = plain_table("rank", f"log{_base(log_base)} P", "tokens", "bits/char", "OOV", "<text")
    for at, score in enumerate(scores):
        place = places.get(at, "-")
        best = marked and place == 1
        table.add_row(
            f"{place}{' *' if best else '  '}" if len(scores) > 1 else str(place),
            number(score.log_probability / unit + 0.0, 3),  # none of an empty text, not minus none
            number(score.tally.tokens),
            number(score.tally.bits_per_char, 3),
            number(score.tally.oov),
            Text(shortened(score.text, max(width - 42, 16))),
            style="bold green" if best else "",
        )
    return table


def token_table(score: Score, log_base: str) -> Table:
    """One row for each token of a text: surprisal, its bar, rank, running sum."""
    unit = LOG_BASES[log_base]
    head = {"e": "nats", "2": "bits", "10": "log10"}[log_base]
    table = plain_table("<token", head, "rank", "sum", "<surprisal")
    total = 0.0
    most = max((token.nats for token in score.tokens), default=1.0) or 1.0
    for token in score.tokens:
        total += token.nats
        table.add_row(
            Text(visible(token.token) + (" (UNK)" if token.oov else "")),
            number(token.nats / unit, 3),
            str(token.rank),
            number(total / unit, 3),
            Text("█" * round(BAR_WIDTH * token.nats / most), style="cyan"),
        )
    return table


def next_table(tokens: Sequence[NextToken]) -> Table:
    """The likeliest continuations with bars."""
    table = plain_table("probability", "<token", "<")
    most = max((token.probability for token in tokens), default=1.0) or 1.0
    for token in tokens:
        bar = "█" * round(BAR_WIDTH * token.probability / most)
        table.add_row(
            f"{token.probability:.4f}", Text(visible(token.token)), Text(bar, style="cyan")
        )
    return table


def comparison_table(
    found: "Sequence[LineNats]", differences: "Sequence[Difference | None]"
) -> Table:
    """One row for each run: its figures, and how it differs from the first."""
    unknown = any(one.tally.oov for one in found)
    table = plain_table(
        "<run", "nats/token", "bits/byte", *(["OOV"] if unknown else []), "difference",
        "<95 % interval", "won", "<",
    )  # fmt: skip
    for one, change in zip(found, differences, strict=True):
        figures = [number(one.tally.nats_per_token), number(one.tally.bits_per_byte)]
        figures += [f"{one.tally.oov:,}"] if unknown else []
        if change is None:
            table.add_row(Text(one.name), *figures)
            continue
        table.add_row(
            Text(one.name),
            *figures,
            f"{change.bits_per_byte:+.4f}",
            "" if change.low is None else f"{change.low:+.4f} to {change.high:+.4f}",
            f"{100 * change.wins:.1f} %",
            change.verdict,
        )
    return table


def nearest_table(pairs: Sequence[tuple[str, float]]) -> Table:
    """Neighbours and their cosines."""
    table = plain_table("cosine", "<token")
    for token, cosine in pairs:
        table.add_row(f"{cosine:.4f}", Text(visible(token)))
    return table


def bench_table(figures: "Sequence[Figure]") -> Table:
    """One row for each measured speed, its ratio to the first of its group, and of the ceiling."""
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


def pairs_table(pairs: Sequence[tuple[str, Any]], title: str | None = None) -> Table:
    """Names and values; what a run's files say is made fit to be shown."""
    table = plain_table("<", "<", title=title)
    table.show_header = False
    for name, value in pairs:
        shown = Text(escape_unprintable(str(value), kept="\n"))
        table.add_row(Text(escape_unprintable(name), style="bold"), shown)
    return table


def _base(log_base: str) -> str:
    return {"e": "e", "2": "2", "10": "10"}[log_base]

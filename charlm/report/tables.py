"""Tables for people: evaluations, scores, next tokens, vocabularies, runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from charlm.files.escapes import escape_unprintable
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
    "perplexity": "perplexity per token",
    "perplexity_without_oov": "perplexity without OOV",
    "perplexity_without_eos": "perplexity without EOS",
    "word_perplexity": "perplexity per word",
}
BAR_WIDTH = 24
TEXT_LINES = 4
"""Lines that a ranked text has in a table before it is cut."""


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


def score_table(
    scores: Sequence[Score | None],
    log_base: str,
    width: int,
    *,
    rank: bool = False,
    words: bool = False,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Return a row for each text, None being a row without text.

    `rank` ranks the texts by their penalized log-probability and marks the likeliest; texts
    without tokens have no rank. `words` shows the perplexity per word in place of bits per
    character, `kept` adds cells of other columns. The penalized log-probability is a column if
    unknown tokens make it differ.
    """
    unit, kept = LOG_BASES[log_base], kept or {}
    places, best = _ranks(scores) if rank else ({}, None)
    log_name = f"log{_base(log_base)} P"
    columns = {
        "rank": rank,
        log_name: True,
        "penalized": any(score and score.unk_penalty and score.tally.oov for score in scores),
        "tokens": True,
        "bits/char": not words,
        "ppl/word": words,
        "OOV": True,
    }
    shown = [name for name, is_shown in columns.items() if is_shown]
    table = plain_table(*shown, *(f"<{escape_unprintable(name)}" for name in kept), "<text")
    rows = [
        {"rank": f"{places.get(at, '-')}{' *' if at == best else '  '}"}
        | (_figures(score, log_name, unit) if score else {})
        for at, score in enumerate(scores)
    ]
    used = sum(2 + max(map(len, (name, *(row.get(name, "") for row in rows)))) for name in shown)
    room = max(width - used, 16)
    longest = TEXT_LINES * room if rank else room  # alternatives may differ at their ends only
    for at, (score, cells) in enumerate(zip(scores, rows, strict=True)):
        table.add_row(
            *(cells.get(name, "-") for name in shown),
            *(Text(shortened(column[at], max(width // 4, 16))) for column in kept.values()),
            Text(shortened(score.text, longest) if score else "(no text)"),
            style="bold green" if at == best else "",
        )
    return table


def _figures(score: Score, log_name: str, unit: float) -> dict[str, str]:
    """Return the figures of a score by the name of their column."""
    return {
        log_name: number(score.log_probability / unit + 0.0, 3),  # 0 and not -0 of an empty text
        "penalized": number(score.penalized_log_probability / unit + 0.0, 3),
        "tokens": number(score.tally.tokens),
        "bits/char": number(score.tally.bits_per_char, 3),
        "ppl/word": number(score.tally.word_perplexity, 1),
        "OOV": number(score.tally.oov),
    }


def _ranks(scores: Sequence[Score | None]) -> tuple[dict[int, int], int | None]:
    """Return the rank of each text by its place in the list, and the place of the best.

    There is no best one among fewer than two, nor where texts differ in their numbers of unknown
    tokens and these have no penalty: they look likelier than they are.
    """
    held = {at: score for at, score in enumerate(scores) if score and score.tally.tokens}
    order = sorted(held, key=lambda at: -held[at].penalized_log_probability)
    fair = len({score.tally.oov for score in held.values()}) == 1 or all(
        score.unk_penalty for score in held.values()
    )
    best = order[0] if len(order) > 1 and fair else None
    return {at: place for place, at in enumerate(order, start=1)}, best


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
    penalized = any(one.tally.oov and one.unk_penalty for one in found)
    table = plain_table(
        "<run", "nats/token", "bits/byte", *(["OOV"] if unknown else []),
        *(["penalized"] if penalized else []), "difference",
        "<95 % interval", "won", "<",
    )  # fmt: skip
    for one, change in zip(found, differences, strict=True):
        figures = [number(one.tally.nats_per_token), number(one.tally.bits_per_byte)]
        figures += [f"{one.tally.oov:,}"] if unknown else []
        figures += [number(one.penalized_bits_per_byte)] if penalized else []
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

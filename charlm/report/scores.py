"""Scores for people and programs: tables, and lines in the formats of `report.formats`."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rich.table import Table
from rich.text import Text

from charlm.errors import UsageError
from charlm.files.escapes import escape_unprintable
from charlm.inference.scores import Score, TokenScore
from charlm.inference.words import WordRule, WordScore
from charlm.report.formats import ScoredRow, Writer, output_names
from charlm.report.tables import BAR_WIDTH, plain_table
from charlm.report.text import number, shortened, visible
from charlm.runs.run import Run
from charlm.text.sources.rows import Record
from charlm.units import LOG_BASES, LOG_NAMES, Tally, finite

HEADS = {"e": "nats", "2": "bits", "10": "log10"}
"""Heading of a column of surprisals, by the base of the logarithm."""
WORD_WIDTH = 20
"""Maximum width of a word in a table."""
TEXT_LINES = 4
"""Maximum number of lines for a ranked text in a table."""
Rows = list[tuple[Record, Score | None]]
"""Rows of the input with their scores; a row without text has none."""


def score_table(
    scores: Sequence[Score | None],
    log_base: str,
    width: int,
    *,
    rank: bool = False,
    words: bool = False,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Return a table with a row for each text; None is a row without text.

    `rank` ranks the texts by their penalized log-probability and marks the likeliest; texts
    without tokens have no rank. `words` shows the perplexity per word in place of bits per
    character, `kept` adds cells of other columns. The penalized log-probability has a column if
    unknown tokens change it.
    """
    unit, kept = LOG_BASES[log_base], kept or {}
    places, best = _ranks(scores) if rank else ({}, None)
    log_name = LOG_NAMES[log_base]
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

    There is no best of fewer than two texts, nor if texts differ in the number of unknown tokens
    and these have no penalty, since they look likelier than they are.
    """
    held = {at: score for at, score in enumerate(scores) if score and score.tally.tokens}
    order = sorted(held, key=lambda at: -held[at].penalized_log_probability)
    fair = len({score.tally.oov for score in held.values()}) == 1 or all(
        score.unk_penalty for score in held.values()
    )
    best = order[0] if len(order) > 1 and fair else None
    return {at: place for place, at in enumerate(order, start=1)}, best


def token_table(score: Score, log_base: str) -> Table:
    """Return a row for each token of a text: surprisal, entropy if known, rank, sum, bar."""
    unit = LOG_BASES[log_base]
    entropy = _entropy_head(score.tokens)
    table = plain_table("<token", HEADS[log_base], *entropy, "rank", "sum", "<surprisal")
    total = 0.0
    most = max((token.nats for token in score.tokens), default=0.0)
    for token in score.tokens:
        total += token.nats
        table.add_row(
            Text(visible(token.token) + (" (UNK)" if token.oov else "")),
            number(token.nats / unit, 3),
            *(number((token.entropy or 0.0) / unit, 3) for _ in entropy),
            str(token.rank),
            number(total / unit, 3),
            _bar(token.nats, most),
        )
    return table


def word_table(score: Score, log_base: str, rule: WordRule) -> Table:
    """Return a row for each word of a text: surprisal, entropy if known, gap, tokens, bar."""
    unit = LOG_BASES[log_base]
    entropy = _entropy_head(score.words)
    heads = ("<word", HEADS[log_base], *entropy, "gap", "tokens")
    table = plain_table(*heads, f"<surprisal ({rule})")
    most = max((word.nats for word in score.words), default=0.0)
    for word in score.words:
        table.add_row(
            Text(shortened(word.word, WORD_WIDTH) + (" (UNK)" if word.oov else "")),
            number(word.nats / unit, 3),
            *(number((word.entropy or 0.0) / unit, 3) for _ in entropy),
            number(word.gap / unit + 0.0, 3),
            number(word.tokens),
            _bar(word.nats, most),
        )
    return table


def _entropy_head(parts: Sequence[TokenScore] | Sequence[WordScore]) -> list[str]:
    """Return the heading of a column of entropies, if tokens or words have them."""
    return ["entropy"] if any(part.entropy is not None for part in parts) else []


def _bar(nats: float, most: float) -> Text:
    """Return a bar whose length is the fraction of the most nats; nothing for negative ones."""
    return Text("█" * round(BAR_WIDTH * max(nats, 0.0) / most if most > 0.0 else 0), style="cyan")


class _Columns:
    """Columns of the input that are copied to the output: those of `keep`, or all for None."""

    def __init__(
        self, writer: Writer, keep: Sequence[str] | None, warn: Callable[[str], None]
    ) -> None:
        self.writer, self.keep, self.warn = writer, keep, warn
        self.names: dict[str, str] = {}  # output by input; "" for a column that is left out

    def add(self, columns: Sequence[str]) -> None:
        """Add columns; warn of those that are renamed."""
        self.names = output_names([*self.names, *columns], self.writer.own_columns)
        self.writer.kept = list(self.names.values())
        renamed = [name for name in columns if self.names[name] != name]
        if renamed:
            pairs = ", ".join(f'"{self.names[name]}" for "{name}"' for name in renamed)
            self.warn(
                f"columns of the input were renamed, since the output has these names: {pairs}"
            )

    def cells(self, row: Record) -> dict[str, str]:
        """Return the cells of a row to copy, by their names in the output."""
        if self.keep is None:
            self._add_late(row.number, [name for name in row.cells if name not in self.names])
        return {self.names[name]: cell for name, cell in row.cells.items() if self.names.get(name)}

    def _add_late(self, number: int, columns: list[str]) -> None:
        """Add columns that the first rows did not have, unless a header lacks them."""
        if columns and not self.writer.header():
            self.add(columns)
            return
        for name in columns:
            self.names[name] = ""
            self.warn(
                f'the column "{name}" first appears in row {number:,}, after the header was '
                "written, so it is left out. Use --format jsonl"
            )


def kept_columns(keep: Sequence[str] | None, rows: Iterable[Record]) -> Sequence[str]:
    """Return the columns of rows to copy: those named, or all for None.

    Raises UsageError for a column that the rows do not have.
    """
    present = list(dict.fromkeys(name for row in rows for name in row.cells))
    for name in keep or ():
        if name not in present:
            raise UsageError(
                f"--keep names the column {name!r}; expected another column than the scored "
                f"one: {', '.join(present) or 'the text has none'}. Correct --keep"
            )
    return present if keep is None else keep


def score_lines(
    batches: Iterable[Rows],
    writer: Writer,
    keep: Sequence[str] | None,
    counts: Counter[int],
    warn: Callable[[str], None],
) -> Iterator[str]:
    """Yield the header, the lines of each batch, and the footer, in the format of the writer.

    `keep` names the columns of the input to copy; None copies all. `counts` counts the scored texts
    by their number of unknown tokens. `warn` gets warnings about columns.
    """
    columns = _Columns(writer, keep, warn)
    has_header = False
    for batch in batches:
        if not has_header:
            columns.add(kept_columns(keep, (row for row, _ in batch)))
            yield writer.header()
            has_header = True
        lines = []
        for row, score in batch:
            scored = ScoredRow(number=row.number, score=score, kept=columns.cells(row))
            lines.append(writer.lines(scored))
            if score:
                counts[score.tally.oov] += 1
        yield "".join(lines)
    yield (writer.header() if not has_header else "") + writer.footer()


def unk_note(run: Run, penalty: float | None) -> str:
    """Describe the cost of an unknown token; `penalty` is None for that of the run."""
    if penalty is not None:
        return f"each unknown token (UNK) costs {penalty:.3f} nats more"
    return f"each unknown token (UNK) costs {run.unk_penalty:.3f} nats more, {_unk_reason(run)}"


def _unk_reason(run: Run) -> str:
    types = f"ln {run.unk_types:,.0f}"
    if run.unk_types_recorded:
        return f"{types}, the number of types that UNK stands for, estimated from the training text"
    return (
        f"{types}, the number of entries of the vocabulary (the run does not record how many "
        "types UNK stands for)"
    )


def priced_figures(run: Run, tally: Tally) -> dict[str, float | None]:
    """Return the price of an unknown token, and the figures of a text with it, by name."""
    priced = replace(tally, nats=tally.nats + run.unk_penalty * tally.oov)
    return {
        "unk_penalty": run.unk_penalty,
        "penalized_bits_per_char": finite(priced.bits_per_char),
        "penalized_word_perplexity": finite(priced.word_perplexity),
    }


def priced_note(run: Run, name: str, tally: Tally) -> str:
    """Return a note on the figures of a text with the price of its unknown tokens, or ""."""
    if not tally.oov or not run.unk_penalty:
        return ""
    figures = priced_figures(run, tally)
    bits_per_char, per_word = (
        figures[f"penalized_{name}"] for name in ("bits_per_char", "word_perplexity")
    )
    return (
        f"{name}: unknown tokens count as UNK, so the figures are too good beside those of a model "
        f"that knows them. With {run.unk_penalty:.3f} nats more for each ({_unk_reason(run)}): "
        f"{number(bits_per_char)} bits per character, perplexity {number(per_word)} per word"
    )


def unknown_warning(
    run: Run, counts: Counter[int], penalty: float | None, *, by_word: bool = False
) -> str:
    """Return a warning about texts with unknown tokens, or "".

    `counts` has the number of texts by their number of unknown tokens, `penalty` is None for that
    of the run. With `by_word` it is about the surprisals of words, which have no penalty.
    """
    some = sum(count for oov, count in counts.items() if oov)
    every = sum(counts.values())
    texts = f"{some:,} of {every:,} texts contain" if every > 1 else "The text contains"
    known = f"{texts} unknown tokens (UNK)"
    price = run.unk_penalty if penalty is None else penalty
    if some and by_word:
        more = ""
        if run.unk_penalty:
            more = (
                f", too little for one of the types that it stands for: add {run.unk_penalty:.3f} "
                f"nats for each of them ({_unk_reason(run)}), or leave these words out"
            )
        return f"{known}. Words with them (oov is 1) have the surprisal of UNK{more}"
    if some and price:
        why = "" if penalty is not None else f", {_unk_reason(run)}"
        return (
            f"{known}. Each of them costs {price:.3f} nats in the penalized log-probability{why}; "
            "--unk-penalty changes this"
        )
    if some and len(counts) > 1:
        return f"{known} without a penalty, so they look likelier than they are (see --unk-penalty)"
    return ""

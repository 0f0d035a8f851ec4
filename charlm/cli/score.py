"""`charlm score`: score sentences from arguments, a file or standard input."""

import csv
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    EngineOption,
    ReadingFlags,
    RunOption,
    UnkPenaltyOption,
    WeightsOption,
    as_trained,
    check_meant,
    name_unknown,
    open_model,
    reading_flags,
    table_flags,
)
from charlm.cli.output import on_terminal, render, say, say_notes, terminal_width, write
from charlm.cli.stdin import stdin_blocks
from charlm.errors import UsageError, check_choice
from charlm.files.escapes import escape_controls
from charlm.phases import phase
from charlm.units import LOG_BASES

if TYPE_CHECKING:
    from charlm.report.scores import Rows

FORMATS = ("auto", "table", "tsv", "csv", "jsonl", "scores")
STDIN = ["-"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(score)


def score(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; - is stdin.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="File with a sentence on each line, or a table with --column."),
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMNS",
            help="Columns of a table to copy to the output, such as item,condition. "
            "(default: all in tsv, csv and jsonl)",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show the score of each token.")] = False,
    rank: Annotated[
        bool,
        typer.Option(
            "--rank", help="Rank the lines of a file or of stdin, as arguments always are."
        ),
    ] = False,
    unk_penalty: UnkPenaltyOption = None,
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, table, tsv, csv, jsonl or scores (only the penalized log-probability).",
        ),
    ] = "auto",
    log_base: Annotated[
        str, typer.Option("--log-base", help="Base of the logarithm: e, 2 or 10.")
    ] = "e",
    carry: Annotated[
        bool,
        typer.Option("--carry", help="Score the sentences as the lines of one continuous text."),
    ] = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Score sentences: log-probability, perplexity, rank.

    Sentences are arguments, or lines of --file or stdin. Several arguments are ranked. Each
    unknown token (UNK) costs --unk-penalty in the penalized log-probability, which decides the
    ranks. A row without text has no figures (nan in the format scores).

    Perplexity per word (ppl/word) is exp(nats / number of words); words are separated by blanks.

    A text that begins with "-" comes after "--": charlm score -- "- who is there"

    Example:  charlm score "the apple and pear salad" "the apple and pair salad"
    """
    texts = texts or []
    form = _Form(output=output, log_base=log_base, tokens=tokens, keep=keep, rank=rank)
    form.check(carry=carry)
    from_stdin = _check_source(texts, file, reading, keep=keep)
    piped = from_stdin and reading.get("input_format", "auto") in ("auto", "text")
    model = open_model(run, checkpoints, engine, weights)
    if not model.run.boundaries.has_ends:
        say("This model was trained on continuous text, so the end of a sentence is not scored")
    if from_stdin or file:
        rules = as_trained(reading, model.run)
        batches = (
            api.stream_sentences(stdin_blocks(), "standard input", rules, say)
            if piped
            else api.file_sentences(file or Path("-"), rules, say)
        )
    else:
        batches = api.numbered([texts])
        name_unknown(model, texts, "sentences")
    scorer = model.scorer(carry=carry, lines=carry, unk_penalty=unk_penalty)
    rows = api.score_rows(scorer, batches, tokens=tokens)
    with phase("scoring", unit="tokens") if file else nullcontext():
        if output == "table" or (output == "auto" and (rank or (on_terminal() and not from_stdin))):
            ranked = rank or (len(texts) > 1 and not from_stdin and not carry)
            words = model.vocabulary.spec.whole_words
            counts = form.write_tables([row for batch in rows for row in batch], ranked, words)
        else:
            counts = form.write_lines(rows)
    from charlm.report.scores import unknown_warning

    if not counts:
        say("no text was found, so nothing was scored")
    elif warning := unknown_warning(model.run, counts, unk_penalty):
        say(warning)


def _check_source(
    texts: list[str], file: Path | None, reading: ReadingFlags, *, keep: list[str] | None
) -> bool:
    """Return whether sentences come from stdin. Raises UsageError for flags that do not fit."""
    if texts and file:
        raise UsageError("sentences and --file were both given; expected one of them")
    from_stdin = (not texts and not file) or texts == STDIN or str(file) == "-"
    table = reading.get("input_format", "auto") not in ("auto", "text")
    if texts and texts != STDIN:
        check_meant(reading_flags(reading), "--file or stdin")
    if keep is not None and not file and not (from_stdin and table):
        check_meant({"--keep"}, "--file")
    if from_stdin and not table:
        check_meant(table_flags(reading), "--file or --input-format")
    if from_stdin and sys.stdin.isatty():
        raise UsageError("no sentences; expected some as arguments, with --file, or on stdin")
    return from_stdin


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Options of the output."""

    output: str
    log_base: str
    tokens: bool
    keep: list[str] | None
    rank: bool

    def check(self, *, carry: bool) -> None:
        """Raise UsageError for options that make no sense, alone or together."""
        check_choice("--format", self.output, FORMATS)
        check_choice("--log-base", self.log_base, LOG_BASES)
        if self.output == "scores" and (self.tokens or self.keep):
            flag = "--tokens" if self.tokens else "--keep"
            raise UsageError(
                f"{flag} with --format scores, which has none; expected another format"
            )
        if self.rank and self.output not in ("auto", "table"):
            raise UsageError(
                f"--rank with --format {self.output}; only the format table shows ranks"
            )
        if self.rank and carry:
            raise UsageError(
                "--rank with --carry: lines of one text are no alternatives; leave one out"
            )

    @property
    def columns(self) -> list[str] | None:
        """The names of columns in the values of --keep, which are lines of CSV."""
        if self.keep is None:
            return None
        return list(dict.fromkeys(name for row in csv.reader(self.keep) for name in row if name))

    def write_tables(self, rows: "Rows", ranked: bool, words: bool) -> Counter[int]:
        """Write tables for people; return the number of texts by unknown tokens."""
        from charlm.report.scores import kept_columns, score_table, token_table

        records, scores = [row for row, _ in rows], [score for _, score in rows]
        names = kept_columns(self.columns, records) if self.columns else []
        kept = {name: [row.cells.get(name, "") for row in records] for name in names}
        render(
            score_table(
                scores, self.log_base, terminal_width(), rank=ranked, words=words, kept=kept
            )
        )
        for score in scores if self.tokens else ():
            if score:
                write("\n")
                render(token_table(score, self.log_base))
        return Counter(score.tally.oov for score in scores if score)

    def write_lines(self, rows: "Iterable[Rows]") -> Counter[int]:
        """Write lines for programs; return the number of texts by unknown tokens."""
        from charlm.report.formats import FORMATS
        from charlm.report.scores import Columns, score_lines

        show = escape_controls if on_terminal() else str
        writer = FORMATS["tsv" if self.output == "auto" else self.output](
            self.log_base, tokens=self.tokens
        )
        columns, counts, reported = Columns(self.columns, writer), Counter[int](), 0
        for lines in score_lines(rows, columns, counts):
            reported = say_notes(columns.warnings, reported)
            write(show(lines), flush=True)
        return counts

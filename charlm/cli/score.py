"""`charlm score`: the probability of sentences."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.options import (
    NO_FLAGS,
    TABLE_OPTIONS,
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
    unk_penalty_of,
    unk_reason,
)
from charlm.cli.output import on_terminal, render, say, say_notes, write
from charlm.files.escapes import escape_controls
from charlm.phases import phase

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.config.settings import Reading
    from charlm.inference.scoring import Score, Scorer
    from charlm.report.formats import Writer
    from charlm.text.corpus import Corpus
    from charlm.text.sources.rows import Record

READ_BYTES = 1 << 16
BATCH = 256
"""Sentences that are scored at once."""
CHOICES = ("auto", "table", "tsv", "csv", "jsonl", "scores")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(score)


def score(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; `-` is stdin.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="A sentence on each line, or a table with --column."),
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMNS",
            help="Other columns of a table to copy to the output, such as item,condition. "
            "(default: all in tsv, csv and jsonl)",
            show_default=False,
        ),
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show each token.")] = False,
    rank: Annotated[
        bool,
        typer.Option(
            "--rank", help="Rank the lines of a file or of stdin; arguments are always ranked."
        ),
    ] = False,
    unk_penalty: UnkPenaltyOption = None,
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, table, tsv, csv, jsonl or scores (the penalized log-probability alone).",
        ),
    ] = "auto",
    log_base: Annotated[str, typer.Option("--log-base", help="e, 2 or 10.")] = "e",
    carry: Annotated[
        bool, typer.Option("--carry", help="Sentences are the lines of one stream.")
    ] = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Log-probability of sentences: from arguments, --file, or stdin (a line in, a line out).

    Several sentences given as arguments are ranked. Unknown tokens (UNK) cost --unk-penalty in
    the penalized log-probability, which decides the ranks. A row without text gets a row without
    figures (nan in the format scores).

    Perplexity per word (ppl/word) is exp(nats / number of words); words are what blanks separate.

    A text that begins with "-" comes after "--": charlm score -- "- who is there"

    Example:  charlm score "the apple and pear salad" "the apple and pair salad"
    """
    from charlm.config.settings import Reading
    from charlm.errors import UsageError

    texts = texts or []
    _check_form(output, log_base, tokens=tokens, keep=keep, rank=rank, carry=carry)
    if texts and file:
        raise UsageError("sentences and --file were both given; expected one of them")
    rules = Reading(**reading)
    from_stdin = (not texts and not file) or texts == ["-"] or str(file) == "-"
    piped_table = from_stdin and rules.input_format not in ("auto", "text")
    if texts and texts != ["-"]:
        check_meant(reading_flags(reading), "--file or stdin")
    check_meant(
        {"--keep"} if keep is not None and not file and not piped_table else set(), "--file"
    )
    if from_stdin and not piped_table:
        tables = {name: value for name, value in reading.items() if name in TABLE_OPTIONS}
        check_meant(reading_flags(tables), "--file or --input-format")
    if from_stdin and sys.stdin.isatty():
        raise UsageError("no sentences; give some as arguments, with --file, or on stdin")
    model = open_model(run, checkpoints, engine, weights)
    if not model.run.boundaries.has_ends:
        say("This model was trained on continuous text, so the end of a sentence is not scored")
    rules = Reading(**as_trained(reading, model.run))
    scorer = model.scorer(carry=carry, lines=carry, unk_penalty=unk_penalty)
    if output == "auto":
        output = "table" if rank or (on_terminal() and not from_stdin) else "tsv"
    if from_stdin or file:
        piped = from_stdin and not piped_table
        batches = _stdin_batches(rules) if piped else _file_batches(file or Path("-"), rules)
    else:
        batches = _numbered([texts])
        name_unknown(model, texts, "sentences")
    alternatives = rank or (len(texts) > 1 and not from_stdin and not carry)
    request = _Request(
        scorer=scorer, log_base=log_base, tokens=tokens, rank=alternatives, keep=_names(keep)
    )
    with phase("scoring", unit="tokens") if file else nullcontext():
        if output == "table":
            counts = _tables(request, batches)
        else:
            counts = _lines(request, batches, output)
    if not counts:
        say("no text was found, so nothing was scored")
    _warn_of_unknown(model, counts, unk_penalty)


def _check_form(
    output: str,
    log_base: str,
    *,
    tokens: bool,
    keep: list[str] | None,
    rank: bool,
    carry: bool,
) -> None:
    """Raise UsageError for options of the output that make no sense, alone or together."""
    from charlm.errors import UsageError

    if output not in CHOICES:
        raise UsageError(f"--format is {output!r}; expected one of {', '.join(CHOICES)}")
    if log_base not in ("e", "2", "10"):
        raise UsageError(f"--log-base is {log_base!r}; expected e, 2 or 10")
    if output == "scores" and (tokens or keep):
        flag = "--tokens" if tokens else "--keep"
        raise UsageError(f"{flag} with --format scores, which has none; expected another format")
    if rank and output not in ("auto", "table"):
        raise UsageError(f"--rank with --format {output}; only the format table shows ranks")
    if rank and carry:
        raise UsageError("--rank with --carry: lines of one stream are no alternatives; give one")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What to compute and what to show of it."""

    scorer: "Scorer"
    log_base: str
    tokens: bool
    rank: bool
    keep: list[str] | None

    def scored(self, batch: "Sequence[Record]") -> "list[tuple[Record, Score | None]]":
        """Return the rows of a batch with their scores, None for a row without text."""
        texts = [row.text for row in batch if row.text is not None]
        found = iter(self.scorer.score(texts, tokens=self.tokens))
        return [(row, None if row.text is None else next(found)) for row in batch]

    def columns(self, batch: "Iterable[Record]") -> list[str]:
        """Return the other columns to show, as far as a batch has them.

        Raises UsageError for a column of --keep that the batch does not have.
        """
        from charlm.errors import UsageError

        present = list(dict.fromkeys(name for row in batch for name in row.cells))
        for name in self.keep or ():
            if name not in present:
                raise UsageError(
                    f"--keep names the column {name!r}; expected another column than the scored "
                    f"one: {', '.join(present) or 'the text has none'}. Correct --keep"
                )
        return present if self.keep is None else self.keep


def _names(keep: list[str] | None) -> list[str] | None:
    """Return the names of columns in the values of --keep, which are lines of CSV."""
    import csv

    if keep is None:
        return None
    return list(dict.fromkeys(name for row in csv.reader(keep) for name in row if name))


def _stdin_batches(rules: "Reading") -> "Iterator[list[Record]]":
    """Return the lines of standard input as they come."""
    from charlm.text.sources.decoding import codec_name

    lines = stdin_lines(codec_name(rules.encoding), rules.errors)
    batches = _numbered(_advised(lines) if rules.input_format == "auto" else lines)
    return batches if rules.keep_cr else _plain_ends(batches)


def _advised(batches: Iterator[list[str]]) -> Iterator[list[str]]:
    """Report what the first lines are if they are more than plain text, such as a table."""
    from charlm.text.sources.kinds import advice_for

    for number, batch in enumerate(batches):
        if number == 0 and (advice := advice_for("\n".join([*batch, ""]))):
            say(f"standard input {advice}")
        yield batch


def _numbered(batches: Iterable[list[str]]) -> "Iterator[list[Record]]":
    """Number lines from 1."""
    from charlm.text.sources.rows import Record

    number = 0
    for batch in batches:
        yield [Record(number + at, number + at, text) for at, text in enumerate(batch, start=1)]
        number += len(batch)


def _plain_ends(batches: "Iterator[list[Record]]") -> "Iterator[list[Record]]":
    """Remove the carriage return that ends lines from Windows; report it once."""
    reported = False
    for batch in batches:
        if not reported and any(row.text and row.text.endswith("\r") for row in batch):
            reported = True
            say("lines end with a carriage return; it was left out. Keep it with --keep-cr")
        yield [row._replace(text=row.text and row.text.removesuffix("\r")) for row in batch]


def _warn_of_unknown(model: "Model", counts: Counter[int], typed: float | None) -> None:
    """Report unknown tokens, what each costs, and why."""
    some = sum(count for oov, count in counts.items() if oov)
    if not some:
        return
    penalty = unk_penalty_of(model, typed)
    found = f"{some:,} of {sum(counts.values()):,} texts hold unknown tokens (UNK)"
    if penalty:
        why = "" if typed is not None else f", ln {unk_reason(model)}"
        say(
            f"{found}. Each such token costs {penalty:.3f} nats in the penalized log-probability"
            f"{why}; --unk-penalty changes this"
        )
    elif len(counts) > 1:
        say(f"{found} without a penalty: they look likelier than they are (see --unk-penalty)")


def _tables(request: _Request, batches: "Iterator[list[Record]]") -> Counter[int]:
    from rich.console import Console

    from charlm.report.tables import score_table, token_table

    rows = [row for batch in batches for row in batch]
    columns = request.columns(rows) if request.keep else []
    scores = [score for _, score in request.scored(rows)]
    table = score_table(
        scores,
        request.log_base,
        Console().width,
        rank=request.rank,
        words=request.scorer.vocabulary.spec.whole_words,
        kept={name: [row.cells.get(name, "") for row in rows] for name in columns},
    )
    render(table)
    for score in scores if request.tokens else ():
        if score:
            write("\n")
            render(token_table(score, request.log_base))
    return Counter(score.tally.oov for score in scores if score)


def _lines(request: _Request, batches: "Iterator[list[Record]]", output: str) -> Counter[int]:
    from charlm.report.formats import FORMATS, ScoredRow

    show = escape_controls if on_terminal() else str
    counts = Counter[int]()
    writer = FORMATS[output](request.log_base, tokens=request.tokens)
    kept = _Kept(request, writer)
    for number, batch in enumerate(batches):
        if not number:
            kept.begin(batch)
            write(show(writer.header()), flush=True)
        for start in range(0, len(batch), BATCH):
            for row, found in request.scored(batch[start : start + BATCH]):
                cells = kept.cells(row)
                line = writer.lines(ScoredRow(number=row.number, score=found, kept=cells))
                write(show(line))
                if found:
                    counts[found.tally.oov] += 1
            write("", flush=True)
    if not kept.begun:
        write(show(writer.header()))
    return counts


@dataclass
class _Kept:
    """The other columns of a table that go to the output, and what they are called there."""

    request: _Request
    writer: "Writer"
    names: dict[str, str] = field(default_factory=dict)
    """Name in the output by name in the input; empty for a column that is left out."""
    begun: bool = False

    def begin(self, batch: "Sequence[Record]") -> None:
        """Choose the columns from the first rows."""
        self._add(self.request.columns(batch))
        self.begun = True

    def _add(self, columns: Sequence[str]) -> None:
        from charlm.report.formats import output_names

        self.names = output_names([*self.names, *columns], self.writer.own_columns)
        self.writer.kept = list(self.names.values())
        renamed = [name for name in columns if self.names[name] != name]
        if renamed:
            pairs = ", ".join(f'"{self.names[name]}" for "{name}"' for name in renamed)
            say(f"columns of the input whose names the output needs have new names: {pairs}")

    def cells(self, row: "Record") -> dict[str, str]:
        """Return the cells of a row to copy, by their names in the output."""
        if self.request.keep is None:
            late = [name for name in row.cells if name not in self.names]
            self._add_late(row.number, late)
        return {self.names[name]: cell for name, cell in row.cells.items() if self.names.get(name)}

    def _add_late(self, number: int, columns: list[str]) -> None:
        """Take columns that the first rows did not have, if there is no header that lacks them."""
        if columns and not self.writer.header():
            self._add(columns)
            return
        for name in columns:
            self.names[name] = ""
            say(
                f'the column "{name}" is first seen in row {number:,}, after the header was '
                "written; it is left out. Use --format jsonl"
            )


def stdin_lines(encoding: str = "utf-8", errors: str = "strict") -> Iterator[list[str]]:
    """Lines of stdin as soon as they are there, in batches of what has come so far."""
    import codecs

    from charlm.errors import CorpusError
    from charlm.text.sources.decoding import placeless, refuse_other_than_text

    decoder = codecs.getincrementaldecoder(encoding)(errors)
    rest, place, data = "", 0, b"-"
    while data:
        data = os.read(sys.stdin.fileno(), READ_BYTES)
        if not place:
            refuse_other_than_text(data, "standard input", encoding)
        begin = place - len(decoder.getstate()[0])  # a character may be cut in two
        try:
            rest += decoder.decode(data, final=not data)
        except UnicodeError as error:  # without a place: utf-16 without a byte-order mark
            reason = placeless(error)
            if reason or not isinstance(error, UnicodeDecodeError):
                raise CorpusError(
                    f"stdin: {reason}. Name its encoding with --encoding, such as {encoding}-le"
                ) from error
            raise CorpusError(
                f"stdin: byte {begin + error.start}: 0x{error.object[error.start]:02x} is not "
                f"valid {encoding.upper()}. Name its encoding with --encoding, such as cp1252, or "
                "take what can be read with --errors replace"
            ) from error
        if not place:  # a byte-order mark
            rest = rest.removeprefix("\ufeff")
        place += len(data)
        *lines, rest = rest.split("\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _file_batches(path: Path, rules: "Reading") -> "Iterator[list[Record]]":
    """Lines of a file or rows of a table, in batches as they are read; the first at once."""
    from charlm.text.corpus import Corpus

    corpus = Corpus([str(path)], document="line", reading=rules)
    records = corpus.records()
    first = list(islice(records, BATCH))
    return _batches(corpus, first, records)


def _batches(
    corpus: "Corpus", first: "list[Record]", records: "Iterator[Record]"
) -> "Iterator[list[Record]]":
    """Batches of records; the notes about the file as they come."""
    batch, reported = first, 0
    while batch:
        reported = say_notes(corpus.notes, reported)
        yield batch
        batch = list(islice(records, BATCH))
    say_notes(corpus.notes, reported)

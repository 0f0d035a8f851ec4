"""`charlm score`: the probability of sentences."""

import itertools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    EngineOption,
    ReadingFlags,
    RunOption,
    WeightsOption,
    as_trained,
    check_meant,
    name_unknown,
    open_model,
    reading_flags,
    takes_reading,
)
from charlm.cli.output import on_terminal, render, say, write

if TYPE_CHECKING:
    from charlm.config import Reading
    from charlm.inference.scoring import Scorer

READ_BYTES = 1 << 16


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score")(takes_reading(score))


def score(
    texts: Annotated[list[str] | None, typer.Argument(help="Sentences; `-` is stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A sentence on each line.")] = None,
    reading: ReadingFlags = NO_FLAGS,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show each token.")] = False,
    output: Annotated[
        str, typer.Option("--format", help="auto, table, tsv, jsonl or scores.")
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

    Example:  charlm score "the apple and pear salad" "the apple and pair salad"
    """
    from charlm.config import Reading
    from charlm.errors import UsageError
    from charlm.text.decoding import codec_name

    texts = texts or []
    if output not in ("auto", "table", "tsv", "jsonl", "scores"):
        raise UsageError(f"--format is {output!r}; expected auto, table, tsv, jsonl or scores")
    if log_base not in ("e", "2", "10"):
        raise UsageError(f"--log-base is {log_base!r}; expected e, 2 or 10")
    if tokens and output == "scores":
        raise UsageError("--tokens with --format scores, which has none; expected another format")
    if texts and file:
        raise UsageError("sentences and --file were both given; expected one of them")
    rules = Reading(**reading)
    if texts and texts != ["-"]:
        check_meant(reading_flags(reading), "--file or stdin")
    check_meant({"--column"} if rules.column is not None and not file else set(), "--file")
    from_stdin = (not texts and not file) or texts == ["-"] or str(file) == "-"
    if from_stdin and sys.stdin.isatty():
        raise UsageError("no sentences; give some as arguments, with --file, or on stdin")
    model = open_model(run, checkpoints, engine, weights)
    if not model.run.ends:
        say("the model read one endless stream: scores are of texts as beginnings, without an end")
    rules = Reading(**as_trained(reading, model.run))
    from charlm.inference.scoring import Scorer

    scorer = Scorer(
        model.run.engine,
        model.vocabulary,
        end=model.run.ends,
        carry=carry,
        lines=carry,
        anew=model.run.begins_anew,
    )
    if output == "auto":
        output = "table" if on_terminal() and not from_stdin else "tsv"
    if from_stdin:
        lines = stdin_lines(codec_name(rules.encoding), rules.errors)
    else:
        lines = _file_lines(file, rules) if file else iter([texts])
    if texts and not from_stdin:
        name_unknown(model, texts, "sentences")
    if not rules.keep_cr:
        lines = _plain_ends(lines)
    if output == "table":
        counts = _tables(scorer, [line for batch in lines for line in batch], log_base, tokens)
    else:
        counts = _lines(scorer, lines, output, log_base, tokens)
    _tell_unknown(counts)


def _plain_ends(batches: Iterator[list[str]]) -> Iterator[list[str]]:
    """Lines without the carriage return that ends them in files of Windows; said once."""
    told = False
    for batch in batches:
        if not told and any(line.endswith("\r") for line in batch):
            told = True
            say("lines end with a carriage return, which the model does not know; it is left out")
        yield [line.removesuffix("\r") for line in batch]


def _tell_unknown(counts: Counter[int]) -> None:
    """Say so where texts hold different numbers of unknown tokens."""
    if len(counts) > 1:
        some = sum(count for oov, count in counts.items() if oov)
        say(
            f"{some:,} of {sum(counts.values()):,} texts hold unknown tokens, which cost next to "
            "nothing: they look likelier than they are"
        )


def _tables(scorer: "Scorer", texts: list[str], log_base: str, tokens: bool) -> Counter[int]:
    from rich.console import Console

    from charlm.report.tables import score_table, token_table

    scores = scorer.score(texts, tokens=tokens)
    render(score_table(scores, log_base, Console().width))
    if tokens:
        for item in scores:
            write("\n")
            render(token_table(item, log_base))
    return Counter(score.tally.oov for score in scores)


def _lines(
    scorer: "Scorer", batches: Iterator[list[str]], output: str, log_base: str, tokens: bool
) -> Counter[int]:
    from charlm.report.formats import FORMATS, tsv_header

    if output == "tsv":
        write(tsv_header(log_base, tokens), flush=True)
    number, counts = 0, Counter[int]()
    for batch in batches:
        for start in range(0, len(batch), 256):
            part = batch[start : start + 256]
            found = scorer.score(part, tokens=tokens)
            for item in found:
                number += 1
                counts[item.tally.oov] += 1
                write(FORMATS[output](number, item, log_base, tokens))
            write("", flush=True)
    return counts


def stdin_lines(encoding: str = "utf-8", errors: str = "strict") -> Iterator[list[str]]:
    """Lines of stdin as soon as they are there, in batches of what has come so far."""
    import codecs

    from charlm.errors import CorpusError

    decoder = codecs.getincrementaldecoder(encoding)(errors)
    rest, place, data = "", 0, b"-"
    while data:
        data = os.read(sys.stdin.fileno(), READ_BYTES)
        begin = place - len(decoder.getstate()[0])  # a character may be cut in two
        try:
            rest += decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"stdin: byte {begin + error.start}: 0x{error.object[error.start]:02x} is not "
                f"valid {encoding.upper()}. Name its encoding with --encoding, such as cp1252, or "
                "take what can be read with --errors replace"
            ) from error
        except UnicodeError as error:  # of utf-16 and utf-32: no byte-order mark
            raise CorpusError(
                f"stdin: {error}. Name its encoding with --encoding, such as {encoding}-le"
            ) from error
        if not place:  # a byte-order mark
            rest = rest.removeprefix("\ufeff")
        place += len(data)
        *lines, rest = rest.split("\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _file_lines(path: Path, rules: "Reading") -> Iterator[list[str]]:
    """Lines of a file or rows of a table, in batches as they are read; the first at once."""
    from charlm.text.corpus import END, Corpus

    corpus = Corpus([str(path)], document="line", reading=rules)
    chunks = corpus.chunks()
    first = next(chunks, "")

    def lines() -> Iterator[list[str]]:
        """What stands between the ends; the notes about the file at last."""
        rest = ""
        for chunk in itertools.chain([first], chunks):
            *whole, rest = (rest + chunk).split(END)
            yield whole
        for note in corpus.notes:
            say(note)

    return lines()

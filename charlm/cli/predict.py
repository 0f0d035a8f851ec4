"""`charlm predict`: give texts labels."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.labels import split_target
from charlm.cli.output import on_terminal, render, say, terminal_width, write, write_json
from charlm.cli.stdin import stdin_blocks
from charlm.errors import UsageError, check_choice
from charlm.phases import phase

if TYPE_CHECKING:
    from charlm.api.labels import LabelModel
    from charlm.inference.labelling import Label

FORMATS = ("auto", "table", "tsv", "jsonl", "labels", "fasttext")
STDIN = ["-"]
Group = list[str]
"""Texts that are labelled together."""

Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        help="File with a text on each line, or what charlm train reads (its labels are ignored); "
        "may be repeated.",
    ),
]
Output = Annotated[
    str,
    typer.Option("--format", help="auto, table, tsv, jsonl, labels or fasttext."),
]
Tokens = Annotated[
    bool, typer.Option("--tokens", help="Show the probability of the label after each token.")
]
Top = Annotated[
    int, typer.Option("--top", min=1, help="Number of labels to write, the likeliest first.")
]


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - is stdin.")] = None,
    files: Files = None,
    reading: options.LabelledReading = options.NO_FLAGS,
    output: Output = "auto",
    tokens: Tokens = False,
    top: Top = 1,
    as_json: options.Json = False,
    engine: options.Engine = "auto",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Give texts labels, with a run of charlm train --task classify.

    Texts are arguments, or lines of --file or stdin. The label of a text does not depend on other
    texts. A line without words has no label: its line in the output is empty.

    The format auto is a table on a terminal, else tsv.

    Example:  charlm predict "A stirring, funny film" "Dull."
    """
    texts = texts or []
    _check_output(output, tokens=tokens, top=top, as_json=as_json)
    from_stdin = _check_source(texts, files, reading)
    path = options.locate(run, checkpoints, labels=True)
    model = api.labels.open_labels(path, engine=engine)
    top = min(top, len(model.labels))
    say(f"engine {model.run.reader.name}", level=2)
    if not from_stdin and not files:
        _about_arguments(model, texts)
    groups = _groups(texts, files, reading, from_stdin=from_stdin)
    with phase("reading", unit="texts") if files else nullcontext():
        rows = _labelled(model, groups)
        if tokens:
            count = _write_readings(model, groups, as_json or output == "jsonl", top)
        elif as_json:
            count = _write_document(model, rows, top)
        elif output == "table" or (output == "auto" and on_terminal() and not from_stdin):
            count = _write_table(rows, top)
        else:
            count = _write_lines(rows, "tsv" if output == "auto" else output, top)
    if not count:
        say("no text was found, so nothing was labelled")


def _check_output(output: str, *, tokens: bool, top: int, as_json: bool) -> None:
    """Raise UsageError for options of the output that are invalid, alone or together."""
    check_choice("--format", output, FORMATS)
    if as_json and output != "auto":
        raise UsageError(f"--json with --format {output}; expected one of them. Leave one out")
    if tokens and output not in ("auto", "table", "jsonl"):
        raise UsageError(
            f"--tokens with --format {output}, which has a label for each text only; expected "
            "jsonl. Use --format jsonl"
        )
    if top > 1 and output == "labels":
        raise UsageError(
            f"--top {top} with --format labels, which has one label for each text; expected "
            "another format. Use --format tsv"
        )
    if top > 1 and tokens and not as_json and output != "jsonl":
        raise UsageError(
            f"--top {top} with --tokens, which shows the probability of one label; expected "
            "another format. Use --format jsonl"
        )


def _check_source(texts: list[str], files: list[str] | None, reading: options.Reading) -> bool:
    """Return whether texts come from stdin. Raises UsageError for flags that do not fit."""
    if texts and files:
        raise UsageError("texts and --file were both given; expected one of them")
    from_stdin = (not texts and not files) or texts == STDIN or files == STDIN
    if texts and not from_stdin:
        options.check_meant(options.reading_flags(reading), "--file or stdin")
    if from_stdin and reading.get("input_format", "auto") in ("auto", "text"):
        options.check_meant(options.table_flags(reading), "--file or --input-format")
    if from_stdin and sys.stdin.isatty():
        raise UsageError("no texts; expected some as arguments, with --file, or on stdin")
    return from_stdin


def _about_arguments(model: "LabelModel", texts: list[str]) -> None:
    """Report unknown words and slips in arguments."""
    from charlm.report.text import unknown_note

    if unknown := [piece for text in texts for piece in model.vocabulary.unknown(text)]:
        say(unknown_note("texts", unknown))
    options.warn_of_slips("predict", texts, "label", "labelled")


def _groups(
    texts: list[str],
    files: list[str] | None,
    reading: options.Reading,
    *,
    from_stdin: bool,
) -> Iterator[Group]:
    """Yield the texts in bounded groups; those of stdin as they arrive."""
    target, rules = split_target(reading)
    if not files and from_stdin and rules.get("input_format", "auto") in ("auto", "text"):
        batches = api.scoring.stream_sentences(stdin_blocks(), "standard input", rules, say)
        return ([record.text or "" for record in batch] for batch in batches)
    if from_stdin or files:
        return api.labels.file_texts(files or STDIN, rules, target, say)
    return iter([texts])


def _labelled(
    model: "LabelModel", groups: Iterator[Group]
) -> Iterator[list[tuple[str, "Label | None"]]]:
    """Yield the texts of each group with their labels, None for texts without words."""
    for group in groups:
        labels = model.predict(text for text in group if text.strip())
        yield [(text, next(labels) if text.strip() else None) for text in group]


def _write_lines(rows: Iterator[list[tuple[str, "Label | None"]]], output: str, top: int) -> int:
    """Write a line for each text as soon as it has a label; return the number of texts."""
    from charlm.report.predictions import LINES, tsv_header

    line, count = LINES[output], 0
    for group in rows:
        if output == "tsv" and not count:
            write(tsv_header(top))
        write("".join(line(text, label, top) for text, label in group), flush=True)
        count += len(group)
    return count


def _write_table(rows: Iterator[list[tuple[str, "Label | None"]]], top: int) -> int:
    """Write a table of all texts; return their number."""
    from charlm.report.predictions import prediction_table

    every = list(chain.from_iterable(rows))
    render(prediction_table(every, top, terminal_width()))
    return len(every)


def _write_document(
    model: "LabelModel", rows: Iterator[list[tuple[str, "Label | None"]]], top: int
) -> int:
    """Write one JSON document; return the number of texts."""
    from charlm.report.predictions import prediction

    every = list(chain.from_iterable(rows))
    about = {"schema_version": 1, "run": model.path.name, "labels": model.labels}
    found = [{"text": text, **prediction(label, top)} for text, label in every]
    write_json({**about, "predictions": found})
    return len(every)


def _write_readings(model: "LabelModel", groups: Iterator[Group], as_json: bool, top: int) -> int:
    """Write a line for each text with the answers after its tokens; return the number of texts."""
    from charlm.report.predictions import reading_json, reading_text

    count = 0
    for text in chain.from_iterable(groups):
        steps = model.as_read(text)
        if as_json:
            write(reading_json(text, steps, top), flush=True)
        else:
            render(reading_text(steps))
        count += 1
    return count

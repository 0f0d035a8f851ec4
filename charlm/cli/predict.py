"""`charlm predict`: give texts labels, tags or translations."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import on_terminal, render, say, terminal_width, write, write_document
from charlm.cli.stdin import STDIN, check_stdin, comes_from_stdin, stdin_blocks
from charlm.cli.task_runs import check_typed, open_run, split_target
from charlm.config.tasks import TASKS
from charlm.errors import check_choice
from charlm.phases import phase
from charlm.units import count_of

if TYPE_CHECKING:
    from charlm.api.task_api import TaskModel
    from charlm.report.task_reports import Predictions

Group = list[Any]
"""Texts that are answered together."""
Rows = Iterator[list[tuple[Any, Any]]]
"""Groups of texts with their answers, None for texts without words."""

SAMPLE_CHARS = 20_000
"""Characters of a file that are enough to see how it is written."""
OF_SOME = ("--top", "--tokens", "--beam", "--with")
"""Flags that some tasks know."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm predict`."""

    texts: Annotated[list[str] | None, typer.Argument(help="Texts; - is stdin.")] = None
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            help="File with a text on each line, or what charlm train reads (labels, tags or "
            "translations in it are ignored); may be repeated.",
        ),
    ] = None
    reading: options.LabelledReading
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, tsv, jsonl; table, labels, fasttext, conll, spans, tags or text, by the "
            "task.",
        ),
    ] = "auto"
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show how the answer comes about, token by token.")
    ] = False
    top: Annotated[
        int, typer.Option("--top", min=1, help="Number of labels to write, the likeliest first.")
    ] = 1
    beam: options.Beam = None
    with_: options.WithLabels = None
    as_json: options.Json = False
    engine: options.Engine = "auto"
    device: options.Device = "cpu"
    run: options.Run = None
    checkpoints: options.Checkpoints = None


@dataclass(kw_only=True)
class Blank:
    """Number of texts without words, and the number of the first one, from 1."""

    count: int = 0
    first: int = 0


def predict(asked: Asked) -> None:
    """Give texts labels, tags or translations, with a run of charlm train --task.

    Runs that give labels answer with their network and the bag of words that is mixed in, if any.
    With --with, several of them answer together.

    Texts are arguments, or lines of --file or stdin. The answer to a text does not depend on other
    texts. A line without words has none: its line in the output is empty.

    The format auto is a table on a terminal, else tsv for labels and conll for tags; translations
    are lines of text in both. --tokens shows how an answer comes about, token by token.

    Example:  charlm predict "A stirring, funny film" "Dull."
    """
    from_stdin = _check_source(asked)
    path = options.locate(asked.run, asked.checkpoints, verb="predict")
    predictions = _predictions(path)
    _check_output(asked, predictions, path)
    engine = options.on_device(asked.device, asked.engine)
    model = open_run(path, engine, asked.with_, asked.checkpoints)
    top = min(asked.top, max(len(model.labels), 1))
    say(f"engine {model.run.engine}", level=2)
    if not from_stdin and not asked.files:
        _about_arguments(model, asked.texts or [], predictions)
    output = asked.output
    if output == "auto":
        output = predictions.shown if on_terminal() and not from_stdin else predictions.piped
    blank = Blank()
    groups = _groups(model, asked, from_stdin=from_stdin)
    if from_stdin or asked.files:
        groups = _advised(model, groups)
    groups = _noted(groups, blank)
    with phase("reading", unit="texts") if asked.files else nullcontext():
        how = {} if asked.beam is None else {"beam": asked.beam}
        rows = _answered(model, groups, how)
        if asked.tokens:
            as_json = asked.as_json or output == "jsonl"
            count = _write_readings(model, groups, predictions, top, how, as_json=as_json)
        elif asked.as_json:
            count = _write_document(model, rows, predictions, top)
        elif output == "table":
            count = _write_table(rows, predictions, top)
        else:
            count = _write_lines(rows, predictions, output, top)
    if not count:
        say(f"no text was found, so nothing was {predictions.done}")
    if blank.count:
        one = blank.count == 1
        say(
            f"{count_of(blank.count, 'text')} without words {'has' if one else 'have'} no answer, "
            f"and {'its place is' if one else 'their places are'} empty (the first is text "
            f"{blank.first:,})"
        )


def _predictions(path: Path) -> "Predictions":
    """Return the formats of a run's answers. Raises UsageError for a run of another command."""
    from charlm.report.task_reports import report_of_task
    from charlm.runs.layout import no_labels, run_task

    task = run_task(path)
    if TASKS[task].verb != "predict":
        raise no_labels(path)
    return report_of_task(task).predictions


def _check_source(asked: Asked) -> bool:
    """Return whether texts come from stdin. Raises UsageError for flags that do not fit."""
    from_stdin = comes_from_stdin("texts", asked.texts or [], asked.files or [], asked.reading)
    if from_stdin:
        check_stdin("texts", asked.reading)
    return from_stdin


def _check_output(asked: Asked, predictions: "Predictions", path: Path) -> None:
    """Raise UsageError for a format or flags that the answers of a run do not have."""
    check_choice("--format", asked.output, ("auto", *predictions.formats))
    others = [flag for flag in OF_SOME if flag not in predictions.flags]
    check_typed(options.typed_values(asked, *others), path, "predict")
    predictions.check(asked.output, tokens=asked.tokens, top=asked.top, as_json=asked.as_json)


def _about_arguments(model: "TaskModel", texts: list[str], predictions: "Predictions") -> None:
    """Report unknown words, how to write texts so that they are fewer, and slips in arguments."""
    from charlm.report.text import unknown_note

    if unknown := [piece for text in texts for piece in model.unknown(text)]:
        from charlm.text.rewritings import rewriting_note

        say(unknown_note("texts", unknown))
        if advice := rewriting_note(model.vocabulary, texts):
            say(advice)
    options.warn_of_slips("predict", texts, predictions.act, predictions.done)


def _advised(model: "TaskModel", groups: Iterator[Group]) -> Iterator[Group]:
    """Yield groups; report if punctuation in the first one hides words that the run knows."""
    from charlm.config.text_units import UNITS
    from charlm.text.rewritings import APART, rewriting_note

    first = next(groups, [])
    texts = [text if isinstance(text, str) else " ".join(text) for text in first]
    ends = accumulate(map(len, texts))
    texts = [text for text, end in zip(texts, ends, strict=True) if end <= SAMPLE_CHARS]
    whole_words = UNITS[model.vocabulary.unit].whole_words
    if whole_words and (advice := rewriting_note(model.vocabulary, texts, needed=APART)):
        say(advice)
    yield from chain([first] if first else [], groups)


def _groups(model: "TaskModel", asked: Asked, *, from_stdin: bool) -> Iterator[Group]:
    """Yield the texts in bounded groups; those of stdin as they arrive, if lines are texts."""
    from charlm.runs.layout import run_task

    target, rules = split_target(asked.reading)
    task = api.task_api.api_of(run_task(model.path))
    plain = task.reads_lines and not options.reads_table(rules)
    if from_stdin and not asked.files and plain:
        batches = api.scoring.stream_sentences(stdin_blocks(), rules, say)
        return ([record.text or "" for record in batch] for batch in batches)
    if from_stdin or asked.files:
        return task.inputs(model.path, asked.files or STDIN, rules, target, say)
    return iter([asked.texts or []])


def _has_words(text: Any) -> bool:
    """Return whether a text, or a list of words, is not empty."""
    return bool(text.strip() if isinstance(text, str) else text)


def _noted(groups: Iterator[Group], blank: Blank) -> Iterator[Group]:
    """Yield groups, and note their texts without words."""
    number = 0
    for group in groups:
        for text in group:
            number += 1
            if not _has_words(text):
                blank.count += 1
                blank.first = blank.first or number
        yield group


def _answered(model: "TaskModel", groups: Iterator[Group], how: dict[str, Any]) -> Rows:
    """Yield the texts of each group with their answers."""
    for group in groups:
        answers = model.predict_each((text for text in group if _has_words(text)), **how)
        yield [(text, next(answers) if _has_words(text) else None) for text in group]


def _write_lines(rows: Rows, predictions: "Predictions", output: str, top: int) -> int:
    """Write each text as soon as it has an answer; return the number of texts."""
    count = 0
    for group in rows:
        if not count:
            write(predictions.header(output, top))
        write(
            "".join(predictions.line(output, text, answer, top) for text, answer in group),
            flush=True,
        )
        count += len(group)
    return count


def _write_table(rows: Rows, predictions: "Predictions", top: int) -> int:
    """Write a table of all texts; return their number."""
    every = list(chain.from_iterable(rows))
    render(predictions.table(every, top, terminal_width()))
    return len(every)


def _write_document(model: "TaskModel", rows: Rows, predictions: "Predictions", top: int) -> int:
    """Write one JSON document; return the number of texts."""
    every = list(chain.from_iterable(rows))
    labels = {"labels": model.labels} if model.labels else {}
    found = [
        {"text": text if isinstance(text, str) else " ".join(text), **predictions.json(answer, top)}
        for text, answer in every
    ]
    write_document({"run": model.name, **labels, "predictions": found})
    return len(every)


def _write_readings(
    model: "TaskModel",
    groups: Iterator[Group],
    predictions: "Predictions",
    top: int,
    how: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    """Write how the answer to each text comes about; return the number of texts."""
    count = 0
    for text in chain.from_iterable(groups):
        shown = predictions.reading(text, model.as_read(text, **how), top, as_json=as_json)
        if isinstance(shown, str):
            write(shown, flush=True)
        else:
            render(shown)
        count += 1
    return count

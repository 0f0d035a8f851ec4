"""`charlm eval`: measure how well a model predicts a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.conditions import check_unconditioned, evaluate_by_condition
from charlm.cli.output import render, say, say_all, write, write_documents
from charlm.cli.stdin import Takes
from charlm.cli.task_runs import check_typed, evaluate_task
from charlm.config.training import MAX_ORDER
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.evaluation import Evaluation
    from charlm.api.methods import Methods
    from charlm.api.model import Model


UNCONDITIONED = (
    "--reset", "--cache", "--dynamic", "--with", "--temperature", "--average", "--ngram",
)  # fmt: skip
"""Flags that an evaluation under every condition of a run does not have."""
OF_MODELS = (
    "--document", "--window", "--reset", "--cache", "--dynamic", "--temperature", "--average",
    "--ngram", "--weights", "--condition",
)  # fmt: skip
"""Flags that only language models know."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm eval`."""

    files: Annotated[
        list[str] | None,
        typer.Option("--file", help="Text to evaluate. (default: the held-out text)"),
    ] = None
    document: Annotated[
        str | None,
        typer.Option("--document", help="stream, line, paragraph or file. (default: as trained)"),
    ] = None
    reading: options.LabelledReading
    window: Annotated[
        int | None,
        typer.Option("--window", min=1, help="Tokens in a window of --reset. (default: 256)"),
    ] = None
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Reset the state at each window, as transformer papers do."),
    ] = False
    cache: Annotated[
        int | None,
        typer.Option("--cache", min=1, help="Also evaluate with a neural cache of N tokens."),
    ] = None
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Also evaluate while learning from the text.")
    ] = False
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Also evaluate uncalibrated and recalibrated.")
    ] = False
    average: Annotated[
        bool, typer.Option("--average", help="Also evaluate the mean of the kept checkpoints.")
    ] = False
    condition: options.Condition = None
    with_: options.WithAny = None
    ngram: Annotated[
        int | None,
        typer.Option(
            "--ngram",
            metavar="N",
            min=1,
            max=MAX_ORDER,
            help="Also mix with N-grams of the training text, fitted with modified Kneser-Ney.",
        ),
    ] = None
    worst: Annotated[
        int | None,
        typer.Option(
            "--worst", metavar="N", min=1, help="Also show the N texts that are answered worst."
        ),
    ] = None
    beam: options.Beam = None
    as_json: options.Json = False
    engine: options.Engine = "auto"
    device: options.Device = "cpu"
    weights: options.Weights = "fp32"
    run: options.Run = None
    checkpoints: options.Checkpoints = None

    @property
    def methods(self) -> "Methods":
        """Methods beside plain evaluation."""
        return api.methods.Methods(
            cache=self.cache, dynamic=self.dynamic, temperature=self.temperature,
            average=self.average, others=tuple(self.with_ or ()), ngram=self.ngram,
            checkpoints=self.checkpoints,
        )  # fmt: skip


@Takes(text=("files",), stdin=("--file", "-"), option=("To evaluate a text, use", "--file"))
def evaluate(asked: Asked) -> None:
    """Evaluate a model on a text: loss and perplexity, or the figures of its task.

    Perplexity per token is exp(nats / number of tokens); spaces and line ends are tokens too,
    except with --words whitespace. Perplexity per word is exp(nats / number of words) over the
    whole text, words being separated by blanks: use it to compare models of different units.

    A run that gives labels is compared with those of the text: accuracy, macro-F1, figures of each
    label, confusion, calibration, and what a bag of words reaches. So are tags, by the span-F1 of
    conlleval or their accuracy, and translations, by chrF, BLEU and exact ones. With --with,
    several runs that give labels answer together.

    A run with conditions is evaluated on the texts of all of them, or with --condition on its own.

    Example:  charlm eval --file test.txt
    """
    from charlm.runs.layout import is_label_run

    path = options.locate(asked.run, asked.checkpoints)
    if is_label_run(path):
        check_typed(options.typed_values(asked, *OF_MODELS), path)
        evaluate_task(
            path, asked.files, asked.reading, with_=asked.with_, checkpoints=asked.checkpoints,
            worst=asked.worst, beam=asked.beam, as_json=asked.as_json,
            engine=options.on_device(asked.device, asked.engine),
        )  # fmt: skip
        return
    target = {"--target": asked.reading.get("target")}
    of_tasks = target | options.typed_values(asked, "--worst", "--beam")
    check_typed(of_tasks, path, "eval")
    engine = _engine(asked)
    _check_meant(asked, path)
    if asked.condition is None and not asked.files and api.conditions.usual_condition(path):
        check_unconditioned(
            options.typed_values(asked, *UNCONDITIONED),
            f"all conditions of run {path.name}", "Name one with --condition",
        )  # fmt: skip
        evaluate_by_condition(path, as_json=asked.as_json, engine=engine, weights=asked.weights)
        return
    model = options.open_model(
        str(path), asked.checkpoints, engine, asked.weights, condition=asked.condition
    )
    result = api.evaluation.evaluate_run(
        model, asked.files, document=asked.document, reading=asked.reading, methods=asked.methods,
        reset_every=(asked.window or 256) if asked.reset else None,
    )  # fmt: skip
    say_all(result.notes)
    _write(model, result, as_json=asked.as_json, by_method=bool(asked.methods))


def _engine(asked: Asked) -> str:
    """Return the engine that computes. Raises UsageError for options that a method excludes."""
    method = asked.methods.in_torch
    is_open = asked.weights == "fp32" and asked.engine in ("auto", "torch")
    if method and (asked.reset or not is_open):
        raise UsageError(f"--{method} needs engine torch, weights fp32, and no --reset")
    return options.on_device(asked.device, "torch" if method else asked.engine)


def _check_meant(asked: Asked, path: Path) -> None:
    """Raise UsageError for flags without the flag, or the kind of run, that they need."""
    if not asked.files:
        typed = options.typed_values(asked, "--document")
        options.check_meant([*options.reading_flags(asked.reading), *typed], "--file")
    if not asked.reset:
        options.check_meant(options.typed_values(asked, "--window"), "--reset")
    method = asked.methods.in_torch
    options.check_network(path, f"--{method}" if method else "")


def _write(model: "Model", result: "Evaluation", *, as_json: bool, by_method: bool) -> None:
    """Write the figures of each text, then those of each method, or both as JSON."""
    from charlm.report.scores import priced_figures, priced_note

    tallies = result.plain | result.adapted
    if as_json:
        about = {"run": model.path.name, "protocol": result.protocol}
        contents = {
            name: {**about, **tally.summary(), **priced_figures(model.run, tally)}
            for name, tally in tallies.items()
        }
        write_documents(contents)
        return
    from charlm.report.tables import method_table, tally_table

    say(result.protocol)
    render(tally_table(result.plain))
    say_all(filter(None, (priced_note(model.run, *pair) for pair in result.plain.items())))
    if by_method:
        write("\n")
        render(method_table(tallies, result.plain))

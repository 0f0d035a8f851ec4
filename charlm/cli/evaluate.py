"""`charlm eval`: measure how well a model predicts a text."""

from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.conditions import check_unconditioned, evaluate_by_condition
from charlm.cli.output import render, say, say_all, write, write_json
from charlm.cli.stdin import Takes
from charlm.cli.task_runs import check_typed, evaluate_task, flags_of
from charlm.config.training import MAX_ORDER
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.evaluation import Evaluation

Files = Annotated[
    list[str] | None,
    typer.Option("--file", help="Text to evaluate. (default: the held-out text)"),
]
Document = Annotated[
    str | None,
    typer.Option("--document", help="stream, line, paragraph or file. (default: as trained)"),
]
Window = Annotated[
    int | None,
    typer.Option("--window", min=1, help="Tokens in a window of --reset. (default: 256)"),
]
Reset = Annotated[
    bool,
    typer.Option("--reset", help="Reset the state at each window, as transformer papers do."),
]
Cache = Annotated[
    int | None,
    typer.Option("--cache", min=1, help="Also evaluate with a neural cache of N tokens."),
]
Dynamic = Annotated[
    bool, typer.Option("--dynamic", help="Also evaluate while learning from the text.")
]
Temperature = Annotated[
    bool, typer.Option("--temperature", help="Also evaluate uncalibrated and recalibrated.")
]
Average = Annotated[
    bool, typer.Option("--average", help="Also evaluate the mean of the kept checkpoints.")
]
Ngram = Annotated[
    int | None,
    typer.Option(
        "--ngram",
        metavar="N",
        min=1,
        max=MAX_ORDER,
        help="Also mix with N-grams of the training text, fitted with modified Kneser-Ney.",
    ),
]

Worst = Annotated[
    int | None,
    typer.Option(
        "--worst", metavar="N", min=1, help="Also show the N texts that are answered worst."
    ),
]


@Takes(text=("files",), stdin=("--file", "-"), option=("To evaluate a text, use", "--file"))
def evaluate(
    files: Files = None,
    document: Document = None,
    reading: options.LabelledReading = options.NO_FLAGS,
    window: Window = None,
    reset: Reset = False,
    cache: Cache = None,
    dynamic: Dynamic = False,
    temperature: Temperature = False,
    average: Average = False,
    condition: options.Condition = None,
    with_: options.With = None,
    ngram: Ngram = None,
    worst: Worst = None,
    beam: options.Beam = None,
    as_json: options.Json = False,
    engine: options.Engine = "auto",
    device: options.Device = "cpu",
    weights: options.Weights = "fp32",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Evaluate a model on a text: loss and perplexity, or the figures of its task.

    Perplexity per token is exp(nats / number of tokens); spaces and line ends are tokens too,
    except with --words whitespace. Perplexity per word is exp(nats / number of words) over the
    whole text, words being separated by blanks: use it to compare models of different units.

    A run that gives labels is compared with those of the text: accuracy, macro-F1, figures of each
    label, confusion, calibration, and what a bag of words reaches. So are tags, by the span-F1 of
    conlleval or their accuracy, and translations, by chrF, BLEU and exact ones.

    A run with conditions is evaluated on the texts of all of them, or with --condition on its own.

    Example:  charlm eval --file test.txt
    """
    from charlm.runs.layout import is_label_run

    path = options.locate(run, checkpoints)
    if is_label_run(path):
        check_typed(
            {
                "--document": document, "--window": window, "--reset": reset, "--cache": cache,
                "--dynamic": dynamic, "--temperature": temperature, "--average": average,
                "--with": with_, "--ngram": ngram, "--weights": weights != "fp32",
                "--condition": condition,
            }, path,
        )  # fmt: skip
        engine = options.on_device(device, engine)
        evaluate_task(path, files, reading, worst=worst, beam=beam, as_json=as_json, engine=engine)
        return
    of_tasks = {"--target": reading.get("target"), "--worst": worst, "--beam": beam}
    check_typed(of_tasks, path, lambda row: flags_of(row, "eval"))
    methods = api.methods.Methods(
        cache=cache, dynamic=dynamic, temperature=temperature, average=average,
        others=tuple(with_ or ()), ngram=ngram, checkpoints=checkpoints,
    )  # fmt: skip
    method = methods.in_torch
    if method and (reset or weights != "fp32" or engine not in ("auto", "torch")):
        raise UsageError(f"--{method} needs engine torch, weights fp32, and no --reset")
    engine = options.on_device(device, "torch" if method else engine)
    of_files = options.reading_flags(reading) | ({"--document"} if document is not None else set())
    options.check_meant(of_files if not files else set(), "--file")
    options.check_meant({"--window"} if window and not reset else set(), "--reset")
    options.check_network(path, f"--{method}" if method else "")
    if condition is None and not files and api.conditions.usual_condition(path):
        check_unconditioned(
            {
                "--reset": reset, "--cache": cache, "--dynamic": dynamic, "--with": with_,
                "--temperature": temperature, "--average": average, "--ngram": ngram,
            }, f"all conditions of run {path.name}", "Name one with --condition",
        )  # fmt: skip
        evaluate_by_condition(path, as_json=as_json, engine=engine, weights=weights)
        return
    model = options.open_model(str(path), checkpoints, engine, weights, condition=condition)
    result = api.evaluation.evaluate_run(
        model, files, document=document, reading=reading, methods=methods,
        reset_every=(window or 256) if reset else None,
    )  # fmt: skip
    say_all(result.notes)
    _write(model.path.name, result, as_json=as_json, by_method=bool(methods))


def _write(run: str, result: "Evaluation", *, as_json: bool, by_method: bool) -> None:
    """Write the figures of each text, then those of each method, or both as JSON."""
    tallies = result.plain | result.adapted
    if as_json:
        about = {"schema_version": 1, "run": run, "protocol": result.protocol}
        contents = {name: {**about, **tally.summary()} for name, tally in tallies.items()}
        write_json(next(iter(contents.values())) if len(contents) == 1 else contents)
        return
    from charlm.report.tables import method_table, tally_table

    say(result.protocol)
    render(tally_table(result.plain))
    if by_method:
        write("\n")
        render(method_table(tallies, result.plain))

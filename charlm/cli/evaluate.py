"""`charlm eval`: how well a model predicts a text."""

from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    EngineOption,
    JsonOption,
    ReadingFlags,
    RunOption,
    WeightsOption,
    as_trained,
    check_meant,
    open_model,
    reading_flags,
)
from charlm.cli.output import render, say, say_notes, write, write_json
from charlm.phases import phase

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.text.encoded import EncodedText
    from charlm.units import Tally


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def evaluate(
    files: Annotated[
        list[str] | None,
        typer.Option("--file", help="Text to evaluate; without it, the run's held-out text."),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option("--document", help="stream, line, paragraph or file. (default: as trained)"),
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    window: Annotated[
        int | None,
        typer.Option("--window", min=1, help="With --reset: tokens in a window. (default: 256)"),
    ] = None,
    reset: Annotated[
        bool,
        typer.Option("--reset", help="Forget at each window, as transformer reports do."),
    ] = False,
    cache: Annotated[
        int | None,
        typer.Option("--cache", min=1, help="Also with a neural cache of so many tokens."),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Also learning on from the text as it is read.")
    ] = False,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Also uncalibrated, and calibrated anew.")
    ] = False,
    average: Annotated[
        bool, typer.Option("--average", help="Also with the mean of the kept checkpoints' weights.")
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="RUN", help="Also mixed with another run; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Likelihood of a text: nats, bits per character and byte, perplexity, counts.

    Perplexity per token is exp(nats / number of tokens); blanks and line ends are tokens too,
    except with --words whitespace. Perplexity per word is exp(nats / number of words), the whole
    text being charged to what its blanks separate: compare models of other units by this one.

    Example:  charlm eval --file test.txt
    """
    methods = {"--cache": bool(cache), "--dynamic": dynamic, "--temperature": temperature,
               "--average": average, "--with": bool(others)}  # fmt: skip
    wanted = [flag for flag, given in methods.items() if given]
    if wanted and (reset or weights != "fp32" or engine not in ("auto", "torch")):
        from charlm.errors import UsageError

        raise UsageError(f"{wanted[0]} needs engine torch, weights fp32, and no --reset")
    of_files = reading_flags(reading) | ({"--document"} if document is not None else set())
    check_meant(of_files if not files else set(), "--file")
    check_meant({"--window"} if window and not reset else set(), "--reset")
    reset_every = (window or 256) if reset else None
    model = open_model(run, checkpoints, "torch" if wanted else engine, weights)
    from charlm.cli.test_time import Methods

    chosen = Methods(cache, dynamic, temperature, average, tuple(others or ()), checkpoints)
    if wanted:
        chosen.check(model)
    texts = _held_out(model) if not files else {}
    if files:
        from charlm.config.settings import Reading
        from charlm.text.corpus import Corpus

        rules = Reading(**as_trained(reading, model.run))
        corpus = Corpus(files, document=document or model.run.boundaries.document, reading=rules)
        with phase("encoding the text"):
            texts = {"text": model.run.encode(corpus)}
        if not len(texts["text"].ids):
            from charlm.errors import CorpusError

            raise CorpusError("the text is empty; expected at least one token to evaluate")
        say_notes(corpus.notes)
    protocol = (
        f"windows of {reset_every} tokens, each from the zero state"
        if reset
        else "one full pass, state carried"
    )
    from charlm.inference.likelihood import evaluate as tally_of

    tallies = {}
    for name, text in texts.items():
        with phase(f"evaluating: {name}", total=len(text.ids)):
            tallies[name] = tally_of(model.run.engine, text, reset_every=reset_every)
    plain = dict(tallies)
    if wanted:
        tallies |= chosen.tallies(model, texts)
    if weights != "fp32":
        _tell_quality(model, texts, tallies, reset_every)
    if as_json:
        contents = {name: {"schema_version": 1, "run": model.path.name, "protocol": protocol,
                           **tally.summary()} for name, tally in tallies.items()}  # fmt: skip
        write_json(next(iter(contents.values())) if len(contents) == 1 else contents)
        return
    from charlm.report.tables import method_table, tally_table

    say(protocol)
    render(tally_table(plain))
    if wanted:
        write("\n")
        render(method_table(tallies, plain))


def _tell_quality(
    model: "Model",
    texts: "dict[str, EncodedText]",
    tallies: "dict[str, Tally]",
    reset_every: int | None,
) -> None:
    """What the smaller weights cost: the same texts under the weights as they were trained."""
    from charlm.api.model import load
    from charlm.inference.likelihood import evaluate as tally_of

    exact = load(model.path).run.engine
    for name, text in texts.items():
        before = tally_of(exact, text, reset_every=reset_every).nats_per_token
        found = tallies[name].nats_per_token
        say(
            f"{name}: {found:.5f} nats/token with {model.run.engine.name} weights, "
            f"{before:.5f} with fp32 ({found - before:+.5f})"
        )


def _held_out(model: "Model") -> "dict[str, EncodedText]":
    """The validation and test text that the run keeps. Raises UsageError when there is none."""
    from charlm.errors import UsageError

    kept = {name: model.run.kept(name) for name in ("valid", "test")}
    found = {name: text for name, text in kept.items() if text is not None}
    if not found:
        raise UsageError("this run keeps no held-out text; give a text with --file")
    return found

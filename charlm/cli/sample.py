"""`charlm sample`: generate new text."""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli import options
from charlm.cli.output import on_terminal, say, say_all, write, write_json_line
from charlm.cli.series import write_forecasts
from charlm.cli.stdin import Takes, read_file
from charlm.cli.task_runs import check_typed
from charlm.config.tasks import SERIES
from charlm.errors import UsageError
from charlm.files.escapes import escape_controls
from charlm.phases import advance, phase

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.inference.generation import Piece, Sample
    from charlm.inference.items import Item, Items
    from charlm.report.samples import Layout


SERIES_LENGTH = 48
"""Default length of the forecast of a series."""
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature", help="Below 1: safer; above 1: wilder; 0: always the likeliest token."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, help="Seed; the same seed gives the same text. (default: random)"
    ),
]
RULES = ("--unique", "--new", "--match", "--min-len", "--max-len")
"""Flags of the rules for items."""
OF_TEXT = (
    "--echo", "--top-k", "--top-p", "--min-p", "--until-eos", *RULES, "--attempts", "--separator",
    "--print0", "--stop", "--allow-unk", "--raw", "--unk-text", "--with", "--weights",
    "--condition",
)  # fmt: skip
"""Flags that a series does not have."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm sample`."""

    length: Annotated[
        int | None,
        typer.Option(
            "--len",
            min=0,
            help="Length of each sample in tokens; the maximum for items. (default: 500; "
            f"of a series {SERIES_LENGTH} numbers)",
        ),
    ] = None
    prime: Annotated[
        str | None,
        typer.Option("--prime", help="Text, or numbers of a series, to start from; - is stdin."),
    ] = None
    prime_file: Annotated[
        Path | None, typer.Option("--prime-file", help="File with the text to start from.")
    ] = None
    echo: Annotated[bool, typer.Option("--echo", help="Include the prime text in the output.")] = (
        False
    )
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Below 1: safer; above 1: wilder; 0: always the likeliest token, or the mean of a "
            "number. (default: 1; 0 for a series)",
        ),
    ] = None
    top_k: Annotated[
        int, typer.Option("--top-k", help="Keep only the k likeliest tokens; 0: all.")
    ] = 0
    top_p: Annotated[
        float,
        typer.Option(
            "--top-p", help="Keep the likeliest tokens that together have this probability."
        ),
    ] = 1.0
    min_p: Annotated[
        float,
        typer.Option(
            "--min-p", help="Keep tokens with at least this fraction of the best probability."
        ),
    ] = 0.0
    count: Annotated[int, typer.Option("--n", min=1, help="Number of samples or items.")] = 1
    until_eos: Annotated[
        bool | None,
        typer.Option(
            "--until-eos/--no-until-eos",
            help="Items: end each sample where the model ends a document. (default for lines)",
        ),
    ] = None
    unique: Annotated[bool, typer.Option("--unique", help="Items: no duplicates.")] = False
    new: Annotated[bool, typer.Option("--new", help="Items: skip those of the training text.")] = (
        False
    )
    match: Annotated[
        str, typer.Option("--match", metavar="REGEX", help="Items: only those that match.")
    ] = ""
    min_len: Annotated[
        int, typer.Option("--min-len", min=0, help="Items: at least N characters.")
    ] = 0
    max_len: Annotated[
        int | None, typer.Option("--max-len", min=0, help="Items: at most N characters.")
    ] = None
    attempts: Annotated[
        int | None,
        typer.Option(
            "--attempts", min=1, help="Items: stop after N attempts. (default: 100 per item)"
        ),
    ] = None
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator",
            help="Text between samples, such as $'\\n--\\n'. "
            "(default: a blank line; for items, a line end)",
        ),
    ] = None
    print0: Annotated[
        bool, typer.Option("--print0", help="End each sample with NUL, for xargs -0.")
    ] = False
    stop: Annotated[
        str, typer.Option("--stop", help="End a sample before this text, such as $'\\n'.")
    ] = ""
    seed: Seed = None
    allow_unk: Annotated[bool, typer.Option("--allow-unk", help="Allow UNK in samples.")] = False
    unk_text: Annotated[str, typer.Option("--unk-text", help="Text to write for UNK.")] = (
        "\N{REPLACEMENT CHARACTER}"
    )
    raw: Annotated[
        bool, typer.Option("--raw", help="Write control characters unchanged, even on a terminal.")
    ] = False
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object per sample.")] = False
    condition: options.Condition = None
    with_: options.With = None
    engine: options.Engine = "auto"
    device: options.Device = "cpu"
    weights: options.Weights = "fp32"
    run: options.Run = None
    checkpoints: options.Checkpoints = None

    @property
    def sampling(self) -> dict[str, Any]:
        """Settings of `Sampling`."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return {
            "temperature": temperature, "top_k": self.top_k, "top_p": self.top_p,
            "min_p": self.min_p,
        }  # fmt: skip

    def check_sampling(self) -> None:
        """Raise UsageError for invalid settings of `Sampling`, before a model is loaded."""
        from charlm.inference.samplers import Sampling

        Sampling(**self.sampling)

    @property
    def rules(self) -> dict[str, Any]:
        """Rules for items."""
        names = (flag[2:].replace("-", "_") for flag in RULES)
        return {name: getattr(self, name) for name in names}

    @property
    def filters(self) -> set[str]:
        """Typed flags of rules, which can leave items out."""
        return set(options.typed_values(self, *RULES))


@Takes(
    text=("prime", "prime_file"),
    stdin=("--prime", "-"),
    purpose="Start from it",
    literal="prime",
    option=("To start from a text, use", "--prime"),
)
def sample(asked: Asked) -> None:
    """Generate new text, or forecast a series of numbers.

    A model of lines, such as names, gives items: whole lines.

    Example:  charlm sample --len 300 --temperature 0.8 --prime "Once upon"
    """
    engine = options.on_device(asked.device, asked.engine)
    _check_one([*options.typed_values(asked, "--json", "--print0", "--separator")])
    _check_one(["--prime"] * bool(asked.prime) + ["--prime-file"] * bool(asked.prime_file))
    asked.check_sampling()
    from charlm.runs.layout import run_task

    path = options.locate(asked.run, asked.checkpoints)
    if run_task(path) == SERIES:
        check_typed(options.typed_values(asked, *OF_TEXT), path)
        write_forecasts(
            path, length=SERIES_LENGTH if asked.length is None else asked.length,
            prime=asked.prime or "", prime_file=asked.prime_file,
            temperature=asked.temperature or 0.0, count=asked.count, seed=asked.seed,
            engine=engine, as_json=asked.json_lines,
        )  # fmt: skip
        return
    model = options.open_model(
        str(path), asked.checkpoints, engine, asked.weights, asked.with_,
        condition=asked.condition,
    )  # fmt: skip
    whole = _is_whole(model, asked)
    _advise_on_temperature(model, asked)
    prompt = _prompt(model, asked.prime or "", asked.prime_file)
    _warn_of_texts(model, asked.stop, asked.separator or "")
    seed = options.reported_seed(asked.seed)
    layout = _layout(model, asked, whole=whole)
    sampling = {
        **asked.sampling, "length": 500 if asked.length is None else asked.length,
        "prompt": prompt, "seed": seed, "stop": asked.stop, "allow_unk": asked.allow_unk,
        "unk_text": asked.unk_text,
    }  # fmt: skip
    added, json_seed = prompt if asked.echo else "", seed if asked.json_lines else None
    if whole and (layout.lines or asked.filters or asked.count > 1):
        items = model.items(asked.count, attempts=asked.attempts, **asked.rules, **sampling)
        _write_items(items, added, json_seed, layout, filtered=bool(asked.filters))
    else:
        pieces = model.generate(samples=asked.count, until_eos=whole, **sampling)
        start, end = ("", added) if model.run.backward else (added, "")
        _write_samples(pieces, asked.count, start, end, json_seed, layout)


def _check_one(flags: list[str]) -> None:
    """Raise UsageError for more than one of these typed flags."""
    if len(flags) > 1:
        raise UsageError(f"{flags[0]} and {flags[1]} were both given; expected one. Leave one out")


def _is_whole(model: "Model", asked: Asked) -> bool:
    """Return whether samples are whole documents. Raises UsageError for flags that do not fit."""
    until_eos, filters = asked.until_eos, asked.filters
    if not filters:
        options.check_meant(options.typed_values(asked, "--attempts"), "a rule such as --unique")
    whole = model.run.boundaries.document == "line" if until_eos is None else until_eos
    if filters and until_eos is False:
        raise UsageError(
            f"{min(filters)} is for items, but --no-until-eos was given; expected one of them. "
            "Leave one out"
        )
    if filters and not whole:
        raise UsageError(
            f"{min(filters)} is for items, but this model generates continuous text; expected "
            + (
                "--until-eos too"
                if model.run.boundaries.has_ends
                else "a model trained with --document line"
            )
        )
    if until_eos and not model.run.boundaries.has_ends:
        raise UsageError(
            "--until-eos was given, but this model was trained on continuous text, in which no "
            "document ends; expected --stop, or a model trained with --document line"
        )
    return whole


def _warn_of_texts(model: "Model", stop: str, separator: str) -> None:
    """Warn if --stop or --separator can not work as meant."""
    from charlm.report.samples import text_warnings

    ends = model.run.boundaries.has_ends
    say_all(text_warnings(model.vocabulary, stop, separator, ends=ends))


def _advise_on_temperature(model: "Model", asked: Asked) -> None:
    """Say how the built-in model, if it was not asked for by name, writes more careful text."""
    from charlm.runs.built_in import is_built_in

    is_usual = asked.run is None and asked.temperature in (None, 1.0)
    if is_usual and is_built_in(model.run.path):
        say("for more careful text, try --temperature 0.7")


def _layout(model: "Model", asked: Asked, *, whole: bool) -> "Layout":
    """Return how samples are separated and shown."""
    from charlm.report.samples import Layout

    lines = whole and model.run.boundaries.document == "line"
    show = escape_controls if on_terminal() and not asked.raw else str
    return Layout(separator=asked.separator, print0=asked.print0, lines=lines, show=show)


def _prompt(model: "Model", prime: str, file: Path | None) -> str:
    """Return the text to start from, and report its pieces that are not in the vocabulary."""
    if file:
        prime = model.run.boundaries.file_prompt(read_file(file, model.path))
    if prime:
        options.name_unknown(model, [model.context(prime)], "prime text")
    return prime


def _stream(texts: Iterator[str], show: Callable[[str], str]) -> None:
    """Write text as it is generated; on a terminal the shell's prompt gets a line of its own."""
    last = ""
    for text in texts:
        if text:
            last = text
            write(show(text), flush=on_terminal())
    if on_terminal() and last and not last.endswith("\n"):
        sys.stdout.write("\n")


def _gathered(pieces: "Iterator[Piece]", count: int) -> "list[Sample]":
    """Return the samples when all of them are generated."""
    from charlm.inference.generation import gathered

    def watched() -> "Iterator[Piece]":
        """Advance the phase with each piece."""
        for piece in pieces:
            advance(piece.tokens)
            yield piece

    with phase("generating samples", unit="tokens"):
        return gathered(watched(), count)


def _write_layout(layout: "Layout", texts: Iterator[str]) -> None:
    """Write samples as they come."""
    last = ""
    for last in layout.pieces(texts):
        write(last, flush=on_terminal())
    if layout.separator is not None and on_terminal() and not last.endswith("\n"):
        write("\n")


def _write_record(sample: "Sample | Item", text: str, number: int, seed: int) -> None:
    from charlm.report.samples import sample_record

    write_json_line(sample_record(sample, text, number, seed))


def _write_samples(
    pieces: "Iterator[Piece]",
    count: int,
    start: str,
    end: str,
    json_seed: int | None,
    layout: "Layout",
) -> None:
    """Write samples between two texts, or as lines of JSON; a single one as it is generated."""
    if json_seed is not None:
        for number, one in enumerate(_gathered(pieces, count)):
            _write_record(one, start + one.text + end, number, json_seed)
    elif count == 1 and not layout.print0:
        _stream(itertools.chain([start], (piece.text for piece in pieces), [end]), layout.show)
    else:
        _write_layout(layout, (start + one.text + end for one in _gathered(pieces, count)))


def _write_items(
    items: "Items", prompt: str, seed: int | None, layout: "Layout", *, filtered: bool
) -> None:
    """Write items with the prompt as they are found, with a seed as lines of JSON; then notes."""
    from charlm.report.samples import item_notes

    def text_of(item: "Item") -> str:
        """Return an item with the prompt on its side."""
        return item.text + prompt if items.backward else prompt + item.text

    try:
        if seed is None:
            _write_layout(layout, map(text_of, items))
            return
        for number, item in enumerate(items):
            _write_record(item, text_of(item), number, seed)
    finally:
        say_all(item_notes(items, filtered=filtered))

"""`charlm sample`: draw novel text."""

import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.options import (
    CheckpointsOption,
    EngineOption,
    RunOption,
    WeightsOption,
    check_meant,
    name_unknown,
    open_model,
)
from charlm.cli.output import on_terminal, say, write, write_json_line
from charlm.files.escapes import escape_controls

if TYPE_CHECKING:
    from charlm.inference.generation import Piece, Sample
    from charlm.inference.items import Item, Items


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sample")(sample)


def sample(
    length: Annotated[
        int, typer.Option("--len", min=0, help="Tokens of each sample; of items, at most.")
    ] = 500,
    prime: Annotated[
        str | None, typer.Option("--prime", help="Text to start from; - is stdin.")
    ] = None,
    prime_file: Annotated[
        Path | None, typer.Option("--prime-file", help="File with the text to start from.")
    ] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Write the prime text too.")] = False,
    temperature: Annotated[
        float,
        typer.Option("--temperature", help="Below 1 safer, above 1 wilder; 0 = the likeliest."),
    ] = 1.0,
    top_k: Annotated[int, typer.Option("--top-k", help="Only the k likeliest; 0 = all.")] = 0,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Only the likeliest that hold this much together.")
    ] = 1.0,
    min_p: Annotated[
        float, typer.Option("--min-p", help="Only tokens at least this likely beside the best.")
    ] = 0.0,
    count: Annotated[int, typer.Option("--n", min=1, help="Number of samples or items.")] = 1,
    until_eos: Annotated[
        bool | None,
        typer.Option(
            "--until-eos/--no-until-eos",
            help="Items: end each sample where the model ends a document. (default for lines)",
            show_default=False,
        ),
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Items: no duplicates.")] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Items: none from the run's own text.")
    ] = False,
    match: Annotated[
        str, typer.Option("--match", metavar="REGEX", help="Items: only those that match.")
    ] = "",
    min_len: Annotated[
        int, typer.Option("--min-len", min=0, help="Items: at least N characters.")
    ] = 0,
    max_len: Annotated[
        int | None, typer.Option("--max-len", min=0, help="Items: at most N characters.")
    ] = None,
    attempts: Annotated[
        int | None,
        typer.Option("--attempts", min=1, help="Items: give up after N. (default: 100 per item)"),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator",
            help="Text between samples, such as $'\\n--\\n'. "
            "(default: a blank line; for items, a line end)",
        ),
    ] = None,
    print0: Annotated[
        bool, typer.Option("--print0", help="End each sample with NUL, for xargs -0.")
    ] = False,
    stop: Annotated[
        str, typer.Option("--stop", help="End a sample before this text, such as $'\\n'.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Same seed, same text. (default: a new one)")
    ] = None,
    allow_unk: Annotated[bool, typer.Option("--allow-unk", help="Allow UNK in samples.")] = False,
    unk_text: Annotated[
        str, typer.Option("--unk-text", help="Text that stands for UNK.")
    ] = "\N{REPLACEMENT CHARACTER}",
    raw: Annotated[
        bool, typer.Option("--raw", help="Write control characters unchanged, even on a terminal.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object per sample.")] = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Generate new text. A model of lines, such as names, gives items: whole lines.

    Example:  charlm sample --len 300 --temperature 0.8 --prime "Once upon"
    """
    from charlm.errors import UsageError

    if prime and prime_file:
        raise UsageError("--prime and --prime-file were both given; expected one. Leave one out")
    if json_lines and (print0 or separator is not None):
        raise UsageError("--json has a line for each sample; leave out --separator and --print0")
    if print0 and separator is not None:
        raise UsageError("--print0 and --separator were both given; expected one. Leave one out")
    prompt = read_prime(prime_file) if prime_file else prime or ""
    from charlm.inference.samplers import Sampling

    Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)  # refused at once
    model = open_model(run, checkpoints, engine, weights)
    from charlm.api.model import fresh_seed

    filters = {"--unique": unique, "--new": new, "--match": bool(match), "--min-len": min_len > 0,
               "--max-len": max_len is not None}  # fmt: skip
    given = {flag for flag, value in filters.items() if value}
    boundaries = model.run.boundaries
    lines = boundaries.document == "line"
    whole = lines if until_eos is None else until_eos
    if attempts is not None:
        check_meant({"--attempts"} if not given else set(), "a rule such as --unique")
    if given and until_eos is False:
        raise UsageError(
            f"{min(given)} is for items; expected no --no-until-eos beside it. Leave one out"
        )
    if given and not whole:
        raise UsageError(
            f"{min(given)} is for items, and this model gives continuous text; expected "
            + ("--until-eos too" if boundaries.has_ends else "a model trained with --document line")
        )
    if until_eos and not boundaries.has_ends:
        raise UsageError(
            "--until-eos was given, but this model was trained on continuous text, where no text "
            "ends; expected --stop, or a model trained with --document line"
        )
    if prime_file:
        prompt = boundaries.file_prompt(prompt)
    if prompt:
        name_unknown(model, [model.context(prompt)], "prime text")
    written = set("".join(model.vocabulary.tokens[2:] if stop else ()))
    never = [c for c in stop if c not in written and (c != "\n" or not boundaries.has_ends)]
    _note_escapes({"--stop": stop, "--separator": separator or ""})
    if never and not ESCAPES.search(stop) and not model.vocabulary.spec.byte_level:
        say(f"stop text: the model cannot write {never[0]!r}, so it will not stop there")
    chosen = fresh_seed() if seed is None else seed
    if seed is None:
        say(f"seed {chosen}")
    options: dict[str, Any] = {
        "length": length, "prompt": prompt, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "min_p": min_p, "seed": chosen, "stop": stop, "allow_unk": allow_unk,
        "unk_text": unk_text,
    }  # fmt: skip
    show = escape_controls if on_terminal() and not raw else str
    layout = Layout(separator=separator, print0=print0, lines=lines and whole, show=show)
    if whole and (lines or given or count > 1):
        items = model.items(
            count, unique=unique, new=new, match=match, min_len=min_len, max_len=max_len,
            attempts=attempts, **options,
        )  # fmt: skip
        try:
            _write_items(items, prompt if echo else "", chosen if json_lines else None, layout)
        finally:
            _report_items(items, bool(given))
        return
    pieces = model.generate(samples=count, until_eos=whole, **options)
    if echo and model.run.backward:  # what is drawn comes before the prompt
        from charlm.inference.generation import Piece

        ends = [Piece(sample=number, text=prompt) for number in range(count)]
        pieces = itertools.chain(pieces, ends)
    start = prompt if echo and not model.run.backward else ""
    if json_lines:
        for number, one in enumerate(_gathered(pieces, count)):
            write_json_line(_record(one, start + one.text, number, chosen))
    elif count == 1 and not print0:
        _stream(pieces, start, show)
    else:
        layout.write(start + one.text for one in _gathered(pieces, count))


ESCAPES = re.compile(r"\\[nrt0]")
"""A line end, tab or NUL as programmers write it: two characters to a shell."""


def _note_escapes(texts: dict[str, str]) -> None:
    """Report a text that holds an escape such as backslash n, which nothing interprets."""
    for flag, text in texts.items():
        if ESCAPES.search(text):
            quoted = text.replace("'", "\\'")
            say(
                f"{flag} {text!r} is taken literally; for a line end or tab use $'{quoted}' in bash"
            )


def read_prime(path: Path) -> str:
    """The text of a file, `-` being stdin. Raises CorpusError."""
    from charlm.text.corpus import Corpus

    return "".join(Corpus([str(path)], document="stream").chunks())


def _stream(pieces: "Iterator[Piece]", start: str, show: Callable[[str], str]) -> None:
    """Text as it is drawn; on a terminal the prompt comes back on a line of its own."""
    last = start
    write(show(start))
    for piece in pieces:
        if piece.text:
            last = piece.text
            write(show(piece.text), flush=on_terminal())
    if on_terminal() and last and not last.endswith("\n"):
        sys.stdout.write("\n")


def _gathered(pieces: "Iterator[Piece]", count: int) -> "list[Sample]":
    """Return the samples when all of them are generated."""
    from charlm.inference.generation import gathered
    from charlm.phases import advance, phase

    def watched() -> "Iterator[Piece]":
        """Report how far the samples are."""
        for piece in pieces:
            advance(piece.tokens)
            yield piece

    with phase("generating samples", unit="tokens"):
        return gathered(watched(), count)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of several samples: what comes between or after them.

    By default lines are ended by a line end, and other samples have a blank line between them. A
    separator stands exactly between samples, so that splitting there gives them back; `print0` ends
    each with NUL. `show` makes a text fit for a terminal.
    """

    separator: str | None
    print0: bool
    lines: bool
    show: Callable[[str], str]

    def write(self, texts: Iterable[str]) -> None:
        """Write samples as they come."""
        last = ""
        for number, text in enumerate(texts):
            last = self._around(self.show(text), number == 0)
            write(last, flush=on_terminal())
        if self.separator is not None and on_terminal() and not last.endswith("\n"):
            write("\n")

    def _around(self, text: str, first: bool) -> str:
        """Return a sample with what is written before and after it."""
        if self.print0:
            return text + "\0"
        if self.separator is not None:
            return text if first else self.separator + text
        if self.lines:
            return text + "\n"
        return ("" if first else "\n") + text + ("" if text.endswith("\n") else "\n")


def _write_items(items: "Items", prompt: str, seed: int | None, layout: Layout) -> None:
    """Write items as they are found, with the prompt; with a seed as lines of JSON."""

    def text_of(item: "Item") -> str:
        """Return an item with the prompt on its side."""
        return item.text + prompt if items.backward else prompt + item.text

    if seed is None:
        layout.write(map(text_of, items))
        return
    for number, item in enumerate(items):
        write_json_line({**_record(item, text_of(item), number, seed), "attempt": item.attempt})


def _record(sample: "Sample | Item", text: str, number: int, seed: int) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "sample": number,
        "seed": seed,
        "text": text,
        "tokens": sample.tokens,
        "log_probability": -sample.nats,
    }


def _report_items(items: "Items", chosen: bool) -> None:
    """Report what was left out to find the items that were asked for, and which were cut off."""
    from charlm.report.text import counted

    if chosen and items.found == items.count:
        found, attempts = counted(items.count, "item"), counted(items.attempts, "attempt")
        say(f"{found} in {attempts}{items.reasons()}")
    if items.cut:
        cut, length = counted(items.cut, "item"), counted(items.length, "token")
        say(f"{cut} {'was' if items.cut == 1 else 'were'} cut at {length}; allow more with --len")

"""`charlm sample`: draw novel text."""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.options import (
    CheckpointsOption,
    EngineOption,
    RunOption,
    WeightsOption,
    name_unknown,
    open_model,
)
from charlm.cli.output import on_terminal, say, write, write_json_line
from charlm.escapes import escape_controls

if TYPE_CHECKING:
    from charlm.inference.generation import Piece


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sample")(sample)


def sample(
    length: Annotated[
        int, typer.Option("--len", min=0, help="Tokens to draw (at most, with --until-eos).")
    ] = 500,
    prime: Annotated[
        str | None, typer.Option("--prime", help="Text to begin from; - is stdin.")
    ] = None,
    prime_file: Annotated[
        Path | None, typer.Option("--prime-file", help="File with the text to begin from.")
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
    count: Annotated[int, typer.Option("--n", min=1, help="Samples, drawn side by side.")] = 1,
    until_eos: Annotated[
        bool, typer.Option("--until-eos", help="End a sample where the model ends a document.")
    ] = False,
    stop: Annotated[
        str, typer.Option("--stop", help="End a sample before this text: $'\\n'.")
    ] = "",
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Same seed, same text. (default: drawn)")
    ] = None,
    allow_unk: Annotated[bool, typer.Option("--allow-unk", help="Let UNK be drawn.")] = False,
    unk_text: Annotated[
        str, typer.Option("--unk-text", help="How a drawn UNK reads.")
    ] = "\N{REPLACEMENT CHARACTER}",
    raw: Annotated[
        bool, typer.Option("--raw", help="Control characters as they are on a terminal too.")
    ] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a sample.")] = False,
    engine: EngineOption = "auto",
    weights: WeightsOption = "fp32",
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Draw novel text from a model.

    Example:  charlm sample --len 300 --temperature 0.8 --prime "Once upon"
    """
    from charlm.errors import UsageError

    if prime and prime_file:
        raise UsageError("--prime and --prime-file were both given; expected one. Leave one out")
    prompt = read_prime(prime_file) if prime_file else prime or ""
    from charlm.inference.samplers import Sampling

    Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)  # refused at once
    model = open_model(run, checkpoints, engine, weights)
    from charlm.library import fresh_seed

    if until_eos and not model.run.ends:
        raise UsageError(
            "--until-eos with a model of one endless stream, which has learnt no ends; expected "
            "--stop, or a model trained with --document line"
        )
    if prompt:
        name_unknown(model, [prompt], "prime text")
    written = set("".join(model.vocabulary.tokens[2:] if stop else ()))
    never = [c for c in stop if c not in written and (c != "\n" or not model.run.ends)]
    if never and model.vocabulary.unit in ("char", "word"):
        say(f"stop text: the model cannot write {never[0]!r}, so it will not stop there")
    chosen = fresh_seed() if seed is None else seed
    if seed is None:
        say(f"seed {chosen}")
    pieces = model.generate(
        length,
        prompt=prompt,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=chosen,
        samples=count,
        until_eos=until_eos,
        stop=stop,
        allow_unk=allow_unk,
        unk_text=unk_text,
    )
    if echo and model.run.backward:  # what is drawn comes before the prompt
        from charlm.inference.generation import Piece

        ends = [Piece(sample=number, text=prompt) for number in range(count)]
        pieces = itertools.chain(pieces, ends)
    start = prompt if echo and not model.run.backward else ""
    show = escape_controls if on_terminal() and not raw else str
    if json_lines:
        _write_json(pieces, count, start, chosen)
    elif count == 1:
        _stream(pieces, start, show)
    else:
        _write_all(pieces, count, start, show)


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


def _gathered(
    pieces: "Iterator[Piece]", count: int, start: str
) -> tuple[list[str], list[int], list[float]]:
    """Text, number of tokens and nats of each sample."""
    texts, tokens, nats = [[start] for _ in range(count)], [0] * count, [0.0] * count
    for piece in pieces:
        texts[piece.sample].append(piece.text)
        tokens[piece.sample] += piece.tokens
        nats[piece.sample] += piece.nats
    return ["".join(parts) for parts in texts], tokens, nats


def _write_all(
    pieces: "Iterator[Piece]", count: int, start: str, show: Callable[[str], str]
) -> None:
    """Several samples, one after the other, each ended by a line end."""
    for text in _gathered(pieces, count, start)[0]:
        write(show(text) + ("" if text.endswith("\n") else "\n"))


def _write_json(pieces: "Iterator[Piece]", count: int, start: str, seed: int) -> None:
    texts, tokens, nats = _gathered(pieces, count, start)
    for number in range(count):
        write_json_line(
            {
                "schema_version": 1,
                "sample": number,
                "seed": seed,
                "text": texts[number],
                "tokens": tokens[number],
                "log_probability": -nats[number],
            }
        )

"""`charlm compare`: which of several runs is better on a text, and whether it may be chance."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    EngineOption,
    JsonOption,
    ReadingFlags,
    UnkPenaltyOption,
    open_model,
    unk_penalty_of,
    unk_reason,
)
from charlm.cli.output import render, say, say_notes, write_json
from charlm.phases import phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from charlm.api.model import Model
    from charlm.inference.comparison import Difference
    from charlm.text.encoded import EncodedText


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare")(compare)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more runs, the first to compare with.")],
    files: Annotated[
        list[str] | None, typer.Option("--file", help="Text to compare them on, not blank lines.")
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    unk_penalty: UnkPenaltyOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    as_json: JsonOption = False,
    engine: EngineOption = "auto",
    checkpoints: CheckpointsOption = None,
) -> None:
    """Likelihoods of runs on one text, with intervals of their differences from the first.

    Without --file they are compared on the text that all of them held out. Unknown tokens (UNK)
    cost --unk-penalty in the differences, for each run its own by default.

    Example:  charlm compare small large --file test.txt
    """
    from charlm.errors import UsageError

    if len(runs) < 2:
        raise UsageError(f"found {len(runs)} run; expected two runs or more to compare")
    from charlm.inference.comparison import difference, line_nats
    from charlm.units import finite

    models = [open_model(name, checkpoints, engine) for name in runs]
    for name, model in zip(runs, models, strict=True):
        if model.run.backward:
            raise UsageError(f"{name} reads backward; expected runs that read forward")
    texts, sizes = _of_files(models, files, reading) if files else _held_out(models)
    found = []
    for name, model, text in zip(runs, models, texts, strict=True):
        penalty = unk_penalty_of(model, unk_penalty)
        with phase(f"evaluating {name}", total=len(text.ids)):
            found.append(
                line_nats(
                    Path(name).name,
                    model.run.engine,
                    text,
                    model.vocabulary,
                    unk_penalty=penalty,
                )
            )
        if penalty and found[-1].tally.oov:
            why = "" if unk_penalty is not None else f", ln {unk_reason(model)}"
            say(f"{name}: each unknown token (UNK) costs {penalty:.3f} nats more{why}")
        say(f"read by {name}", level=2)
    changes: list[Difference | None] = [None]
    changes += [difference(found[0], other, sizes, seed=seed) for other in found[1:]]
    if as_json:
        rows: list[dict[str, Any]] = [
            {"run": one.name, **one.tally.summary(), "unk_penalty": one.unk_penalty,
             "penalized_bits_per_byte": finite(one.penalized_bits_per_byte),
             "difference": change and {**asdict(change), "verdict": change.verdict}}
            for one, change in zip(found, changes, strict=True)
        ]  # fmt: skip
        write_json({"schema_version": 1, "runs": rows})
        return
    from charlm.report.tables import comparison_table

    last = changes[-1]
    assert last is not None, "two runs or more"
    parts = f"blocks of {last.block} tokens" if last.block else "lines"
    over = "" if last.low is None else f", over {last.parts:,} {parts}"
    say(f"differences in bits per byte from the first run{over}; below zero is better")
    if any(one.tally.oov and one.unk_penalty for one in found):
        say("differences include the penalty for unknown tokens; --unk-penalty changes it")
    if any(one.tally.oov and not one.unk_penalty for one in found):
        say("OOV: unknown tokens without a penalty cost a run next to nothing, so they favour it")
    render(comparison_table(found, changes))


def _of_files(
    models: "list[Model]", files: list[str], reading: "Mapping[str, Any]"
) -> "tuple[list[EncodedText], Sequence[float]]":
    """Return files as each run reads them, and the bytes of each line."""
    from charlm.config.settings import Reading
    from charlm.text.corpus import Corpus

    rules = Reading(**{"keep_cr": True, **reading})  # every run reads the same text
    corpus = Corpus(files, document="stream", reading=rules)
    text = "".join(corpus.chunks())
    say_notes(corpus.notes)
    sizes = [len(line.encode("utf-8")) for line in text.split("\n")]
    sizes = [size + 1 for size in sizes[:-1]] + ([sizes[-1]] if sizes[-1] else [])
    return [model.run.encode(corpus.cut(model.run.boundaries.document)) for model in models], sizes


def _held_out(models: "list[Model]") -> "tuple[list[EncodedText], Sequence[float]]":
    """Return the text that all runs held out, and the bytes of each line. Raises UsageError."""
    from charlm.errors import UsageError
    from charlm.inference.comparison import bytes_of_lines
    from charlm.runs.layout import read_record
    from charlm.text.tokenizers.tokenizer_json import UNK

    first, *others = [read_record(model.path)["corpus"] for model in models]
    for model, other in zip(models[1:], others, strict=True):
        if other["fingerprint"] != first["fingerprint"]:
            raise UsageError(
                f"{models[0].path.name} and {model.path.name} were trained on different texts, or "
                "held out other parts of them; expected one text for all runs. Give it with --file"
            )
    for part in ("test", "valid"):
        texts = [text for model in models if (text := model.run.kept(part)) is not None]
        if len(texts) == len(models):
            break
    else:
        raise UsageError("these runs keep no held-out text; give a text with --file")
    name = {"test": "test", "valid": "validation"}[part]
    say(f"compared on the {name} text of these runs, {texts[0].counts.bytes:,} bytes")
    if part == "valid":
        say("this text also chose the best weights of each run; for a fair test give --file")
    unknown = [int((text.ids == UNK).sum()) for text in texts]
    exact = unknown.index(min(unknown))  # its tokens say most about the bytes of a line
    return texts, bytes_of_lines(texts[exact], models[exact].vocabulary).tolist()

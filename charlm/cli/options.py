"""Options and steps that several commands share."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.output import say

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.runs.run import Run

RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME|PATH", help="Which run, or CHARLM_RUN; else the newest."),
]
CheckpointsOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="DIR",
        envvar="CHARLM_CHECKPOINTS",
        help="Where runs are kept. (default: checkpoints)",
        show_default=False,
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="What computes: auto, native (compiled kernels), numpy or torch."
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option("--weights", help="How the kernels keep the weights: fp32, bf16 or int8."),
]


def _check_penalty(value: float | None) -> float | None:
    if value is not None and not 0.0 <= value < math.inf:
        from charlm.errors import UsageError

        raise UsageError(
            f"--unk-penalty is {value}; expected nats, a number from 0 on. 0 switches it off"
        )
    return value


UnkPenaltyOption = Annotated[
    float | None,
    typer.Option(
        "--unk-penalty",
        metavar="NATS",
        callback=_check_penalty,
        help="Cost of each unknown token (UNK) beyond -ln P(UNK); 0 is off. "
        "(default: ln of the number of types that UNK stands for)",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
ReadingFlags = Mapping[str, Any]
"""Values of the flags in `READING_OPTIONS` that were typed, by their field of `Reading`."""
NO_FLAGS: ReadingFlags = MappingProxyType({})
"""Default for a parameter of this kind: no flag was typed."""


def _reading(flag: str, help_text: str) -> Any:
    return typer.Option(flag, help=help_text, show_default=False, rich_help_panel="Text")


READING_OPTIONS: dict[str, Any] = {
    "input_format": Annotated[
        str | None,
        _reading("--input-format", "text, csv, tsv, jsonl, json or parquet (by the suffix)."),
    ],
    "column": Annotated[
        str | None, _reading("--column", "Column of a table: its name, or its number from 1.")
    ],
    "header": Annotated[
        bool | None,
        _reading("--header/--no-header", "The first row of a table names its columns."),
    ],
    "delimiter": Annotated[
        str | None, _reading("--delimiter", "Between the fields of a table: a character, or tab.")
    ],
    "quoting": Annotated[
        str | None,
        _reading("--quoting", "Quotes in a table: csv (enclose fields) or none (are text)."),
    ],
    "encoding": Annotated[
        str | None, _reading("--encoding", "Encoding of the text, or auto (utf-8).")
    ],
    "errors": Annotated[str | None, _reading("--errors", "Invalid bytes: strict or replace.")],
    "keep_cr": Annotated[
        bool | None, _reading("--keep-cr", "Keep the CR of CR LF in lines and paragraphs.")
    ],
    "glue": Annotated[
        bool | None, _reading("--glue", "Put no line end between the files of a stream.")
    ],
}
"""Options of a command with a parameter `reading`, by their field of `Reading`."""


TABLE_OPTIONS = ("column", "header", "delimiter", "quoting")
"""Options of `READING_OPTIONS` that only tables listen to."""


def as_trained(reading: ReadingFlags, run: "Run") -> ReadingFlags:
    """Return the flags, line ends being read as in the text that a run was trained on."""
    return {"keep_cr": run.boundaries.crlf, **reading}


def reading_flags(reading: ReadingFlags) -> set[str]:
    """Return the flags that were typed, such as "--column"."""
    from charlm.config.flags import words_of

    return {words_of(name, value)[0] for name, value in reading.items()}


def locate(run: str | None, checkpoints: Path | None, *, trained: bool = True) -> Path:
    """The folder of the run that the options name, told on stderr where it was not named."""
    from charlm.runs.built_in import is_built_in
    from charlm.runs.locate import best_trial, checkpoints_folder, find_run

    path = find_run(run, checkpoints_folder(checkpoints), trained=trained)
    if best_trial(path.parent) == path:
        if run is None or Path(run).name != path.name:
            say(f"run {path.parent.name}/{path.name} (the best trial of a search)")
    elif run is None:
        kind = "the built-in model" if is_built_in(path) else "the newest run"
        say(f"run {path.name} ({kind})")
    return path


def open_model(
    run: str | None, checkpoints: Path | None, engine: str = "auto", weights: str = "fp32"
) -> "Model":
    """The model of the run that the options name."""
    path = locate(run, checkpoints)
    from charlm.api.model import load

    model = load(path, engine=engine, weights=weights)
    say(f"engine {model.run.engine.name}", level=2)
    return model


def unk_penalty_of(model: "Model", typed: float | None) -> float:
    """Return the penalty in nats: as typed, else that of the run."""
    return model.run.unk_penalty if typed is None else typed


def unk_reason(model: "Model") -> str:
    """Return how many types UNK stands for, and where the number is from."""
    types = f"{model.run.unk_types:,.0f}"
    if model.run.unk_types_recorded:
        return f"{types}, the number of types that UNK stands for, estimated from the training text"
    return (
        f"{types}, the number of entries of the vocabulary (the run does not record how many "
        "types UNK stands for)"
    )


def check_meant(given: set[str], needs: str) -> None:
    """Raise UsageError for a flag that would do nothing without another one."""
    if given:
        from charlm.errors import UsageError

        flag = min(given)
        raise UsageError(f"{flag} has no effect without {needs}. Add {needs}, or leave out {flag}")


def name_unknown(model: "Model", texts: Iterable[str], what: str) -> None:
    """Report once which pieces of the texts the vocabulary does not know; no document ends."""
    from charlm.text.documents import END

    mark = model.run.boundaries.mark
    documents = (document for text in texts for document in mark(text).split(END))
    found = (piece for document in documents for piece in model.vocabulary.unknown(document))
    unknown = list(dict.fromkeys(found))
    if unknown:
        shown = ", ".join(repr(piece) for piece in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        say(f"{what}: not in the vocabulary, read as UNK: {shown}{more}")

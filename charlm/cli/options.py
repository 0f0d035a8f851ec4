"""Options and steps that several commands share."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm.cli.output import say

if TYPE_CHECKING:
    from charlm.library import Model

RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME|PATH", help="Which run; without it the newest."),
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
ColumnOption = Annotated[str | None, typer.Option("--column", help="Column of a table.")]
EncodingOption = Annotated[str, typer.Option("--encoding", help="Encoding of the text.")]
ErrorsOption = Annotated[str, typer.Option("--errors", help="strict or replace.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]


def locate(run: str | None, checkpoints: Path | None, *, trained: bool = True) -> Path:
    """The folder of the run that the options name, told on stderr where it was not named."""
    from charlm.runs.locate import checkpoints_folder, find_run, is_built_in

    path = find_run(run, checkpoints_folder(checkpoints), trained=trained)
    if run is None:
        kind = "the built-in model" if is_built_in(path) else "the newest run"
        say(f"run {path.name} ({kind})")
    return path


def open_model(
    run: str | None, checkpoints: Path | None, engine: str = "auto", weights: str = "fp32"
) -> "Model":
    """The model of the run that the options name."""
    path = locate(run, checkpoints)
    from charlm.library import load

    model = load(path, engine=engine, weights=weights)
    say(f"engine {model.run.engine.name}", level=2)
    return model


def check_meant(given: set[str], needs: str) -> None:
    """Raise UsageError for a flag that would do nothing without another one."""
    if given:
        from charlm.errors import UsageError

        raise UsageError(f"{min(given)} is of no use without {needs}; expected {needs} beside it")


def name_unknown(model: "Model", texts: Iterable[str], what: str) -> None:
    """Say once which pieces of the texts the vocabulary does not know."""
    found = (piece for text in texts for piece in model.vocabulary.unknown(text))
    unknown = list(dict.fromkeys(found))
    if unknown:
        shown = ", ".join(repr(piece) for piece in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        say(f"{what}: not in the vocabulary, read as UNK: {shown}{more}")

"""`charlm train`: train a model on a text, or resume a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.frame import App
from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    JsonOption,
    RunOption,
    SettingFlags,
    SettingOptions,
    check_meant,
    every_setting,
)
from charlm.cli.takes import Takes, Values

if TYPE_CHECKING:
    from charlm.api import Request

RUN, VOCABULARY, LENGTH = "Run", "Vocabulary", "Optimisation"
"""Panels of the help for the options that are not settings."""


def register(app: App) -> None:
    """Add the command."""
    app.command("train", takes=Takes(text=("sources", "resume"), reads_run=_reads_run))(train)


def _reads_run(values: Values) -> bool:
    """Return whether the call reads a run; others make one."""
    return bool(values["resume"]) and not values["name"]


def _option(flag: str, panel: str, text: str) -> Any:
    return typer.Option(flag, rich_help_panel=panel, help=text, show_default=False)


Resume = Annotated[bool, _option("--resume", RUN, "Resume the newest run, or the one of --run.")]
Continue = Annotated[
    bool, _option("--continue", RUN, "Start the run --name, resume it, or leave it if complete.")
]
Overwrite = Annotated[bool, _option("--overwrite", RUN, "Replace the run --name if it exists.")]
Plan = Annotated[bool, _option("--plan", RUN, "Show what would be trained, and why, and stop.")]
Preset = Annotated[str | None, _option("--preset", RUN, "A published recipe, such as awd-ptb.")]
Config = Annotated[Path | None, _option("--config", RUN, "TOML file of settings; flags win.")]
Pairs = Annotated[
    list[str] | None, _option("--set", RUN, "Any setting: NAME=VALUE (see charlm settings).")
]
Vocab = Annotated[Path | None, _option("--vocab", VOCABULARY, "Use this tokenizer.json as it is.")]


def train(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, - or hf:name; none: the built-in text."),
    ] = None,
    name: Annotated[str | None, _option("--name", RUN, "Name of the run.")] = None,
    resume: Resume = False,
    go_on: Continue = False,
    overwrite: Overwrite = False,
    plan: Plan = False,
    preset: Preset = None,
    config: Config = None,
    pairs: Pairs = None,
    settings: Annotated[SettingFlags, SettingOptions(every_setting)] = NO_FLAGS,
    vocab: Vocab = None,
    more_minutes: Annotated[
        float | None, _option("--more-minutes", LENGTH, "With --resume: train N minutes longer.")
    ] = None,
    more_epochs: Annotated[
        float | None, _option("--more-epochs", LENGTH, "With --resume: train N passes longer.")
    ] = None,
    more_steps: Annotated[
        int | None, _option("--more-steps", LENGTH, "With --resume: train N steps longer.")
    ] = None,
    run: RunOption = None,
    checkpoints: CheckpointsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model on a text.

    Without options the plan aims at a good model of 1 MB of text in under 10 minutes.

    Example:  charlm train corpus.txt --minutes 5
    """
    from charlm import api
    from charlm.cli import beginning
    from charlm.config.flags import by_section, with_pairs

    if resume and sources and len(sources) == 1 and not run and not name:
        run, sources = sources[0], None
    more = {"minutes": more_minutes, "epochs": more_epochs, "steps": more_steps}
    request = api.Request(
        flags=with_pairs(by_section({"sources": sources, **settings}), pairs or []),
        config=config, preset=preset, vocab=vocab, name=name, run=run, checkpoints=checkpoints,
        more={unit: value for unit, value in more.items() if value is not None},
    )  # fmt: skip
    ways = {"--resume": resume, "--continue": go_on, "--overwrite": overwrite, "--plan": plan}
    way = _way([flag for flag, is_given in ways.items() if is_given], request)
    if way == "--plan":
        beginning.show_plan(request, as_json=as_json)
        return
    _train(request, way, as_json=as_json)


def _way(flags: list[str], request: "Request") -> str:
    """Return the flag that decides how the run starts, or "". Raises UsageError for two."""
    from charlm.errors import UsageError

    if len(flags) > 1:
        raise UsageError(f"{flags[0]} with {flags[1]}; give one of them")
    way = flags[0] if flags else ""
    if way != "--resume":
        check_meant({f"--more-{unit}" for unit in request.more}, "--resume")
    if not request.name:
        check_meant({way} & {"--continue", "--overwrite"}, "--name")
    return way


def _train(request: "Request", way: str, *, as_json: bool) -> None:
    """Train the run that the request names, show it, and end with the status of its end."""
    from charlm.cli import beginning
    from charlm.cli.progress import follow_all, write_result

    if way == "--resume":
        session = beginning.resume(request)
    elif way == "--continue":
        session = beginning.start_or_continue(request)
    else:
        session = beginning.start(request, overwrite=way == "--overwrite")
    status = follow_all(session)
    write_result(session, as_json=as_json)
    if status:
        raise typer.Exit(status)

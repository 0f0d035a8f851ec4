"""`charlm train`: train a model on a text, or resume a run."""

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import Verbosity, render, say, say_all, write, write_document
from charlm.cli.progress import follow_all, write_result
from charlm.cli.stdin import Takes, Values
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.sessions import Request
    from charlm.training.session import Session

RUN, VOCABULARY, LENGTH = "Run", "Vocabulary", "Optimisation"
"""Panels of the help for the options that are not settings."""


def _reads_run(values: Values) -> bool:
    """Return whether the call reads a run; others make one."""
    return bool(values["resume"]) and not values["name"]


def _option(flag: str, panel: str, text: str) -> Any:
    return typer.Option(flag, rich_help_panel=panel, help=text)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm train`."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, - or hf:name. (default: the built-in text)"),
    ] = None
    name: Annotated[str | None, _option("--name", RUN, "Name of the run.")] = None
    resume: Annotated[
        bool, _option("--resume", RUN, "Resume the run that --run names, or the newest.")
    ] = False
    go_on: Annotated[
        bool, _option("--continue", RUN, "Start the run --name, or resume it if it exists.")
    ] = False
    overwrite: Annotated[
        bool, _option("--overwrite", RUN, "Replace the run --name if it exists.")
    ] = False
    plan: Annotated[
        bool,
        _option(
            "--plan",
            RUN,
            "Show the plan, its reasons and the loss to expect (80 % interval), and stop.",
        ),
    ] = False
    preset: Annotated[
        str | None, _option("--preset", RUN, "A published recipe, such as awd-ptb.")
    ] = None
    config: Annotated[
        Path | None, _option("--config", RUN, "TOML file of settings; flags override it.")
    ] = None
    pairs: Annotated[
        list[str] | None, _option("--set", RUN, "Any setting: NAME=VALUE (see charlm settings).")
    ] = None
    settings: options.Every
    vocab: Annotated[
        Path | None, _option("--vocab", VOCABULARY, "Use this tokenizer.json unchanged.")
    ] = None
    start_from: Annotated[
        str | None,
        _option(
            "--from",
            RUN,
            "Fine-tune: start with the weights and the vocabulary of this run.",
        ),
    ] = None
    vocabulary: Annotated[
        str | None,
        _option(
            "--vocabulary",
            VOCABULARY,
            "With --from: keep the run's vocabulary, or grow it by new characters or words. "
            "(default: grow; keep with --task)",
        ),
    ] = None
    more_minutes: Annotated[
        float | None, _option("--more-minutes", LENGTH, "With --resume: train N minutes longer.")
    ] = None
    more_epochs: Annotated[
        float | None, _option("--more-epochs", LENGTH, "With --resume: train N passes longer.")
    ] = None
    more_steps: Annotated[
        int | None, _option("--more-steps", LENGTH, "With --resume: train N steps longer.")
    ] = None
    processes: Annotated[
        int | None,
        _option("--processes", RUN, "Train with N processes on this machine. (default: 1)"),
    ] = None
    run: options.Run = None
    checkpoints: options.Checkpoints = None
    as_json: options.Json = False

    @property
    def request(self) -> "Request":
        """Run that is trained, for the API; the only text of --resume may be its name."""
        from charlm.config.flags import by_section, with_pairs

        run, sources = self.run, self.sources
        if self.resume and sources and len(sources) == 1 and not run and not self.name:
            run, sources = sources[0], None
        more = {
            "minutes": self.more_minutes, "epochs": self.more_epochs, "steps": self.more_steps,
        }  # fmt: skip
        return api.sessions.Request(
            flags=with_pairs(by_section({"sources": sources, **self.settings}), self.pairs or []),
            config=self.config, preset=self.preset, vocab=self.vocab, name=self.name, run=run,
            checkpoints=self.checkpoints,
            more={unit: value for unit, value in more.items() if value is not None},
            start_from=self.start_from, vocabulary=self.vocabulary,
        )  # fmt: skip

    @property
    def ways(self) -> list[str]:
        """Typed flags that decide how the run starts."""
        return [*options.typed_values(self, "--resume", "--continue", "--overwrite", "--plan")]


@Takes(text=("sources", "resume"), reads_run=_reads_run)
def train(asked: Asked) -> None:
    """Train a model on a text.

    Without options the plan aims at a good model of 1 MB of text in under 10 minutes.

    Example:  charlm train corpus.txt --minutes 5
    """
    request = asked.request
    if os.environ.get("RANK", "0") != "0":
        Verbosity.level = 0  # process 0 reports
    way = _way(asked.ways, request)
    from charlm.config.presets import PRESETS

    if request.preset in PRESETS and way != "--resume":  # an unknown one is refused later
        say(f"preset {request.preset}; not as published: {PRESETS[request.preset].differs}")
    of_torchrun = {"RANK", "WORLD_SIZE"} & os.environ.keys()
    status = (
        _train_together(request, way, asked.processes, as_json=asked.as_json)
        if asked.processes is not None or of_torchrun
        else _train(request, way, as_json=asked.as_json)
    )
    if status:
        raise typer.Exit(status)


def _train(
    request: "Request",
    way: str,
    *,
    as_json: bool,
    followed: "Callable[[Session], AbstractContextManager[None]] | None" = None,
) -> int:
    """Plan, or train in the context of `followed`; write the result and return the exit status."""
    if way == "--plan":
        _show_plan(request, as_json=as_json)
        return 0
    session = _session(request, way)
    with followed(session) if followed else contextlib.nullcontext():
        status = follow_all(session)
    write_result(session, as_json=as_json)
    return status


def _train_together(request: "Request", way: str, count: int | None, *, as_json: bool) -> int:
    """Train with several processes, those of torchrun or `count`; return the exit status."""
    from charlm.training import launch
    from charlm.training.follower import follow
    from charlm.training.processes import training_together

    processes = launch.processes_of(count)
    with training_together(processes):
        if processes.rank:
            return follow(processes)
        return _train(request, way, as_json=as_json, followed=partial(launch.followed, processes))


def _way(flags: list[str], request: "Request") -> str:
    """Return the flag that decides how the run starts, or "". Raises UsageError for two."""
    if len(flags) > 1:
        raise UsageError(f"{flags[0]} with {flags[1]}; give one of them")
    way = flags[0] if flags else ""
    if way != "--resume":
        options.check_meant({f"--more-{unit}" for unit in request.more}, "--resume")
    if not request.name:
        options.check_meant({way} & {"--continue", "--overwrite"}, "--name")
    return way


def _show_plan(request: "Request", *, as_json: bool) -> None:
    """Write the plan and the reasons for it to stdout."""
    planned = api.sessions.plan_run(request)
    from charlm.report.progress import describe_plan
    from charlm.report.runs import setting_rows, setting_table

    say_all([*planned.warnings, *filter(None, [planned.problem])])
    if as_json:
        write_document(planned.record)
        return
    write("\n".join(describe_plan(planned.record)) + "\n\n")
    render(setting_table(setting_rows(planned.record, everything=False)))


def _session(request: "Request", way: str) -> "Session":
    """Start or resume the run that the request names."""
    command = Verbosity.command
    if way == "--resume":
        session = api.sessions.resume_run(request)
    elif way == "--continue":
        session = api.sessions.start_or_resume(request, command=command)
    else:
        return api.sessions.start_run(request, command=command, overwrite=way == "--overwrite")
    step = session.trainer.counters.step
    if step and not session.complete:
        say(f"resuming {session.path.name} from step {step:,}")
    return session

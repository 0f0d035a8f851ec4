"""`charlm search`: try settings in short trials and report the best ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli import options
from charlm.cli.output import Verbosity, render, say, say_all, write_document
from charlm.cli.progress import without_pauses
from charlm.cli.stdin import Takes
from charlm.commands import command
from charlm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from charlm.training.search import TrialRecord


Sources = Annotated[
    list[str] | None, typer.Argument(help="Text, as in train. (default: the built-in text)")
]
Minutes = Annotated[float, typer.Option("--minutes", min=0.001, help="Length of this session.")]
TrialMinutes = Annotated[
    float,
    typer.Option("--trial-minutes", min=0.001, help="Length of a trial that is not stopped early."),
]
Knobs = Annotated[
    str | None,
    typer.Option(
        "--knobs",
        help="Settings to vary, such as dropout,learning_rate. "
        "(default: the usual ones that --set does not fix)",
    ),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting: NAME=VALUE (see charlm settings)."),
]
Name = Annotated[
    str, typer.Option("--name", help="Name of the search; an existing one is resumed.")
]


@Takes(text=("sources",), stdin=())
def search(
    sources: Sources = None,
    minutes: Minutes = 60.0,
    trial_minutes: TrialMinutes = 3.0,
    knobs: Knobs = None,
    settings: options.Search = options.NO_FLAGS,
    pairs: Pairs = None,
    name: Name = "search",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the search.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            help="File or database URL of Optuna by which several machines share the search. "
            "(default: one process searches, in the folder of the search)",
        ),
    ] = None,
    as_json: options.Json = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Search for the best settings by short trials.

    This is random search with successive halving; stop and resume at any time.

    Example:  charlm search corpus.txt --minutes 120 --trial-minutes 3
    """
    from charlm.config.flags import by_section, settings_in, with_pairs
    from charlm.config.settings import settings_from
    from charlm.runs.folders import check_name, check_writable
    from charlm.runs.layout import SEARCH
    from charlm.runs.locate import checkpoints_folder
    from charlm.training.search import USUAL_KNOBS, results
    from charlm.training.search import search as trials
    from charlm.training.stopwatch import Stopwatch

    flags = by_section({"sources": sources, **settings, "seed": seed})
    chosen = settings_from(with_pairs(flags, pairs or []))
    root = checkpoints_folder(checkpoints)
    check_writable(root)
    folder = root / name
    if not name or not (folder / SEARCH).exists():
        check_name(root, name)
    fixed = {key for values in settings_in(pairs or []).values() for key in values}
    names = tuple(knob for knob in USUAL_KNOBS if knob not in fixed)
    if knobs is not None:
        names = tuple(part.strip() for part in knobs.split(","))
        _check_varied(names, fixed)
    clock = Stopwatch()
    with without_pauses(clock):
        _report(trials(
            chosen, folder, minutes=minutes, trial_minutes=trial_minutes, knobs=names, seed=seed,
            storage=storage, clock=clock,
        ))  # fmt: skip
    rows = results(folder, storage)
    if as_json:
        write_document({"search": name, "trials": rows})
        return
    _show(rows, folder, [*(sources or []), *_typed_words(settings, pairs or [])])


def _check_varied(knobs: "Iterable[str]", fixed: set[str]) -> None:
    """Raise UsageError for a setting that is both fixed by --set and varied."""
    for knob in knobs:
        if knob in fixed:
            raise UsageError(
                f"--set {knob} fixes a setting that --knobs varies; expected one of the two. "
                "Leave one of them out"
            )


def _show(rows: list[dict[str, Any]], folder: Path, words: list[str]) -> None:
    """Write the table of trials, and what to do next."""
    from charlm.report.runs import trial_table

    render(trial_table(rows))
    if any(row["state"] == "paused" for row in rows):
        say(f"continue the paused trials with: {Verbosity.command}")
    if rows and rows[0]["state"] == "complete":
        _advise(rows[0], folder, words)


def _report(records: "Iterable[TrialRecord]") -> None:
    """Write a line for each trial, and each warning about its text once."""
    warnings: dict[str, None] = {}
    for record in records:
        say_all(text for text in record.warnings if text not in warnings)
        warnings |= dict.fromkeys(record.warnings)
        say(_line(record))


def _typed_words(settings: options.SettingFlags, pairs: list[str]) -> list[str]:
    """Return the settings as they were typed."""
    from charlm.config.flags import words_of

    words = [word for name, value in settings.items() for word in words_of(name, value)]
    return words + [word for pair in pairs for word in ("--set", pair)]


def _advise(best: dict[str, Any], folder: Path, words: list[str]) -> None:
    """Report where the best trial is, and how to train longer with its settings."""
    from charlm.training.study import trial_name

    trial = folder / trial_name(best["number"])
    if trial.exists():
        say(f"the best trial is a run: {command('sample', run=trial)}")
    else:
        say(f"the best trial, number {best['number']}, is a run of another machine")
    values = [word for key, value in best["values"].items() for word in ("--set", f"{key}={value}")]
    longer = command("train", *words, *values, checkpoints=folder.parent)
    say(f"train longer with: {longer}")


def _line(record: "TrialRecord") -> str:
    values = ", ".join(f"{key} {_short(value)}" for key, value in record.values.items())
    figure = "" if record.nats_per_token is None else f"{record.nats_per_token:.4f} nats/token, "
    problem = f" ({record.problem})" if record.problem else ""
    return f"trial {record.number}: {figure}{record.state}{problem}; {values}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""`charlm search`: try settings for a while and say which are best."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.options import (
    NO_FLAGS,
    CheckpointsOption,
    JsonOption,
    ReadingFlags,
)
from charlm.cli.output import Verbosity, render, say, write_json
from charlm.commands import command

if TYPE_CHECKING:
    from charlm.training.search import TrialRecord


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search")(search)


def search(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Text, as in train; none: the built-in text.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.001, help="Of this sitting.")] = 60.0,
    trial_minutes: Annotated[
        float,
        typer.Option("--trial-minutes", min=0.001, help="Of each trial, if it is not stopped."),
    ] = 3.0,
    knobs: Annotated[
        str | None, typer.Option("--knobs", help="What to vary, such as dropout,learning_rate.")
    ] = None,
    reading: ReadingFlags = NO_FLAGS,
    valid: Annotated[list[str] | None, typer.Option("--valid", help="Validation text.")] = None,
    unit: Annotated[str | None, typer.Option("--unit", help="char, byte, word or bpe.")] = None,
    document: Annotated[
        str | None, typer.Option("--document", help="stream, line, paragraph or file.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: NAME=VALUE.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the search; goes on with it.")] = "search",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the search.")] = 1,
    as_json: JsonOption = False,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Random search with successive halving over a few settings; stop and go on at any time.

    Example:  charlm search corpus.txt --minutes 120 --trial-minutes 3
    """
    from charlm.config.flags import by_section, with_pairs, words_of
    from charlm.config.settings import settings_from
    from charlm.runs.folders import check_name, check_writable
    from charlm.runs.locate import checkpoints_folder
    from charlm.training.search import SETTINGS, USUAL_KNOBS, results, trial_name
    from charlm.training.search import search as trials

    typed = {**reading, "valid": valid, "unit": unit, "document": document}
    given = {name: value for name, value in typed.items() if value is not None}
    flags = by_section({"sources": sources, **given, "seed": seed})
    settings = settings_from(with_pairs(flags, more or []), "flags")
    chosen = tuple(part.strip() for part in knobs.split(",")) if knobs else USUAL_KNOBS
    root = checkpoints_folder(checkpoints)
    check_writable(root)
    folder = root / name
    if not name or not (folder / SETTINGS).exists():
        check_name(root, name)
    told: set[str] = set()
    for record in trials(
        settings, folder, minutes=minutes, trial_minutes=trial_minutes, knobs=chosen, seed=seed
    ):
        for note in record.notes:
            if note not in told:
                say(note)
        told |= set(record.notes)
        say(_line(record))
    rows = results(folder)
    if as_json:
        write_json({"schema_version": 1, "search": name, "trials": rows})
        return
    from charlm.report.runs import trial_table

    render(trial_table(rows))
    if any(row["state"] == "paused" for row in rows):
        say(f"continue the paused trials with: {Verbosity.command}")
    best = rows[0] if rows and rows[0]["state"] == "complete" else None
    if best:
        trial = folder / trial_name(best["number"])
        say(f"the best trial is a run: {command('sample', run=trial)}")
        words = [word for name, value in given.items() for word in words_of(name, value)]
        pairs = [*(more or []), *(f"{key}={value}" for key, value in best["values"].items())]
        words += [word for pair in pairs for word in ("--set", pair)]
        say(f"train longer with: {command('train', *(sources or []), *words, checkpoints=root)}")


def _line(record: "TrialRecord") -> str:
    values = ", ".join(f"{key} {_short(value)}" for key, value in record.values.items())
    figure = "" if record.nats_per_token is None else f"{record.nats_per_token:.4f} nats/token, "
    problem = f" ({record.problem})" if record.problem else ""
    return f"trial {record.number}: {figure}{record.state}{problem}; {values}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""`charlm reproduce`: train a recipe and put its figures beside the published ones."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.options import CheckpointsOption, JsonOption
from charlm.cli.output import Verbosity, render, say
from charlm.cli.output import write_json as show_json

if TYPE_CHECKING:
    from charlm.config.recipes import Recipe
    from charlm.training.session import Session
    from charlm.units import Tally


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="Which recipe; without it they are listed.")
    ] = None,
    data: Annotated[
        Path,
        typer.Option("--data", envvar="CHARLM_DATA", help="Folder of corpora.", metavar="DIR"),
    ] = Path("data"),
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0.001, help="Stop this sitting after so many minutes."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed. (default: 1)")] = None,
    as_json: JsonOption = False,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Train a recipe on a known corpus, or go on with it; ours beside published, with protocol.

    Example:  charlm reproduce ptb-word --data corpora --budget 30
    """
    from charlm.config.recipes import RECIPES, recipe

    if name is None:
        if as_json:
            known = [
                {"recipe": key, "what": one.what, "figure": one.figure, "protocol": one.protocol,
                 "published": _published(one)}
                for key, one in RECIPES.items()
            ]  # fmt: skip
            show_json({"schema_version": 1, "recipes": known})
            return
        from charlm.report.reproductions import recipe_table

        render(recipe_table(RECIPES))
        return
    chosen = recipe(name)
    path = _trained(name, chosen, data, budget, seed, checkpoints)
    tallies, complete = _tallies(path, chosen)
    if as_json:
        rows = {key: tally.summary() for key, tally in tallies.items()}
        show_json({"schema_version": 1, "recipe": name, "complete": complete, "ours": rows,
                    "figure": chosen.figure, "protocol": chosen.protocol,
                    "published": _published(chosen)})  # fmt: skip
        return
    from charlm.report.reproductions import comparison

    if not complete:
        say(f"not complete yet; continue with: {Verbosity.command}")
    render(comparison(chosen, tallies))
    say(f"protocol: {chosen.protocol}")


def _published(chosen: "Recipe") -> list[dict[str, Any]]:
    """Others' figures, for JSON."""
    return [{"who": who, "figure": figure} for who, figure in chosen.published]


def _trained(
    name: str, chosen: "Recipe", data: Path, budget: float | None, seed: int | None,
    checkpoints: Path | None,
) -> Path:  # fmt: skip
    """The folder of the recipe's run, begun, gone on with, or complete already."""
    from charlm.runs.layout import RECORD
    from charlm.runs.locate import checkpoints_folder

    folder = checkpoints_folder(checkpoints)
    path = folder / f"recipe-{name}"
    if (path / RECORD).exists():
        from charlm.training.opening import resume

        _check_same(path, chosen, seed)
        session = resume(path)
        if session.complete:
            session.lock.release()
            return path
        say(f"going on with {path.name} from step {session.trainer.counters.step:,}")
    else:
        session = _begun(path, chosen, data, 1 if seed is None else seed)
    _follow(session, budget)
    return path


def _check_same(path: Path, chosen: "Recipe", seed: int | None) -> None:
    """Raise RunError where a run was made by other settings than the recipe's, or another seed."""
    from charlm.errors import RunError
    from charlm.runs.layout import read_record

    record = read_record(path)
    there = record["settings"]["training"]["seed"]
    if seed not in (None, there):
        raise RunError(
            f"{path} was begun with seed {there}; expected --seed {there}, or none. For another "
            "seed give another --checkpoints"
        )
    if record.get("recipe") != _plain(chosen):
        raise RunError(
            f"{path} was made by another recipe of this name; expected a run of this one. Delete "
            "it, or give another --checkpoints"
        )


def _plain(chosen: "Recipe") -> Any:
    """The settings of a recipe as JSON keeps them."""
    import json

    return json.loads(json.dumps(chosen.settings))


def _begun(path: Path, chosen: "Recipe", data: Path, seed: int) -> "Session":
    from charlm.config.settings import merge, settings_from
    from charlm.errors import CorpusError
    from charlm.runs.layout import write_record
    from charlm.training.opening import start

    texts = {part: getattr(chosen, part) for part in ("train", "valid", "test")}
    files = {part: data / place for part, place in texts.items() if place}
    missing = [str(file) for file in files.values() if not file.exists()]
    if missing:
        raise CorpusError(
            f"{missing[0]} is not there; expected the corpora below {data}. Name their folder "
            "with --data or CHARLM_DATA"
        )
    if chosen.drawn:
        files = _parted(files["train"], path.with_name(f"{path.name}-texts"))
    corpus = {"sources": (str(files["train"]),)} | {
        part: (str(files[part]),) for part in ("valid", "test") if part in files
    }
    given = merge(chosen.settings, {"corpus": corpus, "training": {"seed": seed}})
    origins = {f"{s}.{k}": "recipe" for s, values in given.items() for k in values}
    session = start(
        settings_from(given),
        path.parent,
        name=path.name,
        origins=origins,
        command=Verbosity.command,
    )
    session.record["recipe"] = _plain(chosen)
    write_record(path, session.record)
    return session


def _parted(source: Path, folder: Path) -> dict[str, Path]:
    """The parts of a list as files of a folder, which the run then names as its texts."""
    from charlm.errors import EnvironmentFailure
    from charlm.text.corpus import Corpus
    from charlm.training.makemore import split_lines

    parts = split_lines("".join(Corpus((str(source),), document="stream").chunks()))
    files = {part: folder / f"{part}.txt" for part in parts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, lines in parts.items():
            content = "".join(line + "\n" for line in lines)
            files[part].write_text(content, encoding="utf-8", newline="\n")
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write {folder}: {error.strerror}; expected room for the parts of the list. "
            "Name another folder with --checkpoints"
        ) from error
    return files


def _follow(session: "Session", budget: float | None) -> None:
    from charlm.cli.progress import follow

    if budget is None:
        follow(session)
        return
    timer = threading.Timer(60.0 * budget, lambda: session.trainer.stop("the budget is used up"))
    timer.daemon = True
    timer.start()
    try:
        follow(session)
    finally:
        timer.cancel()


def _tallies(path: Path, chosen: "Recipe") -> "tuple[dict[str, Tally], bool]":
    """The figures of the part that is compared, plain and under each method of the recipe."""
    from charlm.api.model import load
    from charlm.cli.test_time import Methods
    from charlm.errors import RunError
    from charlm.inference.likelihood import evaluate
    from charlm.runs.layout import read_record

    methods = bool(chosen.cache or chosen.dynamic)
    model = load(path, engine="torch" if methods else "auto")
    text = model.run.kept(chosen.part)
    if text is None:
        raise RunError(f"{path}: keeps no {chosen.part} text; delete the run, and begin it again")
    found = {chosen.part: evaluate(model.run.engine, text)}
    if chosen.reset_every:
        window = chosen.reset_every
        label = f"{chosen.part}, windows of {window}"
        found[label] = evaluate(model.run.engine, text, reset_every=window)
    complete = read_record(path)["status"] == "finished"
    if methods and complete:
        wanted = Methods(chosen.cache, chosen.dynamic, False, False, (), None)
        wanted.check(model)
        found |= wanted.tallies(model, {chosen.part: text})
    return found, complete

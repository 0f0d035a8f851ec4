"""Recipes for published results: train one, and evaluate it by the published protocol."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.api.loading import load_model
from charlm.api.methods import Methods
from charlm.api.recipe_texts import made_texts
from charlm.config.presets import combined
from charlm.config.recipes import Recipe, recipe
from charlm.config.settings import merge, settings_from
from charlm.config.tasks import LANGUAGE_MODEL, task_name
from charlm.errors import CorpusError, RunError
from charlm.inference.likelihood import evaluate
from charlm.runs.layout import RECORD, read_record, write_record
from charlm.runs.locate import checkpoints_folder

if TYPE_CHECKING:
    from charlm.training.session import Session


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """Figures of the part of a recipe that is compared, by protocol or method.

    Methods of adaptation are evaluated only when training is `complete`. `floors` has the same
    figure of the methods beside which training measured the run, by their names.
    """

    figures: dict[str, dict[str, Any]]
    floors: dict[str, float]
    complete: bool


def recipe_folder(name: str, checkpoints: Path | None = None) -> Path:
    """Return the folder of a recipe's run."""
    return checkpoints_folder(checkpoints) / f"recipe-{name}"


def open_recipe(
    name: str,
    data: Path,
    *,
    seed: int | None = None,
    checkpoints: Path | None = None,
    command: str = "",
) -> "Session":
    """Start or resume the run of a recipe, whose corpora are below `data`.

    `seed` (1) is that of a new run. Raises UsageError for an unknown recipe, CorpusError if its
    corpora are missing, and RunError for a run with another seed or other settings.
    """
    from charlm.training.resume import resume

    chosen, path = recipe(name), recipe_folder(name, checkpoints)
    if (path / RECORD).exists():
        _check_same(path, chosen, seed)
        return resume(path)
    return _start(path, chosen, data, 1 if seed is None else seed, command)


def recipe_result(name: str, *, checkpoints: Path | None = None) -> RecipeResult:
    """Evaluate the run of a recipe as far as it is trained. Raises RunError if it keeps no text."""
    chosen, path = recipe(name), recipe_folder(name, checkpoints)
    record = read_record(path)
    complete = record["status"] == "finished"
    if task_name(record["settings"]) != LANGUAGE_MODEL:
        figures = (record.get("results") or {}).get(chosen.part)
        return RecipeResult(
            figures={chosen.part: figures} if figures else {},
            floors=_floors(record, chosen),
            complete=complete,
        )
    methods = Methods(cache=chosen.cache, dynamic=chosen.dynamic)
    model = load_model(path, engine="torch" if methods else "auto")
    text = model.run.kept(chosen.part)
    if text is None:
        raise RunError(
            f"{path} keeps no {chosen.part} text; expected one to evaluate. Delete the run and "
            "start it again"
        )
    tallies = {chosen.part: evaluate(model.run.backend, text)}
    if chosen.reset_every:
        window = chosen.reset_every
        label = f"{chosen.part}, windows of {window}"
        tallies[label] = evaluate(model.run.backend, text, reset_every=window)
    if methods and complete:
        from charlm.api.adaptation import Adaptation

        tallies |= Adaptation(model, methods).tallies({chosen.part: text})
    figures = {part: tally.summary() for part, tally in tallies.items()}
    return RecipeResult(figures=figures, floors={}, complete=complete)


def _floors(record: Mapping[str, Any], chosen: Recipe) -> dict[str, float]:
    """Return the figure of each floor of a record; a floor is a number or figures by name."""
    parts = {name: floor.get(chosen.part) for name, floor in (record.get("floors") or {}).items()}
    figures = {
        name: part.get(chosen.figure) if isinstance(part, Mapping) else part
        for name, part in parts.items()
    }
    return {name.replace("_", " "): value for name, value in figures.items() if value is not None}


def _check_same(path: Path, chosen: Recipe, seed: int | None) -> None:
    """Raise RunError if a run has another seed, or settings other than those of the recipe."""
    record = read_record(path)
    recorded = record["settings"]["training"]["seed"]
    if seed not in (None, recorded):
        raise RunError(
            f"{path} was started with seed {recorded}; expected --seed {recorded}, or none. For "
            "another seed use another --checkpoints"
        )
    if record.get("recipe") != _as_json(chosen):
        raise RunError(
            f"{path} was made by another recipe of this name; expected a run of this one. Delete "
            "it, or use another --checkpoints"
        )


def _as_json(chosen: Recipe) -> Any:
    """Return the settings of a recipe as they are read back from JSON."""
    return json.loads(json.dumps(chosen.settings))


def _start(path: Path, chosen: Recipe, data: Path, seed: int, command: str) -> "Session":
    from charlm.training.start import start

    places = {part: getattr(chosen, part) for part in ("train", "valid", "test")}
    files = {part: data / place for part, place in places.items() if place}
    missing = [str(file) for file in files.values() if not file.exists()]
    if missing:
        raise CorpusError(
            f"{missing[0]} does not exist; expected the corpora below {data}. Name their folder "
            "with --data or CHARLM_DATA"
        )
    if chosen.maker:
        folder = path.with_name(f"{path.name}-texts")
        files = made_texts(chosen.maker, files.get("train"), folder)
    corpus = {"sources": (str(files["train"]),)} | {
        part: (str(files[part]),) for part in ("valid", "test") if part in files
    }
    given = merge(chosen.settings, {"corpus": corpus, "training": {"seed": seed}})
    nested, origins = combined(given, "recipe")
    session = start(
        settings_from(nested), path.parent, name=path.name, origins=origins, command=command
    )
    session.record["recipe"] = _as_json(chosen)
    write_record(path, session.record)
    return session

"""Recipes for published results: train one, and evaluate it by the published protocol."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.api.loading import load_model
from charlm.api.methods import Methods
from charlm.config.recipes import Recipe, recipe
from charlm.config.settings import merge, settings_from
from charlm.errors import CorpusError, RunError
from charlm.files.atomic import explained
from charlm.inference.likelihood import evaluate
from charlm.runs.layout import RECORD, read_record, write_record
from charlm.runs.locate import checkpoints_folder
from charlm.text.corpus import Corpus
from charlm.units import Tally

if TYPE_CHECKING:
    from charlm.training.session import Session

MAKEMORE_SEED, HELD_OUT = 3407, 1000
"""Seed of the permutation, and lines of the test, of github.com/karpathy/makemore."""


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """Tallies of the part of a recipe that is compared, by protocol or method.

    Methods of adaptation are evaluated only when training is `complete`.
    """

    tallies: dict[str, Tally]
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
    complete = read_record(path)["status"] == "finished"
    if methods and complete:
        from charlm.api.adaptation import Adaptation

        tallies |= Adaptation(model, methods).tallies({chosen.part: text})
    return RecipeResult(tallies=tallies, complete=complete)


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
    if chosen.makemore_split:
        files = _split_list(files["train"], path.with_name(f"{path.name}-texts"))
    corpus = {"sources": (str(files["train"]),)} | {
        part: (str(files[part]),) for part in ("valid", "test") if part in files
    }
    given = merge(chosen.settings, {"corpus": corpus, "training": {"seed": seed}})
    session = start(
        settings_from(given),
        path.parent,
        name=path.name,
        origins={f"{s}.{k}": "recipe" for s, values in given.items() for k in values},
        command=command,
    )
    session.record["recipe"] = _as_json(chosen)
    write_record(path, session.record)
    return session


def _split_list(source: Path, folder: Path) -> dict[str, Path]:
    """Write the splits of a list as files into a folder and return their paths."""
    splits = makemore_split("".join(Corpus((str(source),), document="stream").chunks()))
    files = {name: folder / f"{name}.txt" for name in splits}
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, lines in splits.items():
            content = "".join(line + "\n" for line in lines)
            files[name].write_text(content, encoding="utf-8", newline="\n")
    return files


def makemore_split(text: str) -> dict[str, list[str]]:
    """Return the lines of a text for training, validation and test.

    The last thousand of a permutation are the test, as in makemore.py (torch's generator, its
    seed); the thousand before them, which makemore trains on, choose the best weights here.
    Raises CorpusError if there are too few lines.
    """
    import torch

    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 2 * HELD_OUT:
        raise CorpusError(
            f"the text has {len(lines):,} lines; expected more than {2 * HELD_OUT:,}, of "
            "which 1,000 are held out twice"
        )
    generator = torch.Generator().manual_seed(MAKEMORE_SEED)
    order = torch.randperm(len(lines), generator=generator).tolist()
    shuffled = [lines[index] for index in order]
    rest, test = shuffled[:-HELD_OUT], shuffled[-HELD_OUT:]
    return {"train": rest[:-HELD_OUT], "valid": rest[-HELD_OUT:], "test": test}

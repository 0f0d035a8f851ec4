"""Find runs: by name, by path, the newest one, or one that ships with charlm."""

import os
from pathlib import Path

from charlm.commands import CHECKPOINTS, CHECKPOINTS_VARIABLE, command
from charlm.config.fields import listed_names
from charlm.config.tasks import TASKS
from charlm.errors import RunError, near_name
from charlm.files.atomic import TEMPORARY
from charlm.files.safe_read import read_json
from charlm.runs.built_in import BUILT_IN_RUNS, built_in_run, is_built_in
from charlm.runs.layout import (
    BEST,
    CONFIG,
    NGRAMS,
    RECORD,
    SEARCH,
    WEIGHTS,
    model_file,
    verb_of,
)
from charlm.units import first_few

MAX_NAMES = 8
"""Most runs that a message names."""
HUB_RUN = "hf:"
"""Beginning of the name of a run on the hub."""


def checkpoints_folder(chosen: str | Path | None = None) -> Path:
    """Return the folder of runs: as given, else CHARLM_CHECKPOINTS, else ./checkpoints."""
    return Path(chosen or os.environ.get(CHECKPOINTS_VARIABLE) or CHECKPOINTS)


def is_run(path: Path) -> bool:
    """Return whether a folder is a run, and not one that is being removed."""
    return is_file(path / CONFIG) and not path.name.startswith(TEMPORARY)


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for a name that is too long for a file."""
    try:
        return path.is_file()
    except OSError:
        return False


def exists(path: Path) -> bool:
    """Return whether a file, folder or link exists; False for a name that is too long.

    A link exists even if it leads nowhere.
    """
    try:
        return path.is_symlink() or path.exists()
    except OSError:
        return False


def own_runs(folder: Path) -> list[Path]:
    """Return the user's runs in a folder, newest first, without built-in ones.

    Folders of processes that died before their run started are left out.
    """
    started = [path for path in folder.glob("*") if is_run(path) and (path / RECORD).exists()]
    return sorted((path for path in started if not is_built_in(path)), key=_changed, reverse=True)


def best_trial(folder: Path) -> Path | None:
    """Return the best trial of the search in a folder, or None."""
    try:
        name = read_json(folder / BEST).get("trial")
    except RunError:
        return None
    path = folder / str(name)
    return path if Path(str(name)).name == name and is_run(path) else None


def newest_run(folder: Path, *, trained: bool = True, verb: str = "") -> Path | None:
    """Return the newest run of a folder or None; a search counts as its best trial.

    An n-gram run is the newest only if no network is there. With `trained`, runs without a model
    are left out, with `verb` those that another command uses.
    """
    runs = [(_changed(path), path) for path in own_runs(folder)]
    for best in folder.glob(f"*/{BEST}"):
        if (trial := best_trial(best.parent)) is not None:
            runs.append(((best.stat().st_mtime, trial.name), trial))
    usable = [run for run in runs if not trained or model_file(run[1]).exists()]
    if verb:
        usable = [run for run in usable if verb_of(run[1]) == verb]
    networks = [run for run in usable if not is_ngram_run(run[1])]
    return max(networks or usable)[1] if usable else None


def is_ngram_run(path: Path) -> bool:
    """Return whether a run is an n-gram model."""
    return (path / NGRAMS).exists()


def _changed(path: Path) -> tuple[float, str]:
    names = (WEIGHTS, NGRAMS, RECORD)
    times = [(path / name).stat().st_mtime for name in names if (path / name).exists()]
    return max(times, default=0.0), path.name


def find_run(run: str | None, folder: Path, *, trained: bool = True, verb: str = "") -> Path:
    """Return the run of this name or path; by default the newest, else the built-in one.

    The name of a search stands for its best trial, `hf:org/name[@revision]` for the cached files of
    a repository of the hub. With `trained`, the newest run is one that has weights, with `verb` one
    that this command uses (predict); none of these is built in. Raises RunError with the nearest
    name if there is no such run.
    """
    if run is None:
        newest = newest_run(folder, trained=trained, verb=verb)
        if newest is None and verb:
            gives = listed_names([row.gives for row in TASKS.values() if row.verb == verb])
            raise RunError(
                f"no run in {folder} gives {gives}; expected one. Train one with: "
                + command("train", "FILE", "--task", "classify")
            )
        return newest or built_in_run()
    if run.startswith(HUB_RUN):
        from charlm.runs.hub import snapshot

        return snapshot(run)
    for path in (folder / run, Path(run)):
        if is_run(path):
            return path
        if (trial := best_trial(path)) is not None:
            return trial
    if run in BUILT_IN_RUNS:
        return built_in_run(run)
    names = [*(path.name for path in own_runs(folder)), *BUILT_IN_RUNS]
    if is_file(Path(run)):
        raise RunError(
            f"{run} is a file; expected a run, a folder that charlm train wrote. Train on the file "
            f"with: {command('train', run)}"
        )
    near = near_name(run, names)
    hint = f"Did you mean {near}?" if near else f"Known runs: {first_few(names, MAX_NAMES)}."
    raise RunError(f"no run {run!r} in {folder} or as a folder. {hint}")


def run_name(path: Path) -> str:
    """Return the name of a run; a run inside another, or a trial, is called `outer/inner`."""
    path = path.absolute()
    if path.name in ("", ".."):
        path = path.resolve()
    inner = is_run(path.parent) or (path.parent / SEARCH).exists()
    return f"{run_name(path.parent)}/{path.name}" if inner else path.name


def fresh_run_folder(folder: Path, name: str) -> Path:
    """Create a folder `name`; if that exists, `name-2`, `name-3` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path

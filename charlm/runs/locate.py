"""Finding runs: by name, by path, the newest one, or the one that ships with charlm."""

import difflib
import os
from pathlib import Path

from charlm.commands import CHECKPOINTS, CHECKPOINTS_VARIABLE, command
from charlm.errors import RunError
from charlm.files.atomic import TEMPORARY
from charlm.files.safe_read import read_json
from charlm.runs.built_in import BUILT_IN_RUNS, built_in_run, is_built_in
from charlm.runs.layout import BEST, CONFIG, RECORD, WEIGHTS


def checkpoints_folder(chosen: Path | None = None) -> Path:
    """Where runs are kept: the given folder, else CHARLM_CHECKPOINTS, else ./checkpoints."""
    return chosen or Path(os.environ.get(CHECKPOINTS_VARIABLE) or CHECKPOINTS)


def is_run(path: Path) -> bool:
    """Return whether a folder is a run, and not one that is being removed."""
    return is_file(path / CONFIG) and not path.name.startswith(TEMPORARY)


def is_file(path: Path) -> bool:
    """Return whether there is such a file; not where its name is too long for one."""
    try:
        return path.is_file()
    except OSError:
        return False


def own_runs(folder: Path) -> list[Path]:
    """The user's runs in a folder, newest first; the built-in one is not among them.

    What a process left that died before its run began is none.
    """
    begun = [path for path in folder.glob("*") if is_run(path) and (path / RECORD).exists()]
    return sorted((path for path in begun if not is_built_in(path)), key=_changed, reverse=True)


def best_trial(folder: Path) -> Path | None:
    """Return the best trial of a search in a folder, or None where there is none."""
    try:
        name = read_json(folder / BEST).get("trial")
    except RunError:
        return None
    path = folder / str(name)
    return path if Path(str(name)).name == name and is_run(path) else None


def newest_run(folder: Path, *, trained: bool = True) -> Path | None:
    """Return the newest run of a folder, where a search counts as its best trial; or None.

    With `trained`, runs without weights are left out.
    """
    found = [(_changed(path), path) for path in own_runs(folder)]
    for best in folder.glob(f"*/{BEST}"):
        if (trial := best_trial(best.parent)) is not None:
            found.append(((best.stat().st_mtime, trial.name), trial))
    usable = [one for one in found if not trained or (one[1] / WEIGHTS).exists()]
    return max(usable)[1] if usable else None


def _changed(path: Path) -> tuple[float, str]:
    times = [(path / name).stat().st_mtime for name in (WEIGHTS, RECORD) if (path / name).exists()]
    return max(times, default=0.0), path.name


def find_run(run: str | None, folder: Path, *, trained: bool = True) -> Path:
    """The run of this name or path; without one the newest, else the built-in one.

    The name of a search means its best trial.
    With `trained`, a run without weights is passed over when looking for the newest.
    Raises RunError with the nearest name when there is no such run.
    """
    if run is None:
        return newest_run(folder, trained=trained) or built_in_run()
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
    near = difflib.get_close_matches(run, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known runs: {', '.join(names[:8])}."
    raise RunError(f"no run {run!r} in {folder} or as a folder. {hint}")


def fresh_run_folder(folder: Path, name: str) -> Path:
    """Create a new folder `name`, or `name-2`, `name-3`, ... where that is taken."""
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

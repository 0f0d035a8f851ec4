"""Remove and rename runs that a user names; everything else in the folder is refused."""

from pathlib import Path

from charlm.commands import command
from charlm.errors import RunError, near_name
from charlm.files.atomic import explained, sync_folder, write_file
from charlm.files.safe_read import read_bytes
from charlm.runs import layout
from charlm.runs.built_in import BUILT_IN_RUNS, is_built_in
from charlm.runs.card import model_card
from charlm.runs.folders import check_plain, discard, lock_run, move_locked, other_file
from charlm.runs.locate import exists, is_file, is_run
from charlm.runs.overview import MARKS, list_runs
from charlm.runs.pair import BACKWARD


def own_run(name: str, folder: Path) -> Path:
    """Return the run or search of this name or path, which may be damaged.

    Raises RunError for a folder that is not a run, a link, a part of a run, a run that ships with
    charlm, and for a folder that holds other files.
    """
    path = next((p for p in (folder / name, Path(name)) if exists(p)), None)
    if path is None:
        if name in BUILT_IN_RUNS:
            raise RunError(f"{name} ships with charlm; expected a run of your own in {folder}")
        near = near_name(name, [run.name for run in list_runs(folder) if not run.built_in])
        hint = f"Did you mean {near}?" if near else f"List them with: {command('runs')}"
        raise RunError(f"no run {name!r} in {folder} or as a folder. {hint}")
    if path.is_symlink():
        raise RunError(f"{path} is a link; expected the folder itself. Name {path.readlink()}")
    inside = Path(name).is_absolute() or folder.resolve() in path.resolve().parents
    if path == folder / name and not inside:
        raise RunError(f"{path} leads out of {folder}; expected a run in it, or an absolute path")
    if path.name in ("", ".."):
        path = path.resolve()
    if is_built_in(path):
        raise RunError(f"{path} ships with charlm; expected a run of your own")
    marks = (layout.SEARCH, *MARKS)
    if not path.is_dir() or not any(is_file(path / mark) for mark in marks):
        raise RunError(f"{path} is not a run; expected a folder that charlm train wrote")
    if path.name in (BACKWARD, layout.COMPANION) and is_run(path.parent):
        raise RunError(f"{path} is a part of run {path.parent.name}; expected a whole run")
    if other := other_file(path):
        raise RunError(
            f"{path} holds {other}, which charlm did not write; expected only a run. Move it away"
        )
    return path


def rename_run(path: Path, name: str) -> Path:
    """Rename a run or a search, also in its record and its card; return its new path.

    Raises UsageError for a name that is no plain name, RunError if it is taken, EnvironmentFailure
    if the run is being trained.
    """
    check_plain(name, "the new name")
    if is_file(path.parent / layout.SEARCH):
        raise RunError(
            f"{path.name} is a trial of search {path.parent.name}, which finds it by its name; "
            "expected a run of its own"
        )
    new = path.with_name(name)
    if exists(new):
        raise RunError(f"{new} already exists; expected a free name. Choose another one")
    check_idle(path)
    lock = lock_run(path)
    try:
        with explained(new):
            move_locked(path, new, lock)
            sync_folder(new.parent)
        set_name(new, name)
    finally:
        lock.release()
    return new


def set_name(path: Path, name: str) -> None:
    """Write the name of a run into its record, unless that is damaged, and into its own card.

    A card that somebody wrote, or that has a license, stays as it is.
    """
    try:
        record = layout.read_record(path)
    except RunError:
        return
    card = path / layout.CARD
    if record["name"] != name:
        own = record.get("results") and model_card(record["name"], record).encode("utf-8")
        record["name"] = name
        if own and card.is_file() and read_bytes(card) == own:
            write_file(card, model_card(name, record).encode("utf-8"))
        layout.write_record(path, record)


def check_idle(path: Path) -> None:
    """Raise EnvironmentFailure if a run, or a search or one of its trials, is being trained."""
    trials = sorted(path.iterdir()) if is_file(path / layout.SEARCH) else ()
    for run in (path, *filter(is_run, trials)):
        lock_run(run).release()


def remove(path: Path) -> None:
    """Remove the folder of a run or a search that `own_run` returned.

    Raises EnvironmentFailure if it is being trained.
    """
    check_idle(path)
    discard(path)

"""Runs as a collection: list, compare, remove and rename them; without torch and numpy."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import check_choice
from charlm.listing import Listing
from charlm.runs.locate import checkpoints_folder, find_run
from charlm.runs.overview import SORTS, RunInfo, disk_space
from charlm.runs.overview import list_runs as runs_in
from charlm.runs.upkeep import check_idle, own_run, remove, rename_run

if TYPE_CHECKING:
    from charlm.runs.diff import RunDiff


class Runs(Listing[RunInfo]):
    """Runs and searches, each search followed by its trials."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a dictionary for each run and trial."""
        plain = [run.to_dict() for search in self for run in (search, *search.trials)]
        return [{name: row[name] for name in row if name != "trials"} for row in plain]

    def __repr__(self) -> str:
        return f"Runs([{', '.join(run.name for run in self)}])"


def list_runs(checkpoints: str | Path | None = None, sort: str = "age") -> Runs:
    """Return the runs in a folder, by default `checkpoints`, then those that ship with charlm.

    A search is one entry with its `trials`. `sort` is one of SORTS; the built-in runs stay last. A
    damaged run has the status "broken" and its `problem`.
    """
    check_choice("sort", sort, SORTS)
    rows = runs_in(checkpoints_folder(checkpoints))
    return Runs(sorted(rows, key=lambda run: (run.built_in, SORTS[sort](run))))


def remove_runs(
    names: Iterable[str],
    checkpoints: str | Path | None = None,
    *,
    confirm: Callable[[list[Path], int], bool] | None = None,
) -> list[Path]:
    """Remove runs and searches, and return their paths; nothing is removed if one is refused.

    `confirm` is called with the paths and their bytes on disk; if it returns False, nothing is
    removed. Raises RunError for a folder that is not a run of the user's own, EnvironmentFailure
    for a run that is being trained.
    """
    folder = checkpoints_folder(checkpoints)
    named = list(dict.fromkeys(own_run(name, folder) for name in names))
    paths = [path for path in named if not set(path.parents) & set(named)]  # trials go with theirs
    for path in paths:
        check_idle(path)  # refuse before anything is removed
    if confirm and not confirm(paths, sum(map(disk_space, paths))):
        return []
    for path in paths:
        remove(path)
    return paths


def rename(old: str, new: str, checkpoints: str | Path | None = None) -> Path:
    """Rename a run or a search, and return its new path. Raises as `remove_runs`."""
    folder = checkpoints_folder(checkpoints)
    return rename_run(own_run(old, folder), new)


def diff_runs(
    first: str | Path, second: str | Path, checkpoints: str | Path | None = None
) -> "RunDiff":
    """Return the settings and facts in which two runs differ, and their results.

    Raises RunError for a run that is missing or damaged.
    """
    from charlm.runs.diff import diff_runs as difference  # a list of runs needs none

    folder = checkpoints_folder(checkpoints)
    one, two = (find_run(str(run), folder, trained=False) for run in (first, second))
    return difference(one, two)

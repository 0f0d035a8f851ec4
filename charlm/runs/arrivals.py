"""Runs that come from elsewhere: checked as untrusted data, then in place at once or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charlm.errors import RunError, UsageError
from charlm.files.archives import files_below, unpack
from charlm.files.atomic import TEMPORARY, explained, move, replaced, sync_folder
from charlm.runs import layout
from charlm.runs.folders import check_plain, check_writable
from charlm.runs.locate import exists
from charlm.runs.upkeep import set_name
from charlm.runs.verify import run_problems


def import_archive(file: Path, folder: Path, name: str | None = None) -> Path:
    """Unpack a run that `write_archive` wrote into a folder of runs; return its path.

    The name is that in its record, unless another is given. Raises RunError for a damaged or
    strange archive and for a name that is taken, EnvironmentFailure.
    """
    with _arriving(folder, name) as stage:
        unpack(file, stage, layout.is_run_file)
        return _settle(stage, folder, name, str(file), {})


def import_folder(
    source: Path, folder: Path, name: str | None, label: str, about: Mapping[str, Any]
) -> Path:
    """Copy the files of a run from a folder, such as a snapshot of a hub; return its path.

    `label` names the source in messages, `about` is added to run.json. Links are followed, since
    a snapshot consists of links; other files are left out. Raises as `import_archive`.
    """
    with _arriving(folder, name) as stage:
        for inner, file in files_below(source).items():
            if layout.is_run_file(inner):
                with explained(stage):
                    (stage / inner).parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb") as content, replaced(stage / inner) as target:
                    shutil.copyfileobj(content, target, 1 << 20)
        return _settle(stage, folder, name, label, about)


@contextlib.contextmanager
def _arriving(folder: Path, name: str | None) -> Iterator[Path]:
    """Make a temporary folder among the runs, and remove it unless it was renamed."""
    check_writable(folder)
    if name is not None:
        _check_free(folder, name)
    stage = folder / f"{TEMPORARY}import-{os.getpid()}"
    with explained(folder):
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _check_free(folder: Path, name: str) -> Path:
    """Return the path of a new run. Raises RunError if it exists, UsageError for a strange name."""
    check_plain(name)
    target = folder / name
    if exists(target):
        raise RunError(f"{target} already exists; expected a free name. Choose another --name")
    return target


def _settle(
    stage: Path, folder: Path, name: str | None, label: str, about: Mapping[str, Any]
) -> Path:
    """Check a run in a temporary folder, and rename it to its place."""
    problems = run_problems(stage)
    if problems or not (stage / layout.RECORD).exists():
        shown = problems[0] if problems else f"{layout.RECORD} is missing"
        raise RunError(f"{label}: not a whole run ({shown}); expected all of its files, unchanged")
    record = layout.read_record(stage)
    final = name or str(record["name"])
    try:
        check_plain(final, "its name")
    except UsageError as error:
        raise RunError(f"{label}: {error}. Choose one with --name") from error
    target = _check_free(folder, final)
    if about:
        layout.write_record(stage, {**record, **about})
    set_name(stage, final)
    with explained(target):
        for inner in sorted(path for path in stage.rglob("*") if path.is_dir()):
            sync_folder(inner)
        move(stage, target)
        sync_folder(folder)
    return target

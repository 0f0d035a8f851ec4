"""Folders of runs: create, check, lock and remove them."""

import contextlib
import os
import platform
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.commands import command
from charlm.errors import EnvironmentFailure, RunError, UsageError, named
from charlm.files import atomic
from charlm.files.atomic import MANIFEST, TEMPORARY, explained
from charlm.files.escapes import escape_controls
from charlm.runs import layout
from charlm.runs.locate import HUB_RUN, fresh_run_folder, is_ngram_run, is_run
from charlm.runs.pair import BACKWARD

if TYPE_CHECKING:  # a list of runs needs no locks of its own, and is shown at once
    from filelock import FileLock

MAX_NAME = 200
"""Bytes of a run's name: file systems allow 255, and temporary names are longer."""
NOT_ON_WINDOWS = re.compile(r'(?i)[<>:"|?*]|\.$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)')
"""Names that Windows refuses, changes, or takes for a device."""


def new_folder(folder: Path, name: str | None, corpus_name: str) -> "tuple[Path, FileLock]":
    """Create and lock the folder of a new run; without a name, it is named by text and time.

    Raises EnvironmentFailure or, if the name is taken, RunError.
    """
    check_name(folder, name)
    with explained(folder):
        if name and _was_never_started(folder / name):
            return folder / name, _reused(folder, name)
        now = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        path = fresh_run_folder(folder, name or f"{corpus_name}-{now}")
    return path, lock_run(path)


def _reused(folder: Path, name: str) -> "FileLock":
    """Lock and clear a folder whose run was never started."""
    lock = lock_run(folder / name)
    try:
        check_name(folder, name)  # it may have been started in the meantime
        for entry in (folder / name).iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in (".lock", ".owner"):
                entry.unlink()
    except BaseException:
        lock.release()
        raise
    return lock


def check_name(folder: Path, name: str | None, *, overwrite: bool = False) -> None:
    """Raise an error for a name that is taken or leads out of the folder.

    With `overwrite`, the name of a run that can be removed is accepted.
    """
    if name is None:
        return
    check_plain(name)
    if overwrite:
        _check_removable(folder / name)
    elif (folder / name).exists() and not _was_never_started(folder / name):
        if not is_run(folder / name):
            kind = "a search" if (folder / name / layout.SEARCH).exists() else "no run"
            raise RunError(
                f"{folder / name} already exists and is {kind}; expected a free name. Choose "
                "another --name"
            )
        advice = "or replace it with --overwrite"
        if not is_ngram_run(folder / name):
            resume = command("train", "--resume", run=folder / name)
            advice = f"train it again with --overwrite, or resume it with: {resume}"
        raise RunError(f"run {name!r} already exists in {folder}. Choose another --name, {advice}")


def check_plain(name: str, label: str = "--name") -> None:
    """Raise UsageError for a name that cannot be that of a run's folder, be typed, or be shown.

    `label` names it in the message.
    """
    leads_out = Path(name).name != name or name.startswith((".", "-", HUB_RUN))
    unseen = name != name.strip() or {"\n", "\t"} & set(name) or escape_controls(name) != name
    if not name or leads_out or unseen:
        raise UsageError(f"{label} is {name!r}; expected a plain name such as my-run")
    if sys.platform == "win32" and NOT_ON_WINDOWS.search(name):
        raise UsageError(
            f"{label} is {name!r}, which Windows does not allow as the name of a folder; expected "
            "a plain name such as my-run"
        )
    if len(name.encode("utf-8")) > MAX_NAME:
        raise UsageError(f"{label} is longer than {MAX_NAME} bytes; expected a shorter one")


ENTRIES = layout.FILES | {
    BACKWARD, layout.COMPANION, "data", "states", layout.TENSORBOARD, ".lock", ".owner",
}  # fmt: skip
"""Files and folders that charlm writes into the folder of a run."""


def _check_removable(path: Path) -> None:
    """Raise RunError unless a path is free or a run that holds only files of charlm."""
    if not (path.exists() or path.is_symlink()) or _was_never_started(path):
        return
    with explained(path):
        if path.is_symlink() or not path.is_dir() or not (path / layout.CONFIG).exists():
            raise RunError(f"{path} is not a run; expected one to overwrite. Use another --name")
    if other := other_file(path):
        raise RunError(
            f"{path} holds {other}, which charlm did not write; expected only a run. Move it "
            "away, or use another --name"
        )


def other_file(path: Path) -> str:
    """Return the first file in the folder of a run or a search that charlm did not write, or ""."""
    searched = (path / layout.SEARCH).exists()
    with explained(path):
        for entry in sorted(path.iterdir()):
            name = entry.name
            known = name in ENTRIES or name.startswith(TEMPORARY)
            if searched:
                trial = entry.is_dir() and not entry.is_symlink() and is_run(entry)
                of_search = name in (layout.SEARCH, layout.BEST) or name.startswith(layout.STUDY)
                known = trial or of_search or name in (".lock", ".owner")
            if not known:
                return name
    return ""


def remove_run(path: Path) -> None:
    """Remove a run that is not being trained. Raises RunError or EnvironmentFailure."""
    _check_removable(path)
    if not path.exists() or _was_never_started(path):
        return
    discard(path)


def discard(path: Path) -> None:
    """Lock the folder of a run or a search, rename it, then delete it.

    Raises EnvironmentFailure.
    """
    lock = lock_run(path)
    try:
        with explained(path):
            trash = path.with_name(f"{TEMPORARY}trash-{path.name}")
            shutil.rmtree(trash, ignore_errors=True)  # from a process that died while removing
            move_locked(path, trash, lock)
            atomic.reached(f"run {path.name} set aside")
            shutil.rmtree(trash)
    finally:
        lock.release()


def move_locked(path: Path, target: Path, lock: "FileLock") -> None:
    """Rename the folder of a run, which `lock` locks. Raises OSError.

    Windows renames no folder with an open file, as that of the lock is. There the lock is released
    first; if another process takes it before the folder is renamed, that still fails.
    """
    try:
        path.rename(target)
    except PermissionError:
        lock.release()
        atomic.move(path, target)


ENTRIES_BEFORE_START = {layout.CONFIG, *layout.TOKENIZERS, MANIFEST, "data", ".lock", ".owner"}


def _was_never_started(path: Path) -> bool:
    """Return whether a folder is left from a process that died before its run started."""
    with explained(path):
        if not path.is_dir() or path.is_symlink() or any(p.is_symlink() for p in path.iterdir()):
            return False
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(TEMPORARY)}
    return not names or {".lock"} <= names <= ENTRIES_BEFORE_START


def check_writable(folder: Path) -> None:
    """Raise EnvironmentFailure, before anything is trained, if runs cannot be written.

    A missing folder is not created: the nearest folder above it is checked.
    """
    with explained(folder):
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = existing / f".tmp-probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(existing).free
    if free < 10 << 20:
        raise EnvironmentFailure(
            f"{folder} has {free >> 20} MB free; expected at least 10 MB. Free some, or choose "
            f"another folder with {named('checkpoints')}"
        )


def lock_run(path: Path) -> "FileLock":
    """Lock a run through the operating system. Raises EnvironmentFailure if it is locked."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(path / ".lock"), thread_local=False)  # any thread may release it
    owner = path / ".owner"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        holder = _first_bytes(owner) if owner.is_file() else "another process"
        raise EnvironmentFailure(
            f"run {path.name} is being trained by {holder}; expected no other process. Wait, "
            f"stop it, or choose another {named('name')}"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(f"cannot lock {path}: {error.strerror}") from error
    with contextlib.suppress(OSError):
        owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    return lock


def is_training(path: Path) -> bool:
    """Return whether a process holds the lock of a run or a search; it is not waited for.

    The lock is tried only if the process that took it last may still exist, since a process that
    takes it at that very moment would fail.
    """
    if not (path / ".lock").is_file():
        return False
    try:
        import fcntl
    except ImportError:  # Windows
        from filelock import FileLock, Timeout

        lock = FileLock(str(path / ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False
    if _owner_is_gone(path / ".owner"):
        return False
    with contextlib.suppress(OSError), (path / ".lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _owner_is_gone(owner: Path) -> bool:
    """Return whether the process that took a lock last ran on this machine and has ended."""
    words = _first_bytes(owner).split() if owner.is_file() else []
    if len(words) != 4 or not words[1].isdecimal() or words[3] != platform.node():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists and belongs to another user
        return False
    return False


def _first_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(80).decode("utf-8", "replace")


def check_own(path: Path) -> None:
    """Raise RunError if a file of a run is a link: training writes and deletes in place."""
    for folder in (path, path / "states"):
        for entry in sorted(folder.glob("*")):
            if entry.is_symlink():
                raise RunError(
                    f"{entry} is a link; expected a file or folder of the run itself, which "
                    "training writes to. Replace the link by its target; copy a run of the hub "
                    f"with: {command('pull', 'ORG/NAME')}"
                )
    for name in ("states", "data"):
        if (path / name).exists() and not (path / name).is_dir():
            raise RunError(f"{path / name} is a file; expected a folder. Restore the run")
    for name in (layout.METRICS, ".owner"):
        if (path / name).exists() and not (path / name).is_file():
            raise RunError(f"{path / name} is not a regular file; expected one. Restore the run")

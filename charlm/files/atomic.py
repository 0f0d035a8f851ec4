"""Atomic writing: after any crash a file or folder is complete, or does not exist.

Write under a temporary name, sync, rename, sync the folder (Pillai et al., OSDI 2014).
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from charlm.errors import EnvironmentFailure, RunError
from charlm.files.safe_read import parse_object, read_bytes

MANIFEST = "MANIFEST.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk and of a used quota."""
ADVICE = {
    **dict.fromkeys(FULL, "Free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Allow writing there"),
    errno.ENOENT: "Create the folder",
}
"""Advice for an error of writing, if another place is not all that helps."""
DENIED, IN_USE = 5, (32, 33)
"""Numbers of the errors by which Windows refuses to rename or delete what a program has open."""
PAUSES = tuple(0.01 * 2**turn for turn in range(8))
"""Seconds to wait for such a program before each further attempt, 2.55 in all."""
TEMPORARY = ".tmp-"
OLDER = "~"
"""Suffix of a folder while a newer one replaces it."""
STDOUT = Path("/dev/stdout")
"""Name of standard output, also on Windows, which has no such file."""
SPECIAL = (("/", "dev"), ("/", "proc"))
"""Beginnings of paths to devices and to open files."""
MAX_NAME = 200
Content = bytes | Sequence[bytes | memoryview]
"""Content of a file: bytes, or pieces that are written one after another without joining them."""


def _nothing(label: str) -> None:
    """Do nothing at a point of writing."""
    del label


reached: Callable[[str], None] = _nothing
"""Called with a label at each point of writing; tests replace it to fail or die there."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError of writing into an EnvironmentFailure that names the path."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "")
        if _windows_error(error) in IN_USE:
            advice = "Close the program that has it open"
        place = f"{advice}, or choose another place" if advice else "Choose another place"
        raise EnvironmentFailure(
            f"cannot write {path}: {error.strerror or error}. {place}"
        ) from error


def _windows_error(error: OSError) -> int | None:
    """Return the number that Windows gives an error; None on other systems."""
    return getattr(error, "winerror", None)


def move(path: Path, target: Path) -> None:
    """Rename a file, which replaces another one, or a folder. Raises OSError.

    Windows refuses that while a program has the file open, or one in the folder. Virus scanners
    open each new file for a moment, so further attempts follow there.
    """
    rename = path.rename if path.is_dir() else path.replace
    for seconds in PAUSES:
        try:
            rename(target)
            return
        except PermissionError as error:
            if _windows_error(error) not in (DENIED, *IN_USE):
                raise
            time.sleep(seconds)
    rename(target)


def is_full(error: EnvironmentFailure) -> bool:
    """Return whether an error of writing comes from a full disk or a used quota."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in FULL


def write_file(path: Path, data: Content) -> None:
    """Replace the content of a file atomically, as in `replaced`. Raises EnvironmentFailure."""
    with replaced(path) as file:
        file.writelines(_pieces(data))


def _pieces(data: Content) -> Sequence[bytes | memoryview]:
    return [data] if isinstance(data, bytes) else data


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces another one, or appears, once it is complete and synced.

    A device or pipe, such as /dev/stdout, is opened itself. Raises EnvironmentFailure.
    """
    with explained(path):
        if path.is_dir():  # of which Windows says that access is denied
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path == STDOUT or is_special(path):
            with os.fdopen(os.dup(1), "wb") if path == STDOUT else path.open("wb") as file:
                yield file
            return
        temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
        try:
            with _synced(temporary) as file:
                yield file
            move(temporary, path)
            reached(f"{path.name} replaced")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        reached(f"{path.name} in place")


def append_whole(path: Path, data: bytes) -> None:
    """Append data to a file, or nothing if that fails, as on a full disk. Raises OSError."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError:
        with contextlib.suppress(OSError):  # there is no file if it could not be opened
            os.truncate(path, before)
        raise


def is_special(path: Path) -> bool:
    """Return True for a device, a pipe or a folder, which no file may replace.

    /dev/stdout is one, even if the shell has made it a file.
    """
    return path.exists() and (not path.is_file() or path.parts[:2] in SPECIAL)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically; keys are sorted, NaN is refused."""
    write_file(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return readable JSON with sorted keys. Raises ValueError for NaN and infinities."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def write_synced(path: Path, data: Content) -> None:
    """Write a new file and sync it to disk."""
    with _synced(path) as file:
        file.writelines(_pieces(data))


@contextlib.contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that is synced to disk at the end."""
    with path.open("wb") as file:
        reached(f"{path.name} opened")
        yield file
        file.flush()
        reached(f"{path.name} written")
        os.fsync(file.fileno())
    reached(f"{path.name} synced")


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, if the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def commit_folder(folder: Path, files: Mapping[str, Content], about: Mapping[str, Any]) -> None:
    """Create `folder` with these files and a manifest of sizes and SHA-256, written last.

    An older folder of that name is renamed to `folder~` and then deleted, so one of the two exists
    at any time. Raises EnvironmentFailure and leaves no trace.
    """
    temporary = folder.with_name(f"{TEMPORARY}{folder.name}-{os.getpid()}")
    older = folder.with_name(f"{folder.name}{OLDER}")
    with explained(folder):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            reached(f"{folder.name} begun")
            for name, data in files.items():
                write_synced(temporary / name, data)
            entries = {name: fingerprint(data) for name, data in files.items()}
            write_synced(temporary / MANIFEST, json_bytes({**about, "files": entries}))
            sync_folder(temporary)
            reached(f"{folder.name} complete")
            if folder.exists():
                shutil.rmtree(older, ignore_errors=True)
                move(folder, older)
                reached(f"{folder.name} set aside")
            move(temporary, folder)
            reached(f"{folder.name} renamed")
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if older.exists() and not folder.exists():
                with contextlib.suppress(OSError):
                    move(older, folder)
            raise
        sync_folder(folder.parent)
        reached(f"{folder.name} in place")
        shutil.rmtree(older, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Rename a folder, then delete it, so that a half-deleted one never looks complete."""
    trash = folder.with_name(f"{TEMPORARY}trash-{folder.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        move(folder, trash)
        reached(f"{folder.name} to be deleted")
        shutil.rmtree(trash, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of a writer that died."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fingerprint(data: Content) -> dict[str, Any]:
    """Return size and SHA-256 of content."""
    size, digest = 0, hashlib.sha256()
    for piece in _pieces(data):
        size += len(piece)
        digest.update(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file. Raises RunError if it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": file.tell(), "sha256": digest}
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); expected a file") from error


def read_written(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise RunError unless it is byte for byte as `write_json` wrote it."""
    data = read_bytes(path)
    content = parse_object(data, path)
    try:
        same = data == json_bytes(content)
    except ValueError:
        same = False
    if not same:
        raise RunError(
            f"{path}: not as charlm wrote it; expected an unchanged file. Restore it from a copy"
        )
    return content


def manifest_problems(
    folder: Path, manifest: Mapping[str, Any], required: Collection[str] = ()
) -> list[str]:
    """Return the problems of the files that a manifest lists; none if all are as written.

    An entry may be a list: a file that is being replaced may have any of these contents, and may
    be missing if one of them is None. `required` names must be listed.
    """
    entries, listing = manifest.get("files"), folder / MANIFEST
    if not isinstance(entries, dict) or not entries:
        return [f"{listing}: lists no files"]
    problems = [f"{listing}: does not list {name}" for name in required if name not in entries]
    for name, expected in sorted(entries.items()):
        allowed = expected if isinstance(expected, list) else [expected]
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not 0 < len(name) <= MAX_NAME:
            problems.append(f"{listing}: lists {name[:80]!r}; expected a name inside the folder")
        else:
            problems += _file_problems(folder / name, allowed)
    return problems


def _file_problems(path: Path, allowed: Sequence[Any]) -> list[str]:
    if not path.is_file():
        return [] if None in allowed and not path.exists() else [f"{path}: missing"]
    size = path.stat().st_size
    sizes = [entry.get("size") for entry in allowed if isinstance(entry, dict)]
    if size not in sizes or file_fingerprint(path) not in allowed:  # wrong sizes are not hashed
        return [f"{path}: not as written (size or SHA-256 differs)"]
    return []

"""Atomic writing: old or new content, never half of it; manifests; no leftovers."""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from io import IOBase
from pathlib import Path

import pytest

from charlm.errors import EnvironmentFailure, RunError
from charlm.files.atomic import (
    MANIFEST,
    TEMPORARY,
    commit_folder,
    explained,
    file_fingerprint,
    fingerprint,
    json_bytes,
    manifest_problems,
    remove_folder,
    remove_leftovers,
    write_file,
    write_json,
)
from charlm.files.safe_read import read_json

OLD, NEW = b"the old content", b"another content, and longer"
FILES = {"a.bin": b"\x00\x01\x02 six", "b.json": b'{"x": 1}'}


class Killed(BaseException):
    """As if the process had died."""


class Faults:
    """Count the steps of writing and fail at one of them, before or just after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.at, self.error, self.after = 0, 0, OSError(), False
        for name in ("fsync", "replace", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(Path, "open", self.counted(Path.open))

    def counted(self, function):
        def call(*arguments, **named):
            self.calls += 1
            if self.calls == self.at and not self.after:
                raise self.error
            result = function(*arguments, **named)
            if self.calls == self.at:
                if isinstance(result, IOBase):
                    result.close()
                raise self.error
            return result

        return call

    @contextlib.contextmanager
    def armed(self, number: int) -> Iterator[None]:
        """Fail at the step of this number, within the block."""
        self.calls, self.at = 0, number
        try:
            yield
        finally:
            self.done = self.calls < number
            self.at = 0

    def each(self, error: BaseException, *, after: bool = False) -> Iterator[int]:
        """Yield numbers until a try meets no fault."""
        self.error, self.after, self.done = error, after, False
        for number in range(1, 100):
            yield number
            if self.done:
                return
        raise AssertionError("every try met a fault")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("before", [None, OLD])
def test_a_failed_write_leaves_the_old_or_the_new_file(
    faults: Faults, tmp_path: Path, before: bytes | None
) -> None:
    """The n-th step fails for every n, without half content or leftovers."""
    path = tmp_path / "file"
    outcomes = set()
    for number in faults.each(OSError(28, "No space left on device")):
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        try:
            with faults.armed(number):
                write_file(path, NEW)
            outcomes.add("written")
        except EnvironmentFailure as error:
            outcomes.add("failed")
            assert "No space left" in str(error)
            assert str(path) in str(error)
        content = path.read_bytes() if path.exists() else None
        assert content in (before, NEW)
        assert names(tmp_path) <= {"file"}
    assert outcomes == {"written", "failed"}
    assert path.read_bytes() == NEW


def test_a_killed_writer_leaves_the_old_or_the_new_file(faults: Faults, tmp_path: Path) -> None:
    """The next process removes a temporary file of a dead one."""
    path = tmp_path / "file"
    for after in (False, True):
        for number in faults.each(Killed(), after=after):
            path.write_bytes(OLD)
            with contextlib.suppress(Killed), faults.armed(number):
                write_file(path, NEW)
            assert path.read_bytes() in (OLD, NEW)
            remove_leftovers(tmp_path)
            assert names(tmp_path) == {"file"}


def is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    if not (folder / MANIFEST).exists():
        return False
    manifest = read_json(folder / MANIFEST)
    return not manifest_problems(folder, manifest) and files.items() <= contents(folder).items()


def test_a_failed_commit_leaves_a_whole_folder_or_none(faults: Faults, tmp_path: Path) -> None:
    folder = tmp_path / "states" / "step-3"
    outcomes = set()
    for number in faults.each(OSError(5, "Input/output error")):
        if folder.exists():
            remove_folder(folder)
        try:
            with faults.armed(number):
                commit_folder(folder, FILES, {"format": 1})
            outcomes.add("written")
        except EnvironmentFailure as error:
            outcomes.add("failed")
            assert "Input/output error" in str(error)
        assert not folder.exists() or is_whole(folder, FILES)
        left = names(folder.parent) if folder.parent.exists() else set()
        assert left <= {"step-3"}
    assert outcomes == {"written", "failed"}
    assert is_whole(folder, FILES)
    assert read_json(folder / MANIFEST)["format"] == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left"), Killed()])
def test_replacing_a_folder_never_loses_both(
    faults: Faults, tmp_path: Path, error: BaseException
) -> None:
    """The old or the new content is intact under some name of the step."""
    folder = tmp_path / "step-3"
    newer = {"a.bin": b"newer"}
    for after in (False, True):
        for number in faults.each(error, after=after):
            for path in tmp_path.iterdir():
                remove_folder(path)
            commit_folder(folder, FILES, {})
            with contextlib.suppress(EnvironmentFailure, Killed), faults.armed(number):
                commit_folder(folder, newer, {})
            folders = [path for path in tmp_path.glob("step-3*") if path.is_dir()]
            assert any(is_whole(p, FILES) or is_whole(p, newer) for p in folders)
    assert is_whole(folder, newer)
    assert names(tmp_path) == {"step-3"}
    assert names(folder) == {"a.bin", MANIFEST}


def test_the_manifest_is_written_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder gets its name after its content is on the disk."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name an open file")
    events = []
    fsync, rename = os.fsync, os.rename

    def logged_fsync(handle: int) -> None:
        events.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def logged_rename(before: Path, after: Path) -> None:
        events.append(("rename", Path(after).name))
        rename(before, after)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged_rename)
    commit_folder(tmp_path / "step-1", FILES, {})
    temporary = f"{TEMPORARY}step-1-{os.getpid()}"
    assert events == [
        ("fsync", "a.bin"),
        ("fsync", "b.json"),
        ("fsync", MANIFEST),
        ("fsync", temporary),
        ("rename", "step-1"),
        ("fsync", tmp_path.name),
    ]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As --out /dev/stdout or /dev/null: a superuser would lose the device otherwise."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, NEW)
        assert os.read(reader, 100) == NEW
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_an_open_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As --out /dev/stdout with stdout in a file: the link in /dev would be replaced."""
    with (tmp_path / "file").open("wb") as file:
        write_file(Path(f"/proc/self/fd/{file.fileno()}"), NEW)
    assert (tmp_path / "file").read_bytes() == NEW


@pytest.mark.parametrize("name", [".", "..", "folder"])
def test_a_folder_is_not_a_file_to_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(EnvironmentFailure, match="Is a directory"):
        write_file(Path(name), NEW)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_file(tmp_path / "file", NEW)
        commit_folder(tmp_path / "step-1", FILES, {})
    finally:
        os.umask(before)
    for path in (tmp_path / "file", *(tmp_path / "step-1").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "step-1").stat().st_mode) == 0o777 & ~mask


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{TEMPORARY}x-1").write_bytes(b"")
    (tmp_path / f"{TEMPORARY}step-1-9").mkdir()
    (tmp_path / f"{TEMPORARY}step-1-9" / "a").write_bytes(b"")
    (tmp_path / "step-1").mkdir()
    (tmp_path / ".lock").write_bytes(b"")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == {"step-1", ".lock"}


def test_a_missing_folder_may_be_removed(tmp_path: Path) -> None:
    remove_folder(tmp_path / "nothing")
    commit_folder(tmp_path / "step-1", FILES, {})
    remove_folder(tmp_path / "step-1")
    assert names(tmp_path) == set()


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    """So are missing and additional bytes."""
    commit_folder(tmp_path / "x", FILES, {})
    manifest = read_json(tmp_path / "x" / MANIFEST)
    assert manifest_problems(tmp_path / "x", manifest) == []
    for name, data in FILES.items():
        path = tmp_path / "x" / name
        flipped = [data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :] for i in range(len(data))]
        for wrong in (*flipped, data[:-1], data + b"\0", b""):
            path.write_bytes(wrong)
            (problem,) = manifest_problems(tmp_path / "x", manifest)
            assert str(path) in problem
        path.unlink()
        assert manifest_problems(tmp_path / "x", manifest) == [f"{path}: missing"]
        path.write_bytes(data)
    (tmp_path / "x" / ".DS_Store").write_bytes(b"")
    assert manifest_problems(tmp_path / "x", manifest) == []


def test_an_entry_may_allow_two_contents(tmp_path: Path) -> None:
    """While a file is replaced it is the old or the new one."""
    manifest = {"files": {"w": [fingerprint(OLD), fingerprint(NEW)]}}
    for data, right in ((OLD, True), (NEW, True), (OLD + NEW, False)):
        (tmp_path / "w").write_bytes(data)
        assert (manifest_problems(tmp_path, manifest) == []) == right
        assert file_fingerprint(tmp_path / "w") == fingerprint(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b"3", b'{"x": NaN}', b'{"x": Infinity}', b"\xff\xfe", b"\x80\x04K\x01.",
     b"[" * 100_000, b"null"],
)  # fmt: skip
def test_damaged_json_is_a_run_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(RunError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_json_is_written_the_same_way_every_time(tmp_path: Path) -> None:
    """Sorted and readable; values that are not JSON are refused."""
    write_json(tmp_path / "x.json", {"b": "ä", "a": [1]})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "a": [\n    1\n  ],\n  "b": "ä"\n}\n'
    assert read_json(tmp_path / "x.json") == {"a": [1], "b": "ä"}
    assert json.loads(json_bytes({})) == {}
    with pytest.raises(ValueError, match="JSON"):
        json_bytes({"x": float("nan")})


def test_a_missing_file_is_a_run_error(tmp_path: Path) -> None:
    for read in (read_json, file_fingerprint):
        with pytest.raises(RunError, match="nothing"):
            read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.ENOENT, "Create the folder"),
        (errno.EROFS, "Allow writing there"),
        (errno.EACCES, "Allow writing there"),
        (errno.ENAMETOOLONG, ""),
        (errno.EIO, ""),
    ],
)
def test_a_file_that_cannot_be_written_says_what_helps(number: int, advice: str) -> None:
    """A missing folder once asked for space, and a name that is too long for permission."""
    error = OSError(number, os.strerror(number))
    place = f"{advice}, or choose another place" if advice else "Choose another place"
    with pytest.raises(EnvironmentFailure, match=f"cannot write a/b: [^.]*\\. {place}$"):
        with explained(Path("a/b")):
            raise error

"""A process that dies, or a disk that fails, at every point of writing: nothing is lost.

As SQLite tests itself: the n-th point fails for every n, until a run comes through untouched.
"""

import contextlib
import itertools
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import (
    DIED,
    SAVING,
    Points,
    begin,
    die,
    dying_at_call,
    finish,
    full,
    in_child,
    limited_files,
    newest_files,
    problems,
    train_on,
)
from waiting import python_calls

from charlm.errors import EnvironmentFailure, RunError
from charlm.files import atomic
from charlm.runs.checkpoints import checkpoint_folders
from charlm.runs.folders import check_name
from charlm.training import start as starting
from charlm.training.records import WarningRecord


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forked children must not wait for threads that they do not have."""
    monkeypatch.setattr(starting, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never disturbed."""
    return finish(tmp_path_factory.mktemp("whole"))


def killed_at(path: Path, number: int, **training) -> int:
    """Train in a child that dies at the point of this number."""

    def work() -> None:
        with Points(number, die):
            train_on(path, **training)

    return in_child(work)


def leftovers(path: Path) -> list[str]:
    return [str(p) for p in path.rglob("*") if p.name.startswith(atomic.TEMPORARY)]


SHORT = {"steps": 4, "evals": 1, "keep": 1}
"""Two records and three saves, the last one of a step that was saved before."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that was never disturbed."""
    return finish(tmp_path_factory.mktemp("short"), **SHORT)


@pytest.mark.parametrize("first", [1, 2])
def test_killed_at_any_point_of_writing(first: int, short: Path, tmp_path: Path) -> None:
    """Every second point: what is there is whole, and in the end all is as if nothing was.

    Points before the run has begun leave nothing that the next try stumbles over.
    """
    expected = newest_files(short)
    for number in itertools.count(first, 2):
        path = tmp_path / f"n{number}"
        status = killed_at(path, number, **SHORT)
        if status == 0:
            break
        assert status == DIED
        if (path / "run.json").exists():
            assert problems(path) == []
        train_on(path, **SHORT)
        assert problems(path) == []
        assert leftovers(path) == []
        assert newest_files(path) == expected
    assert number > 80


def test_killed_while_it_clears_away_what_never_began(tmp_path: Path) -> None:
    """The name is as free as before, and nothing is left over."""
    dead = begin(tmp_path)
    dead.lock.release()
    (dead.path / "run.json").unlink()
    (dead.path / "README.md").unlink(missing_ok=True)

    def work() -> None:
        with Points(1, die):
            begin(tmp_path)

    assert in_child(work) == DIED
    assert (dead.path / ".lock").exists()
    train_on(dead.path)
    assert problems(dead.path) == []
    assert leftovers(tmp_path) == []


def test_killed_again_while_going_on(whole: Path, tmp_path: Path) -> None:
    """At a random point of each of many sittings, until one comes through."""
    draws = random.Random(7)
    path = tmp_path / "x"
    kills = 0
    while killed_at(path, draws.randrange(1, 60)) == DIED:
        kills += 1
        if (path / "run.json").exists():
            assert problems(path) == []
    assert kills >= 2
    assert newest_files(path) == newest_files(whole)


def test_killed_at_random_moments(whole: Path, tmp_path: Path) -> None:
    """Not only where something is written: when any Python function is entered."""
    draws = random.Random(3)
    path = tmp_path / "x"
    calls = python_calls(lambda: train_on(tmp_path / "counted"))
    ends = []
    for number in (draws.randrange(1, calls) for _ in range(5)):
        ends.append(in_child(lambda n=number: dying_at_call(n, lambda: train_on(path))))
    assert set(ends) <= {DIED, 0}
    assert DIED in ends
    train_on(path)
    assert newest_files(path) == newest_files(whole)
    assert problems(path) == []


@pytest.mark.parametrize("first", [1, 2])
def test_a_disk_that_fails_once_at_any_point(first: int, short: Path, tmp_path: Path) -> None:
    """Every second point: training goes on and saves later, or refuses with exit 5.

    In the end all is as if the disk had been well.
    """
    expected = newest_files(short)
    for number in itertools.count(first, 2):
        path = tmp_path / f"n{number}"
        with Points(number, full) as points:
            with contextlib.suppress(EnvironmentFailure):
                train_on(path, **SHORT)
        if not points.label:
            break
        if (path / "run.json").exists():
            assert problems(path) == [], points.label
        train_on(path, **SHORT)
        assert problems(path) == [], points.label
        assert newest_files(path)["weights"] == expected["weights"], points.label
    assert number > 80


@pytest.mark.parametrize("size", [0, 100, 700, 1500, 3000])
def test_a_disk_that_stays_full(size: int, tmp_path: Path) -> None:
    """No file grows beyond so much: exit 5, and what was saved before is as good as ever."""
    path = finish(tmp_path, steps=6)
    before = newest_files(path)

    def work() -> None:
        with limited_files(size):
            list(go_on_longer(path).records())

    assert in_child(work) in (0, 5)
    assert problems(path) == []
    assert checkpoint_folders(path)
    list(go_on_longer(path).records())
    assert newest_files(path) != before


def go_on_longer(path: Path):
    from charlm.training.resume import resume

    return resume(path, {"training": {"steps": 12}})


def test_two_that_take_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One begins while the other is between making its folder and locking it: one run, whole."""
    from charlm.runs import folders

    make, others = folders.fresh_run_folder, []

    def slow(folder: Path, name: str) -> Path:
        path = make(folder, name)
        monkeypatch.setattr(folders, "fresh_run_folder", make)
        others.append(begin(tmp_path))
        return path

    monkeypatch.setattr(folders, "fresh_run_folder", slow)
    with pytest.raises(EnvironmentFailure, match="is being trained"):
        begin(tmp_path)
    list(others[0].records())
    assert problems(tmp_path / "x") == []


def test_half_a_line_in_the_log_is_taken_back(tmp_path: Path) -> None:
    """Its disk is full for one record: the line is left out, the log is good afterwards."""
    path = finish(tmp_path, steps=6)

    def work() -> None:
        session = go_on_longer(path)
        records = session.records()
        next(records)
        with limited_files((path / "metrics.jsonl").stat().st_size + 20):
            session._log(WarningRecord(**session.trainer.state.place(), text="x" * 50))
        list(records)

    assert in_child(work) == 0
    assert problems(path) == []


def test_a_name_is_not_taken_through_a_link(tmp_path: Path) -> None:
    """Nothing is written to what a link leads to, and an empty folder stays as it is."""
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".lock").touch()
    (tmp_path / "x" / ".owner").symlink_to(tmp_path / "victim")
    with pytest.raises(RunError, match="already exists"):
        begin(tmp_path)
    assert (tmp_path / "victim").read_text() == "mine"
    (tmp_path / "y").mkdir()
    check_name(tmp_path, "y")
    assert not list((tmp_path / "y").iterdir())


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
@pytest.mark.parametrize("call", ["fsync:error=EIO", "write:error=ENOSPC", "rename:error=EIO"])
def test_system_calls_that_fail(call: str, tmp_path: Path) -> None:
    """The first three of each kind: exit 5, the old content or the new, no other."""
    (tmp_path / "file").write_bytes(b"old")
    atomic.commit_folder(tmp_path / "state", {"a": b"old"}, {"format": 1})
    outcomes = set()
    for number in (1, 2, 3):
        command = ["strace", "-f", "-qq", "-o", "/dev/null", f"--inject={call}:when={number}"]
        traced = [*command, sys.executable, "-c", SAVING, str(tmp_path)]
        status = subprocess.run(traced, stderr=subprocess.DEVNULL, check=False).returncode
        outcomes.add(status)
        assert (tmp_path / "file").read_bytes() in (b"old", b"new" * 1000)
        manifest = atomic.manifest_problems(tmp_path / "state", read_manifest(tmp_path / "state"))
        assert manifest == []
    assert outcomes <= {0, 5}
    assert 5 in outcomes


def read_manifest(folder: Path) -> dict:
    from charlm.files.safe_read import read_json

    return read_json(folder / atomic.MANIFEST)

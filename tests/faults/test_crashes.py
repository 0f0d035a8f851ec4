"""A process that dies, or a disk that fails, at any point of writing: nothing is lost.

SQLite is tested like this: the n-th point fails for every n, until a run meets no fault.
"""

import contextlib
import itertools
import random
import shutil
from pathlib import Path

import pytest
from harness import (
    DIED,
    Points,
    begin,
    die,
    dying_at_call,
    finish,
    full,
    impatient,
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
from charlm.training.records import WarningRecord


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met no fault."""
    return finish(tmp_path_factory.mktemp("whole"))


def leftovers(path: Path) -> list[str]:
    return [str(p) for p in path.rglob("*") if p.name.startswith(atomic.TEMPORARY)]


SHORT = {"steps": 4, "evals": 1, "keep": 1}
"""Two records and three saves, two of them of one step."""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that met no fault."""
    return finish(tmp_path_factory.mktemp("short"), **SHORT)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return the files in a folder and what is in them; None for a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def states_of_the_disk(folder: Path, copies: Path) -> list[Path]:
    """Train in a child, and copy the folder at each point at which its files have changed.

    A copy has what `kill -9` would leave: not what Python has yet to write. Its name has the point.
    """
    before: list[dict[str, bytes | None]] = []

    def copy(label: str) -> None:
        if before[-1:] != [now := contents(folder)]:
            before[:] = [now]
            shutil.copytree(folder, copies / f"{len(list(copies.iterdir())):03} {label}")

    def work() -> None:
        atomic.reached = copy
        train_on(folder / "x", **SHORT)

    assert in_child(work) == 0  # the names of temporary files have the number of the process
    return sorted(copies.iterdir())


def test_training_survives_a_kill_at_any_point(short: Path, tmp_path: Path) -> None:
    """The run is intact, and resuming gives the bits of an undisturbed run."""
    expected = newest_files(short)
    for name in ("run", "copies"):
        (tmp_path / name).mkdir()
    states = states_of_the_disk(tmp_path / "run", tmp_path / "copies")
    for state in states:
        path = state / "x"
        if (path / "run.json").exists():
            assert problems(path) == [], state.name
        train_on(path, **SHORT)
        assert problems(path) == [], state.name
        assert leftovers(path) == [], state.name
        assert newest_files(path) == expected, state.name
    assert len(states) > 50


def test_a_process_may_be_killed_while_it_removes_a_run_that_never_began(tmp_path: Path) -> None:
    """The name stays free, and no file is left."""
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


def test_a_process_may_be_killed_several_times_in_any_function(whole: Path, tmp_path: Path) -> None:
    """A run that was killed and resumed statuses with the bits of an undisturbed run."""
    draws = random.Random(3)
    path = tmp_path / "x"
    calls = python_calls(lambda: train_on(tmp_path / "counted"))
    statuses = []
    for number in (draws.randrange(1, calls) for _ in range(5)):
        statuses.append(in_child(lambda n=number: dying_at_call(n, lambda: train_on(path))))
    assert set(statuses) <= {DIED, 0}
    assert statuses.count(DIED) >= 2
    train_on(path)
    assert newest_files(path) == newest_files(whole)
    assert problems(path) == []


def test_training_survives_a_disk_that_fails_once(short: Path, tmp_path: Path) -> None:
    """At any point: training saves later, or stops with exit 5 and can be resumed."""
    expected = newest_files(short)
    for number in itertools.count(1):
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
def test_a_disk_that_stays_full_harms_no_checkpoint(size: int, tmp_path: Path) -> None:
    """No file grows beyond a size: exit 5, and the older checkpoint is still intact."""
    path = finish(tmp_path, steps=6)
    before = newest_files(path)

    def work() -> None:
        with limited_files(size):
            list(resume_longer(path).records())

    assert in_child(work) in (0, 5)
    assert problems(path) == []
    assert checkpoint_folders(path)
    list(resume_longer(path).records())
    assert newest_files(path) != before


def resume_longer(path: Path):
    from charlm.training.resume import resume

    return impatient(resume(path, {"training": {"steps": 12}}))


def test_two_runs_cannot_take_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One starts between the creation and the lock of the folder of the other."""
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


def test_half_a_line_of_the_log_is_removed_again(tmp_path: Path) -> None:
    """The disk is full for one record: its line is left out, and the log stays valid."""
    path = finish(tmp_path, steps=6)

    def work() -> None:
        session = resume_longer(path)
        records = session.records()
        next(records)
        with limited_files((path / "metrics.jsonl").stat().st_size + 20):
            session._log(WarningRecord(**session.trainer.state.record_fields(), text="x" * 50))
        list(records)

    assert in_child(work) == 0
    assert problems(path) == []


def test_a_run_is_not_begun_through_a_link(tmp_path: Path) -> None:
    """The target of a link is not written, and an empty folder stays as it is."""
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

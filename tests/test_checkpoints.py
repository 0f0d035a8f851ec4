"""Checkpoints: the newest intact one is loaded, damaged ones are skipped with a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from charlm.errors import EnvironmentFailure, RunError
from charlm.files.atomic import MANIFEST, TEMPORARY
from charlm.runs.checkpoints import (
    COUNTERS,
    TENSORS,
    Checkpoint,
    checkpoint_folders,
    checkpoint_problems,
    load_newest_checkpoint,
    mean_weights,
    save_checkpoint,
)


def state(step: int, value: float = 1.0) -> Checkpoint:
    tensors = {"model.w": torch.full((2,), value), "generator": torch.zeros(3, dtype=torch.uint8)}
    return Checkpoint(step=step, tensors=tensors, counters={"step": step, "best_nats": None})


def saved(run: Path, *steps: int, keep: int = 9) -> list[Path]:
    return [save_checkpoint(run, state(step, float(step)), keep) for step in steps]


def newest(run: Path) -> tuple[Checkpoint, list[str]]:
    """Return the newest intact checkpoint and the reasons for skipping others."""
    checkpoint, skipped = load_newest_checkpoint(run)
    assert checkpoint is not None
    return checkpoint, skipped


def test_a_saved_checkpoint_is_loaded(tmp_path: Path) -> None:
    (folder,) = saved(tmp_path, 7)
    checkpoint, skipped = newest(tmp_path)
    assert skipped == []
    assert checkpoint_problems(folder) == []
    assert checkpoint.step == 7
    assert checkpoint.counters == {"step": 7, "best_nats": None}
    for name, tensor in state(7, 7.0).tensors.items():
        assert torch.equal(checkpoint.tensors[name], tensor)


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    """Other files are not taken for one."""
    assert load_newest_checkpoint(tmp_path) == (None, [])
    (tmp_path / "states" / "step-x").mkdir(parents=True)
    (tmp_path / "states" / f"{TEMPORARY}step-9-1").mkdir()
    (tmp_path / "states" / ".DS_Store").write_bytes(b"")
    assert load_newest_checkpoint(tmp_path) == (None, [])
    assert checkpoint_folders(tmp_path) == []


def test_the_newest_checkpoint_has_the_highest_step(tmp_path: Path) -> None:
    saved(tmp_path, 9, 20, 100)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-100", "step-20", "step-9"]
    assert newest(tmp_path)[0].step == 100


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_checkpoints_are_kept(keep: int, tmp_path: Path) -> None:
    for step in range(1, 6):
        saved(tmp_path, step, keep=keep)
        kept = {path.name for path in (tmp_path / "states").iterdir()}
        assert kept == {f"step-{n}" for n in range(max(1, step - keep + 1), step + 1)}


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path) -> None:
    """It is deleted when an earlier step is saved."""
    damage(saved(tmp_path, 50)[0] / TENSORS)
    saved(tmp_path, 9, keep=1)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-9"]
    checkpoint, skipped = newest(tmp_path)
    assert (checkpoint.step, skipped) == (9, [])


def damage(path: Path, change: Callable[[bytes], bytes] | None = lambda data: data[:-1]) -> None:
    """Change the content of a file, or delete it."""
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


OLDER_TENSORS = save(state(2).tensors)
DAMAGES = {
    "no manifest": (MANIFEST, None),
    "an empty manifest": (MANIFEST, lambda data: b""),
    "a manifest that lists nothing": (MANIFEST, lambda data: b'{"format": 1, "files": {}}'),
    "a newer format": (MANIFEST, lambda data: data.replace(b'"format": 1', b'"format": 2')),
    "tensors cut short": (TENSORS, lambda data: data[:-1]),
    "a flipped bit": (TENSORS, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "tensors of an older checkpoint": (TENSORS, lambda data: OLDER_TENSORS),
    "changed counters": (COUNTERS, lambda data: data.replace(b"3", b"4")),
    "no counters": (COUNTERS, None),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_reason(name: str, tmp_path: Path) -> None:
    folders = saved(tmp_path, 2, 3)
    file, change = DAMAGES[name]
    damage(folders[1] / file, change)
    checkpoint, skipped = newest(tmp_path)
    assert checkpoint.step == 2
    assert skipped
    assert all("step-3" in reason for reason in skipped)
    assert checkpoint_problems(folders[1]) == skipped


def test_a_run_with_damaged_checkpoints_only_has_none(tmp_path: Path) -> None:
    """Every reason is reported."""
    for folder in saved(tmp_path, 1, 2, 3):
        damage(folder / TENSORS)
    checkpoint, skipped = load_newest_checkpoint(tmp_path)
    assert checkpoint is None
    assert [reason.count("step-") for reason in skipped] == [1, 1, 1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    save_checkpoint(tmp_path, state(5, 8.0), keep=2)
    checkpoint, skipped = newest(tmp_path)
    assert skipped == []
    assert checkpoint.tensors["model.w"].tolist() == [8.0, 8.0]
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-5"]


def test_a_crash_while_replacing_falls_back_to_the_same_step(tmp_path: Path) -> None:
    """The older checkpoint of a step is `step-5~` until the newer one has its name."""
    (folder,) = saved(tmp_path, 5)
    folder.rename(folder.with_name("step-5~"))
    checkpoint, skipped = newest(tmp_path)
    assert (checkpoint.step, skipped) == (5, [])
    saved(tmp_path, 5)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-5"]


def test_a_failed_save_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1, 2, keep=2)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("charlm.files.atomic.write_synced", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        saved(tmp_path, 3, keep=2)
    assert {path.name for path in (tmp_path / "states").iterdir()} == {"step-1", "step-2"}
    checkpoint, skipped = newest(tmp_path)
    assert (checkpoint.step, skipped) == (2, [])


def test_counters_that_are_not_json_are_not_saved(tmp_path: Path) -> None:
    """A NaN is a bug, so it must fail when it is written."""
    bad = Checkpoint(step=1, tensors=state(1).tensors, counters={"best_nats": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, bad, keep=1)
    assert checkpoint_folders(tmp_path) == []


def test_a_crafted_checkpoint_is_a_run_error(tmp_path: Path) -> None:
    """Correct hashes do not make it a checkpoint."""
    from charlm.files.atomic import commit_folder

    about = {"format": 1, "step": 3}
    files = {TENSORS: b"\x80\x04K\x01.", COUNTERS: b"{}"}
    commit_folder(tmp_path / "states" / "step-3", files, about)
    with pytest.raises(RunError, match="safetensors"):
        load_newest_checkpoint(tmp_path)


def test_the_mean_of_weights_is_that_of_intact_checkpoints(tmp_path: Path) -> None:
    folders = saved(tmp_path, 2, 5, 8)
    (folders[1] / TENSORS).write_bytes(b"x")
    weights, steps = mean_weights(tmp_path)
    assert steps == [2, 8]
    assert list(weights) == ["w"]
    assert weights["w"].tolist() == [5.0, 5.0]
    assert mean_weights(tmp_path / "nothing") == ({}, [])

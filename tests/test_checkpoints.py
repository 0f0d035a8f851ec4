"""Checkpoints: the newest intact one is loaded, damaged ones are skipped with a reason."""

import json
from pathlib import Path

import pytest
import torch

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


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Tensors and counters are equal, and there is no problem."""
    (folder,) = saved(tmp_path, 7)
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert skipped == []
    assert checkpoint_problems(folder) == []
    assert found.step == 7
    assert found.counters == {"step": 7, "best_nats": None}
    for name, tensor in state(7, 7.0).tensors.items():
        assert torch.equal(found.tensors[name], tensor)


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    """Either nothing is saved yet, or other files only."""
    assert load_newest_checkpoint(tmp_path) == (None, [])
    (tmp_path / "states" / "step-x").mkdir(parents=True)
    (tmp_path / "states" / f"{TEMPORARY}step-9-1").mkdir()
    (tmp_path / "states" / ".DS_Store").write_bytes(b"")
    assert load_newest_checkpoint(tmp_path) == (None, [])
    assert checkpoint_folders(tmp_path) == []


def test_newest_means_the_highest_step(tmp_path: Path) -> None:
    """By number, not by name or time."""
    saved(tmp_path, 9, 20, 100)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-100", "step-20", "step-9"]
    found, _ = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 100


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(keep: int, tmp_path: Path) -> None:
    """Older ones are deleted once the new one is complete; no other file stays."""
    for step in range(1, 6):
        saved(tmp_path, step, keep=keep)
        kept = {path.name for path in (tmp_path / "states").iterdir()}
        assert kept == {f"step-{n}" for n in range(max(1, step - keep + 1), step + 1)}


def test_a_damaged_checkpoint_takes_no_place_of_an_intact_one(tmp_path: Path) -> None:
    """Damaged ones of later steps are deleted when an earlier step is saved."""
    damage_tensors_cut(saved(tmp_path, 50)[0])
    saved(tmp_path, 9, keep=1)
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-9"]
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (9, [])


def damage_missing_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def damage_empty_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"")


def damage_manifest_lists_nothing(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format": 1, "files": {}}')


def damage_newer_format(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | {"format": 2}))


def damage_tensors_cut(folder: Path) -> None:
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[:-1])


def damage_tensors_flipped(folder: Path) -> None:
    data = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def damage_counters_changed(folder: Path) -> None:
    data = (folder / COUNTERS).read_text()
    (folder / COUNTERS).write_text(data.replace("3", "4"))


def damage_counters_gone(folder: Path) -> None:
    (folder / COUNTERS).unlink()


def damage_mixed_with_an_older_one(folder: Path) -> None:
    (folder / TENSORS).write_bytes((folder.parent / "step-2" / TENSORS).read_bytes())


DAMAGES = [function for name, function in list(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_reason(damage, tmp_path: Path) -> None:
    """The newest intact one is loaded; the reason names the skipped folder."""
    folders = saved(tmp_path, 2, 3)
    damage(folders[1])
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 2
    assert skipped
    assert all("step-3" in reason for reason in skipped)
    assert checkpoint_problems(folders[1]) == skipped


def test_all_damaged_is_none_with_all_reasons(tmp_path: Path) -> None:
    """The run then starts again; nothing is lost silently."""
    for folder in saved(tmp_path, 1, 2, 3):
        damage_tensors_cut(folder)
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is None
    assert [reason.count("step-") for reason in skipped] == [1, 1, 1]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    """As after a resume that was stopped at once."""
    saved(tmp_path, 5)
    save_checkpoint(tmp_path, state(5, 8.0), keep=2)
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert skipped == []
    assert found.tensors["model.w"].tolist() == [8.0, 8.0]
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-5"]


def test_a_crash_while_replacing_falls_back_to_the_same_step(tmp_path: Path) -> None:
    """The older checkpoint of a step is `step-5~` until the newer one has its name."""
    (folder,) = saved(tmp_path, 5)
    folder.rename(folder.with_name("step-5~"))
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (5, [])
    saved(tmp_path, 5)
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-5"]


def test_a_failed_save_keeps_the_older_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without space for the new one the older ones stay, and no temporary folder does."""
    saved(tmp_path, 1, 2, keep=2)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("charlm.files.atomic.write_synced", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        saved(tmp_path, 3, keep=2)
    assert {path.name for path in (tmp_path / "states").iterdir()} == {"step-1", "step-2"}
    found, skipped = load_newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (2, [])


def test_counters_that_are_not_json_are_not_saved(tmp_path: Path) -> None:
    """A NaN among the counters is a bug, reported when writing and not when reading."""
    bad = Checkpoint(step=1, tensors=state(1).tensors, counters={"best_nats": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, bad, keep=1)
    assert checkpoint_folders(tmp_path) == []


def test_a_crafted_checkpoint_is_a_run_error(tmp_path: Path) -> None:
    """A manifest with right hashes does not make other content a checkpoint."""
    from charlm.files.atomic import commit_folder

    about = {"format": 1, "step": 3}
    files = {TENSORS: b"\x80\x04K\x01.", COUNTERS: b"{}"}
    commit_folder(tmp_path / "states" / "step-3", files, about)
    with pytest.raises(RunError, match="safetensors"):
        load_newest_checkpoint(tmp_path)


def test_the_mean_of_the_weights_of_intact_checkpoints(tmp_path: Path) -> None:
    """Here of steps 2 and 8: step 5 is damaged, and other tensors are left out."""
    folders = saved(tmp_path, 2, 5, 8)
    (folders[1] / TENSORS).write_bytes(b"x")
    weights, steps = mean_weights(tmp_path)
    assert steps == [2, 8]
    assert list(weights) == ["w"]
    assert weights["w"].tolist() == [5.0, 5.0]
    assert mean_weights(tmp_path / "nothing") == ({}, [])

"""Checkpoints as files: everything needed to resume training from a step, bit for bit.

A checkpoint is a folder `states/step-N` with `state.safetensors` (weights, optimiser, recurrent
state, random state), `state.json` (counters and position) and a manifest, which is written last.
A folder without a valid manifest is ignored.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.errors import RunError
from charlm.files import atomic
from charlm.files.safe_read import read_json
from charlm.runs.layout import RECORD, read_record
from charlm.runs.shapes import shown

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, COUNTERS = "state.safetensors", "state.json"
STATE_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Named tensors and plain numbers at one step (see `charlm.training.checkpoint`)."""

    step: int
    tensors: "dict[str, Tensor]"
    counters: dict[str, Any]


def save_checkpoint(
    run: Path, checkpoint: Checkpoint, keep: int, *, run_id: str | None = None
) -> Path:
    """Write a checkpoint, then delete all others but the `keep - 1` before it.

    Checkpoints of later steps, which were damaged and not used, are deleted too. With a `run_id`
    only that run accepts the checkpoint. Raises EnvironmentFailure.
    """
    from charlm.runs.tensors import tensor_pieces

    folder = run / "states" / f"step-{checkpoint.step}"
    files: dict[str, atomic.Content] = {
        TENSORS: tensor_pieces(checkpoint.tensors),
        COUNTERS: atomic.json_bytes(checkpoint.counters),
    }
    about = {"format": STATE_FORMAT, "step": checkpoint.step} | ({"run": run_id} if run_id else {})
    atomic.commit_folder(folder, files, about)
    others = [other for other in checkpoint_folders(run) if other != folder]
    older = [other for other in others if _step_of(other) < checkpoint.step]
    for other in others:
        if other not in older[: keep - 1]:
            atomic.remove_folder(other)
    return folder


def checkpoint_folders(run: Path) -> list[Path]:
    """Return the folders of checkpoints, newest step first, valid or not."""
    folders = [path for path in (run / "states").glob("step-*") if _step_of(path) >= 0]
    return sorted(folders, key=_step_of, reverse=True)


def drop_older(run: Path, run_id: str | None = None) -> int:
    """Delete all checkpoints but the newest, if that is intact; return the number of them."""
    newest, *older = checkpoint_folders(run) or [run]
    if not older or checkpoint_problems(newest, run_id):
        return 0
    for folder in older:
        atomic.remove_folder(folder)
    return len(older)


def describe_newest(run: Path) -> str:
    """Return a clause about where a run would resume: "its newest checkpoint is of step 40"."""
    folders = checkpoint_folders(run)
    if not folders:
        return "it has no checkpoint yet"
    return f"its newest checkpoint is of step {_step_of(folders[0]):,}"


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix("step-").removesuffix(atomic.OLDER)
    return int(number) if number.isdecimal() else -1


def checkpoint_problems(folder: Path, run_id: str | None = None) -> list[str]:
    """Return the problems of a checkpoint, which must be of the run `run_id` if one is given."""
    try:
        manifest = atomic.read_written(folder / atomic.MANIFEST)
    except RunError as error:
        return [str(error)]
    version = manifest.get("format")
    if version != STATE_FORMAT:
        return [f"{folder}: state format is {shown(version)}; this charlm reads {STATE_FORMAT}"]
    if manifest.get("step") != _step_of(folder):
        step = shown(manifest.get("step"))
        return [f"{folder}: its manifest names step {step}; expected {_step_of(folder)}"]
    if run_id and manifest.get("run", run_id) != run_id:
        return [f"{folder}: a checkpoint of another run; expected one of {run_id}"]
    return atomic.manifest_problems(folder, manifest, (TENSORS, COUNTERS))


def mean_weights(run: Path) -> "tuple[dict[str, Tensor], list[int]]":
    """Return the mean of the weights of all intact checkpoints of a run, and their steps.

    Raises RunError if run.json is damaged.
    """
    from charlm.runs.tensors import tensors_from_file

    total: dict[str, Tensor] = {}
    steps: list[int] = []
    run_id = read_record(run).get("id") if (run / RECORD).exists() else None
    for folder in checkpoint_folders(run):
        if checkpoint_problems(folder, run_id):
            continue
        tensors = tensors_from_file(folder / TENSORS)
        weights = {
            k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")
        }
        total = {k: v + total[k] for k, v in weights.items()} if total else weights
        steps.append(_step_of(folder))
    return {name: tensor / len(steps) for name, tensor in total.items()}, sorted(steps)


def load_newest_checkpoint(
    run: Path, run_id: str | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest intact checkpoint of a run, and the problems of newer ones."""
    from charlm.runs.tensors import tensors_from_file

    skipped: list[str] = []
    for folder in checkpoint_folders(run):
        problems = checkpoint_problems(folder, run_id)
        if problems:
            skipped += problems
            continue
        counters = read_json(folder / COUNTERS)
        tensors = tensors_from_file(folder / TENSORS)
        return Checkpoint(step=_step_of(folder), tensors=tensors, counters=counters), skipped
    return None, skipped

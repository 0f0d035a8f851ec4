"""States: everything that training needs to go on from a step, bit for bit.

A state is a folder `states/step-N` with `state.safetensors` (weights, optimiser, hidden state,
random state), `state.json` (counters and position) and a manifest written last. A folder without
a valid manifest does not exist.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from charlm.errors import RunError
from charlm.files.atomic import (
    MANIFEST,
    OLDER,
    commit_folder,
    json_bytes,
    manifest_problems,
    read_written,
    remove_folder,
)
from charlm.files.safe_read import read_json
from charlm.runs.layout import RECORD, read_record
from charlm.runs.shapes import shown
from charlm.runs.tensors import tensors_from_file, tensors_to_bytes

TENSORS, COUNTERS = "state.safetensors", "state.json"
STATE_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Named tensors and plain counters at one step."""

    step: int
    tensors: dict[str, Tensor]
    counters: dict[str, Any]


def save_checkpoint(run: Path, state: Checkpoint, keep: int, *, run_id: str | None = None) -> Path:
    """Commit a state, then delete all but it and the `keep - 1` before it.

    States of later steps go too: they were damaged and passed over. With a `run_id` the state is
    of use to that run only. Raises EnvironmentFailure.
    """
    folder = run / "states" / f"step-{state.step}"
    files = {
        TENSORS: tensors_to_bytes(state.tensors),
        COUNTERS: json_bytes(state.counters),
    }
    about = {"format": STATE_FORMAT, "step": state.step} | ({"run": run_id} if run_id else {})
    commit_folder(folder, files, about)
    others = [other for other in checkpoint_folders(run) if other != folder]
    older = [other for other in others if _step_of(other) < state.step]
    for other in others:
        if other not in older[: keep - 1]:
            remove_folder(other)
    return folder


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of states, newest step first, valid or not."""
    found = [path for path in (run / "states").glob("step-*") if _step_of(path) >= 0]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix("step-").removesuffix(OLDER)
    return int(number) if number.isdecimal() else -1


def checkpoint_problems(folder: Path, run_id: str | None = None) -> list[str]:
    """What is wrong with a state, of the run `run_id` if that is known; empty: it can be used."""
    try:
        manifest = read_written(folder / MANIFEST)
    except RunError as error:
        return [str(error)]
    found = manifest.get("format")
    if found != STATE_FORMAT:
        return [f"{folder}: state format is {shown(found)}; this charlm reads {STATE_FORMAT}"]
    if manifest.get("step") != _step_of(folder):
        step = shown(manifest.get("step"))
        return [f"{folder}: its manifest tells of step {step}; expected {_step_of(folder)}"]
    if run_id and manifest.get("run", run_id) != run_id:
        return [f"{folder}: a state of another run; expected one of {run_id}"]
    return manifest_problems(folder, manifest, (TENSORS, COUNTERS))


def mean_weights(run: Path) -> tuple[dict[str, Tensor], list[int]]:
    """The mean of the weights of all whole states of a run, and the steps that they are of.

    Raises RunError when run.json is damaged.
    """
    total: dict[str, Tensor] = {}
    steps: list[int] = []
    run_id = read_record(run).get("id") if (run / RECORD).exists() else None
    for folder in checkpoint_folders(run):
        if checkpoint_problems(folder, run_id):
            continue
        found = tensors_from_file(folder / TENSORS)
        weights = {k.removeprefix("model."): v for k, v in found.items() if k.startswith("model.")}
        total = {k: v + total[k] for k, v in weights.items()} if total else weights
        steps.append(_step_of(folder))
    return {name: tensor / len(steps) for name, tensor in total.items()}, sorted(steps)


def load_newest_checkpoint(
    run: Path, run_id: str | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest state that is whole and of this run, and why newer ones were passed over."""
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

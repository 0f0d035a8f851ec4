"""Start a run: plan it, write what never changes, and open its training session."""

import contextlib
import hashlib
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings, settings_from
from charlm.errors import EnvironmentFailure
from charlm.files.atomic import explained, json_bytes
from charlm.nn.encoder import saved_tensors
from charlm.phases import phase
from charlm.runs.data import write_data
from charlm.runs.folders import check_name, check_writable, new_folder, remove_run
from charlm.runs.layout import CONFIG, TOKENIZERS, write_record
from charlm.runs.locate import run_name
from charlm.runs.model_files import model_config, write_model_files
from charlm.runs.parent import Parent
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset
from charlm.training import pretrained
from charlm.training.fine_tuning import keep_old_text
from charlm.training.opening import open_session
from charlm.training.planned_run import plan_run
from charlm.training.session import Session
from charlm.training.task_training import Examples, Tensors, training_of


def start(
    settings: Settings,
    folder: Path,
    *,
    name: str | None = None,
    origins: Mapping[str, str] | None = None,
    corpus: Corpus | None = None,
    examples: Examples | None = None,
    vocabulary: Path | None = None,
    parent: Parent | None = None,
    mode: str | None = None,
    command: str = "",
    overwrite: bool = False,
) -> Session:
    """Start a new run in a folder of runs and return its training session.

    `overwrite` replaces the run of this name, which is removed once the new one is planned. The
    other arguments are those of `plan_run`. Raises a subclass of CharlmError.
    """
    check_writable(folder)
    check_name(folder, name, overwrite=overwrite)
    planned = plan_run(
        settings, origins=origins, corpus=corpus, examples=examples, vocabulary=vocabulary,
        parent=parent, mode=mode,
    )  # fmt: skip
    if planned.problem:
        raise EnvironmentFailure(planned.problem)
    if name and overwrite:
        if parent:
            parent.check_outlives(folder / name)
        remove_run(folder / name)
    path, lock = new_folder(folder, name, planned.dataset.name)
    record = {**planned.record, "command": command, "notes": planned.warnings}
    session = write_run(
        path, lock, planned.dataset, record, planned.vectors,
        parent=parent, weights=planned.weights,
    )  # fmt: skip
    session.warnings += planned.warnings + _space_warnings(session)
    return session


def _space_warnings(session: Session) -> list[str]:
    """Return a warning if the run will not fit on its disk.

    It needs room for its weights twice, and for two checkpoints: they have the optimiser's moments
    and the average of the weights too.
    """
    training = session.trainer.settings
    weights = sum(weight.nbytes for weight in saved_tensors(session.trainer.model).values())
    copies = 2 + 2 * OPTIMIZERS[training.optimizer].has_betas
    copies += bool(training.average or training.average_trigger)
    needed, free = 2 * copies * weights, shutil.disk_usage(session.path).free
    if free >= needed:
        return []
    return [
        f"{session.path.parent} has {free / 1e6:.0f} MB free; expected {needed / 1e6:.0f} MB for "
        "the weights and checkpoints of this run. Free some space"
    ]


def write_run(
    path: Path,
    lock: FileLock,
    dataset: Dataset,
    record: dict[str, Any],
    vectors: pretrained.Pretrained | None,
    *,
    parent: Parent | None = None,
    weights: Tensors | None = None,
) -> Session:
    """Write a new run into its empty folder and open its session; on an error, remove the folder.

    `record` is the planned content of run.json; `weights` are those of `parent`, to start with.
    """
    with contextlib.ExitStack() as on_error:
        on_error.callback(shutil.rmtree, path, ignore_errors=True)
        on_error.callback(lock.release)
        settings = settings_from(record["settings"])
        with explained(path), phase("writing the encoded text"):
            write_data(path, dataset, settings.corpus)
            if vectors:
                pretrained.keep_vectors(path, vectors)
            if parent and dataset.labelled is None:
                keep_old_text(path, parent)
        vocabulary, task = dataset.vocabulary, training_of(settings)
        more = dataset.labelled.tokenizers() if dataset.labelled else {}
        config = model_config(settings.model, vocabulary, dataset.boundaries, dataset.unk_types)
        config |= task.config(settings, dataset)
        write_model_files(path, config, vocabulary, more=more)
        record = record | {
            "format": config["format"],
            "id": _run_id(path, record),
            "name": run_name(path),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": "training",
        }
        session = open_session(path, settings, dataset, record, lock, weights)
        if parent:
            task.begin(session)
        write_record(path, record)
        on_error.pop_all()
    return session


def _run_id(path: Path, record: Mapping[str, Any]) -> str:
    """Return a hash of text, vocabulary and settings, by which checkpoints know their run."""
    files = [path / name for name in (CONFIG, *TOKENIZERS)]
    parts = [file.read_bytes() for file in files if file.exists()]
    about = {key: value for key, value in record.get("from", {}).items() if key != "path"}
    more = [about] if about else []
    parts.append(json_bytes([record["settings"], record["corpus"], *more]))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]

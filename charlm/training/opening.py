"""Open a training session: build the model and the trainer of a run, new or resumed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from charlm import openmp
from charlm.backends.weights import FRESH
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings, precision_text
from charlm.inference.adapt.calibration import sample_of
from charlm.nn import devices, heap
from charlm.nn.encoder import Encoder, saved_tensors
from charlm.runs.tensors import put_weights
from charlm.text.dataset import Dataset
from charlm.text.direction import mirrored_dataset
from charlm.training import pretrained
from charlm.training.fine_tuning import freeze
from charlm.training.machine import session_precision, session_threads
from charlm.training.processes import current_processes
from charlm.training.session import Session
from charlm.training.task_training import Tensors, training_of
from charlm.training.tensorboard import check_log
from charlm.training.trainer import Trainer

PIECES = 8
"""Pieces, spread over the validation text, of the part that validations read."""


def open_session(
    path: Path,
    settings: Settings,
    dataset: Dataset,
    record: dict[str, Any],
    lock: FileLock,
    weights: Tensors | None = None,
) -> Session:
    """Build the model and the trainer of a run, and bring `record` up to date.

    Without `weights`, they are fresh ones. The session warns if precision or threads are not those
    recorded before.
    """
    task, training = training_of(settings), settings.training
    check_log(training)
    heap.keep_freed_memory()
    device = devices.choose_device(training.device)
    machine = dict(record["machine"])
    warnings = session_threads(settings, dataset, device, machine)
    model = task.model(settings, dataset)
    _set_weights(model, path, training, record, weights)
    recorded = record.get("precision")
    precision = session_precision(settings, dataset, device, record)
    chosen = precision.record()
    if recorded and precision_text(recorded) != precision_text(chosen):
        warnings.append(
            f"the precision changed from {precision_text(recorded)} to {precision_text(chosen)} "
            f"({precision.reason}); the weights will differ from those of an uninterrupted run"
        )
    if machine["threads"] > 1 and not openmp.set_short_spins():
        warnings.append(
            f"torch was imported before charlm, so its {machine['threads']} threads wait actively: "
            "much slower while other programs run. Import charlm first, or set "
            f"GOMP_SPINCOUNT={openmp.SPINS}"
        )
    record["machine"] = machine
    record["precision"] = chosen
    record["parameters"] = model.parameter_count()
    if settings.model.direction == "backward":
        dataset = mirrored_dataset(dataset)
    if training.valid_tokens and dataset.valid is not None:
        part = sample_of(dataset.valid, training.valid_tokens, PIECES)
        dataset = replace(dataset, valid=part)
    model = model.to(device)
    trainer = Trainer(
        model, task.task(dataset, model, settings, precision), training,
        processes=current_processes(),
    )  # fmt: skip
    session = Session(
        path=path, trainer=trainer, dataset=dataset, record=record, lock=lock, warnings=warnings
    )
    trainer.on_best = session.keep_best
    return session


def _set_weights(
    model: Encoder,
    path: Path,
    training: TrainingSettings,
    record: Mapping[str, Any],
    weights: Tensors | None,
) -> None:
    """Put the vectors of a run and the weights of its parent into a model, and freeze some."""
    if vectors := pretrained.kept_vectors(path):
        pretrained.set_vectors(model, vectors)
    if training.freeze_vectors:
        for weight in pretrained.embeddings(model):
            weight.requires_grad_(False)
    if weights:
        fresh = {name: w for name, w in saved_tensors(model).items() if name.startswith(FRESH)}
        put_weights(model, fresh | weights)  # all others are given
    if about := record.get("from"):
        freeze(model, training.freeze_layers, grown=model.vocab_size > about["entries"])

"""The machine of a training: its device, processes, threads and precision."""

import contextlib
import functools
import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from charlm import __version__
from charlm.backends.processor import processor_name
from charlm.backends.training_library import open_library
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.tasks import LANGUAGE_MODEL
from charlm.errors import EnvironmentFailure
from charlm.nn import devices, heap
from charlm.nn.model import multiplied_weights
from charlm.phases import phase
from charlm.text.batches import MAX_LONGER
from charlm.text.dataset import Dataset
from charlm.training.parallel import check_processes
from charlm.training.plan.memory import memory_of, memory_problem
from charlm.training.plan.speed import set_threads, training_threads
from charlm.training.processes import current_processes
from charlm.training.task_training import training_of

DROPOUT: dict[str, Any] = dict.fromkeys(("dropout", "input_dropout", "output_dropout"), 0.2)
"""Rates of dropout of all models that are compared on a GPU, where they change no error of a number
type: the plan has others than the model whose speed is measured before."""


class Machine:
    """Device, threads and precision of a training on this machine."""

    def __init__(self, settings: Settings, dataset: Dataset) -> None:
        heap.keep_freed_memory()
        self.device = devices.choose_device(settings.training.device)
        self._settings, self._dataset = settings, dataset
        self._outputs = training_of(settings).outputs(settings, dataset)
        self._compared = functools.cache(self._precision)

    def precision(self, model: ModelSettings, rows: int) -> devices.Precision:
        """Return the precision that training uses for batches of this many sequences."""
        if self.device.type == "cuda":
            model = replace(model, **DROPOUT)
        return self._compared(model, devices.TILE_ROWS if devices.fills_tiles(rows) else 1)

    def set_threads(self, model: ModelSettings, batch_size: int) -> int:
        """Let torch use the threads that training uses; return their number."""
        return set_threads(
            self._settings.training.threads
            or training_threads(model, self._outputs, batch_size, self.device)
        )

    def _precision(self, model: ModelSettings, rows: int) -> devices.Precision:
        self.set_threads(model, devices.PROBE_SHAPE[1])
        training = replace(self._settings.training, batch_size=rows)
        settings = replace(self._settings, model=model, training=training)
        needed = self.least_memory(model)
        if memory_problem(needed, settings, self.device):  # comparing would take minutes
            return devices.Precision(name="fp32", reason="the model does not fit in memory")
        with phase("comparing bf16 with fp32"):
            return choose_precision(settings, self._dataset, self.device)

    def least_memory(self, model: ModelSettings) -> int:
        """Return the bytes that the weights need, with what is kept for each, and one token."""
        smallest = replace(self._settings.training, batch_size=1, bptt=1)
        return memory_of(model, smallest, multiplied_weights(model, self._outputs))


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or the processor."""
    return torch.cuda.get_device_name() if device.type == "cuda" else processor_name()


def machine_record(device: torch.device, threads: int) -> dict[str, Any]:
    """Return a description of this machine for run.json."""
    count = current_processes().count
    return {
        "device": device.type,
        "device_name": device_name(device),
        "threads": threads,
        **({"processes": count} if count > 1 else {}),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "charlm": __version__,
    }


def session_threads(
    settings: Settings, dataset: Dataset, device: torch.device, machine: dict[str, Any]
) -> list[str]:
    """Let torch use the recorded threads, or those that fit the processes; return warnings.

    The record of the machine gets both numbers. Raises an error if the processes cannot train this.
    """
    check_processes(settings, device)
    count, before = current_processes().count, machine.get("processes", 1)
    chosen, recorded = settings.training.threads, machine.get("threads")
    if count != before:
        machine["processes"] = count
        outputs = training_of(settings).outputs(settings, dataset)
        size = settings.training.batch_size or 1
        machine["threads"] = set_threads(
            chosen or training_threads(settings.model, outputs, size, device)
        )
        return [
            f"the number of processes changed from {before} to {count}; results may differ in "
            "rounding"
        ]
    machine["threads"] = set_threads(chosen or recorded or torch.get_num_threads())
    if machine["threads"] != recorded:
        return ["the number of threads changed; results may differ in rounding"]
    return []


def session_precision(
    settings: Settings, dataset: Dataset, device: torch.device, record: Mapping[str, Any]
) -> devices.Precision:
    """Return the recorded precision, unless another is requested or it does not work here."""
    training, recorded = settings.training, record.get("precision")
    if recorded and training.precision in ("auto", recorded["name"]):
        kept = devices.Precision(
            name=recorded["name"],
            reason=recorded["reason"],
            kernels=recorded.get("kernels"),
            softmax=recorded.get("softmax"),
        )
        here = record["machine"].get("device_name") == device_name(device)
        if _works(kept, settings, dataset, device, compared=here):
            return kept
    return choose_precision(settings, dataset, device)


def _works(
    kept: devices.Precision,
    settings: Settings,
    dataset: Dataset,
    device: torch.device,
    *,
    compared: bool,
) -> bool:
    """Report whether a recorded precision works here, if need be by comparing it with fp32."""
    engine, model = settings.training.engine, settings.model
    if kept.name == "fp32":
        return kept.kernels in devices.exact_engines(engine, model, device)
    if devices.missing_type(kept.name, model, device, static=_is_static(settings)):
        return False
    if kept.kernels not in devices.engines(engine, model, device):
        return False
    if kept.softmax not in (None, devices.softmax_kernels(kept.name, device, engine)):
        return False
    if not compared:
        task = training_of(settings)
        networks, outputs = task.networks(settings, dataset), task.outputs(settings, dataset)
        problem = devices.gradient_problem(networks, outputs, device, kept.kernels, kept.name)
        return problem is None
    with contextlib.suppress(EnvironmentFailure):  # of kernels that cannot be opened
        return kept.kernels is None or bool(open_library(kept.kernels))
    return False


def choose_precision(
    settings: Settings, dataset: Dataset, device: torch.device
) -> devices.Precision:
    """Return the precision in which the layers of a model have correct gradients here."""
    task, training = training_of(settings), settings.training
    chosen = devices.choose_precision(
        training.precision, task.networks(settings, dataset), task.outputs(settings, dataset),
        device, training.engine, training.batch_size or 1, static=_is_static(settings),
    )  # fmt: skip
    return as_used(chosen, settings)


def as_used(precision: devices.Precision, settings: Settings) -> devices.Precision:
    """Return the precision of a training, without what it does not use.

    That is the loop if windows are too short for it, and the softmax of the kernels in other tasks
    than language models, of which the windows are whole texts.
    """
    training = settings.training
    if settings.task.task != LANGUAGE_MODEL:
        return replace(precision, softmax=None)
    if not training.bptt:
        return precision
    return precision.for_windows(training.bptt + MAX_LONGER * training.random_bptt)


def _is_static(settings: Settings) -> bool:
    """Return whether a GPU can compute steps on static tensors, which several processes do not."""
    return training_of(settings).static and current_processes().count == 1

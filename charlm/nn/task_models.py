"""The models of the tasks, built from the table `task` in config.json."""

from collections.abc import Mapping
from typing import Any, cast

import torch

from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.config.tasks import TASKS
from charlm.nn.encoder import Encoder


def build_model(settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]) -> Encoder:
    """Build the model of a task; its weights are not initialised."""
    return cast(Encoder, resolve(TASKS[task["name"]].model).of_task(settings, vocab_size, task))


def model_shapes(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a model's file, for every cell; it is not built."""
    with torch.device("meta"):
        model = build_model(settings, vocab_size, task)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

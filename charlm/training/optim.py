"""Build the optimiser that the settings name."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from charlm.config.class_path import resolve
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.training import TrainingSettings


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Return the optimiser of the settings over these parameters."""
    spec = OPTIMIZERS[settings.optimizer]
    arguments: dict[str, object] = {
        **spec.options,
        "lr": settings.learning_rate or 0.0,
        "weight_decay": settings.weight_decay or 0.0,
    }
    if spec.has_betas:
        arguments["betas"] = (settings.beta1, settings.beta2)
    else:
        arguments["momentum"] = settings.momentum
    return cast(torch.optim.Optimizer, resolve(spec.kind)(parameters, **arguments))

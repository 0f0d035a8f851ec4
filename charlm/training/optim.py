"""Build the optimiser that the settings name."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from charlm.config.class_path import resolve
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.training import TrainingSettings


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimiser changes nothing in a step whose tensor `found_inf` is 1.

    Fused ones of torch do, but SGD would begin with an undefined momentum.
    """
    groups = optimizer.param_groups
    return all(group.get("fused") and not group.get("momentum") for group in groups)


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

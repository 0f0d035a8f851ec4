"""Build the optimiser that the settings name."""

import functools
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from charlm.config.class_path import resolve
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.training import TrainingSettings

UNCOMPILED = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
"""Methods of an optimiser that torch wraps for its compiler."""


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimiser changes nothing in a step whose tensor `found_inf` is 1.

    Fused ones of torch do, but SGD would begin with an undefined momentum.
    """
    return is_fused(optimizer) and not any(g.get("momentum") for g in optimizer.param_groups)


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimiser changes all weights in one operation, which allocates nothing."""
    return all(group.get("fused") for group in optimizer.param_groups)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """Return the optimiser of the settings over these parameters.

    On a GPU, one that needs no number of the host has its rate there too, as a tensor.
    """
    spec, weights = OPTIMIZERS[settings.optimizer], list(parameters)
    arguments: dict[str, Any] = {
        **spec.options,
        "lr": settings.learning_rate or 0.0,
        "weight_decay": settings.weight_decay or 0.0,
    }
    if spec.has_betas:
        arguments["betas"] = (settings.beta1, settings.beta2)
    else:
        arguments["momentum"] = settings.momentum
    if on_gpu(weights) and spec.gpu_options:
        rate = torch.tensor(settings.learning_rate or 0.0, device=weights[0].device)
        arguments |= {**spec.gpu_options, "lr": rate}
    return without_compiler(resolve(spec.kind))(weights, **arguments)


@functools.cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return an optimiser class of torch whose methods do not import torch's compiler.

    Those of torch do, only to tell it to leave them alone, when the first optimiser is made: 1.2 of
    the 2.4 seconds of processor time that torch takes to start. Another class is returned as it is,
    since its wrappers may do more. An optimiser is pickled as one of torch.
    """
    if not kind.__module__.startswith("torch."):
        return kind
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in UNCOMPILED}
    methods["step"] = torch.no_grad()(methods["step"])  # one of the wrappers does this too
    methods["__reduce__"] = lambda self: (object.__new__, (kind,), self.__getstate__())
    return cast(type[torch.optim.Optimizer], type(kind.__name__, (kind,), methods))


def on_gpu(weights: Sequence[nn.Parameter]) -> bool:
    """Return whether weights are on a CUDA device."""
    return any(weight.is_cuda for weight in weights)

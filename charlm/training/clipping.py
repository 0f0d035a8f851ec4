"""Gradients before a step: their norm, cut to what the settings allow; what broke or explodes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError

EXPLODING = 100.0
"""Times the clipping length (or 1, if that is more) from which a gradient is told of."""


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """The norm before clipping, whether it was cut, and in words whether it explodes."""

    norm: float
    cut: bool
    explodes: str = ""


def gradients(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The gradient of each weight that has one, by name."""
    named = model.named_parameters()
    return [(name, weight.grad) for name, weight in named if weight.grad is not None]


def clip(model: nn.Module, settings: TrainingSettings, *, name_largest: bool = True) -> Clipped:
    """Cut all gradients by their common norm, or one by one (Pascanu et al. 2013).

    Where they explode, `name_largest` looks for the weights that they do most. Raises
    DivergenceError that names weights when a gradient is not finite.
    """
    named = gradients(model)
    total = torch.nn.utils.get_total_norm([gradient for _, gradient in named])
    norm = float(total)
    if not math.isfinite(norm):
        broken = [name for name, g in named if not g.isfinite().all()] or ["all weights together"]
        raise DivergenceError(f"the gradient of {', '.join(broken[:3])} is not finite")
    cut, highest = False, settings.clip_value
    if highest:
        cut = max(float(gradient.abs().max()) for _, gradient in named) > highest
        torch.nn.utils.clip_grad_value_(model.parameters(), highest)
    elif settings.clip_norm:
        cut = norm > settings.clip_norm
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), settings.clip_norm, total)
    explodes = ""
    if name_largest and norm > EXPLODING * max(settings.clip_norm, 1.0):
        largest, _ = max(named, key=lambda item: float(item[1].norm()))
        explodes = f"the gradient explodes, norm {norm:.3g}, most of it in {largest}"
    return Clipped(norm=norm, cut=cut, explodes=explodes)

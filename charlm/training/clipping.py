"""Gradient clipping: by the common norm of all gradients, or value by value."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError

EXPLODING = 100.0
"""Multiple of the clip norm (or of 1, if that is larger) above which a gradient explodes."""


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """The norm before clipping, whether anything was cut, and a warning if the norm explodes."""

    norm: float
    cut: bool
    explodes: str = ""


def clip(model: nn.Module, settings: TrainingSettings, *, name_largest: bool = True) -> Clipped:
    """Clip all gradients of a model (Pascanu et al. 2013).

    `name_largest` asks for a warning that names the largest gradient if their norm explodes. Raises
    DivergenceError that names the weights whose gradient is not finite.
    """
    weights = dict(model.named_parameters())  # once: it takes as long as a small layer
    named = [(name, w.grad) for name, w in weights.items() if w.grad is not None]
    total = torch.nn.utils.get_total_norm([gradient for _, gradient in named])
    norm = float(total)
    if not math.isfinite(norm):
        broken = [name for name, g in named if not g.isfinite().all()] or ["all weights together"]
        raise DivergenceError(f"the gradient of {', '.join(broken[:3])} is not finite")
    cut = False
    if settings.clip_value:
        cut = max(float(gradient.abs().max()) for _, gradient in named) > settings.clip_value
        torch.nn.utils.clip_grad_value_(weights.values(), settings.clip_value)
    elif settings.clip_norm and norm > settings.clip_norm:
        cut = True
        torch.nn.utils.clip_grads_with_norm_(weights.values(), settings.clip_norm, total)
    explodes = ""
    if name_largest and norm > EXPLODING * max(settings.clip_norm, 1.0):
        largest, _ = max(named, key=lambda item: float(item[1].norm()))
        explodes = f"the gradient explodes, norm {norm:.3g}, most of it in {largest}"
    return Clipped(norm=norm, cut=cut, explodes=explodes)

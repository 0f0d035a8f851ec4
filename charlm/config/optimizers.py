"""The optimisers and schedules that `--optimizer` and `--schedule` take: one row for each.

Rows name classes and functions by import path, so that this module imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Facts about one optimiser."""

    kind: str
    """Import path of its class."""
    learning_rate: float
    """Default learning rate."""
    weight_decay: float = 0.0
    """Default weight decay."""
    has_betas: bool = False
    """True if it keeps two moments of the gradient, with decays `beta1` and `beta2`."""
    scales_with_gradient: bool = False
    """True if a gradient of twice the size makes a step of twice the size."""
    averages: bool = False
    """True if the mean of the weights is kept once validation stops improving."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Further arguments of the class."""
    gpu_options: Mapping[str, object] = field(default_factory=dict)
    """Further arguments on a GPU, where it then needs no number of the host and can leave out a
    step, unless it has momentum; none if it cannot."""


_FUSED = {"fused": True}
_CAPTURABLE = {"capturable": True}
OPTIMIZERS: dict[str, OptimizerSpec] = {
    "adamw": OptimizerSpec(
        kind="torch.optim:AdamW",
        learning_rate=4e-3,
        weight_decay=0.01,
        has_betas=True,
        options=_FUSED,
        gpu_options=_CAPTURABLE,
    ),
    "adam": OptimizerSpec(
        kind="torch.optim:Adam",
        learning_rate=4e-3,
        has_betas=True,
        options=_FUSED,
        gpu_options=_CAPTURABLE,
    ),
    "sgd": OptimizerSpec(
        kind="torch.optim:SGD", learning_rate=1.0, scales_with_gradient=True, gpu_options=_FUSED
    ),
    "nt-asgd": OptimizerSpec(
        kind="torch.optim:SGD",
        learning_rate=10.0,
        scales_with_gradient=True,
        averages=True,
        gpu_options=_FUSED,
    ),
    "rmsprop": OptimizerSpec(
        kind="torch.optim:RMSprop", learning_rate=2e-3, options={"alpha": 0.95}
    ),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """Facts about one schedule."""

    factor: str
    """Import path of the function from (settings, progress, passes) to a factor on the rate."""
    ends_at_final_rate: bool = False
    """True if the rate ends at the setting `final_rate`."""
    follows_validation: bool = False
    """True if the rate is reduced after each validation without a gain."""


_HERE = "charlm.training.schedule"
SCHEDULES: dict[str, ScheduleSpec] = {
    "cosine": ScheduleSpec(factor=f"{_HERE}:cosine", ends_at_final_rate=True),
    "linear": ScheduleSpec(factor=f"{_HERE}:linear", ends_at_final_rate=True),
    "constant": ScheduleSpec(factor=f"{_HERE}:constant"),
    "step": ScheduleSpec(factor=f"{_HERE}:step", ends_at_final_rate=True),
    "plateau": ScheduleSpec(factor=f"{_HERE}:constant", follows_validation=True),
    "decay": ScheduleSpec(factor=f"{_HERE}:decay"),
}

"""Optimisers by name, and the learning rate as a pure function of progress."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from charlm.config.training import TrainingSettings

Build = Callable[[Iterable[nn.Parameter], TrainingSettings], torch.optim.Optimizer]


def _adam(kind: type[torch.optim.Adam]) -> Build:
    def build(
        parameters: Iterable[nn.Parameter], settings: TrainingSettings
    ) -> torch.optim.Optimizer:
        """The optimiser over these parameters."""
        return kind(
            parameters,
            lr=settings.learning_rate or 0.0,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay or 0.0,
            fused=True,
        )

    return build


def _sgd(parameters: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate or 0.0,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay or 0.0,
    )


def _rmsprop(
    parameters: Iterable[nn.Parameter], settings: TrainingSettings
) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        parameters,
        lr=settings.learning_rate or 0.0,
        alpha=0.95,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay or 0.0,
    )


OPTIMIZERS: dict[str, tuple[Build, float]] = {
    "adamw": (_adam(torch.optim.AdamW), 4e-3),
    "adam": (_adam(torch.optim.Adam), 4e-3),
    "sgd": (_sgd, 1.0),
    "nt-asgd": (_sgd, 10.0),
    "rmsprop": (_rmsprop, 2e-3),
}
"""Each optimiser with the learning rate that it starts from when none is given.

`nt-asgd` is sgd whose weights the trainer averages from some validation on (see `non_monotone`).
"""
NON_MONOTONE_INTERVAL = 5


def non_monotone(nats: Sequence[float]) -> bool:
    """Whether averaging is due after these validations (Merity et al. 2018, algorithm 1).

    It is when the newest is worse than the best of all but the last five before it.
    """
    *before, newest = nats
    earlier = before[:-NON_MONOTONE_INTERVAL]
    return bool(earlier) and newest > min(earlier)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: TrainingSettings
) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over these parameters."""
    return OPTIMIZERS[settings.optimizer][0](parameters, settings)


def _cosine(progress: float, final: float) -> float:
    """From 1 to `final` along half a cosine (Loshchilov & Hutter 2017)."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def _linear(progress: float, final: float) -> float:
    return 1.0 - (1.0 - final) * progress


def _constant(progress: float, final: float) -> float:  # noqa: ARG001
    return 1.0


def _step(progress: float, final: float) -> float:
    """1 for half of the run, then halved at every further tenth of it, not below `final`."""
    halvings = max(0, math.floor((progress - 0.4) * 10.0 + 1e-9))
    return max(float(0.5**halvings), final)


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "step": _step,
    "plateau": _constant,
    "decay": _constant,
}
"""Share of the highest rate after the warm-up, by progress from 0 to 1.

`plateau` is constant here; the trainer divides it by four whenever validation does not improve.
`decay` goes by passes over the text (see `decay_share`).
"""


def decay_share(settings: TrainingSettings, passes: float) -> float:
    """Of schedule `decay`: the factor, once for each time that it has come.

    It comes after `decay_from` passes and every `decay_every` from then on, at most `decay_times`.
    """
    times = math.floor((passes - settings.decay_from) / settings.decay_every + 1e-9) + 1
    times = max(times, 0)
    return settings.decay ** min(times, settings.decay_times or times)


def rate_share(settings: TrainingSettings, progress: float, passes: float = 0.0) -> float:
    """Share of the highest learning rate, warm-up included.

    At a progress from 0 to 1, after so many passes over the text.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < settings.warmup:
        return max(progress / settings.warmup, 1e-3)
    rest = (progress - settings.warmup) / max(1.0 - settings.warmup, 1e-12)
    if settings.schedule == "decay":
        return decay_share(settings, passes)
    return SCHEDULES[settings.schedule or "cosine"](rest, settings.final_rate)

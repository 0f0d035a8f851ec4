"""How weights begin.

Defaults by cell, and why. Recurrent blocks are orthogonal (Saxe et al. 2014): a state keeps its
length from step to step, so that gradients neither vanish nor explode before anything is learnt;
those of an `rnn` with relu are the identity (Le, Jaitly & Hinton 2015): what was read is added up,
and kept. Input blocks are Xavier-uniform (Glorot & Bengio 2010), which keeps the variance through a
layer of tanh or sigmoid; before a relu, which passes half of it, twice that (He et al. 2015).
Forget gates begin with bias 1 (Jozefowicz et al. 2015): remember until told not to.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from charlm.config.model import ModelSettings, init_range

Initialiser = Callable[[Tensor, torch.Generator], object]


def _he(block: Tensor, generator: torch.Generator) -> Tensor:
    return nn.init.kaiming_uniform_(block, nonlinearity="relu", generator=generator)


def _identity(block: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    return nn.init.eye_(block)


INITS: dict[str, Initialiser] = {
    "orthogonal": lambda block, generator: nn.init.orthogonal_(block, generator=generator),
    "xavier": lambda block, generator: nn.init.xavier_uniform_(block, generator=generator),
    "he": _he,
    "identity": _identity,
}
"""Each fills one block of a gate, shape (H, inputs), in place."""


def initialiser(name: str) -> Initialiser:
    """The initialiser of this name; `uniform:R` draws from [-R, R]."""
    reach = init_range(name)
    if reach is None:
        return INITS[name]
    return lambda block, generator: nn.init.uniform_(block, -reach, reach, generator=generator)


def recurrent_initialiser(settings: ModelSettings) -> Initialiser:
    """For weights from state to state: as set, else by cell (see the module)."""
    usual = "identity" if settings.nonlinearity == "relu" else "orthogonal"
    return initialiser(settings.recurrent_init or usual)


def input_initialiser(settings: ModelSettings) -> Initialiser:
    """For weights from the input: as set, else by cell (see the module)."""
    usual = "he" if settings.nonlinearity == "relu" else "xavier"
    return initialiser(settings.input_init or usual)

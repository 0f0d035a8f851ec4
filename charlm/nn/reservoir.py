"""The echo state network, whose random recurrence is never trained (Jaeger 2001)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer

INPUT_RANGE = 0.5
"""Largest absolute input weight."""


class EchoState(RecurrentLayer):
    """h' = tanh(W x + U h + b) with fixed random W, U and b; only the output layer learns.

    U is sparse and scaled to its spectral radius (Lukosevicius 2012, sections 3.2.3 and 3.2.4).
    The weights are buffers: no optimiser sees them, and they are saved with the model.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_ih: Tensor
        self.weight_hh: Tensor
        self.bias: Tensor
        self.register_buffer("weight_ih", torch.empty(hidden_size, input_size))
        self.register_buffer("weight_hh", torch.empty(hidden_size, hidden_size))
        self.register_buffer("bias", torch.empty(hidden_size))

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        (h,) = state
        outputs = []
        for from_input in F.linear(x, self.weight_ih, self.bias).unbind(0):
            h = torch.tanh(from_input + F.linear(h, self.weight_hh))
            outputs.append(h)
        return torch.stack(outputs), (h,)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise uniformly; make recurrent weights sparse and set their spectral radius."""
        nn.init.uniform_(self.weight_ih, -INPUT_RANGE, INPUT_RANGE, generator=generator)
        nn.init.uniform_(self.bias, -0.1, 0.1, generator=generator)
        nn.init.uniform_(self.weight_hh, -1.0, 1.0, generator=generator)
        if self.hidden_size > 1:
            density = 1.0 - self.settings.sparsity
            mask = torch.empty_like(self.weight_hh).bernoulli_(density, generator=generator)
            mask.fill_diagonal_(1.0)  # so that no matrix is nilpotent
            self.weight_hh *= mask
        radius = torch.linalg.eigvals(self.weight_hh.double()).abs().max()
        self.weight_hh *= (self.settings.spectral_radius / radius.clamp_min(1e-12)).to(
            self.weight_hh.dtype
        )

"""What every recurrent layer is: a sequence and a state in, a sequence and a state out."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from charlm.config.cells import CELLS
from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.nn.initial import input_initialiser, recurrent_initialiser

LayerState = tuple[Tensor, ...]
"""The state of a layer: (h,), or (h, c) for the LSTM, each of shape (B, H)."""

M = TypeVar("M", bound=nn.Module)


def without_init(module_class: Callable[..., M], *arguments: Any, **options: Any) -> M:
    """A module whose weights are not set yet, so that the global random state is not drawn from."""
    module = module_class(*arguments, device="meta", **options)
    return module.to_empty(device=torch.get_default_device())


def empty_parameter(*shape: int) -> nn.Parameter:
    """A weight that is not set yet."""
    return nn.Parameter(torch.empty(*shape))


class RecurrentLayer(nn.Module):
    """One recurrent layer of a cell whose facts are in its row of `CELLS`.

    The name of a weight tells its kind: `weight_hh` and `weight_mh` lead from the state, other
    `weight...` from the input, `gain...` are factors.
    """

    recurrent_weight = "weight_hh"
    """Name of the matrix from state to gates, if there is one."""
    gate_bias = "bias"
    """Name of the bias that `forget_bias` is added to."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.settings, self.spec = settings, CELLS[settings.cell]

    def initial_state(self, batch_size: int) -> LayerState:
        """Zeros, shape (B, H) each."""
        like = next(self.parameters())
        return tuple(like.new_zeros(batch_size, self.hidden_size) for _ in self.spec.state)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (T, B, E) and the state before it -> h at every step (T, B, H) and the state after."""
        raise NotImplementedError

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:  # noqa: ARG002
        """The gates of one step, by name, each (B, H) from 0 to 1; of `lstm` and `gru` only."""
        return {}

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Fresh weights from the generator, block by block as in `initial`; gains 1, biases 0."""
        recurrent = recurrent_initialiser(self.settings)
        from_input = input_initialiser(self.settings)
        for name, weight in self.named_parameters():
            kind = name.rpartition(".")[2]
            if not kind.startswith("weight"):
                nn.init.constant_(weight, float(kind.startswith("gain")))
                continue
            fill = recurrent if kind.startswith(("weight_hh", "weight_mh")) else from_input
            for block in weight.chunk(len(weight) // self.hidden_size):
                fill(block, generator)
        if self.spec.forget_gate is not None:
            begin = self.spec.forget_gate * self.hidden_size
            bias = self.get_parameter(self.gate_bias)
            bias[begin : begin + self.hidden_size] = self.settings.forget_bias


def build_layer(input_size: int, hidden_size: int, settings: ModelSettings) -> RecurrentLayer:
    """Return a layer of the cell that the settings name; its weights are not set."""
    layer: RecurrentLayer = resolve(CELLS[settings.cell].layer)(input_size, hidden_size, settings)
    return layer

"""The interface of recurrent layers: a sequence and a state in, a sequence and a state out."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from charlm.config.cells import CELLS
from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.nn.initialisation import input_initialiser, recurrent_initialiser

LayerState = tuple[Tensor, ...]
"""The state of a layer, such as (h, c) for an LSTM; each tensor has shape (B, H)."""

M = TypeVar("M", bound=nn.Module)


def without_init(module_class: Callable[..., M], *arguments: Any, **options: Any) -> M:
    """Build a module with unset weights, so that torch's global random state is not used."""
    module = module_class(*arguments, device="meta", **options)
    return module.to_empty(device=torch.get_default_device())


def empty_parameter(*shape: int) -> nn.Parameter:
    """Return an unset weight."""
    return nn.Parameter(torch.empty(*shape))


class RecurrentLayer(nn.Module):
    """One recurrent layer of a cell; facts about the cell are in its row of `CELLS`.

    The name of a weight shows its kind: `weight_hh` and `weight_mh` lead from the state, other
    `weight...` from the input, `gain...` are factors, all others are biases.
    """

    recurrent_weight = "weight_hh"
    """Name of the matrix from state to gates, if there is one."""
    gate_bias = "bias"
    """Name of the bias whose forget-gate block begins at the setting `forget_bias`."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.settings, self.spec = settings, CELLS[settings.cell]

    def initial_state(self, batch_size: int) -> LayerState:
        """Return a state of zeros, shape (B, H) each."""
        like = next(iter(self.state_dict().values()))  # a reservoir has no parameters
        return tuple(like.new_zeros(batch_size, self.hidden_size) for _ in self.spec.state)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return the output h at every step (T, B, H) for x (T, B, E), and the state after it."""
        raise NotImplementedError

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the gates (B, H) of one step by name; empty for cells without such a report."""
        return {}

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise the weights block by block (see `initialisation`); gains are 1, biases 0."""
        fill_recurrent = recurrent_initialiser(self.settings)
        fill_input = input_initialiser(self.settings)
        for path, weight in self.named_parameters():
            name = path.rpartition(".")[2]
            if not name.startswith("weight"):
                nn.init.constant_(weight, float(name.startswith("gain")))
                continue
            fill = fill_recurrent if name.startswith(("weight_hh", "weight_mh")) else fill_input
            for block in weight.chunk(len(weight) // self.hidden_size):
                fill(block, generator)
        if self.spec.forget_gate is not None:
            begin = self.spec.forget_gate * self.hidden_size
            bias = self.get_parameter(self.gate_bias)
            bias[begin : begin + self.hidden_size] = self.settings.forget_bias


def build_layer(input_size: int, hidden_size: int, settings: ModelSettings) -> RecurrentLayer:
    """Return a layer of the cell that the settings name, with unset weights."""
    layer: RecurrentLayer = resolve(CELLS[settings.cell].layer)(input_size, hidden_size, settings)
    return layer

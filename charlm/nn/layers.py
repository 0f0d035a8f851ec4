"""The interface of recurrent layers: a sequence and a state in, a sequence and a state out."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.nn.initialisation import input_initialiser, recurrent_initialiser

LayerState = tuple[Tensor, ...]
"""The state of a layer, such as (h, c) for an LSTM; each tensor has shape (B, H)."""

Call = tuple[Tensor, LayerState, Tensor]
"""One call of a layer: x (T, B, E), the state before it, and the output (T, B, H)."""

M = TypeVar("M", bound=nn.Module)


class Lookup(NamedTuple):
    """Input of a first layer as ids (T, B) of the rows of a table (V, E)."""

    ids: Tensor
    table: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (T, B, E) of the rows."""
        return (*self.ids.shape, self.table.shape[1])

    @property
    def device(self) -> torch.device:
        """The device of the table."""
        return self.table.device

    def rows(self) -> Tensor:
        """Return the rows, (T, B, E)."""
        return F.embedding(self.ids, self.table)


def without_init(module_class: Callable[..., M], *arguments: Any, **options: Any) -> M:
    """Build a module with unset weights, so that torch's global random state is not used.

    Not by its method `to_empty`, for which torch 2.13 imports sympy: half a second of the start.
    """

    def unset(tensor: Tensor) -> Tensor:
        """Return unset numbers in the shape of a tensor, on the default device."""
        return torch.empty(tensor.shape, dtype=tensor.dtype)

    module = module_class(*arguments, device="meta", **options)
    return cast(M, module._apply(unset))  # type: ignore[no-untyped-call]


def empty_embedding(entries: int, width: int) -> nn.Embedding:
    """Return an embedding with unset weights.

    Not by `without_init`: normal numbers on the device "meta" make torch import its compiler, which
    takes a second of processor time.
    """
    return nn.Embedding(entries, width, _weight=torch.empty(entries, width))


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

    def input_weights(self) -> list[nn.Parameter]:
        """Return the matrices through which every input x enters, all linear in x."""
        recurrent = ("weight_hh", "weight_mh")
        names = ((path.rpartition(".")[2], w) for path, w in self.named_parameters())
        return [w for n, w in names if n.startswith("weight") and not n.startswith(recurrent)]

    def initial_state(self, batch_size: int) -> LayerState:
        """Return a state of zeros, shape (B, H) each."""
        like = next(iter(self.state_dict().values()))  # a reservoir has no parameters
        return tuple(like.new_zeros(batch_size, self.hidden_size) for _ in self.spec.state)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Return the output h at every step (T, B, H) for x (T, B, E), and the state after it."""
        raise NotImplementedError

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """Return the gates and the candidate (B, H) of one step, in the order of `CellSpec.blocks`.

        Empty for cells without gates.
        """
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


@contextlib.contextmanager
def recorded_calls(layers: Sequence[RecurrentLayer]) -> Iterator[list[list[Call]]]:
    """Record the calls of each layer until the context ends."""
    calls: list[list[Call]] = [[] for _ in layers]
    with contextlib.ExitStack() as hooks:
        for layer, own in zip(layers, calls, strict=True):

            def record(_: nn.Module, inputs: Any, result: Any, own: list[Call] = own) -> None:
                """Append the arguments of a call and its output."""
                own.append((*inputs, result[0]))

            hooks.enter_context(layer.register_forward_hook(record))
        yield calls


def layer_signals(
    layer: RecurrentLayer, calls: Sequence[Call], states: Sequence[LayerState]
) -> dict[str, Tensor]:
    """Return the signals of a layer, (T, B, H) each, from its calls of one step and the states.

    `states` are those after the steps, of which zoneout may keep a part.
    """
    inputs, before, outputs = zip(*calls, strict=True)
    x = torch.cat(inputs)  # (T, B, E)
    state = [torch.stack(tensors).flatten(0, 1) for tensors in zip(*before, strict=True)]
    after = [torch.stack(tensors) for tensors in zip(*states, strict=True)]
    values = {"h": torch.cat(outputs)} | dict(zip(layer.spec.state, after, strict=False))
    gates = layer.gate_values(x.flatten(0, 1), tuple(state)).values()
    for name, gate in zip(reversed(layer.spec.signals), reversed(gates), strict=False):
        values[name] = gate.view(*x.shape[:2], layer.hidden_size)
    return values


def build_layer(input_size: int, hidden_size: int, settings: ModelSettings) -> RecurrentLayer:
    """Return a layer of the cell that the settings name, with unset weights."""
    layer: RecurrentLayer = resolve(CELLS[settings.cell].layer)(input_size, hidden_size, settings)
    return layer

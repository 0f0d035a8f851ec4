"""What every recurrent layer is: a sequence and a state in, a sequence and a state out."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

LayerState = tuple[Tensor, ...]
"""The state of a layer: (h,), or (h, c) for the LSTM, each of shape (B, H)."""

M = TypeVar("M", bound=nn.Module)


def without_init(module_class: Callable[..., M], *arguments: int) -> M:
    """A module whose weights are not set yet, so that the global random state is not drawn from."""
    return module_class(*arguments, device="meta").to_empty(device=torch.get_default_device())


def empty_parameter(*shape: int) -> nn.Parameter:
    """A weight that is not set yet."""
    return nn.Parameter(torch.empty(*shape))


class RecurrentLayer(nn.Module):
    """One recurrent layer: `gates` blocks of H rows in its weights, `parts` in its state."""

    gates = 1
    parts = 1
    recurrent_weight = ""
    """Name of the matrix from state to gates, where there is one that is learnt."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size

    def initial_state(self, batch_size: int) -> LayerState:
        """Zeros, shape (B, H) each."""
        like = next(self.parameters())
        return tuple(like.new_zeros(batch_size, self.hidden_size) for _ in range(self.parts))

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (T, B, E) and the state before it -> h at every step (T, B, H) and the state after."""
        raise NotImplementedError

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Fresh weights from the generator."""
        raise NotImplementedError


def with_weight_dropped(
    layer: RecurrentLayer,
    x: Tensor,
    state: LayerState,
    share: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, LayerState]:
    """A layer's forward pass, its recurrent weights dropped (Wan et al. 2013; Merity et al. 2017).

    The dropped matrix stands in for the weight during this one call, on the same fast path; the
    gradient reaches the weight itself. Without a generator the layer runs as it is.
    """
    if generator is None or share == 0.0:
        found: tuple[Tensor, LayerState] = layer(x, state)
        return found
    weight = layer.get_parameter(layer.recurrent_weight)
    given = {layer.recurrent_weight: dropped(weight, share, generator)}
    return torch.func.functional_call(layer, given, (x, state))  # type: ignore[no-any-return]


def dropped(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Inverted dropout (Srivastava et al. 2014), drawn from `generator`; without one, x itself."""
    if generator is None or share == 0.0:
        return x
    keep = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
    return x * keep.div_(1.0 - share)

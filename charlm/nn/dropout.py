"""Dropout in all its forms, drawn from a generator; without one nothing is dropped."""

from collections.abc import Callable

import torch
from torch import Tensor

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer

DRAWS = 1 << 16
"""A share is a whole number of these parts."""
Run = Callable[[Tensor, LayerState], tuple[Tensor, LayerState]]


def dropped(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Inverted dropout (Srivastava et al. 2014), drawn from `generator`; without one, x itself."""
    if generator is None or share == 0.0:
        return x
    if x.device.type != "cpu":
        keep = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
        return x * keep.div_(1.0 - share)
    dropped_of = round(share * DRAWS)
    kept = drawn_bits(x.numel(), generator).view(x.shape) >= dropped_of - DRAWS // 2
    return x * kept.to(x.dtype).mul_(DRAWS / (DRAWS - dropped_of))


def drawn_bits(count: int, generator: torch.Generator) -> Tensor:
    """So many whole numbers from -32768 to 32767, four of them from one draw.

    bernoulli_ draws once for each number, which took a tenth of a training step on a processor.
    """
    draws = torch.empty((count + 3) // 4, dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    return draws.view(torch.int16)[:count]


def read_layer(
    layer: RecurrentLayer,
    x: Tensor,
    state: LayerState,
    settings: ModelSettings,
    generator: torch.Generator | None,
) -> tuple[Tensor, LayerState]:
    """A layer's forward pass under weight drop, state dropout and zoneout.

    With weight drop alone a layer keeps its fast path; state dropout and zoneout change what each
    step reads, so the layer is run step by step.
    """
    run = _weight_dropped(layer, settings.weight_drop, generator)
    drops = settings.state_dropout > 0.0 and generator is not None
    if not drops and not settings.zoneout and not settings.zoneout_cell:
        return run(x, state)
    return _by_steps(run, x, state, settings, generator)


def _weight_dropped(layer: RecurrentLayer, share: float, generator: torch.Generator | None) -> Run:
    """The layer, its recurrent weights dropped (Wan et al. 2013; Merity et al. 2018).

    The dropped matrix stands in for the weight; the gradient reaches the weight itself.
    """
    if generator is None or share == 0.0:
        return layer
    weight = layer.get_parameter(layer.recurrent_weight)
    given = {layer.recurrent_weight: dropped(weight, share, generator)}
    return lambda x, state: torch.func.functional_call(layer, given, (x, state))


def _by_steps(
    run: Run,
    x: Tensor,
    state: LayerState,
    settings: ModelSettings,
    generator: torch.Generator | None,
) -> tuple[Tensor, LayerState]:
    """State dropout: one mask on h for all steps (Gal & Ghahramani 2016). Then zoneout."""
    mask = dropped(torch.ones_like(state[0]), settings.state_dropout, generator)
    chances = settings.zoneout, settings.zoneout_cell
    outputs = []
    for now in x.unbind(0):
        _, after = run(now[None], (state[0] * mask, *state[1:]))
        state = tuple(
            zoned_out(new, old, chance, generator)
            for new, old, chance in zip(after, state, chances, strict=False)
        )
        outputs.append(state[0])
    return torch.stack(outputs), state


def zoned_out(new: Tensor, old: Tensor, chance: float, generator: torch.Generator | None) -> Tensor:
    """Each unit keeps its old value with this chance; without a generator, the mean of that."""
    if chance == 0.0:
        return new
    kept = torch.full_like(new, chance)
    if generator is not None:
        kept = torch.bernoulli(kept, generator=generator)
    return kept * old + (1.0 - kept) * new

"""Dropout in all its forms, with masks from a generator; without one nothing is dropped."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, Lookup, RecurrentLayer

LEVELS = 1 << 16
"""Possible values of one random number; a dropout rate is rounded to a multiple of 1 / LEVELS."""
LayerForward = Callable[[Any, LayerState], tuple[Tensor, LayerState]]


class Draws(torch.Generator):
    """A random generator of a model that may read only some sequences of a batch.

    With `rows`, the numbers of these sequences, random numbers are generated for all `of` sequences
    of the batch, and only those of `rows` are used. So the masks do not depend on the number of
    processes that train, nor on the parts in which a batch is read.
    """

    rows: Tensor | None = None
    of: int = 0


def for_rows(
    sample: Callable[[Tensor], Tensor], x: Tensor, generator: torch.Generator, axis: int | None
) -> Tensor:
    """Return random numbers for x, where `sample` generates those for a tensor of any size.

    `axis` counts the sequences of a batch, of which x may have some (`Draws`); None if it has none.
    """
    if axis is None or not isinstance(generator, Draws) or generator.rows is None:
        return sample(x)
    whole = x.new_empty(*x.shape[:axis], generator.of, *x.shape[axis + 1 :])
    return sample(whole).index_select(axis, generator.rows)


def dropped(
    x: Tensor, rate: float, generator: torch.Generator | None, axis: int | None = None
) -> Tensor:
    """Return x after inverted dropout (Srivastava et al. 2014); x itself without a generator.

    `axis` counts the sequences of a batch, if x has an entry for each (`for_rows`).
    """
    mask = dropout_mask(x, rate, generator, axis)
    return x if mask is None else x * mask


def dropout_mask(
    like: Tensor, rate: float, generator: torch.Generator | None, axis: int | None = None
) -> Tensor | None:
    """Return the factors by which `dropped` multiplies a tensor of this shape, None for none."""
    if generator is None or rate == 0.0:
        return None
    return for_rows(lambda each: _mask(each, rate, generator), like, generator, axis)


def _mask(like: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask of zeros, at this rate, and equal factors whose mean with them is 1."""
    if like.device.type != "cpu":
        mask = torch.empty_like(like).bernoulli_(1.0 - rate, generator=generator)
        return mask.div_(1.0 - rate)
    limit = round(rate * LEVELS)
    mask = random_int16(like.numel(), generator).view(like.shape) >= limit - LEVELS // 2
    return mask.to(like.dtype).mul_(LEVELS / (LEVELS - limit))


def random_int16(count: int, generator: torch.Generator) -> Tensor:
    """Return random numbers from -32768 to 32767, four from each 64-bit number.

    bernoulli_ generates a 64-bit number for each, which took a tenth of a training step on a CPU.
    """
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(
        -(2**63), None, generator=generator
    )
    return words.view(torch.int16)[:count]


def run_layer(
    layer: RecurrentLayer,
    x: Tensor | Lookup,
    state: LayerState,
    settings: ModelSettings,
    generator: torch.Generator | None,
) -> tuple[Tensor, LayerState]:
    """Run a layer under weight drop, state dropout and zoneout.

    With weight drop alone a layer keeps its fast path.
    """
    forward = with_weight(layer, dropped_weight(layer, settings.weight_drop, generator))
    if isinstance(x, Lookup) or not runs_by_steps(settings, generator):
        return forward(x, state)
    return _run_by_steps(forward, x, state, settings, generator)


def runs_by_steps(settings: ModelSettings, generator: torch.Generator | None) -> bool:
    """Report whether layers run step by step: dropout of the state changes what a step reads."""
    drops_state = settings.state_dropout > 0.0 and generator is not None
    return drops_state or bool(settings.zoneout or settings.zoneout_cell)


def dropped_weight(
    layer: RecurrentLayer, rate: float, generator: torch.Generator | None
) -> Tensor | None:
    """Return the recurrent weight of a layer after dropout, None if nothing is dropped.

    See Wan et al. 2013, Merity et al. 2018.
    """
    if generator is None or rate == 0.0:
        return None
    return dropped(layer.get_parameter(layer.recurrent_weight), rate, generator)


def with_weight(layer: RecurrentLayer, weight: Tensor | None) -> LayerForward:
    """Return the layer with a dropped matrix in the place of its recurrent weight, if there is one.

    The gradient reaches the weight itself.
    """
    if weight is None:
        return layer
    replaced = {layer.recurrent_weight: weight}
    return lambda x, state: torch.func.functional_call(layer, replaced, (x, state))


def _run_by_steps(
    forward: LayerForward,
    x: Tensor,
    state: LayerState,
    settings: ModelSettings,
    generator: torch.Generator | None,
) -> tuple[Tensor, LayerState]:
    """Apply state dropout (Gal & Ghahramani 2016; one mask on h for all steps), then zoneout."""
    mask = dropped(torch.ones_like(state[0]), settings.state_dropout, generator, axis=0)
    rates = settings.zoneout, settings.zoneout_cell
    outputs = []
    for step in x.unbind(0):
        _, after = forward(step[None], (state[0] * mask, *state[1:]))
        state = tuple(
            zoned_out(new, old, rate, generator)
            for new, old, rate in zip(after, state, rates, strict=False)
        )
        outputs.append(state[0])
    return torch.stack(outputs), state


def zoned_out(new: Tensor, old: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Keep the old value of each unit at this rate; without a generator, return the expectation."""
    if rate == 0.0:
        return new
    kept = torch.full_like(new, rate)
    if generator is not None:
        kept = for_rows(
            lambda like: torch.bernoulli(torch.full_like(like, rate), generator=generator),
            new, generator, axis=0,
        )  # fmt: skip
    return kept * old + (1.0 - kept) * new

"""Recurrent layers computed by the compiled training kernels or a loop, with gradients.

The kernels multiply in bfloat16 and sum in float32, as torch does under autocast. One call computes
a layer for a whole window; its memory comes from torch, so nothing is shared between threads. The
loop of `loop_layers` is a variant of them in float32.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from charlm.backends.training_library import CELLS, Call, Numbers, open_library
from charlm.config import cells
from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, Lookup
from charlm.nn.loop_layers import run_loop

LOOP = "loop"
"""Name of the variant that computes in float32, on every processor."""
MIN_STEPS = 2
"""Fewest steps that the kernels compute: for one, packing the weights costs as much as it saves."""
MIN_STEPS_OF_LOOP = 8
"""Fewest steps that the loop computes. Speed of training steps relative to torch, GRU and RNN with
32 and 256 units: 0.90 to 0.98 with 2 steps, 0.96 to 1.13 with 4, 1.01 to 1.37 with 8."""
MIN_REUSE = 4
"""Fewest reads of each row of a table, on average, for which the products of all rows pay."""
INPUTS = ("x", "ids", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0")
"""Tensors that a layer reads, by their names in the kernels; with ids, x is the table."""
RESULTS = ("y", "h_after", "c_after")
"""Result of a window: the output, and the state after the window."""
MAX_SIZES = 256
"""Number of shapes of calls of which the sizes of their memory are remembered."""

_variant: ContextVar[str | None] = ContextVar("variant", default=None)
_softmax: ContextVar[str | None] = ContextVar("softmax", default=None)


class LayerWeights(NamedTuple):
    """Weights of a layer in the shapes and the order of `torch.nn`."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


@contextlib.contextmanager
def kernels_in_use(variant: str | None, softmax: str | None = None) -> Iterator[None]:
    """Let layers use a variant of the kernels, those under autocast or LOOP; None means torch.

    `softmax` is the variant that computes the loss of a large vocabulary under autocast.
    """
    before, before_softmax = _variant.set(variant), _softmax.set(softmax)
    try:
        yield
    finally:
        _variant.reset(before)
        _softmax.reset(before_softmax)


def softmax_in_use() -> str | None:
    """Return the variant of the kernels that computes a large softmax, None for torch."""
    return _softmax.get()


def computes(settings: ModelSettings) -> bool:
    """Report whether the kernels compute layers of these settings: the cell, all steps at once."""
    relu = settings.cell == "rnn" and settings.nonlinearity != "tanh"
    return settings.cell in CELLS and not relu and not changed_steps(settings)


def loop_pays(settings: ModelSettings) -> bool:
    """Report whether the loop computes layers of these settings, and faster than torch in float32.

    With oneDNN, torch computes an LSTM in one call: with 2 x 512 units, the loop had 0.95 of its
    speed.
    """
    library = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return computes(settings) and not (settings.cell == "lstm" and library)


def changed_steps(settings: ModelSettings) -> list[str]:
    """Return the names of the settings under which training changes the state between steps."""
    names = ("zoneout", "zoneout_cell", "state_dropout")
    return [name for name in names if getattr(settings, name)]


def serves(settings: ModelSettings, x: Tensor | Lookup) -> bool:
    """Report whether the kernels in use compute a layer with the input x (T, B, E)."""
    variant, (steps, rows, *_) = _variant.get(), x.shape
    loops = variant == LOOP
    return (
        variant is not None
        and torch.is_autocast_enabled("cpu") != loops
        and x.device.type == "cpu"
        and computes(settings)
        and steps >= (MIN_STEPS_OF_LOOP if loops else MIN_STEPS)
        and rows > 0
    )


def looks_up(settings: ModelSettings, lookup: Lookup) -> bool:
    """Report whether a first layer had better read a table than embeddings.

    W x + b is then computed once for each row of the table, and its gradient is summed for each.
    """
    few = MIN_REUSE * len(lookup.table) <= lookup.ids.numel()
    return few and serves(settings, lookup)


def run_layer_kernel(
    cell: str, x: Tensor | Lookup, state: LayerState, weights: LayerWeights
) -> tuple[Tensor, LayerState]:
    """Return the output (T, B, H) in bfloat16 for x (T, B, E), and the state after it in float32.

    The output of the loop is in float32.

    Raises RuntimeError for arguments whose shapes do not fit, and for a second derivative.
    """
    _check_shapes(cell, x, state, weights)
    variant = _variant.get()
    assert variant is not None, "see `serves`"
    if variant == LOOP:
        return run_loop(cell, x, state, weights)
    values, ids = (x.table, x.ids.long().contiguous()) if isinstance(x, Lookup) else (x, None)
    if values.dtype != torch.bfloat16:
        values = values.float()
    read = (part.float().contiguous() for part in (*weights, *state))
    y, *after = _Layer.apply(  # type: ignore[no-untyped-call]
        variant, CELLS[cell], torch.is_grad_enabled(), values.contiguous(), ids, *read
    )
    return y, tuple(after)


def _check_shapes(cell: str, x: Tensor | Lookup, state: LayerState, weights: LayerWeights) -> None:
    """Raise RuntimeError unless the shapes fit: the kernels would read beyond the arrays."""
    _, rows, inputs = x.shape
    spec, hidden = cells.CELLS[cell], weights.w_hh.shape[-1]
    if inputs != weights.w_ih.shape[-1]:
        raise RuntimeError(f"the input has {inputs} values; expected {weights.w_ih.shape[-1]}")
    if len(state) != len(spec.state):
        raise RuntimeError(f"the state has {len(state)} tensors; expected {len(spec.state)}")
    width = len(spec.blocks) * hidden
    shapes = (width, inputs), (width, hidden), (width,), (width,)
    for name, part, expected in (
        *zip(weights._fields, weights, shapes, strict=True),
        *(("the state", part, (rows, hidden)) for part in state),
    ):
        if part.shape != expected:
            raise RuntimeError(f"{name} has the shape {tuple(part.shape)}; expected {expected}")


class _Layer(torch.autograd.Function):
    """A layer over a window: INPUTS in; the output and the state after it out."""

    @staticmethod
    def forward(
        ctx: Any,
        variant: str,
        cell: int,
        training: bool,
        x: Tensor,
        ids: Tensor | None,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        w_ih, w_hh, _, _, *state = others
        (steps, rows), hidden = (x if ids is None else ids).shape[:2], w_hh.shape[1]
        training = training and any(ctx.needs_input_grad)
        numbers = Numbers(
            cell=cell, threads=torch.get_num_threads(), T=steps, B=rows, E=x.shape[-1], H=hidden,
            V=0 if ids is None else len(x), x_is_bf16=x.dtype == torch.bfloat16, y_is_bf16=True,
            training=training,
        )  # fmt: skip
        kept, needed, ctx.needed = _sizes(variant, numbers)
        saved, scratch = _memory(kept if training else 0), _memory(needed)
        results = [torch.empty(steps, rows, hidden, dtype=torch.bfloat16)]
        results += [torch.empty(rows, hidden) for _ in state]
        call = Call(
            *numbers, saved=saved.data_ptr(), scratch=scratch.data_ptr(),
            **_addresses("", INPUTS, (x, ids, *others)), **_addresses("", RESULTS, results),
        )  # fmt: skip
        if open_library(variant).training_forward(call):
            raise IndexError(f"a token is outside of the {numbers.V} entries of the embedding")
        ctx.variant, ctx.numbers = variant, numbers
        ctx.like = [(x.shape, x.dtype), None, *((part.shape, torch.float32) for part in others)]
        ctx.save_for_backward(saved, ids, w_ih, w_hh)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, *read = ctx.saved_tensors
        gradients = [
            torch.empty(like[0], dtype=like[1]) if needed else None
            for needed, like in zip(ctx.needs_input_grad[3:], ctx.like, strict=True)
        ]
        given = [None if part is None else part.contiguous() for part in outputs]
        scratch = _memory(ctx.needed)
        call = Call(
            *ctx.numbers, saved=saved.data_ptr(), scratch=scratch.data_ptr(),
            **_addresses("", ("ids", "w_ih", "w_hh"), read),
            **_addresses("d", RESULTS, given), **_addresses("d", INPUTS, gradients),
        )  # fmt: skip
        open_library(ctx.variant).training_backward(call)
        return (None, None, None, *gradients)


def _memory(size: int) -> Tensor:
    """Return memory for the kernels, on a boundary of 64 bytes as all memory of torch."""
    return torch.empty(size, dtype=torch.uint8)


def _addresses(
    prefix: str, names: Sequence[str], tensors: Sequence[Tensor | None]
) -> dict[str, int]:
    """Return the addresses of tensors by the names of their fields, without those that are None."""
    pairs = zip(names, tensors, strict=False)  # cells without c have fewer states
    return {prefix + name: tensor.data_ptr() for name, tensor in pairs if tensor is not None}


@lru_cache(maxsize=MAX_SIZES)
def _sizes(variant: str, numbers: Numbers) -> tuple[int, ...]:
    """Return the bytes kept for the backward pass, and those that each of the two passes needs."""
    sizes = [ctypes.c_int64() for _ in range(3)]
    open_library(variant).training_sizes(Call(*numbers), *sizes)
    return tuple(size.value for size in sizes)

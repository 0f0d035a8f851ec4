"""Recurrent layers computed by the compiled training kernels, with gradients.

The kernels multiply in bfloat16 and sum in float32, as torch does under autocast. One call computes
a layer for a whole window; its memory comes from torch, so nothing is shared between threads.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from charlm.backends.training_library import CELLS, Call, open_library
from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, Lookup

MIN_STEPS = 2
"""Fewest steps that the kernels compute: for one, packing the weights costs as much as it saves."""
MIN_REUSE = 4
"""Fewest reads of each row of a table, on average, for which the products of all rows pay."""
INPUTS = ("x", "ids", "table", "w_ih", "w_hh", "bias", "hidden_bias", "h0", "c0")
"""Tensors that a layer reads, by their names in the kernels."""
GRADIENTS = {
    "x": "dx", "table": "dtable", "w_ih": "dw_ih", "w_hh": "dw_hh", "bias": "dbias",
    "hidden_bias": "dhidden_bias", "h0": "dh0", "c0": "dc0",
}  # fmt: skip
"""Name of the gradient of each of them."""

_variant: ContextVar[str | None] = ContextVar("variant", default=None)


class LayerWeights(NamedTuple):
    """Weights of a layer in the shapes and the order of `torch.nn`."""

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


@contextlib.contextmanager
def kernels_in_use(variant: str | None) -> Iterator[None]:
    """Let layers under autocast use a variant of the kernels; None leaves them to torch."""
    before = _variant.set(variant)
    try:
        yield
    finally:
        _variant.reset(before)


def computes(settings: ModelSettings) -> bool:
    """Report whether the kernels compute layers of these settings: the cell, all steps at once."""
    relu = settings.cell == "rnn" and settings.nonlinearity != "tanh"
    return settings.cell in CELLS and not relu and not changed_steps(settings)


def changed_steps(settings: ModelSettings) -> list[str]:
    """Return the names of the settings under which training changes the state between steps."""
    names = ("zoneout", "zoneout_cell", "state_dropout")
    return [name for name in names if getattr(settings, name)]


def serves(settings: ModelSettings, x: Tensor | Lookup) -> bool:
    """Report whether the kernels in use compute a layer with the input x (T, B, E)."""
    steps, rows = x.shape[:2]
    return (
        _variant.get() is not None
        and torch.is_autocast_enabled("cpu")
        and x.device.type == "cpu"
        and computes(settings)
        and steps >= MIN_STEPS
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

    Raises RuntimeError for arguments whose shapes do not fit, and for a second derivative.
    """
    w_ih, w_hh, b_ih, b_hh = (weight.float() for weight in weights)
    _check_shapes(x, state, w_ih, w_hh)
    bias, hidden_bias = b_ih + b_hh, None
    if cell == "gru":  # the reset gate multiplies what comes from the state, its bias included
        hidden_bias = b_hh[-w_hh.shape[1] :]
        bias = torch.cat([bias[: -len(hidden_bias)], b_ih[-len(hidden_bias) :]])
    given: dict[str, Tensor | None] = {"w_hh": w_hh, "hidden_bias": hidden_bias}
    if isinstance(x, Lookup):
        torch.get_num_threads()  # until the first such call, a new thread ignores set_num_threads
        with torch.autocast("cpu", enabled=False):
            table = F.linear(x.table.float(), w_ih, bias)
        given |= {"ids": x.ids.long(), "table": table}
    else:
        kept = x if x.dtype == torch.bfloat16 else x.float()
        given |= {"x": kept, "w_ih": w_ih, "bias": bias}
    given |= dict(zip(("h0", "c0"), (part.float() for part in state), strict=False))
    variant = _variant.get()
    assert variant is not None, "see `serves`"
    read = (_whole(given.get(name)) for name in INPUTS)
    y, *after = _Layer.apply(  # type: ignore[no-untyped-call]
        variant, CELLS[cell], torch.is_grad_enabled(), *read
    )
    return y, tuple(after)


def _check_shapes(x: Tensor | Lookup, state: LayerState, w_ih: Tensor, w_hh: Tensor) -> None:
    """Raise RuntimeError unless the shapes fit: the kernels would read beyond the arrays."""
    _, rows, inputs = x.shape
    if inputs != w_ih.shape[1]:
        raise RuntimeError(f"the input has {inputs} values; expected {w_ih.shape[1]}")
    expected = (rows, w_hh.shape[1])
    for part in state:
        if part.shape != expected:
            raise RuntimeError(f"the state has the shape {tuple(part.shape)}; expected {expected}")


class _Layer(torch.autograd.Function):
    """A layer over a window: INPUTS in; the output and the state after it out."""

    @staticmethod
    def forward(
        ctx: Any, variant: str, cell: int, training: bool, *inputs: Tensor | None
    ) -> tuple[Tensor, ...]:
        given = dict(zip(INPUTS, inputs, strict=True))
        x, ids, table, h0 = given["x"], given["ids"], given["table"], given["h0"]
        read = ids if x is None else x
        assert read is not None and h0 is not None
        steps, (rows, hidden) = len(read), h0.shape
        y = torch.empty(steps, rows, hidden, dtype=torch.bfloat16)
        after = [
            torch.empty_like(part) for part in inputs[INPUTS.index("h0") :] if part is not None
        ]
        training = training and any(ctx.needs_input_grad)
        call = Call(
            cell=cell, threads=torch.get_num_threads(), T=steps, B=rows, H=hidden,
            E=0 if x is None else x.shape[2], V=0 if table is None else len(table),
            x_is_bf16=x is not None and x.dtype == torch.bfloat16, y_is_bf16=True,
            training=training,
        )  # fmt: skip
        _point(call, given | {"y": y} | dict(zip(("h_after", "c_after"), after, strict=False)))
        kept, needed, ctx.scratch = _sizes(variant, call)
        saved, scratch = _memory(kept if training else 0), _memory(needed)
        _point(call, {"saved": saved, "scratch": scratch})
        if open_library(variant).training_forward(call):
            raise IndexError(f"a token is outside of the {call.V} entries of the embedding")
        ctx.variant, ctx.call = variant, call
        ctx.like = {name: (t.shape, t.dtype) for name, t in given.items() if t is not None}
        ctx.save_for_backward(saved, *(None if name == "x" else given[name] for name in INPUTS))
        ctx.set_materialize_grads(False)
        return (y, *after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, *inputs = ctx.saved_tensors
        call = Call.from_buffer_copy(ctx.call)  # threads may go backward through one graph
        needed = dict(zip(INPUTS, ctx.needs_input_grad[3:], strict=True))
        gradients = {
            name: torch.empty(shape, dtype=dtype)
            for name, (shape, dtype) in ctx.like.items()
            if needed[name]
        }
        scratch = _memory(ctx.scratch)
        _point(call, dict(zip(INPUTS, inputs, strict=True)))
        _point(call, {"saved": saved, "scratch": scratch})
        _point(call, {GRADIENTS[name]: gradients.get(name) for name in GRADIENTS})
        given = [_whole(tensor) for tensor in outputs]
        _point(call, dict(zip(("dy", "dh_after", "dc_after"), given, strict=False)))
        open_library(ctx.variant).training_backward(call)
        return (None, None, None, *(gradients.get(name) for name in INPUTS))


def _whole(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _memory(size: int) -> Tensor:
    """Return memory for the kernels, on a boundary of 64 bytes as all memory of torch."""
    return torch.empty(size, dtype=torch.uint8)


def _point(call: Call, tensors: dict[str, Tensor | None]) -> None:
    """Let the fields of these names point to tensors, or be null."""
    for name, tensor in tensors.items():
        setattr(call, name, None if tensor is None else tensor.data_ptr())


def _sizes(variant: str, call: Call) -> list[int]:
    """Return the bytes kept for the backward pass, and those that each of the two passes needs."""
    numbers = [ctypes.c_int64() for _ in range(3)]
    open_library(variant).training_sizes(call, *numbers)
    return [number.value for number in numbers]

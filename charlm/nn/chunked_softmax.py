"""The training loss of a large softmax, which keeps few logits and reads them few times.

The loss and its gradients are computed in the forward pass, for a chunk of targets at a time (Hsu
et al. 2024, "Liger kernel", arxiv.org/abs/2410.10989). A processor turns a few rows of logits at a
time into their gradients, so that they stay in its cache; the compiled kernels, one row.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from charlm.nn.kernel_layers import softmax_in_use
from charlm.nn.kernel_softmax import kernel_nats
from charlm.text.batches import PADDING

MAX_LOGITS = 2**25
"""Number of logits in a chunk: 128 MB in float32. Products of small chunks are slow."""
CACHED_LOGITS = 2**19
"""Number of logits of which a processor computes the softmax at a time: 2 MB in float32."""


def chunked_nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    rows: int | None = None,
    cached_rows: int | None = None,
) -> Tensor:
    """Return the sum of -ln P(target) over targets that are not PADDING, as float32.

    P = softmax(W h + b) for `hidden` (N, H), `weight` W (V, H), `bias` b (V,) and `targets` (N,).
    The fraction `smoothing` of each target is spread over all entries. Products are computed in the
    number type of autocast, else of `hidden`, for `rows` targets at a time; the softmax in float32,
    for `cached_rows` targets at a time. No shape depends on values. There is no second derivative.
    """
    device, entries = hidden.device.type, len(weight)
    rows = rows or max(1, MAX_LOGITS // entries)
    if cached_rows is None:
        cached_rows = max(1, CACHED_LOGITS // entries) if device == "cpu" else rows
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    low = torch.get_autocast_dtype(device) if casts else hidden.dtype
    given = [hidden, weight, bias]
    if not torch.is_grad_enabled():  # which an autograd function does not see
        given = [tensor.detach() for tensor in given]
    with torch.autocast(device, enabled=False) if casts else contextlib.nullcontext():
        nats: Tensor = _ChunkedNats.apply(  # type: ignore[no-untyped-call]
            *given, targets, smoothing, low, rows, cached_rows
        )
    return nats


class _ChunkedNats(torch.autograd.Function):
    """See `chunked_nats`. The gradients are ready after the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        low: torch.dtype,
        rows: int,
        cached_rows: int,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        w, b, real = weight.to(low), bias.to(low), targets != PADDING
        x = torch.where(real[:, None], hidden.to(low), 0)
        variant = softmax_in_use() if low == torch.bfloat16 and x.device.type == "cpu" else None
        nats = hidden.new_zeros((), dtype=wide)
        by_hidden = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        by_weight: Tensor | None = None
        if ctx.needs_input_grad[1] and not len(x):
            by_weight = torch.zeros_like(weight)
        for chunk in slices(len(x), rows):
            logits = F.linear(x[chunk], w, None if variant else b)
            if variant:
                nats += kernel_nats(
                    variant, logits, bias.to(wide), targets[chunk], smoothing, by_bias
                )
            else:
                for part in slices(len(logits), cached_rows):
                    nats += torch_nats(logits[part], targets[chunk][part], smoothing, wide, by_bias)
            if by_hidden is not None:
                by_hidden[chunk] = (logits @ w).mul_(real[chunk, None])
            if ctx.needs_input_grad[1]:
                new = logits.T @ x[chunk]
                by_weight = new if by_weight is None else by_weight.to(wide).add_(new)
        ctx.save_for_backward(by_hidden, by_weight, by_bias)
        ctx.types = hidden.dtype, weight.dtype, bias.dtype
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_nats: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if made is None else (made.to(by_nats.dtype) * by_nats).to(given)
            for made, given in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return (*gradients, None, None, None, None, None)


def slices(length: int, size: int) -> Iterator[slice]:
    """Yield slices of `size`, the last one shorter, that cover a length."""
    for first in range(0, length, size):
        yield slice(first, min(first + size, length))


def torch_nats(
    logits: Tensor, targets: Tensor, smoothing: float, wide: torch.dtype, by_bias: Tensor | None
) -> Tensor:
    """Return the loss of targets (N,), and put its gradient in the place of the logits (N, V).

    Computed in the number type `wide`. The gradient by the bias is added to `by_bias` (V,).
    """
    real, goals = (targets != PADDING).to(wide), targets.clamp(min=0)[:, None]
    log_p = logits.to(wide).log_softmax(-1)
    losses = -(1 - smoothing) * log_p.gather(1, goals)[:, 0]
    if smoothing:
        losses -= smoothing * log_p.mean(1)
    gradients = log_p.exp_()
    if smoothing:
        gradients -= smoothing / logits.shape[1]
    gradients.scatter_add_(1, goals, gradients.new_full(goals.shape, smoothing - 1))
    if by_bias is not None:
        by_bias.addmv_(gradients.T, real)
    logits.copy_(gradients)
    return losses @ real

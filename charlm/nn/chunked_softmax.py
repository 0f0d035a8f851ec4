"""The training loss of a large softmax without a logit for each target and entry in memory.

Logits, their loss and its gradients are computed for a chunk of targets at a time, in the forward
pass (Hsu et al. 2024, "Liger kernel", arxiv.org/abs/2410.10989).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from charlm.text.batches import PADDING

MAX_LOGITS = 2**25
"""Number of logits in a chunk: 128 MB in float32."""


def chunked_nats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    smoothing: float = 0.0,
    rows: int | None = None,
) -> Tensor:
    """Return the sum of -ln P(target) over targets that are not PADDING, as float32.

    P = softmax(W h + b) for `hidden` (N, H), `weight` W (V, H), `bias` b (V,) and `targets` (N,).
    The fraction `smoothing` of each target is spread over all entries. Products are computed in the
    number type of the arguments, the softmax in float32, `rows` targets at a time. No shape depends
    on values. There is no second derivative.
    """
    rows = rows or max(1, MAX_LOGITS // len(weight))
    nats: Tensor = _ChunkedNats.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, smoothing, rows
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
        rows: int,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        nats = hidden.new_zeros((), dtype=wide)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        for first in range(0, len(hidden), rows):
            part = slice(first, first + rows)
            real = (targets[part] != PADDING)[:, None]
            goal = targets[part].clamp(min=0)[:, None]
            log_p = F.linear(hidden[part], weight, bias).to(wide).log_softmax(-1)
            loss = -(1 - smoothing) * log_p.gather(1, goal)
            if smoothing:
                loss -= smoothing * log_p.mean(1, keepdim=True)
            nats += torch.where(real, loss, 0.0).sum()
            by_logits = log_p.exp_() - smoothing / len(weight)
            by_logits.scatter_add_(1, goal, by_logits.new_full(goal.shape, smoothing - 1))
            by_logits = torch.where(real, by_logits, 0.0)
            if by_bias is not None:
                by_bias += by_logits.sum(0)
            low = by_logits.to(hidden.dtype)
            if by_hidden is not None:
                torch.mm(low, weight, out=by_hidden[part])
            if by_weight is not None:
                by_weight += low.T @ hidden[part]
        ctx.save_for_backward(
            *(
                None if made is None else made.to(given.dtype)
                for made, given in ((by_hidden, hidden), (by_weight, weight), (by_bias, bias))
            )
        )
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_nats: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if made is None else made * by_nats.to(made.dtype) for made in ctx.saved_tensors
        )
        return (*gradients, None, None, None)

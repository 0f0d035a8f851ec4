"""The loss of a large softmax, chunk by chunk: equal to torch's cross-entropy of all logits."""

import pytest
import torch
from torch.nn import functional as F

from charlm.nn.chunked_softmax import chunked_nats
from charlm.text.batches import PADDING

N, H, V = 11, 5, 7


def arguments(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Return hidden vectors, weights, bias and targets with padding, from a fixed seed."""
    made = torch.Generator().manual_seed(5)
    parts = [torch.randn(s, generator=made, dtype=dtype) for s in ((N, H), (V, H), (V,))]
    targets = torch.randint(V, (N,), generator=made)
    targets[[0, 6]] = PADDING
    return (*(part.requires_grad_() for part in parts), targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("rows", [1, 4, N, 100])
def test_chunks_equal_the_cross_entropy_of_all_logits(smoothing: float, rows: int) -> None:
    *parts, targets = arguments()
    logits = F.linear(*parts)
    whole = F.cross_entropy(
        logits, targets, ignore_index=PADDING, reduction="sum", label_smoothing=smoothing
    )
    expected = torch.autograd.grad(whole * 3.0, parts)
    nats = chunked_nats(*parts, targets, smoothing, rows)
    assert torch.allclose(nats, whole, rtol=1e-12)
    for found, correct in zip(torch.autograd.grad(nats * 3.0, parts), expected, strict=True):
        assert torch.allclose(found, correct, rtol=1e-10, atol=1e-12)


def test_frozen_arguments_get_no_gradient() -> None:
    hidden, weight, bias, targets = arguments()
    nats = chunked_nats(hidden, weight.detach(), bias.detach(), targets)
    (found,) = torch.autograd.grad(nats, hidden)
    assert found.shape == (N, H) and not found[0].any()


def test_low_precision_is_summed_in_float32() -> None:
    *parts, targets = arguments(torch.bfloat16)
    nats = chunked_nats(*parts, targets)
    exact = chunked_nats(*(part.float() for part in parts), targets)
    assert nats.dtype == torch.float32
    assert torch.allclose(nats, exact, rtol=0.02)
    assert all(g.dtype == torch.bfloat16 for g in torch.autograd.grad(nats, parts))


def test_a_second_derivative_is_refused() -> None:
    *parts, targets = arguments()
    (first,) = torch.autograd.grad(chunked_nats(*parts, targets) ** 2, parts[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()

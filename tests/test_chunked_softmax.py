"""The loss of a large softmax, chunk by chunk: equal to torch's cross-entropy of all logits."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.nn import output
from charlm.nn.chunked_softmax import chunked_nats
from charlm.nn.output import MIN_CHUNKED, Softmax, has_chunked_loss
from charlm.text.batches import PADDING
from charlm.training.plan.memory import training_memory

N, H, V = 11, 5, 7


def arguments(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Return hidden vectors, weights, bias and targets with padding, from a fixed seed."""
    made = torch.Generator().manual_seed(5)
    parts = [torch.randn(s, generator=made, dtype=dtype) for s in ((N, H), (V, H), (V,))]
    targets = torch.randint(V, (N,), generator=made)
    targets[[0, 6]] = PADDING
    return (*(part.requires_grad_() for part in parts), targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "cached"), [(1, 1), (4, 3), (4, 9), (N, 2), (100, None)])
def test_chunks_equal_the_cross_entropy_of_all_logits(
    smoothing: float, rows: int, cached: int | None
) -> None:
    *parts, targets = arguments()
    logits = F.linear(*parts)
    whole = F.cross_entropy(
        logits, targets, ignore_index=PADDING, reduction="sum", label_smoothing=smoothing
    )
    expected = torch.autograd.grad(whole * 3.0, parts)
    nats = chunked_nats(*parts, targets, smoothing, rows, cached)
    assert torch.allclose(nats, whole, rtol=1e-12)
    for found, correct in zip(torch.autograd.grad(nats * 3.0, parts), expected, strict=True):
        assert torch.allclose(found, correct, rtol=1e-10, atol=1e-12)


def test_frozen_arguments_get_no_gradient() -> None:
    hidden, weight, bias, targets = arguments()
    nats = chunked_nats(hidden, weight.detach(), bias.detach(), targets)
    (found,) = torch.autograd.grad(nats, hidden)
    assert found.shape == (N, H) and not found[0].any()


def test_no_targets_have_no_loss_and_zero_gradients() -> None:
    *parts, targets = arguments()
    hidden, weight, bias = parts
    nats = chunked_nats(hidden[:0], weight, bias, targets[:0], 0.1)
    assert nats == 0.0
    for found, part in zip(torch.autograd.grad(nats, parts), parts, strict=True):
        assert found.shape == part.shape and not found.any()


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


@pytest.mark.parametrize("rows", [4, N])
def test_autocast_computes_products_in_its_type(rows: int) -> None:
    """As torch's own layer does, with gradients in the types of the arguments."""
    *parts, targets = arguments(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        nats = chunked_nats(*parts, targets, 0.1, rows, 3)
        logits = F.linear(*parts)
        expected = F.cross_entropy(
            logits.float(), targets, ignore_index=PADDING, reduction="sum", label_smoothing=0.1
        )
    exact = chunked_nats(*parts, targets, 0.1)
    assert torch.allclose(nats, expected, rtol=1e-6) and not torch.allclose(nats, exact, rtol=1e-6)
    pairs = zip(torch.autograd.grad(nats, parts), torch.autograd.grad(expected, parts), strict=True)
    for found, correct in pairs:
        assert found.dtype == torch.float32
        assert (found - correct).norm() <= 0.01 * correct.norm()


def test_without_a_gradient_none_is_computed() -> None:
    """The gradients take two more products."""
    *parts, targets = arguments()
    with FlopCounterMode(display=False) as counted:
        expected = chunked_nats(*parts, targets)
    with torch.no_grad(), FlopCounterMode(display=False) as fewer:
        assert torch.equal(chunked_nats(*parts, targets), expected.detach())
    assert counted.get_total_flops() == 3 * fewer.get_total_flops() == 3 * 2 * N * H * V


@pytest.mark.parametrize(("entries", "calls"), [(MIN_CHUNKED, 1), (MIN_CHUNKED - 1, 0)])
def test_a_large_output_layer_computes_its_loss_in_chunks(
    entries: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[int]()

    def counted(*given: Any) -> torch.Tensor:
        made.append(1)
        return chunked_nats(*given)

    monkeypatch.setattr(output, "chunked_nats", counted)
    layer = Softmax(H, entries)
    hidden, targets = torch.randn(N, H), torch.randint(entries, (N,))
    expected = F.cross_entropy(layer(hidden), targets, reduction="sum")
    assert torch.allclose(layer.nats(hidden, targets), expected, rtol=1e-5)
    assert len(made) == calls
    settings = ModelSettings(num_layers=1, hidden_size=H, embedding_size=H)
    assert has_chunked_loss(settings, entries) == bool(calls)
    assert not has_chunked_loss(replace(settings, mixture=2), entries)
    assert not has_chunked_loss(replace(settings, adaptive_softmax=True), entries)


def test_a_chunked_loss_needs_memory_for_one_chunk_only() -> None:
    """More tokens need no more logits."""
    model = ModelSettings(num_layers=1, hidden_size=H, embedding_size=H)
    few, many, small_few, small_many = (
        training_memory(model, TrainingSettings(batch_size=size, bptt=100), entries)
        for entries in (50_000, 1_000)
        for size in (20, 200)
    )
    logits = 4 * 100 * 180
    assert many - few < logits * 1_000
    assert small_many - small_few > logits * 1_000

"""The softmax of the compiled kernels: equal to torch's, on each kind of tiles that runs here."""

import ctypes

import pytest
import torch
from test_chunked_softmax import arguments
from torch.nn import functional as F

from charlm.backends.training_library import INTERFACE, open_library, variants
from charlm.config.model import ModelSettings
from charlm.nn import chunked_softmax, devices
from charlm.nn.chunked_softmax import chunked_nats, torch_nats
from charlm.nn.kernel_layers import kernels_in_use, softmax_in_use
from charlm.nn.kernel_softmax import kernel_nats
from charlm.nn.output import MIN_CHUNKED
from charlm.text.batches import PADDING

HERE = variants()
pytestmark = pytest.mark.skipif(not HERE, reason="no training kernels run here")
N = 9


def given(entries: int, spread: float = 3.0) -> tuple[torch.Tensor, ...]:
    """Return logits, a bias and targets with padding, from a fixed seed."""
    made = torch.Generator().manual_seed(entries)
    logits = (torch.randn(N, entries, generator=made) * spread).bfloat16()
    bias = torch.randn(entries, generator=made)
    targets = torch.randint(entries, (N,), generator=made)
    targets[[0, 5]] = PADDING
    return logits, bias, targets


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("entries", [1, 15, 16, 17, 48, 1_003])
def test_losses_and_gradients_are_those_of_torch(
    entries: int, smoothing: float, variant: str
) -> None:
    logits, bias, targets = given(entries)
    exact = logits.double().add_(bias)
    by_bias, expected_by_bias = torch.full((entries,), 2.0), torch.full((entries,), 2.0).double()
    expected = torch_nats(exact, targets, smoothing, torch.float64, expected_by_bias)
    nats = kernel_nats(variant, logits, bias, targets, smoothing, by_bias)
    assert torch.allclose(nats.double(), expected, rtol=1e-5, atol=1e-5)
    assert not logits[targets == PADDING].any()
    real = targets != PADDING
    assert torch.allclose(logits[real].double(), exact[real], rtol=2**-8, atol=1e-6)
    assert torch.allclose(by_bias.double(), expected_by_bias, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 1e4, 1e30])
def test_large_logits_have_finite_losses_and_probabilities(spread: float) -> None:
    logits, bias, targets = given(100, spread)
    exact = logits.double().add_(bias)
    nats = kernel_nats(HERE[0], logits, bias, targets, 0.0, None)
    expected = torch_nats(exact, targets, 0.0, torch.float64, None)
    assert nats.isfinite() and torch.allclose(nats.double(), expected, rtol=1e-5)
    assert logits.isfinite().all() and float(logits.abs().max()) <= 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    """The trainer must see it."""
    logits, bias, targets = given(40)
    logits[3, 21] = bad
    assert not kernel_nats(HERE[0], logits, bias, targets, 0.0, None).isfinite()
    assert not logits[3].isfinite().all()


def test_a_target_outside_of_the_vocabulary_is_refused() -> None:
    logits, bias, targets = given(40)
    targets[2] = 40
    with pytest.raises(IndexError, match="outside of the 40 entries"):
        kernel_nats(HERE[0], logits, bias, targets, 0.0, None)


def test_any_number_of_threads_has_the_same_losses() -> None:
    """More threads than rows too."""
    before, results = torch.get_num_threads(), list[torch.Tensor]()
    try:
        for threads in (1, 2, N + 3):
            torch.set_num_threads(threads)
            logits, bias, targets = given(70)
            by_bias = torch.zeros(70)
            nats = kernel_nats(HERE[0], logits, bias, targets, 0.1, by_bias)
            results.append(torch.cat([nats[None], logits.float().flatten(), by_bias]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][:-70], results[1][:-70])
    assert torch.equal(results[0][:-70], results[2][:-70])
    assert torch.allclose(results[0], results[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("rows", [4, 100])
def test_a_loss_in_chunks_has_the_gradients_of_autocast(
    rows: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    *parts, targets = arguments(torch.float32)
    monkeypatch.setattr(chunked_softmax, "torch_nats", None)  # which must not be called
    with torch.autocast("cpu", torch.bfloat16), kernels_in_use(None, HERE[0]):
        nats = chunked_nats(*parts, targets, smoothing, rows)
        expected = F.cross_entropy(
            F.linear(*parts).float(), targets, ignore_index=PADDING, reduction="sum",
            label_smoothing=smoothing,
        )  # fmt: skip
    assert torch.allclose(nats, expected, rtol=2e-3)
    pairs = zip(torch.autograd.grad(nats, parts), torch.autograd.grad(expected, parts), strict=True)
    for found, correct in pairs:
        assert found.dtype == torch.float32
        assert (found - correct).norm() <= 0.01 * correct.norm()


def test_the_softmax_in_use_is_that_of_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the engine is torch, the type float32, or the kernels are switched off."""
    cpu, large = (
        torch.device("cpu"),
        ModelSettings(num_layers=1, hidden_size=256, embedding_size=64),
    )
    entries = MIN_CHUNKED
    chosen = devices.choose_precision("bf16", [large], entries, cpu)
    assert chosen.softmax in HERE
    assert devices.choose_precision("bf16", [large], entries - 1, cpu).softmax is None
    with chosen.autocast(cpu):
        assert softmax_in_use() == chosen.softmax
    assert softmax_in_use() is None
    assert devices.choose_precision("bf16", [large], entries, cpu, "torch").softmax is None
    assert devices.choose_precision("fp32", [large], entries, cpu).softmax is None
    monkeypatch.setenv("CHARLM_TRAINING_KERNELS", "none")
    assert devices.choose_precision("bf16", [large], entries, cpu).softmax is None


def test_the_library_declares_what_its_functions_take() -> None:
    library = open_library(HERE[0])
    assert library.training_interface() == INTERFACE
    assert len(library.training_softmax.argtypes) == 9
    assert library.training_softmax.restype is ctypes.c_int

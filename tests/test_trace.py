"""Tracing in torch, in mixtures and in n-grams: every cell and structure has its units."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, engine, tiny_model

from charlm.backends.mixed import MixedBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.config.cells import CELLS, SIGNALS
from charlm.errors import UsageError
from charlm.ngrams.kneser_ney import fit
from charlm.nn.torch_backend import TorchBackend

V, T, B = 5, 9, 2
IDS = np.random.default_rng(1).integers(0, V, (T, B))
every_model = pytest.mark.parametrize("cell", [*CELLS, *STRUCTURES])


def backend_of(cell: str) -> TorchBackend:
    """Return a backend with output weights so large that its predictions differ."""
    return engine(tiny_model(cell, V, scale=3.0))


@every_model
def test_the_last_traced_values_are_the_state(cell: str) -> None:
    """From the learnt state too; units that a narrow layer lacks are NaN."""
    backend = backend_of(cell)
    spec = CELLS[backend.model.settings.cell]
    assert set(spec.signals) <= set(SIGNALS)
    values, after = backend.trace(IDS, backend.initial_state(B), spec.signals)
    _, expected = backend.logits(IDS, backend.initial_state(B))
    widths = [layer.hidden_size for layer in backend.model.recurrent_layers()]
    for name, array in values.items():
        assert array.shape == (len(widths), T, B, max(widths))
        for number, width in enumerate(widths):
            assert np.isfinite(array[number, :, :, :width]).all()
            assert np.isnan(array[number, :, :, width:]).all()
            parts = dict(zip(spec.state, expected[number], strict=False))
            if name in parts:
                own = array[number, -1, :, :width]
                np.testing.assert_allclose(own, parts[name], atol=1e-6)
    for layer, other in zip(after, expected, strict=True):
        for part, right in zip(layer, other, strict=True):
            np.testing.assert_allclose(part, right, atol=1e-6)


@every_model
def test_the_h_of_the_last_layer_makes_the_prediction(cell: str) -> None:
    """With skips the layer below is added, and zoneout keeps a part of h."""
    backend = backend_of(cell)
    settings = backend.model.settings
    if settings.skip:
        return
    state = backend.initial_state(B)
    values, _ = backend.trace(IDS, state, ["h"])
    last = values["h"][-1]
    with torch.no_grad():
        logits = backend.model.output(torch.tensor(last[~np.isnan(last)].reshape(T, B, -1)))
    distribution, _ = backend.distribution(IDS, state)
    np.testing.assert_allclose(distribution, logits, atol=1e-5)


def test_a_mixture_has_the_units_of_its_first_network() -> None:
    """Every member reads on; the distribution is that of the mixture."""
    network = backend_of("lstm")
    ngrams = NgramBackend(fit(IDS[:, 0], V, 2)[0])
    mixed = MixedBackend([network, ngrams], [0.7, 0.3])
    state = mixed.initial_state(B)
    values, after = mixed.trace(IDS, state, ["c"])
    alone, _ = network.trace(IDS, network.initial_state(B), ["c"])
    np.testing.assert_array_equal(values["c"], alone["c"])
    targets = np.roll(IDS, -1, axis=0)
    nats, expected = mixed.nats(IDS, targets, state)
    log_p, ended = mixed.distribution(IDS, state)
    chosen = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(-chosen, nats, atol=1e-6)
    for other in (after, ended):
        for layer, right in zip(other, expected, strict=True):
            for part, value in zip(layer, right, strict=True):
                np.testing.assert_allclose(part, value, atol=1e-6)


@pytest.mark.parametrize("order", [1, 3])
def test_n_grams_have_distributions_and_no_units(order: int) -> None:
    backend = NgramBackend(fit(IDS[:, 0], V, order)[0])
    state = backend.initial_state(B)
    targets = np.roll(IDS, -1, axis=0)
    log_p, ended = backend.distribution(IDS, state)
    nats, after = backend.nats(IDS, targets, state)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=-1), 1.0, atol=1e-5)
    chosen = np.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(-chosen, nats, atol=1e-6)
    np.testing.assert_array_equal(ended[0][0], after[0][0])
    with pytest.raises(UsageError, match="no units, so no c; expected a network"):
        backend.trace(IDS, state, ["c"])


@pytest.mark.parametrize("allowed", [True, False])
def test_layers_compute_in_float32(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, the default on a GPU, in which a state depends on the sequences beside it."""
    backend, used, cudnn = backend_of("lstm"), [], torch.backends.cudnn
    read, before = backend.model.read, cudnn.allow_tf32
    monkeypatch.setattr(
        backend.model, "read", lambda *given: (used.append(cudnn.allow_tf32), read(*given))[1]
    )
    cudnn.allow_tf32 = allowed
    try:
        backend.nats(IDS, IDS, backend.initial_state(B))
        backend.trace(IDS, backend.initial_state(B), ["h"])
        assert used == [False] * (1 + T)
        assert cudnn.allow_tf32 == allowed
    finally:
        cudnn.allow_tf32 = before


def test_a_program_may_have_chosen_its_precision_by_new_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch 2.9 then refuses to read the old name, also on a processor; its choice stays."""

    class Cudnn:
        rnn = SimpleNamespace(fp32_precision="tf32")

        @property
        def allow_tf32(self) -> bool:
            raise RuntimeError(
                "you have used a mix of the legacy and new APIs to set the TF32 flags"
            )

    backend, used, cudnn = backend_of("lstm"), [], Cudnn()
    read = backend.model.read
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(
        backend.model,
        "read",
        lambda *given: (used.append(cudnn.rnn.fp32_precision), read(*given))[1],
    )
    backend.nats(IDS, IDS, backend.initial_state(B))
    assert used == ["ieee"] and cudnn.rnn.fp32_precision == "tf32"

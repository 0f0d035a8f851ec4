"""Calibration: the factor minimises the nats, and every backend applies it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, tiny_model

from charlm.backends.kernel_library import variants
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import weights_from
from charlm.inference.adapt.calibration import fit_scale, fitting_tokens, sample_of
from charlm.inference.likelihood import evaluate
from charlm.nn.encoder import saved_tensors
from charlm.nn.torch_backend import TorchBackend
from charlm.training import calibrating


@pytest.mark.parametrize("best", [0.26, 0.6, 0.97, 1.0, 1.03, 1.4, 3.0])
def test_the_minimum_of_a_convex_function_is_found(best: float) -> None:
    """s - best ln s has its minimum at s = best."""
    calls = []

    def nats(scale: float) -> float:
        calls.append(scale)
        return scale - best * math.log(scale)

    assert fit_scale(nats) == pytest.approx(best, rel=0.02)
    assert len(calls) == len(set(calls)) <= 18


def test_a_constant_function_keeps_the_factor_one() -> None:
    assert fit_scale(lambda _: 5.0) == 1.0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_backend_multiplies_logits_by_the_factor(cell: str, tied: bool) -> None:
    """Bias included, but an embedding tied to them is not scaled."""
    sizes = {"embedding_size": 3} if tied else {}
    model = tiny_model(cell, 6, scale=3.0, tie_weights=tied, **sizes)
    ids = np.random.default_rng(1).integers(0, 6, (9, 2))
    plain = engine(model)
    logits, _ = plain.logits(ids, plain.initial_state(2))
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}
    weights = weights_from(model.settings, arrays, logit_scale=0.7)
    scaled = [
        TorchBackend(model, 0.7),
        NumpyBackend(weights),
        *(NativeBackend(weights, variant) for variant in variants()),
    ]
    for backend in scaled:
        scaled_logits, _ = backend.logits(ids, backend.initial_state(2))
        np.testing.assert_allclose(scaled_logits, 0.7 * logits, atol=1e-5)


def test_large_models_are_fitted_on_fewer_tokens() -> None:
    """A reading of 40,000 tokens by 100 million weights took minutes, and there are ten."""
    limits = [fitting_tokens(weights) for weights in (1, 10**7, 2 * 10**7, 10**8, 10**12)]
    assert limits == [40_000, 40_000, 20_000, 4_000, 4_000]


def test_a_sample_of_a_text_is_whole_documents_or_its_beginning() -> None:
    """A short text is used completely."""
    documents = [[2] * number + [1] for number in range(20)]
    text = encoded_documents(documents)
    assert sample_of(text, 10_000) is text
    part = sample_of(text, 100)
    assert part.firsts is None
    assert 50 <= len(part.ids) <= 150
    lengths = np.diff(part.ends, prepend=0)
    assert lengths[0] == 1
    assert lengths[-1] == 20
    assert part.ids[part.ends - 1].tolist() == [1] * part.documents
    long = sample_of(encoded_documents([[2] * 5000, [3] * 5000]), 100)
    assert len(long.ids) <= 200
    firsts = np.arange(20)
    spread = sample_of(replace(text, firsts=firsts), 100)
    assert spread.firsts is not None and spread.documents < 20
    assert spread.firsts.tolist() == (np.diff(spread.ends, prepend=0) - 1).tolist()
    stream = sample_of(encoded_stream([2, 3] * 50), 7)
    assert stream.ids.tolist() == [2, 3, 2, 3, 2, 3, 2]
    assert stream.documents == 1
    assert evaluate(engine(tiny_model()), part).tokens == len(part.ids)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_torch_loads_the_best_weights_once_for_all_factors(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitting a factor beside a GPU loaded and checked 100 MB of weights ten times."""
    model, loaded = tiny_model("lstm", 6, scale=3.0), []
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}

    def load(path, trainer, factor):
        loaded.append(factor)
        if kind == "torch":
            return TorchBackend(model, factor)
        return NumpyBackend(weights_from(model.settings, arrays, logit_scale=factor))

    monkeypatch.setattr(calibrating, "best_backend", load)
    scaled = calibrating.scaled_backends(Path("run"), None)
    assert loaded == []
    text = encoded_stream(np.random.default_rng(1).integers(0, 6, 40))
    factors = [0.5, 1.0, 1.7, 0.5]
    nats = [evaluate(scaled(factor), text).nats for factor in factors]
    expected = [evaluate(TorchBackend(model, factor), text).nats for factor in factors]
    assert nats == pytest.approx(expected, rel=1e-5)
    assert loaded == (factors[:1] if kind == "torch" else factors)

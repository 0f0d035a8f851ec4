"""Calibration: the factor minimises the nats, and every backend applies it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, tiny_model

from charlm.backends.kernel_library import variants
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import weights_from
from charlm.inference.adapt import calibration
from charlm.inference.adapt.calibration import (
    TargetLogits,
    fit_scale,
    fitting_tokens,
    sample_of,
    sample_to_fit,
    text_logits,
)
from charlm.inference.likelihood import evaluate, text_nats
from charlm.nn.encoder import saved_tensors
from charlm.nn.torch_backend import TorchBackend
from charlm.text.encoded import EncodedText, TextCounts


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


def test_a_sample_in_pieces_is_spread_over_a_stream() -> None:
    """Each piece is a part of the stream, in its order; the sizes are in proportion."""
    counts = TextCounts(chars=5_000, bytes=6_000, words=900)
    text = replace(EncodedText.stream(np.arange(1_000)), counts=counts)
    part = sample_of(text, 100, pieces=4)
    pieces = part.ids.reshape(4, 25)
    assert (np.diff(pieces, axis=1) == 1).all()
    assert pieces[:, 0].tolist() == [0, 325, 650, 975]
    assert part.is_stream
    assert len(sample_of(text, 101, pieces=4).ids) == 101
    assert part.counts == TextCounts(chars=500, bytes=600, words=90)
    assert sample_of(text, 1_000, pieces=4) is text
    documents = replace(encoded_documents([[2] * 9 + [1]] * 40), counts=counts)
    assert sample_of(documents, 100).counts == counts.part(0.25)


@pytest.mark.parametrize("most", [1, 3, 9, 15, 100, 997, 999])
def test_pieces_reach_from_the_beginning_to_the_end(most: int) -> None:
    """Nine tokens in eight pieces were all from the first half of the text."""
    ids = sample_of(EncodedText.stream(np.arange(1_000)), most, pieces=8).ids
    assert len(ids) == most
    assert ids[0] == 0
    assert most == 1 or ids[-1] >= 998
    assert (np.diff(ids) >= 0).all()


def test_the_sample_of_one_long_document_is_no_longer_than_asked() -> None:
    document = encoded_documents([[2] * 999 + [1]])
    assert len(sample_of(document, 100).ids) == 100


LENGTHS = [3, 1, 70, 12, 5, 2, 40]


@pytest.mark.parametrize("kind", ["torch", "numpy", "mixture", "conditions"])
@pytest.mark.parametrize("stream", [True, False])
def test_one_reading_gives_the_nats_for_all_factors(
    kind: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each factor took a reading of its own: 50 seconds after two steps of 2 x 512 units."""
    monkeypatch.setattr(calibration, "CACHED", 50)  # 8 rows
    ids = np.random.default_rng(1).integers(2, 6, sum(LENGTHS))
    text = encoded_stream(ids)
    if not stream:
        text = encoded_documents([part.tolist() for part in np.split(ids, np.cumsum(LENGTHS)[:-1])])
    if kind == "conditions":
        text = replace(text, firsts=np.arange(2, 2 + text.documents) % 6)
    model = tiny_model("lstm", 6, scale=3.0, **({"mixture": 2} if kind == "mixture" else {}))
    plain = TorchBackend(model)
    logits = text_logits(engine(model) if kind == "numpy" else plain, text)
    for factor in (0.3, 1.0, 1.9):
        expected = text_nats(TorchBackend(model, factor), text)
        np.testing.assert_allclose(logits.nats(factor), expected, rtol=1e-4, atol=1e-5)
    nats = {x: evaluate(TorchBackend(model, x), text).nats for x in (0.97, 1.0, 1.03)}
    best = logits.best_factor()
    least = evaluate(TorchBackend(model, best), text).nats
    assert all(evaluate(TorchBackend(model, best * x), text).nats > least - 0.01 for x in nats)


def test_nats_of_float64_logits_are_not_rounded_to_float32() -> None:
    """Logits of labels have this type; those of a text have float32."""
    logits, targets = np.array([[0.1, 0.7, -2.0]]), np.array([2])
    exact = math.log(math.fsum(math.exp(1.1 * each) for each in logits[0])) + 1.1 * 2.0
    (nats,) = TargetLogits([(logits, targets)]).nats(1.1)
    assert nats == pytest.approx(exact, rel=1e-14)


def test_a_long_stream_is_read_in_pieces_side_by_side() -> None:
    """Each token but the first of each piece has the nats that it has in the whole text."""
    model, ids = tiny_model("lstm", 6, scale=1.0), np.random.default_rng(1).integers(2, 6, 3210)
    backend, text = engine(model), encoded_stream(ids)
    logits = text_logits(backend, text)
    assert [len(ids) for _, ids in logits.parts] == [1070, 1070, 1070]
    nats, expected = logits.nats(1.0), text_nats(backend, text)
    differ = np.abs(nats - expected) > 1e-4
    assert not differ[:1070].any()
    assert 0 < differ.sum() < 200


def test_a_sample_has_no_more_logits_than_fit_in_memory() -> None:
    text = encoded_stream(np.full(50_000, 2))
    sizes = [len(sample_to_fit(text, size).ids) for size in (65, 10_000, 33_000, 10**6)]
    assert sizes == [40_000, 6_710, 2_033, 1_000]
    assert len(sample_to_fit(text, 10_000, 4_000).ids) == 4_000

"""Dynamic evaluation: it follows its formula, and does not see the future or change the model."""

import numpy as np
import pytest
import torch
from helpers import encoded_documents, encoded_stream, engine, naive_nats, tiny_model
from torch.nn import functional as F

from charlm.errors import CorpusError
from charlm.inference.adapt import dynamic
from charlm.inference.adapt.dynamic import EPSILON, Dynamic, dynamic_nats, gradient_rms, tuned
from charlm.nn.torch_backend import TorchBackend

V = 5
TRAIN = encoded_stream(np.random.default_rng(1).integers(0, V, 300))
TEXT = encoded_stream(np.random.default_rng(0).integers(0, V, 47))
HOW = Dynamic(rate=1e-2, decay=0.1, window=6)


def backend_and_rms(cell: str = "lstm") -> tuple[TorchBackend, dict]:
    made = engine(tiny_model(cell, V))
    return made, gradient_rms(made, TRAIN, HOW.window)


def test_statistics_are_root_mean_squares_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of two windows each, by hand."""
    monkeypatch.setattr(dynamic, "STATISTICS_ROWS", 2)
    model = tiny_model("gru", V)
    text = encoded_stream([0, 1, 2, 3, 4, 0, 2, 4, 1, 3, 0, 0, 1])
    statistics = gradient_rms(engine(model), text, 3)
    ids = torch.from_numpy(text.ids.astype(np.int64))
    squares = {name: 0.0 for name, _ in model.named_parameters()}
    for starts in ([0, 6], [3, 9]):  # four windows of three, every second one in a batch
        model.zero_grad()
        inputs = torch.stack([ids[s : s + 3] for s in starts], dim=1)
        targets = torch.stack([ids[s + 1 : s + 4] for s in starts], dim=1)
        F.cross_entropy(model(inputs)[0].flatten(0, 1), targets.flatten()).backward()
        for name, weight in model.named_parameters():
            squares[name] = squares[name] + weight.grad**2
    for name, square in squares.items():
        torch.testing.assert_close(statistics[name], (square / 2).sqrt())


def test_dynamic_evaluation_follows_its_formula() -> None:
    """Three windows, with each step written out."""
    source, rms = backend_and_rms("gru")
    model = tiny_model("gru", V)
    trained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    mean = sum(float(r.sum()) for r in rms.values()) / sum(r.numel() for r in rms.values())
    ids, expected, state = torch.from_numpy(TEXT.ids[:16].astype(np.int64)), [], None
    inputs = torch.cat([torch.ones(1, dtype=torch.long), ids[:-1]])
    for begin in range(0, 16, HOW.window):
        span = slice(begin, min(begin + HOW.window, 16))
        logits, after = model(inputs[span, None], state)
        nats = F.cross_entropy(logits[:, 0], ids[span], reduction="none")
        expected += nats.tolist()
        model.zero_grad()
        (nats.sum() / HOW.window).backward()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                pull = (rms[name] / mean * HOW.decay).clamp(max=1.0)
                step = HOW.rate * weight.grad / (rms[name] + EPSILON)
                weight += pull * (trained[name] - weight) - step
        state = tuple(tuple(part.detach() for part in layer) for layer in after)
    result = dynamic_nats(source, encoded_stream(TEXT.ids[:16]), rms, HOW)
    np.testing.assert_allclose(result, expected, rtol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "mogrifier", "esn", "tied mixture", "one-hot"])
def test_rate_zero_is_the_plain_model(cell: str) -> None:
    source, rms = backend_and_rms(cell)
    result = dynamic_nats(source, TEXT, rms, Dynamic(rate=0.0, decay=0.5, window=6))
    np.testing.assert_allclose(result, naive_nats(source.model, TEXT.ids), atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "esn", "one-hot"])
def test_the_model_is_not_changed(cell: str) -> None:
    """Fixed weights have no statistics."""
    source, rms = backend_and_rms(cell)
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    dynamic_nats(source, TEXT, rms, HOW)
    for name, tensor in source.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    frozen = {"esn", "one-hot"} & {cell}
    assert ("embedding.weight" in rms) == (not frozen)


def test_the_future_is_not_seen() -> None:
    """A later token changes no earlier figure."""
    source, rms = backend_and_rms()
    result = dynamic_nats(source, TEXT, rms, HOW)
    for at in (5, 6, 20, 46):
        ids = TEXT.ids.copy()
        ids[at] = (ids[at] + 1) % V
        other = dynamic_nats(source, encoded_stream(ids), rms, HOW)
        np.testing.assert_array_equal(other[:at], result[:at])
        assert other[at] != result[at]


def test_documents_reset_the_state_but_not_the_weights() -> None:
    """The last of eight equal documents is likelier than the first."""
    source, rms = backend_and_rms()
    text = encoded_documents([[2, 3, 4, 2, 3, 4, 1]] * 8)
    result = dynamic_nats(source, text, rms, HOW).reshape(8, 7)
    first = naive_nats(source.model, [2, 3, 4, 2, 3, 4])
    assert result[0, :6] == pytest.approx(first, abs=1e-5)
    assert result[7].sum() < result[0].sum()


def test_the_calibration_factor_applies() -> None:
    source, rms = backend_and_rms()
    scaled = TorchBackend(source.model, 2.0)
    result = dynamic_nats(scaled, TEXT, rms, Dynamic(rate=0.0, decay=0.0))
    other = dynamic_nats(source, TEXT, rms, Dynamic(rate=0.0, decay=0.0))
    assert abs(result - other).max() > 0.01


def test_the_best_of_the_grid_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """First the rate, then the decay, on the beginning of the text."""
    source, rms = backend_and_rms()
    monkeypatch.setattr(dynamic, "RATES", (1e-9, 1e-2, 10.0))
    monkeypatch.setattr(dynamic, "TUNING_TOKENS", 60)
    text = encoded_stream([2, 3, 4] * 40)
    assert tuned(source, text, rms, 6).rate == 1e-2
    lengths = []
    plain = dynamic.dynamic_nats
    monkeypatch.setattr(
        dynamic,
        "dynamic_nats",
        lambda e, t, r, h: (lengths.append(len(t.ids)), plain(e, t, r, h))[1],
    )
    tuned(source, encoded_documents([[2, 3, 1]] * 50), rms, 6)
    assert set(lengths) <= {60, 57}


def test_a_training_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(CorpusError, match="has 3 tokens; dynamic evaluation needs at least 7"):
        gradient_rms(engine(tiny_model("gru", V)), encoded_stream([1, 2, 3]), 6)

"""The classifier: padding, pooling and reading from both ends; the same in every backend."""

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, encoded_documents, seeded

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.tasks import POOLINGS
from charlm.nn.classifier import Classifier, TorchReader, reversed_within
from charlm.nn.encoder import Encoder
from charlm.nn.pooling import pooled
from charlm.text.tokenizers.tokenizer_json import EOS

TEXTS = [[2, 3, 4, 2], [], [4], [3, 3, 2, 4, 4, 0, 2], [0, 2]]
"""Ids of texts without EOS; one is empty."""
KINDS = [*CELLS, *(name for name in STRUCTURES if "mixture" not in name and "tied" not in name)]


def classifier(kind: str = "lstm", pooling: str = "concat", *, both_ways: bool = True, **settings):
    """Return a random classifier of three labels on a vocabulary of five."""
    named = STRUCTURES.get(kind, {"cell": kind})
    values = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | named | settings
    model = Classifier(ModelSettings(**values), 5, 3, pooling, both_ways)
    model.reset_parameters(seeded())
    with torch.no_grad():
        for tensor in (*model.first_state, model.head.bias):
            tensor.normal_(generator=seeded(1))
    return model


def batch_of(texts: list[list[int]], extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs (T, B) and lengths (B,) of texts, with EOS first and `extra` steps of padding.

    Padding is random here: what it holds must not matter.
    """
    lengths = torch.tensor([len(text) + 1 for text in texts])
    inputs = torch.randint(0, 5, (int(lengths.max()) + extra, len(texts)), generator=seeded(2))
    for column, text in enumerate(texts):
        inputs[: len(text) + 1, column] = torch.tensor([EOS, *text])
    return inputs, lengths


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_alone_the_logits_that_it_has_in_a_batch(kind: str, pooling: str) -> None:
    model = classifier(kind, pooling)
    together = model(*batch_of(TEXTS, extra=3))
    for row, text in enumerate(TEXTS):
        assert torch.allclose(model(*batch_of([text]))[0], together[row], atol=1e-6)


def test_the_backward_half_is_a_forward_half_that_reads_the_reversed_text() -> None:
    model = classifier()
    forward = classifier(both_ways=False)
    backward = {
        name.removeprefix("backward."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("backward.")
    }
    forward.load_state_dict(backward, strict=False)
    features = model.features(*batch_of(TEXTS))
    mirrored = forward.features(*batch_of([text[::-1] for text in TEXTS]))
    assert torch.allclose(features[:, features.shape[1] // 2 :], mirrored, atol=1e-6)


def test_a_forward_half_has_the_hidden_vectors_of_its_encoder() -> None:
    model = classifier(pooling="last", both_ways=False)
    for text in TEXTS:
        inputs, lengths = batch_of([text])
        hidden, _ = Encoder.forward(model, inputs)
        assert torch.equal(model.features(inputs, lengths), hidden[-1])


def test_a_text_of_one_step_has_the_same_last_mean_and_maximum() -> None:
    last, mean, maximum = classifier(both_ways=False).features(*batch_of([[]])).chunk(3, dim=1)
    assert torch.equal(last, mean)
    assert torch.equal(last, maximum)


def test_pooling_is_that_of_the_steps_of_each_text() -> None:
    hidden, lengths = torch.randn(6, 3, 2, generator=seeded()), torch.tensor([6, 1, 4])
    ways = {"last": lambda h: h[-1], "mean": lambda h: h.mean(0), "max": lambda h: h.amax(0)}
    for name, way in ways.items():
        expected = torch.stack([way(hidden[:length, row]) for row, length in enumerate(lengths)])
        assert torch.allclose(pooled(name, hidden, lengths), expected, atol=1e-6)


def test_pooling_and_output_stay_in_float32_under_autocast() -> None:
    model = classifier()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(*batch_of(TEXTS))
        assert features.dtype == model.logits(features).dtype == torch.float32


def test_texts_are_reversed_in_place_and_back() -> None:
    inputs, lengths = batch_of(TEXTS, extra=2)
    reverse = reversed_within(inputs, lengths)
    for column, text in enumerate(TEXTS):
        assert reverse[: len(text) + 1, column].tolist() == [EOS, *text[::-1]]
        assert torch.equal(reverse[len(text) + 1 :, column], inputs[len(text) + 1 :, column])
    assert torch.equal(reversed_within(reverse, lengths), inputs)


def test_weights_are_numbered_in_a_fixed_order() -> None:
    """Encoder, backward encoder, head: checkpoints store the optimizer's state by number."""
    names = [name for name, _ in classifier("learnt state").named_parameters()]
    parts = [name.partition(".")[0] for name in names]
    order = ["embedding", "layers", "first_state", "backward", "head"]
    assert list(dict.fromkeys(parts)) == order
    assert names[-2:] == ["head.weight", "head.bias"]


def test_dropout_comes_from_the_generator_alone() -> None:
    model = classifier(dropout=0.3, input_dropout=0.2, output_dropout=0.4)
    inputs, lengths = batch_of(TEXTS)
    first, again = (model(inputs, lengths, seeded(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, model(inputs, lengths))
    assert torch.equal(model(inputs, lengths), model(inputs, lengths))


def encoded(texts: list[list[int]]):
    """Return texts as documents with EOS at their ends."""
    return encoded_documents([[*text, EOS] for text in texts])


def test_a_reader_gives_texts_of_any_lengths_in_their_order() -> None:
    model = classifier()
    texts = [text for text in TEXTS for _ in range(30)]  # more than are read side by side
    reader, text = TorchReader(model, scale=2.0), encoded(texts)
    alone = torch.cat([model(*batch_of([each])) for each in texts]).detach().double().numpy()
    assert np.abs(reader.logits(text) - 2.0 * alone).max() < 1e-5
    features = torch.cat([model.features(*batch_of([each])) for each in texts]).detach().numpy()
    assert np.abs(reader.features(text) - features).max() < 1e-6
    assert reader.logits(encoded([])).shape == (0, 3)

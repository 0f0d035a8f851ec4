"""Attention, and the model that translates: padding, both directions, steps, shapes."""

import numpy as np
import pytest
import torch
from helpers import STRUCTURES

from charlm.backends.translator_weights import translator_shapes
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.nn.attention import attend
from charlm.nn.classifier import reversed_within
from charlm.nn.encoder import Encoder
from charlm.nn.translator import Translator

V, TARGETS = 9, 7
OF_LANGUAGE_MODELS = ("one-hot", "mixture", "tied", "learnt state")
KINDS = [*CELLS, *(name for name in STRUCTURES if not name.startswith(OF_LANGUAGE_MODELS))]


def translator(cell: str = "lstm", both_ways: bool = True, **settings) -> Translator:
    sizes = {"num_layers": 2, "hidden_size": 6, "embedding_size": 5, "tie_weights": False}
    model = ModelSettings(cell=cell, **(sizes | settings))
    built = Translator.of_task(model, V, {"target_size": TARGETS, "both_ways": both_ways})
    built.reset_parameters(torch.Generator().manual_seed(1))
    return built


def ids(*shape: int, size: int = V, seed: int = 0) -> torch.Tensor:
    return torch.randint(size, shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ attention


def test_attention_is_a_distribution_over_real_steps():
    generator = torch.Generator().manual_seed(0)
    queries, memory = (torch.randn(n, 3, 4, generator=generator) for n in (5, 6))
    lengths = torch.tensor([6, 1, 3])
    context, weights = attend(queries, memory, lengths)
    assert weights.shape == (5, 3, 6)
    assert context.shape == (5, 3, 4)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 3))
    for text, length in enumerate(lengths.tolist()):
        assert not weights[:, text, length:].any()
    torch.testing.assert_close(context[:, 1], memory[0, 1].expand(5, -1))  # its only step


def test_attention_follows_the_dot_product():
    memory = torch.eye(3)[:, None]  # (T, B, D)
    query = torch.tensor([2.0, 0.0, 1.0]).reshape(1, 1, 3)
    context, weights = attend(query, memory, torch.tensor([3]))
    expected = torch.softmax(query[0, 0], dim=0)
    torch.testing.assert_close(weights[0, 0], expected)
    torch.testing.assert_close(context[0, 0], expected)


# ------------------------------------------------------------------ model


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("cell", [name for name, row in CELLS.items() if row.numpy_step])
def test_shapes_are_known_without_torch(cell, both_ways):
    tensors = translator(cell, both_ways).state_dict()
    settings = translator(cell, both_ways).settings
    task = {"target_size": TARGETS, "both_ways": both_ways}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert translator_shapes(settings, V, task) == shapes
    assert list(translator_shapes(settings, V, task)) == list(shapes)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    model = translator(**STRUCTURES.get(kind, {"cell": kind}))
    lengths, steps = [7, 1, 4], [3, 5, 1]
    inputs, targets = ids(7, 3), ids(5, 3, size=TARGETS)
    with torch.inference_mode():
        together = model(inputs, torch.tensor(lengths), targets)
        for text, (length, step) in enumerate(zip(lengths, steps, strict=True)):
            pair = inputs[:length, text : text + 1], targets[:step, text : text + 1]
            alone = model(pair[0], torch.tensor([length]), pair[1])
            torch.testing.assert_close(together[:step, text : text + 1], alone)


def test_the_memory_reads_texts_from_both_ends():
    """Its second half is what an encoder with the backward weights reads of the reversed text."""
    model, inputs, lengths = translator(), ids(6, 2), torch.tensor([6, 4])
    memory, _ = model.memory(inputs, lengths)
    hidden, _ = Encoder.forward(model, inputs)
    assert model.backward is not None
    backward, _ = model.backward(reversed_within(inputs, lengths))
    torch.testing.assert_close(memory[..., :6], hidden)
    for text, length in enumerate([6, 4]):
        expected = torch.cat([backward[:1, text], backward[1:length, text].flip(0)])
        torch.testing.assert_close(memory[:length, text, 6:], expected)
    order = inputs[..., None].float()
    put_back = reversed_within(reversed_within(inputs, lengths)[..., None].float(), lengths)
    assert torch.equal(put_back, order)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "qrnn"])
def test_decoding_step_by_step_is_reading_at_once(cell):
    model, inputs, lengths = translator(cell), ids(5, 2), torch.tensor([5, 3])
    targets = ids(4, 2, size=TARGETS)
    with torch.inference_mode():
        memory, state = model.memory(inputs, lengths)
        at_once, weights, _ = model.decode(targets, state, memory, lengths)
        for step in range(4):
            read, looked, state = model.decode(targets[step : step + 1], state, memory, lengths)
            torch.testing.assert_close(read[0], at_once[step])
            torch.testing.assert_close(looked[0], weights[step])


def test_a_later_target_is_not_seen():
    model, inputs, lengths = translator(), ids(5, 1), torch.tensor([5])
    targets = ids(4, 1, size=TARGETS)
    other = targets.clone()
    other[3] = (other[3] + 1) % TARGETS
    with torch.inference_mode():
        one, two = model(inputs, lengths, targets), model(inputs, lengths, other)
    torch.testing.assert_close(one[:3], two[:3])
    assert not torch.allclose(one[3], two[3])


def test_every_weight_learns():
    model = translator(learned_state=True)
    logits = model(ids(5, 3), torch.tensor([5, 2, 3]), ids(4, 3, size=TARGETS))
    logits.log_softmax(-1)[..., 0].sum().backward()
    still = [name for name, weight in model.named_parameters() if not weight.grad.abs().sum() > 0]
    assert not still


def test_dropout_follows_the_generator():
    model = translator(output_dropout=0.5, dropout=0.5, input_dropout=0.5)
    arguments = ids(5, 2), torch.tensor([5, 3]), ids(4, 2, size=TARGETS)
    draws = [model(*arguments, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert np.isfinite(model(*arguments).detach().numpy()).all()

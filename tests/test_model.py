"""The language model: shapes, state as a value, dropout, truncated gradients."""

import pytest
import torch
from helpers import seeded, tiny_model

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import UsageError
from charlm.nn.encoder import Encoder, select_rows
from charlm.nn.model import RecurrentLanguageModel, count_parameters, tensor_shapes
from charlm.text.tokenizers.tokenizer_json import EOS

T, B, V, E, H = 6, 2, 5, 4, 3
every_cell = pytest.mark.parametrize("cell", CELLS)
# a reservoir and its embedding are never trained, so no gradient reaches them
every_trained_cell = pytest.mark.parametrize(
    "cell", [name for name, spec in CELLS.items() if spec.learns_input]
)


def counted(cell: str, inputs: int) -> int:
    """Weights of a layer of H units, by hand."""
    both, gates = inputs + H, {"rnn": 1, "gru": 3}.get(cell, 4)
    extra = {
        "rnn": H,  # torch keeps two biases
        "lstm": 4 * H,
        "gru": 3 * H,
        "lstm-peephole": 3 * H,
        "lstm-layernorm": 10 * H,
        "mlstm": both * H,
        "mogrifier": 5 * inputs * H,
    }.get(cell, 0)
    linear = {"qrnn": 3 * (2 * inputs + 1), "mingru": 2 * (inputs + 1), "minlstm": 3 * (inputs + 1)}
    if cell == "esn":
        return H * (both + 1)
    return H * linear[cell] if cell in linear else gates * H * (both + 1) + extra


def random_ids(length: int = T, rows: int = B, seed: int = 3) -> torch.Tensor:
    return torch.randint(V, (length, rows), generator=seeded(seed))


def flat(state) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for layer in state for part in layer])


@every_cell
def test_shapes(cell: str) -> None:
    """Map ids (T, B) to logits (T, B, V) and a state of (B, H) tensors for each layer."""
    model = tiny_model(cell)
    logits, state = model(random_ids())
    assert logits.shape == (T, B, V)
    assert len(state) == 2
    shapes = [(E, H), (H, H)] if cell == "qrnn" else [(H, H)] * 2
    for layer, (before, units) in zip(state, shapes, strict=True):
        assert layer[0].shape == (B, units)
        assert all(part.shape == (B, before) for part in layer[1:])


@every_cell
@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_counted_as_by_hand(cell: str, tied: bool) -> None:
    """Embedding V x E, two layers, output V x H + V."""
    width = H if tied else E
    if tied and not CELLS[cell].learns_input:
        with pytest.raises(UsageError, match=cell):
            tiny_model(cell, V, embedding_size=width, tie_weights=tied)
        return
    by_hand = V * width + counted(cell, width) + counted(cell, H) + V
    by_hand += 0 if tied else V * H
    model = tiny_model(cell, V, embedding_size=width, tie_weights=tied)
    assert model.parameter_count() == by_hand
    assert count_parameters(model.settings, V) == by_hand


@every_cell
def test_the_state_is_a_value(cell: str) -> None:
    """Reading another text in between, as validation does, changes no result and no given state."""
    model = tiny_model(cell)
    ids = random_ids()
    _, state = model(ids[:3])
    kept = flat(state).clone()
    first, _ = model(ids[3:], state)
    model(random_ids(9, 4, seed=8))
    again, _ = model(ids[3:], state)
    assert torch.equal(first, again)
    assert torch.equal(flat(state), kept)
    assert not CELLS[cell].learns_input or not list(model.buffers())


@every_cell
def test_dropout_masks_come_from_the_generator(cell: str) -> None:
    """Equal seeds give equal masks, other seeds other masks; without a generator nothing drops."""
    model = tiny_model(cell, dropout=0.5, input_dropout=0.5, output_dropout=0.5).train()
    ids = random_ids()
    before = torch.get_rng_state()
    first, again, other = (model(ids, generator=seeded(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    without = model(ids)[0]
    assert torch.equal(without, model.eval()(ids)[0])
    assert not torch.equal(without, first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "output_dropout"])
def test_each_place_of_dropout_has_its_own_setting(name: str) -> None:
    """Each setting alone changes the result."""
    ids = random_ids()
    model = tiny_model(**{name: 0.5})
    assert not torch.equal(model(ids, generator=seeded())[0], model(ids)[0])


def test_output_dropout_keeps_the_mean_of_the_logits() -> None:
    """The output is linear in what is dropped, so many draws average to no dropout."""
    model = tiny_model(output_dropout=0.5)
    ids = random_ids(1, 4000)[:, :1].expand(1, 4000)
    with torch.no_grad():
        mean = model(ids, generator=seeded())[0].mean(dim=1)
        torch.testing.assert_close(mean, model(ids)[0].mean(dim=1), atol=0.02, rtol=0)


def test_tied_weights_are_one_matrix() -> None:
    """Changing the embedding changes the output matrix."""
    model = tiny_model(embedding_size=H, tie_weights=True)
    assert model.output.weight is model.embedding.weight
    with torch.no_grad():
        model.embedding.weight.fill_(2.0)
    assert (model.output.weight == 2.0).all()
    assert model.double().output.weight is model.embedding.weight


@every_trained_cell
def test_no_gradient_crosses_a_detached_border(cell: str) -> None:
    """The loss of the second window has no gradient in the first, unless the state is attached."""
    model = tiny_model(cell)
    ids = random_ids()
    for cut in (True, False):
        embedded: list[torch.Tensor] = []
        handle = model.layers[0].register_forward_pre_hook(
            lambda _, read, kept=embedded: (read[0].retain_grad(), kept.append(read[0]))[0]
        )
        _, state = model(ids[:3])
        before = tuple(tuple(p.detach() for p in layer) for layer in state) if cut else state
        logits, _ = model(ids[3:], before)
        logits.logsumexp(dim=-1).sum().backward()
        handle.remove()
        first, second = embedded
        assert second.grad is not None
        assert second.grad.abs().sum() > 0
        assert (first.grad is None) == cut


@every_trained_cell
def test_windows_joined_by_their_state_have_full_gradients(cell: str) -> None:
    """Two windows with an attached state have the gradients of one window."""
    ids = random_ids()
    gradients = []
    for cuts in ([], [3]):
        model = tiny_model(cell).double()
        state, total = None, 0.0
        for piece in torch.tensor_split(ids, cuts):
            logits, state = model(piece, state)
            total = total + logits.logsumexp(dim=-1).sum()
        total.backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=1e-12)


def test_rows_of_a_state_are_selected_in_order() -> None:
    """Rows 1 and 0 of a batch of two are the reversed batch."""
    _, state = tiny_model()(random_ids())
    turned = select_rows(state, torch.tensor([1, 0]))
    for layer, before in zip(turned, state, strict=True):
        for part, old in zip(layer, before, strict=True):
            assert torch.equal(part, old.flip(0))


@every_cell
def test_an_encoder_works_without_an_output_layer(cell: str) -> None:
    """With the model's weights it returns what the model's output layer reads."""
    model = tiny_model(cell)
    encoder = Encoder(model.settings, V)
    names = encoder.state_dict().keys()
    encoder.load_state_dict({name: model.state_dict()[name] for name in names})
    hidden, after = encoder(random_ids())
    logits, expected = model(random_ids())
    torch.testing.assert_close(model.output(hidden), logits, atol=0, rtol=0)
    assert torch.equal(flat(after), flat(expected))


def test_sizes_must_be_known_and_agree() -> None:
    """The corpus has not decided them yet, or tied matrices do not fit."""
    with pytest.raises(UsageError, match="give all three"):
        RecurrentLanguageModel(ModelSettings(hidden_size=3), V)
    tied = ModelSettings(tie_weights=True, hidden_size=3, num_layers=1, embedding_size=3)
    object.__setattr__(tied, "embedding_size", 4)
    with pytest.raises(UsageError, match="embedding 4, hidden 3"):
        count_parameters(tied, V)


@every_cell
def test_a_skip_adds_the_input_of_a_layer_to_its_output(cell: str) -> None:
    """Every layer but the first, whose input has another width."""
    model = tiny_model(cell, skip=True)
    ids = random_ids()
    first, second = model.recurrent_layers()
    below, _ = first(model.embedding(ids), first.initial_state(B))
    above, _ = second(below, second.initial_state(B))
    expected = model.output(above + below)
    torch.testing.assert_close(model(ids)[0], expected)
    assert not torch.allclose(tiny_model(cell)(ids)[0], expected)


# ------------------------------------------------------------------ conditions


def test_conditions_begin_as_copies_of_eos_without_any_draw() -> None:
    """So that a model with conditions has the initial weights of one without, registered last."""
    settings = tiny_model().settings
    plain, conditioned = (RecurrentLanguageModel(settings, V, each) for each in (0, 3))
    for model in (plain, conditioned):
        model.reset_parameters(seeded())
    names = [name for name, _ in conditioned.named_parameters()]
    assert names == [*(name for name, _ in plain.named_parameters()), "conditions.weight"]
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, conditioned.get_parameter(name))
    assert (conditioned.conditions.weight == conditioned.embedding.weight[EOS]).all()
    assert count_parameters(settings, V, 3) == count_parameters(settings, V) + 3 * E
    assert tensor_shapes(settings, V, 3)["conditions.weight"] == (3, E)


def test_a_condition_is_read_in_the_place_of_eos_and_never_an_output() -> None:
    """Ids from V on are rows of the conditions; gradients reach the rows that were read."""
    model = tiny_model(conditions=2)
    ids = random_ids()
    ids[0] = torch.tensor([V, V + 1])[torch.arange(B) % 2]
    logits, _ = model(ids)
    assert logits.shape == (T, B, V)
    for number in range(2):
        changed = tiny_model(conditions=2)
        with torch.no_grad():
            changed.embedding.weight[EOS] = model.conditions.weight[number]
        chosen = ids.clone()
        chosen[chosen >= V] = EOS
        rows = ids[0] == V + number
        same = (ids[1:, rows] != EOS).all(0)  # others read EOS, whose row has changed
        expected = changed(chosen)[0][:, rows]
        assert torch.allclose(logits[:, rows][:, same], expected[:, same], atol=1e-6)
    logits[:, 0].sum().backward()
    assert model.conditions.weight.grad[0].any() and not model.conditions.weight.grad[1].any()


def test_whole_entries_are_dropped_but_no_condition() -> None:
    model = tiny_model(conditions=2, embedding_dropout=0.9)
    ids = torch.full((1, 4), V + 1)
    read = model._embed(ids, seeded())
    assert torch.equal(read, model.conditions.weight[1].expand(1, 4, E))

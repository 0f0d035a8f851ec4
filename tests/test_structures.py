"""Cells and structures of models: laws for all, formulas for inputs, outputs and first states."""

import numpy as np
import pytest
import torch
from helpers import (
    STRUCTURES,
    encoded_documents,
    encoded_stream,
    engine,
    naive_nats,
    seeded,
    tiny_model,
    vocabulary_of,
)
from torch.nn import functional as F

from charlm.backends.weights import runs_without_torch
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import UsageError
from charlm.inference.generation import generate
from charlm.inference.likelihood import evaluate
from charlm.nn.dropout import dropped, run_layer, zoned_out
from charlm.nn.encoder import saved_tensors
from charlm.nn.initialisation import INITS, initialiser
from charlm.nn.layers import build_layer
from charlm.nn.model import RecurrentLanguageModel, count_parameters
from charlm.nn.output import Adaptive
from charlm.runs.networks import load_backend
from charlm.runs.tensors import tensors_to_bytes
from charlm.text.boundaries import Boundaries

T, B, V = 6, 2, 5
IDS = torch.randint(V, (T, B), generator=seeded(3))
every_structure = pytest.mark.parametrize("name", STRUCTURES)
every_model = pytest.mark.parametrize("name", [*CELLS, *STRUCTURES])
TRAINED = [name for name, spec in CELLS.items() if spec.learns_input]
RECURRENT = [cell for cell in CELLS if CELLS[cell].learns_recurrence]


def adaptive_model(vocab_size: int = 60) -> RecurrentLanguageModel:
    return tiny_model("lstm", vocab_size, adaptive_softmax=True, hidden_size=16)


# ------------------------------------------------------------------ laws for all


@every_model
def test_no_logit_sees_a_later_token(name: str) -> None:
    """Changing a token leaves earlier logits bit for bit equal and changes its own."""
    model = tiny_model(name, V)
    logits, _ = model(IDS)
    for place in range(T):
        changed = IDS.clone()
        changed[place, 0] = (IDS[place, 0] + 1) % V
        moved, _ = model(changed)
        assert torch.equal(moved[:place], logits[:place])
        assert torch.equal(moved[:, 1], logits[:, 1])
        assert name == "relu" or not torch.equal(moved[place:, 0], logits[place:, 0])


@every_model
def test_a_text_in_pieces_is_the_text_at_once(name: str) -> None:
    """The carried state holds everything that the past determines."""
    model = tiny_model(name, V).double()
    whole, last = model(IDS)
    state, pieces = None, []
    for piece in torch.tensor_split(IDS, [1, 4]):
        logits, state = model(piece, state)
        pieces.append(logits)
    exact = 1e-6 if "mixture" in name else 1e-12  # its softmax is in float32
    torch.testing.assert_close(torch.cat(pieces), whole, atol=exact, rtol=0)
    torch.testing.assert_close(state, last, atol=exact, rtol=0)
    zero, _ = model(IDS, model.initial_state(B))
    assert torch.equal(zero, whole)


@every_structure
def test_a_likelihood_is_the_naive_one(name: str) -> None:
    """Streams and documents, one token at a time, from the model's own first state."""
    model = tiny_model(name, V)
    ids = IDS.flatten().tolist()
    stream = evaluate(engine(model), encoded_stream(ids))
    assert stream.nats == pytest.approx(sum(naive_nats(model, ids)), rel=1e-5)
    documents = [[2, 3, 1], [4, 1], [3, 3, 2, 1]]
    tally = evaluate(engine(model), encoded_documents(documents))
    expected = sum(sum(naive_nats(model, document)) for document in documents)
    assert tally.nats == pytest.approx(expected, rel=1e-5)


@every_structure
def test_the_training_loss_is_the_evaluated_one(name: str) -> None:
    """`output.nats` is the cross-entropy of the logits; its gradient reaches all weights."""
    model = tiny_model(name, V)
    hidden = model.read(IDS)[1].flatten(0, 1)
    for smoothing in (0.0, 0.2):
        loss = model.output.nats(hidden, IDS.flatten(), smoothing)
        expected = F.cross_entropy(
            model.output(hidden), IDS.flatten(), reduction="sum", label_smoothing=smoothing
        )
        torch.testing.assert_close(loss, expected)
    model.output.nats(hidden, IDS.flatten()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", [*TRAINED, *STRUCTURES])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """For a loss and every weight that is learnt."""
    model = tiny_model(name, V).double()
    learnt = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    def loss(*values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(learnt, values, strict=True))
        logits, _ = torch.func.functional_call(model, given, (IDS[:-1],))
        return F.cross_entropy(logits.flatten(0, 1).double(), IDS[1:].flatten())

    leaves = [value.requires_grad_() for value in learnt.values()]
    loose = {"eps": 1e-3, "atol": 1e-3} if "mixture" in name else {}  # its softmax is in float32
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True, **loose)


@pytest.mark.parametrize("name", [*STRUCTURES, "adaptive"])
def test_what_is_saved_reads_the_same(name: str, tmp_path) -> None:
    """Through the file and the backend that `auto` chooses: equal likelihoods."""
    model = adaptive_model() if name == "adaptive" else tiny_model(name, V)
    path = tmp_path / "model.safetensors"
    path.write_bytes(tensors_to_bytes(saved_tensors(model)))
    loaded = load_backend(path, model.settings, model.vocab_size)
    assert loaded.name.startswith("torch") == (not runs_without_torch(model.settings))
    text = encoded_stream(IDS.flatten().tolist())
    expected = evaluate(engine(model), text)
    assert evaluate(loaded, text).nats == pytest.approx(expected.nats, rel=1e-6)


@every_model
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    """From the generator alone; the global random state is not touched."""
    before = torch.get_rng_state()
    first, again, other = (tiny_model(name, V, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert all(value.isfinite().all() for value in first.values())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


# ------------------------------------------------------------------ inputs


def test_one_hot_input_is_the_identity_and_is_not_learnt() -> None:
    """The first layer reads the token's own column of weights; the identity is not counted."""
    model = tiny_model("one-hot", V)
    assert torch.equal(model.embedding.weight, torch.eye(V))
    assert not model.embedding.weight.requires_grad
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert model.parameter_count() == count_parameters(model.settings, V) == learnt
    for settings, words in (
        ({"embedding_size": 4}, "one-hot input of 5"),
        ({"embedding_size": 9}, "expected equal"),
    ):
        with pytest.raises(UsageError, match=words):
            tiny_model("one-hot", V, **settings)
    with pytest.raises(UsageError, match="tie_weights with one_hot"):
        ModelSettings(one_hot=True, tie_weights=True)


# ------------------------------------------------------------------ outputs


def test_a_mixture_is_its_formula() -> None:
    """sum_k pi_k softmax(W tanh(A_k h + a_k) + b), in plain numpy."""
    model = tiny_model("mixture", V)
    with torch.no_grad():
        for bias in (model.output.bias, model.output.context_bias):
            bias.normal_(generator=seeded(8))
    p = {name: value.detach().double().numpy() for name, value in model.output.named_parameters()}
    hidden = np.random.default_rng(1).normal(size=3)
    prior = np.exp(p["prior_weight"] @ hidden)
    expected = np.zeros(V)
    for k in range(3):
        rows = slice(4 * k, 4 * k + 4)
        context = np.tanh(p["context_weight"][rows] @ hidden + p["context_bias"][rows])
        part = np.exp(p["weight"] @ context + p["bias"])
        expected += prior[k] / prior.sum() * part / part.sum()
    probabilities = model.output(torch.tensor(hidden, dtype=torch.float32)).exp()
    np.testing.assert_allclose(probabilities.detach().numpy(), expected, rtol=1e-5)


def test_a_tied_mixture_shares_its_matrix_whatever_the_hidden_size() -> None:
    """E is 4, H is 3: one softmax could not be tied."""
    model = tiny_model("tied mixture", V)
    assert model.output.weight is model.embedding.weight
    assert "output.weight" not in saved_tensors(model)
    with pytest.raises(UsageError, match="tie_weights needs equal"):
        ModelSettings(tie_weights=True, hidden_size=3, embedding_size=4)


def test_adaptive_softmax_is_a_distribution_and_trains_as_one() -> None:
    """ln P of all entries sums to one; the cheap loss is that of the whole; all is learnt."""
    model = adaptive_model()
    ids = torch.randint(60, (9, 4), generator=seeded(1))
    hidden = model.read(ids)[1].flatten(0, 1)
    logits = model.output(hidden)
    torch.testing.assert_close(logits.exp().sum(dim=-1), torch.ones(36))
    targets = torch.arange(36) + 20  # of all clusters
    loss = model.output.nats(hidden, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, reduction="sum"))
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert isinstance(model.output, Adaptive)
    assert model.output(hidden[0]).shape == (60,)
    with torch.autocast("cpu", torch.bfloat16):  # torch's layer does not mix number types
        for given in (hidden.detach(), hidden.detach().bfloat16()):
            torch.testing.assert_close(model.output.nats(given, targets), loss, atol=0.7, rtol=0)
            assert model.output(given).dtype == torch.float32


def test_adaptive_softmax_is_refused_if_it_cannot_be_built() -> None:
    """Few entries, few units, tied weights, a mixture."""
    with pytest.raises(UsageError, match="adaptive_softmax with 5 entries"):
        tiny_model("lstm", V, adaptive_softmax=True, hidden_size=16)
    with pytest.raises(UsageError, match="hidden_size 15; expected"):
        tiny_model("lstm", 60, adaptive_softmax=True, hidden_size=15)
    for other in ({"tie_weights": True}, {"mixture": 2}):
        with pytest.raises(UsageError, match="with adaptive_softmax"):
            ModelSettings(adaptive_softmax=True, **other)


# ------------------------------------------------------------------ first states


def test_a_learnt_state_starts_at_zero() -> None:
    """One vector for each state tensor of each layer, equal for all rows."""
    model = RecurrentLanguageModel(tiny_model("learnt state", V).settings, V)
    model.reset_parameters(seeded())
    assert [tuple(part.shape) for part in model.first_state] == [(1, 3)] * 4
    assert not any(part.any() for part in model.first_state)
    model(IDS)[0].logsumexp(dim=-1).sum().backward()
    assert all(part.grad.any() for part in model.first_state)
    (h, c), _ = tiny_model("learnt state", V).initial_state(3)
    assert torch.equal(h[0], h[2])
    assert not torch.equal(h, c)


def test_an_engine_cannot_write_into_a_learnt_state() -> None:
    """States are arrays that others change in place."""
    model = tiny_model("learnt state", V)
    before = [part.clone() for part in model.first_state]
    for rows in (1, 3):
        state = engine(model).initial_state(rows)
        for layer in state:
            for part in layer:
                part[0] = 9.0
                assert rows == 1 or not (part[1:] == 9.0).any()
    assert all(torch.equal(a, b) for a, b in zip(before, model.first_state, strict=True))


def test_each_document_starts_from_the_learnt_state() -> None:
    """If a model ends every document at once, all nats are those of the first token."""
    model = tiny_model("learnt state", V)
    with torch.no_grad():
        model.output.weight.mul_(0.1)
        model.output.bias[1] = 9.0
    options = {"length": 5, "seed": 3, "boundaries": Boundaries(document="line")}
    pieces = list(generate(engine(model), vocabulary_of("abc"), **options))
    first = naive_nats(model, [1])[0]
    assert [piece.nats for piece in pieces if piece.tokens] == pytest.approx([first] * 5)


# ------------------------------------------------------------------ first weights


@pytest.mark.parametrize("name", [*INITS, "uniform:0.2"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm-layernorm", "mogrifier"])
def test_initial_weights_follow_the_settings(name: str, cell: str) -> None:
    """Recurrent and input weights separately, block by block, and the forget bias."""
    bias = {} if cell == "gru" else {"forget_bias": 2.5}
    settings = ModelSettings(cell=cell, recurrent_init=name, input_init="uniform:0.01", **bias)
    layer = build_layer(8, 8, settings)
    layer.reset_parameters(seeded(1))
    weights = {key.removeprefix("rnn."): value for key, value in layer.state_dict().items()}
    blocks = next(v for k, v in weights.items() if k.startswith("weight_hh")).split(8)
    for block in blocks:
        if name == "identity":
            assert torch.equal(block, torch.eye(8))
        elif name == "orthogonal":
            torch.testing.assert_close(block @ block.T, torch.eye(8), atol=1e-5, rtol=0)
        else:
            most = {"xavier": (6 / 16) ** 0.5, "he": (6 / 8) ** 0.5, "uniform:0.2": 0.2}[name]
            assert 0.7 * most < float(block.abs().max()) <= most
    if name != "identity":
        assert not torch.equal(blocks[0], blocks[1])
    into = next(v for k, v in weights.items() if k.startswith("weight_ih"))
    assert 0.008 < float(into.abs().max()) <= 0.01
    if cell != "gru":
        bias = weights["bias"] if "bias" in weights else weights["bias_ih_l0"]
        assert bias[8:16].tolist() == [2.5] * 8
        assert not bias[:8].any()


@pytest.mark.parametrize("name", ["uniform", "uniform:", "uniform:-1", "uniform:inf", "normal", ""])
def test_an_unknown_initialiser_is_refused_with_the_known_ones(name: str) -> None:
    """For both kinds of weights."""
    for field in ("recurrent_init", "input_init"):
        with pytest.raises(UsageError, match=f"{field} is '{name}'; expected orthogonal, xavier"):
            ModelSettings(**{field: name})
    assert initialiser("orthogonal") is INITS["orthogonal"]


# ------------------------------------------------------------------ dropping the state


def test_zoneout_keeps_units_at_random_and_their_mean_in_evaluation() -> None:
    """(Krueger et al. 2017, section 3.1)."""
    new, old = torch.ones(200, 50), torch.zeros(200, 50)
    kept = zoned_out(new, old, 0.3, seeded())
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(zoned_out(new, old, 0.3, None), torch.full((200, 50), 0.7))
    assert zoned_out(new, old, 0.0, seeded()) is new


@pytest.mark.parametrize("cell", RECURRENT)
def test_zoneout_is_its_formula_step_by_step(cell: str) -> None:
    """h <- z h + (1 - z) h', c likewise with its own chance; in evaluation z is the chance."""
    both = {"zoneout_cell": 0.1} if "c" in CELLS[cell].state else {}
    model = tiny_model(cell, V, zoneout=0.3, num_layers=1, **both)
    (layer,) = model.recurrent_layers()
    x = torch.randn(4, B, 4, generator=seeded(2))
    state = tuple(torch.randn(B, 3, generator=seeded(4)) for _ in layer.spec.state)
    outputs, after = run_layer(layer, x, state, model.settings, None)
    for step in range(4):
        _, new = layer(x[step : step + 1], state)
        state = tuple(
            z * old + (1 - z) * part for z, old, part in zip((0.3, 0.1), state, new, strict=False)
        )
        torch.testing.assert_close(outputs[step], state[0])
    for part, value in zip(after, state, strict=True):
        torch.testing.assert_close(part, value)


@pytest.mark.parametrize("cell", RECURRENT)
def test_state_dropout_is_one_mask_for_all_steps(cell: str) -> None:
    """(Gal & Ghahramani 2016): the same units of h at every step; c is left alone; off without."""
    model = tiny_model(cell, V, state_dropout=0.5, num_layers=1)
    (layer,) = model.recurrent_layers()
    x = torch.randn(4, B, 4, generator=seeded(2))
    state = tuple(torch.randn(B, 3, generator=seeded(4)) for _ in layer.spec.state)
    outputs, _ = run_layer(layer, x, state, model.settings, seeded(7))
    plain, _ = run_layer(layer, x, state, model.settings, None)
    assert torch.equal(plain, layer(x, state)[0])
    mask = dropped(torch.ones(B, 3), 0.5, seeded(7))
    assert (mask == 0).any()
    for step in range(4):
        _, state = layer(x[step : step + 1], (mask * state[0], *state[1:]))
        torch.testing.assert_close(outputs[step], state[0])


@pytest.mark.parametrize("name", ["weight_drop", "state_dropout", "zoneout", "zoneout_cell"])
@pytest.mark.parametrize("cell", [*(cell for cell in CELLS if cell not in RECURRENT), "gru"])
def test_cells_without_the_dropped_part_refuse(name: str, cell: str) -> None:
    """Recurrent weights, or the second state c that a GRU has not."""
    if cell == "gru" and name != "zoneout_cell":
        return
    with pytest.raises(UsageError, match=f"{name} with cell {cell}"):
        tiny_model(cell, V, **{name: 0.5})

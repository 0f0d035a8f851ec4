"""Regularisers: each drops what and where it should, and only in training."""

import numpy as np
import pytest
import torch
from helpers import chi_square_fits, encoded_stream, engine, seeded, tiny_model, vocabulary_of
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.nn.dropout import dropped, random_int16
from charlm.nn.model import RecurrentLanguageModel
from charlm.tasks.language_model import language_model_task
from charlm.text.batches import Batch
from charlm.text.dataset import Dataset
from charlm.training.trainer import Trainer

T, B, V = 7, 3, 5
IDS = torch.randint(V, (T, B), generator=seeded(3))
WITH_WEIGHTS = [cell for cell in CELLS if CELLS[cell].learns_recurrence]
every_cell = pytest.mark.parametrize("cell", WITH_WEIGHTS)


def logits_of(model: RecurrentLanguageModel, seed: int | None = 1) -> torch.Tensor:
    return model(IDS, generator=None if seed is None else seeded(seed))[0]


# ------------------------------------------------------------------ weight drop


@every_cell
def test_weight_drop_masks_the_recurrent_weights(cell: str) -> None:
    """The output equals that of layers whose weights are multiplied by the mask."""
    model = tiny_model(cell, V, weight_drop=0.5)
    logits = logits_of(model)
    generator = seeded(1)
    with torch.no_grad():
        for layer in model.recurrent_layers():
            weight = layer.get_parameter(layer.recurrent_weight)
            masked = dropped(weight, 0.5, generator)
            assert (masked == 0).any()
            weight.copy_(masked)
    torch.testing.assert_close(logits, logits_of(model, seed=None))


@every_cell
def test_weight_drop_is_off_without_a_generator(cell: str) -> None:
    """Evaluation and sampling use every weight, and the weights themselves are never changed."""
    model = tiny_model(cell, V, weight_drop=0.5)
    plain = tiny_model(cell, V)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    logits_of(model)
    torch.testing.assert_close(logits_of(model, None), logits_of(plain, None), rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(logits_of(model, 1), logits_of(model, 2))


@every_cell
def test_the_raw_weight_gets_the_gradient(cell: str) -> None:
    """Kept weights get a gradient, dropped ones none; five code bases got this wrong silently."""
    model = tiny_model(cell, V, num_layers=1, weight_drop=0.5)
    logits_of(model).logsumexp(dim=-1).sum().backward()
    (layer,) = model.recurrent_layers()
    weight = layer.get_parameter(layer.recurrent_weight)
    mask = dropped(torch.ones_like(weight), 0.5, seeded(1))
    assert weight.grad is not None
    assert not weight.grad[mask == 0].any()
    assert weight.grad[mask > 0].any()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_weight_drop_leaves_the_weights_where_they_are(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA graphs write to their addresses; torch moves the weights of a GPU if one is replaced."""

    def move(rnn: torch.nn.RNNBase) -> None:
        with torch.no_grad():
            for weight in rnn._flat_weights:
                weight.set_(weight.clone())  # as cuDNN's flattening does

    model = tiny_model(cell, V, weight_drop=0.5)
    monkeypatch.setattr(torch.nn.RNNBase, "flatten_parameters", move)
    places = [weight.data_ptr() for weight in model.parameters()]
    for seed in (1, 2, None):
        logits_of(model, seed)
        assert [weight.data_ptr() for weight in model.parameters()] == places


def kernels(model: RecurrentLanguageModel) -> dict[str, int]:
    """Count the runs of each recurrent kernel, forward and backward, in bfloat16."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        with torch.autocast("cpu", torch.bfloat16):
            logits = logits_of(model)
        logits.float().logsumexp(dim=-1).sum().backward()
    return {e.key: e.count for e in profile.key_averages() if "rnn" in e.key or "lstm" in e.key}


def test_weight_drop_stays_on_the_fast_path() -> None:
    """oneDNN's layer runs as often as without; the slow path is 75 times slower."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 layers on this processor")
    plain = kernels(tiny_model("lstm", V))
    assert plain["aten::mkldnn_rnn_layer"] >= 2
    assert kernels(tiny_model("lstm", V, weight_drop=0.5)) == plain


# ------------------------------------------------------------------ masks


def test_a_variational_mask_is_the_same_at_every_step() -> None:
    """The mask is equal at every step; plain dropout has a new one for each."""
    for variational in (True, False):
        settings = {"input_dropout": 0.5, "hidden_size": 40, "embedding_size": 40}
        model = tiny_model("rnn", V, variational=variational, **settings)
        x = model.dropped(torch.ones(T, B, 40), 0.5, seeded(2))
        same = bool((x == x[:1]).all())
        assert same == variational
        assert set(x.unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(x[0, 0], x[0, 1])


def test_embedding_dropout_drops_whole_entries() -> None:
    """All occurrences of an entry are dropped or none, and the others scaled up."""
    model = tiny_model("lstm", 40, embedding_dropout=0.5)
    ids = torch.arange(40).repeat(3)[:, None]
    embedded = model._embed(ids, seeded(4))[:, 0]
    plain = model.embedding(ids)[:, 0]
    gone = (embedded == 0).all(dim=1)
    assert 5 < int(gone[:40].sum()) < 35
    assert torch.equal(gone[:40], gone[40:80])
    torch.testing.assert_close(embedded[~gone], 2 * plain[~gone])
    assert torch.equal(model._embed(ids, None)[:, 0], plain)


@pytest.mark.parametrize("rate", [0.0001, 0.1, 0.5, 0.95])
def test_the_rate_is_met_to_within_chance(rate: float) -> None:
    """For an odd number of values; kept ones are scaled up to keep the mean."""
    values = dropped(torch.ones(200_001), rate, torch.Generator().manual_seed(3))
    gone = float((values == 0).double().mean())
    assert abs(gone - rate) < 5 * (rate * (1 - rate) / 200_001) ** 0.5 + 1e-5
    kept = values[values != 0].unique()
    assert len(kept) == 1
    assert float(kept[0]) == pytest.approx(1 / (1 - rate), rel=1e-3)


def test_random_bits_are_uniform() -> None:
    """In each of the four places of a draw, the topmost bit included (chi square)."""
    bits = random_int16(400_000, torch.Generator().manual_seed(1))
    for place in range(4):
        counts = torch.bincount((bits[place::4].int() + 32768) // 1024, minlength=64).numpy()
        assert chi_square_fits(counts, np.full(64, 100_000 / 64))


@pytest.mark.parametrize(
    "settings", [{"weight_drop": 0.4}, {"variational": True, "dropout": 0.5, "output_dropout": 0.5},
                 {"embedding_dropout": 0.4}],
)  # fmt: skip
def test_dropping_keeps_the_mean(settings: dict) -> None:
    """Averaged over many masks, the logits of a linear model are those without dropout."""
    model = tiny_model("rnn", V, num_layers=1, **settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(0.05)  # tanh is a line here
        whole = logits_of(model, None)
        mean = torch.stack([logits_of(model, seed) for seed in range(600)]).mean(dim=0)
        spread = (whole - whole.mean()).abs().max()
    assert float((mean - whole).abs().max()) < 0.15 * float(spread)


# ------------------------------------------------------------------ penalties


def trainer_of(**settings) -> Trainer:
    text = encoded_stream(np.random.default_rng(1).integers(0, V, 41))
    dataset = Dataset(
        name="x", vocabulary=vocabulary_of("abc"),
        train=text, valid=None, test=None, fingerprint="",
    )  # fmt: skip
    chosen = TrainingSettings(
        epochs=1.0, batch_size=2, bptt=9, learning_rate=0.01, seed=1, **settings
    )
    task = language_model_task(dataset, chosen, Precision(name="fp32", reason="test"))
    return Trainer(tiny_model("gru", V), task, chosen)


def loss_of(trainer: Trainer, batch: Batch):
    loss, nats, after = trainer.task.loss(trainer.model, batch, None, trainer.state.generator)
    return loss / batch.tokens, nats / batch.tokens, after


def test_penalties_are_mean_squares() -> None:
    """AR: mean h^2; TAR: mean (h_t - h_{t-1})^2; the logged nats exclude them."""
    plain = trainer_of()
    window = next(plain.task.batches.epoch(plain.counters.position))
    loss, nats, _ = loss_of(plain, window)
    raw, shown, _ = plain.model.read(torch.from_numpy(window.inputs))
    real = torch.from_numpy(window.targets) >= 0
    small = shown[real].pow(2).mean()
    both = (raw[1:] - raw[:-1])[real[1:] & real[:-1]]
    for settings, penalty in (
        ({"activation_penalty": 2.0}, 2.0 * small),
        ({"slowness_penalty": 3.0}, 3.0 * both.pow(2).mean()),
        ({"activation_penalty": 2.0, "slowness_penalty": 3.0},
         2.0 * small + 3.0 * both.pow(2).mean()),
    ):  # fmt: skip
        penalized, reported, _ = loss_of(trainer_of(**settings), window)
        torch.testing.assert_close(penalized, loss + penalty)
        torch.testing.assert_close(reported, nats)


def test_evaluation_ignores_regularisers() -> None:
    """All of them on: the tally is that of the same weights without."""
    everything = ModelSettings(
        num_layers=2, hidden_size=3, embedding_size=4, dropout=0.5, input_dropout=0.5,
        output_dropout=0.5, embedding_dropout=0.5, weight_drop=0.5, variational=True,
    )  # fmt: skip
    model = RecurrentLanguageModel(everything, V)
    model.reset_parameters(seeded(0))
    text = encoded_stream(IDS.flatten().tolist())
    assert evaluate(engine(model), text) == evaluate(engine(tiny_model("lstm", V)), text)
    assert F.cross_entropy(logits_of(model).flatten(0, 1), IDS.flatten()).isfinite()

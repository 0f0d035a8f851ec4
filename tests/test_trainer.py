"""The training loop: resuming equals never stopping, no token is missed, nothing else changes."""

import contextlib
import copy
import itertools
import json
import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import (
    STRUCTURES,
    encoded_documents,
    encoded_stream,
    engine,
    memory_errors,
    seeded,
    tiny_model,
    vocabulary_of,
)
from waiting import Ticking

from charlm.config.cells import CELLS
from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError, EnvironmentFailure, RunError, naming
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.runs.checkpoints import Checkpoint
from charlm.tasks.language_model import language_model_task
from charlm.tasks.task import Sums
from charlm.text.batches import Batches, BatchSpec, Position
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.training import trainer as trainer_module
from charlm.training.records import EvaluationRecord, Record, StepRecord, WarningRecord
from charlm.training.recovery import MAX_SKIPPED, check_weights, diverged
from charlm.training.train_state import MAX_WARNINGS, Counters
from charlm.training.trainer import Trainer
from charlm.units import Tally

VOCABULARY = vocabulary_of("abcd efgh")
V = len(VOCABULARY)
DROPOUT = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.2}


@pytest.fixture(autouse=True)
def frequent_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a step record every three steps, so that few steps are enough."""
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 3)


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, V, count).tolist()


def random_documents(count: int, seed: int = 0) -> list[list[int]]:
    lengths = np.random.default_rng(seed).integers(0, 12, count)
    return [[*random_tokens(int(n), seed + k), 1] for k, n in enumerate(lengths)]


STREAM = encoded_stream(random_tokens(70))
DOCUMENTS = encoded_documents(random_documents(14))
VALID = encoded_stream([3, 3, 3, 5, 5, 5, 5, 4])  # unlike the training text: it soon gets worse


def dataset_of(train: EncodedText, valid: EncodedText | None = VALID) -> Dataset:
    return Dataset(
        name="x", vocabulary=VOCABULARY, train=train, valid=valid, test=None,
        fingerprint="",
    )  # fmt: skip


class EnoughError(Exception):
    """Error that ends a watched training before its next step."""


class Watched(Trainer):
    """Trainer that keeps a checkpoint before every step, and all targets that it was trained on."""

    stop_at: int | None = None
    last: int | None = None
    watching = False

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self.snapshots: dict[int, Checkpoint] = {}
        self.seen: Counter[int] = Counter()
        self.rates: list[float] = []
        self.token_fraction: list[float] = []

    def snapshot(self) -> Checkpoint:
        return self.checkpoint()

    def step(self, batches) -> None:
        if self.counters.step == self.last:
            raise EnoughError
        if self.watching:
            self.snapshots[self.counters.step] = copied(self.snapshot())
        super().step(batches)
        for batch in batches:
            self.seen.update(batch.targets[batch.targets >= 0].tolist())
            size = self.settings.batch_size * 4
            self.token_fraction.append(min(1.0, 2.0 * batch.tokens / size))
        self.rates.append(self.state.optimizer.param_groups[0]["lr"])
        if self.stop_at is not None and self.counters.step >= self.stop_at:
            self.stop("test")


def copied(saved: Checkpoint) -> Checkpoint:
    tensors = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    return Checkpoint(step=saved.step, tensors=tensors, counters=copy.deepcopy(saved.counters))


def make(
    train: EncodedText = STREAM,
    valid: EncodedText | None = VALID,
    *,
    cell: str = "lstm",
    model=None,
    clock=None,
    dropout=DROPOUT,
    on_best=lambda _: None,
    **settings,
) -> Watched:
    values = {
        "epochs": 2.0, "batch_size": 3, "bptt": 4, "learning_rate": 0.02, "evals": 4, "seed": 5,
        "clip_norm": 0.05,
    } | settings  # fmt: skip
    if {"steps", "minutes"} & settings.keys():
        values["epochs"] = None
    chosen = TrainingSettings(**values)
    precision = Precision(name="fp32", reason="test")
    return Watched(
        model or tiny_model(cell, V, **dropout),
        language_model_task(dataset_of(train, valid), chosen, precision),
        chosen,
        on_best=on_best,
        clock=clock or Ticking(),
    )


def dicts(records: list[Record]) -> list[dict]:
    return [record.to_dict() for record in records]


def differences(a: Checkpoint, b: Checkpoint) -> list[str]:
    """Return the names of tensors and counters that differ between two checkpoints."""
    tensors = [
        name
        for name in sorted(a.tensors.keys() | b.tensors.keys())
        if name not in a.tensors
        or name not in b.tensors
        or not torch.equal(a.tensors[name], b.tensors[name])
    ]
    keys = a.counters.keys() | b.counters.keys()
    return tensors + [key for key in sorted(keys) if a.counters.get(key) != b.counters.get(key)]


def resumed(
    saved: Checkpoint, last: int | None = None, **chosen
) -> tuple[Checkpoint, list[dict], Watched]:
    """Resume a checkpoint in a trainer with other fresh weights, up to the `last` step or the end.

    Return the checkpoint there and the records on the way.
    """
    dropout = chosen.get("dropout", DROPOUT)
    trainer = make(**chosen, model=tiny_model(chosen.get("cell", "lstm"), V, seed=9, **dropout))
    trainer.restore(copied(saved))
    trainer.last, records = last, []
    with contextlib.suppress(EnoughError):
        records.extend(record.to_dict() for record in trainer.run())
    return trainer.snapshot(), records, trainer


SELECTION = [
    *({"cell": cell, "stateless": stateless} for cell in CELLS for stateless in (False, True)),
    *({"optimizer": name, "train": DOCUMENTS} for name in ("adamw", "adam")),
    *(
        {"optimizer": name, "momentum": 0.5, "train": DOCUMENTS}
        for name in ("sgd", "nt-asgd", "rmsprop")
    ),
    {"train": DOCUMENTS, "stateless": True, "schedule": "plateau"},
    {"train": DOCUMENTS, "schedule": "step", "steps": 17},
    {"valid": None, "schedule": "linear", "optimizer": "sgd"},
    {"patience": 2, "evals": 9, "epochs": 4.0},
    {"random_bptt": True, "bptt": 12, "epochs": 5.0},
    {"state_reset": 0.3, "accumulate": 3, "epochs": 5.0},
    {"train": DOCUMENTS, "accumulate": 2, "beta1": 0.0},
    {"optimizer": "nt-asgd", "learning_rate": 0.5, "evals": 18, "epochs": 5.0, "clip_norm": 0.0},
    {"average": 0.9},
    {"dropout": {"weight_drop": 0.4}},
    {"dropout": {"state_dropout": 0.4, "embedding_dropout": 0.3}, "cell": "gru"},
    {"dropout": {"dropout": 0.4, "variational": True}, "cell": "lstm-peephole"},
    *({"cell": name, "steps": 12} for name in STRUCTURES if name != "one-hot"),
]


@pytest.mark.parametrize("chosen", SELECTION, ids=lambda chosen: "-".join(map(str, chosen)))
def test_resuming_equals_never_stopping(chosen) -> None:
    """Resume from every step of a run: in an epoch, at its end, in the next.

    Exactly equal: weights, optimiser, hidden state, generator, counters, and the next records.
    Every fourth time to the end of the run, otherwise for two steps: another one resumes there.
    """
    whole = make(**chosen)
    whole.watching = True
    records = dicts(list(whole.run()))
    end = whole.snapshot()
    assert whole.counters.epoch >= 1
    assert len(whole.snapshots) > 8
    for step, saved in whole.snapshots.items():
        last = None if step % 4 == 0 or step + 2 not in whole.snapshots else step + 2
        found, later, _ = resumed(saved, last, **chosen)
        assert differences(found, whole.snapshots[last] if last else end) == []
        assert later == [r for r in records if step < r["step"] <= (last or end.step)]


VACUITY = {
    "train": DOCUMENTS, "schedule": "plateau", "optimizer": "adamw", "evals": 9, "epochs": 3.0,
}  # fmt: skip


def pieces() -> list[str]:
    """Return the names of everything in a checkpoint."""
    trainer = make(**VACUITY)
    list(itertools.islice(trainer.run(), 2))
    tensors = [
        name for name in trainer.snapshot().tensors if not name.startswith(("model.", "optimizer."))
    ]
    kinds = ["optimizer.exp_avg", "optimizer.exp_avg_sq", "optimizer.step"]
    weights = [f"model.{name}" for name in trainer.model.state_dict()]
    counters = [name for name in trainer.snapshot().counters if name not in UNUSED]
    return [*tensors, *kinds, *weights, *counters]


UNUSED = (
    "finished", "averaged_from", "warnings", "parts", "skipped", "skipped_in_a_row", "rewinds",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole_run() -> Watched:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "LOG_EVERY", 3)
        trainer = make(**VACUITY)
        trainer.watching = True
        trainer.records = dicts(list(trainer.run()))
    return trainer


@pytest.mark.parametrize("piece", pieces())
def test_each_piece_of_a_checkpoint_is_needed(piece: str, whole_run: Watched) -> None:
    """Without it the resumed run differs at some step: the tests above can fail.

    `finished` is not needed, because it follows from the others; the rest of UNUSED is for other
    runs, with tests of their own.
    """
    detected = 0
    for step, saved in list(whole_run.snapshots.items())[4::5]:
        broken = copied(saved)
        fresh = make(**VACUITY, model=tiny_model("lstm", V, seed=9, **DROPOUT))
        if piece in broken.counters:
            broken.counters[piece] = vars(Counters())[piece]
        elif piece.startswith("optimizer."):
            for name in [n for n in broken.tensors if n.startswith("optimizer.")]:
                if name.endswith(f".{piece.partition('.')[2]}"):
                    broken.tensors[name] = torch.zeros_like(broken.tensors[name])
        elif piece.startswith("hidden."):
            broken.tensors[piece] = torch.zeros_like(broken.tensors[piece])
        else:
            broken.tensors[piece] = fresh.snapshot().tensors[piece]
        try:
            final, later, _ = resumed(broken, **VACUITY)
        except (DivergenceError, RunError, IndexError, RuntimeError):
            return
        right = [record for record in whole_run.records if record["step"] > step]
        detected += bool(differences(final, whole_run.snapshot())) or later != right
        if detected:
            return
    raise AssertionError(f"{piece} can be left out unnoticed")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.tensors.pop("generator"),
        lambda s: s.tensors.pop("model.output.bias"),
        lambda s: s.tensors.update({"model.output.bias": torch.zeros(V + 1)}),
        lambda s: s.tensors.update({"model.more": torch.zeros(1)}),
        lambda s: s.tensors.update({"hidden.x": torch.zeros(1)}),
        lambda s: s.tensors.update({"optimizer.x.y": torch.zeros(1)}),
        lambda s: s.counters.update(unknown=1),
    ],
)
def test_a_checkpoint_of_another_model_is_a_run_error(change, whole_run: Watched) -> None:
    """The error names the step, for missing, misshapen and unknown parts."""
    saved = copied(whole_run.snapshots[5])
    change(saved)
    with pytest.raises(RunError, match="step 5 does not fit"):
        make(**VACUITY).restore(saved)


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in trainer.model.parameters()])


@pytest.mark.parametrize("train", [STREAM, DOCUMENTS], ids=["stream", "documents"])
def test_validation_in_the_middle_changes_nothing(train: EncodedText) -> None:
    """A caller may also evaluate between the records."""
    ends, losses = [], []
    for evals, valid in ((9, VALID), (1, VALID), (1, None)):
        trainer = make(train, valid, evals=evals)
        steps = []
        for record in trainer.run():
            evaluate(engine(trainer.model), VALID)
            if isinstance(record, StepRecord):
                steps.append(record.nats_per_token)
        ends.append(weights_of(trainer))
        losses.append(steps)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert losses[0] == losses[1] == losses[2]


def test_only_the_seed_of_the_run_decides_its_weights() -> None:
    """The random states of torch, numpy and Python are neither used nor changed."""
    weights = []
    for global_seed, seed in ((1, 1), (2, 1), (1, 2)):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        random.seed(global_seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        trainer = make(train=DOCUMENTS, steps=6, seed=seed)
        list(trainer.run())
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
        weights.append(weights_of(trainer))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_stops_before_the_update(where: str, value: float) -> None:
    """The weights, the optimiser and the counters are those of the step before; the step is named.

    The story: char-rnn saved checkpoints full of NaN.
    """
    trainer = make(valid=None)
    steps = trainer.run()
    next(steps)  # three steps are done
    before = copied(trainer.snapshot())
    if where == "gradient":
        trainer.model.output.bias.register_hook(lambda gradient: gradient * value)
    else:
        trainer.model.output.register_forward_hook(lambda _, __, out: out * value)
    with pytest.raises(DivergenceError, match=r"at step 4.*Expected finite.*learning_rate"):
        list(steps)
    changed = differences(trainer.snapshot(), before)
    assert all(name.startswith("hidden.") or name == "generator" for name in changed)
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())


@pytest.mark.parametrize("flags", [True, False])
def test_messages_name_settings_as_the_caller_does(flags: bool) -> None:
    """As flags on the command line, as settings in Python."""
    settings = ("learning_rate", "clip_norm", "on_nonfinite", "bptt", "hidden_size")
    names = {name: f"--{name.replace('_', '-')}" for name in settings if flags}
    trainer = make(valid=None)
    with naming(names), pytest.raises(EnvironmentFailure) as full:
        trainer.recovery._split_more(1)
    with naming(names):
        problem = str(diverged("step 4"))
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    with naming(names), pytest.raises(DivergenceError) as broken:
        check_weights(trainer.state)
    expected = ("--learning-rate", "--on-nonfinite rewind", "--bptt or --hidden-size")
    if not flags:
        expected = ("learning_rate", "on_nonfinite='rewind'", "bptt or hidden_size")
        assert "--" not in f"{problem}{broken.value}{full.value}"
    for text in (problem, str(broken.value)):
        assert expected[0] in text and expected[1] in text
    assert expected[2] in str(full.value)


def broken_at(trainer: Trainer, steps: tuple[int, ...], where: str = "loss") -> Trainer:
    """Put a NaN into the loss or the gradient of these steps, counted from 1."""

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        return tensor * (np.nan if trainer.counters.step + 1 in steps else 1.0)

    if where == "gradient":
        trainer.model.output.bias.register_hook(spoilt)
    else:
        trainer.model.output.register_forward_hook(lambda _, __, out: spoilt(out))
    return trainer


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_that_is_not_finite_can_be_skipped(where: str, accumulate: int) -> None:
    """Its text is skipped with a warning, weights and optimiser stay; the rest is trained on."""
    chosen = {"on_nonfinite": "skip", "accumulate": accumulate, "epochs": 4.0, "train": DOCUMENTS}
    trainer = broken_at(make(valid=None, **chosen), (4, 7), where)
    trainer.watching = True
    records = list(trainer.run())
    plain = make(valid=None, **chosen)
    plain.watching = True
    list(plain.run())
    assert trainer.counters.tokens == plain.counters.tokens
    assert trainer.counters.skipped == 2
    assert trainer.counters.skipped_in_a_row == 0
    assert all(weight.isfinite().all() for weight in trainer.model.parameters())
    for step in (3, 6):
        changed = differences(trainer.snapshots[step], trainer.snapshots[step + 1])
        assert not [name for name in changed if name.startswith(("model.", "optimizer."))]
        after = trainer.snapshots[step + 1].counters
        usual = plain.snapshots[step + 1].counters
        for name in ("step", "tokens", "epoch", "group", "offset"):
            assert after[name] == usual[name]
    assert differences(trainer.snapshots[3], plain.snapshots[3]) == []
    warnings = [record for record in records if isinstance(record, WarningRecord)]
    assert [record.step for record in warnings] == [4, 7]
    what = "the loss is nan" if where == "loss" else "the gradient of output.bias is not finite"
    assert f"step 4: {what}" in warnings[0].text
    assert "skipped" in warnings[0].text
    steps = [record for record in records if isinstance(record, StepRecord)]
    assert all(np.isfinite(record.nats_per_token) for record in steps)


def test_resuming_after_a_skipped_step_equals_never_stopping() -> None:
    """From every step, with the same two steps broken."""
    chosen = {"on_nonfinite": "skip", "train": DOCUMENTS, "valid": None}
    whole = broken_at(make(**chosen), (4, 5))
    whole.watching = True
    list(whole.run())
    for saved in whole.snapshots.values():
        other = broken_at(make(**chosen, model=tiny_model("lstm", V, seed=9, **DROPOUT)), (4, 5))
        other.restore(copied(saved))
        list(other.run())
        assert differences(other.snapshot(), whole.snapshot()) == []


def test_after_a_skipped_step_sequences_start_without_a_state() -> None:
    """Neither that of the window that was not finite, nor that of the one before it."""
    trainer = broken_at(make(valid=None, on_nonfinite="skip"), (4,), "gradient")
    stateless, add = [], trainer.gradient_step.add
    trainer.gradient_step.add = lambda batch, factor: (
        stateless.append(trainer.state.hidden is None) or add(batch, factor)
    )
    list(trainer.run())
    assert stateless[:6] == [True, False, False, False, True, False]


def test_too_many_broken_steps_in_a_row_are_an_error() -> None:
    """One more in a row than is allowed; fewer at a time never end the run."""
    chosen = {"valid": None, "on_nonfinite": "skip", "steps": 3 * MAX_SKIPPED}
    every = tuple(range(2, 100))
    trainer = broken_at(make(**chosen), every)
    with pytest.raises(DivergenceError, match=rf"at step {MAX_SKIPPED + 2}: the loss is nan"):
        list(trainer.run())
    assert trainer.counters.skipped == MAX_SKIPPED
    now_and_then = tuple(step for step in every if step % MAX_SKIPPED)
    trainer = broken_at(make(**chosen), now_and_then)
    records = step_records(trainer)
    assert trainer.counters.step == 3 * MAX_SKIPPED
    assert any(np.isnan(record.nats_per_token) for record in records)
    assert all(json.dumps(record.to_dict(), allow_nan=False) for record in records)


def test_a_restored_checkpoint_without_an_average_has_none() -> None:
    """Rewound to before the mean of weights began."""
    chosen = {"optimizer": "nt-asgd", "learning_rate": 0.5, "evals": 18, "epochs": 5.0}
    trainer = make(**chosen, clip_norm=0.0)
    trainer.watching = True
    list(trainer.run())
    assert trainer.state.average
    trainer.restore(copied(trainer.snapshots[1]))
    assert trainer.state.average is None
    assert differences(trainer.snapshot(), trainer.snapshots[1]) == []


def test_weights_that_overflow_are_never_saved() -> None:
    """The check before a save finds those of the last update."""
    for steps in (1, 2, 8):
        trainer = make(optimizer="sgd", learning_rate=1e38, steps=steps, clip_norm=0.0,
                       schedule="constant", warmup=0.0)  # fmt: skip
        trainer.model.output.weight.data.mul_(100.0)
        kept = []
        trainer.on_best = lambda model, kept=kept: kept.append(copy.deepcopy(model))
        with pytest.raises(DivergenceError):
            list(trainer.run())
            check_weights(trainer.state)
        assert all(p.isfinite().all() for model in kept for p in model.parameters())


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """Plain sgd with rate 1 moves the weights by exactly the clipped gradient."""
    for clip, expected in ((0.01, 0.01), (0.0, None), (1e6, None)):
        plain = {"optimizer": "sgd", "learning_rate": 1.0, "weight_decay": 0.0, "warmup": 0.0}
        trainer = make(**plain, schedule="constant", clip_norm=clip, valid=None, dropout={})
        before = weights_of(trainer)
        trainer.stop_at = 1
        list(trainer.run())
        moved = float((weights_of(trainer) - before).norm())
        assert moved == pytest.approx(expected or trainer.gradient_step.clipped.norm, rel=1e-4)
        assert trainer.gradient_step.clipped.norm > 0.01
        assert trainer.counters.sum_clipped == int(clip == 0.01)


def test_a_step_record_covers_the_steps_since_the_last_one() -> None:
    """Mean nats per token, the fraction of steps that was clipped, the last rate."""
    trainer = make(valid=None, clip_norm=1e-6)
    records = list(trainer.run())
    assert [record.step for record in records] == list(range(3, 3 * len(records) + 1, 3))
    assert all(isinstance(record, StepRecord) for record in records)
    assert all(record.clipped == 1.0 for record in records)
    assert [record.learning_rate for record in records] == trainer.rates[2::3]
    assert all(0 < record.nats_per_token < 10 for record in records)
    assert all(a.progress < b.progress for a, b in itertools.pairwise(records))


def test_freed_memory_is_returned_with_each_step_record(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(trainer_module, "return_freed_memory", lambda: calls.append(1))
    records = step_records(make(valid=None))
    assert len(calls) == len(records) > 0


def test_a_gpu_does_not_wait_for_memory_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps take none. A validation does, so that it is returned there."""
    calls: list[int] = []
    monkeypatch.setattr(trainer_module, "return_freed_memory", lambda: calls.append(1))
    monkeypatch.setattr(Trainer, "_steps_on_host", False)
    records = list(make(evals=2).run())
    validations = [record for record in records if isinstance(record, EvaluationRecord)]
    assert len(records) > len(validations) == len(calls) == 2


def test_the_logged_training_loss_is_the_loss_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """With frozen weights, the loss logged for one epoch equals the evaluation of its text.

    The windows hold unequal numbers of tokens, so a mean over windows would differ.
    """
    frozen = {"optimizer": "sgd", "learning_rate": 1e-9, "weight_decay": 0.0, "dropout": {}}
    trainer = make(DOCUMENTS, None, **frozen, epochs=1.0, model=tiny_model("lstm", V, scale=9.0))
    windows = list(trainer.task.batches.epoch(Position()))
    assert len({window.tokens for window in windows}) > 1
    monkeypatch.setattr(trainer_module, "LOG_EVERY", len(windows))
    (record,) = trainer.run()
    tally = evaluate(engine(trainer.model), DOCUMENTS)
    assert record.nats_per_token == pytest.approx(tally.nats / tally.tokens, rel=1e-6)


def step_records(trainer: Trainer) -> list[StepRecord]:
    return [record for record in trainer.run() if isinstance(record, StepRecord)]


def evaluations(trainer: Trainer) -> list[EvaluationRecord]:
    return [record for record in trainer.run() if isinstance(record, EvaluationRecord)]


@pytest.mark.parametrize("evals", [1, 2, 5])
def test_validations_are_evenly_spread_up_to_the_end(evals: int) -> None:
    """There are as many as asked for; the last one is of the final weights."""
    trainer = make(evals=evals, steps=20)
    records = evaluations(trainer)
    assert [record.step for record in records] == [20 * n // evals for n in range(1, evals + 1)]
    assert records[-1].tally == evaluate(engine(trainer.model), VALID)


def test_the_best_weights_are_handed_out() -> None:
    """`on_best` is called for each record marked best, with the weights that were measured."""
    kept = []
    trainer = make(evals=6, on_best=lambda model: kept.append(copy.deepcopy(model)))
    records = evaluations(trainer)
    marked = [record for record in records if record.best]
    assert len(kept) == len(marked) >= 1
    for model, record in zip(kept, marked, strict=True):
        assert evaluate(engine(model), VALID) == record.tally
    lowest = min(records, key=lambda record: record.tally.nats)
    assert trainer.counters.best == lowest.tally == marked[-1].tally
    assert trainer.counters.best_step == lowest.step


def test_patience_ends_a_run_that_no_longer_gains() -> None:
    """Two validations without a gain after the best; without patience all of them are made."""
    records = evaluations(make(evals=10, patience=2, epochs=12.0))
    assert len(records) < 10
    assert [record.best for record in records[-3:]] == [True, False, False]
    trainer = make(evals=10, epochs=12.0)
    assert len(evaluations(trainer)) == 10
    assert trainer.counters.finished == "complete"


def test_plateau_divides_the_rate_after_each_validation_without_gain() -> None:
    """By four, and never back; a window of few tokens has a smaller rate in any case."""
    trainer = make(schedule="plateau", evals=6, warmup=0.0, steps=12, learning_rate=0.08)
    marks = {record.step: record.best for record in evaluations(trainer)}
    rate, expected = 0.08, []
    for step, token_fraction in enumerate(trainer.token_fraction, start=1):
        expected.append(rate * token_fraction)
        rate = rate if marks.get(step, True) else rate / 4
    assert trainer.rates == pytest.approx(expected)
    assert not all(marks.values())


@pytest.mark.parametrize(("optimizer", "scaled"), [("adam", True), ("sgd", False)])
def test_only_adaptive_rates_follow_the_tokens_of_a_window(optimizer: str, scaled: bool) -> None:
    """The gradient of sgd does already; the size of Adam's steps ignores the gradient's."""
    trainer = make(optimizer=optimizer, schedule="constant", warmup=0.0, learning_rate=0.08)
    list(trainer.run())
    assert min(trainer.token_fraction) < 1.0
    fractions = trainer.token_fraction if scaled else [1.0] * len(trainer.token_fraction)
    assert trainer.rates == pytest.approx([0.08 * fraction for fraction in fractions])


def test_a_run_of_minutes_ends_in_time() -> None:
    """By the clock it was given: within one step and one validation of its budget."""
    trainer = make(minutes=2.0, clock=Ticking())
    records = list(trainer.run())
    assert 120 <= trainer.counters.seconds <= 120 + 6
    assert trainer.counters.finished == "complete"
    assert records[-1].progress == 1.0
    assert trainer.counters.step > 60


def test_slow_validations_are_less_frequent_if_time_is_short() -> None:
    """They take about a tenth of the minutes at most, instead of all of them."""
    trainer = make(minutes=4.0, evals=100)
    usual_count = len(evaluations(trainer))
    clock = Ticking()
    trainer = make(minutes=4.0, evals=100, clock=clock)
    validate = trainer._evaluation_record

    def slowly() -> EvaluationRecord:
        clock.step = 20.0
        record = validate()
        clock.step = 1.0
        return record

    trainer._evaluation_record = slowly
    assert len(evaluations(trainer)) < usual_count
    assert trainer.counters.evaluation_seconds <= 0.25 * 240


@pytest.mark.parametrize(("tokens", "first"), [(10, 0.25), (92, 0.5), (4000, 1.0)])
def test_the_first_validation_waits_if_it_would_take_all_of_the_time(
    tokens: int, first: float
) -> None:
    """Story: of five minutes the first validation of a long text took six.

    Training reads 7.7 tokens a second: 92 are expected to take 12, half of a tenth of 240.
    """
    valid = encoded_stream(np.resize(VALID.ids, tokens))
    records = evaluations(make(valid=valid, minutes=4.0))
    assert records[0].progress == pytest.approx(first, abs=0.05)


def test_a_clock_that_jumps_back_takes_no_seconds_away() -> None:
    """Seconds never decrease, and the run still ends."""
    times = map(float, [*range(100, 106), *range(50, 56), *range(106, 400)])
    trainer = make(minutes=1.0, valid=None, clock=lambda: next(times))
    seconds = [record.seconds for record in trainer.run()]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert trainer.counters.finished == "complete"


def test_a_pause_takes_no_steps_away() -> None:
    """The budget is that of the time in which the process was not paused."""
    clock = Ticking()
    trainer = make(minutes=1.0, valid=None, clock=clock)
    usual = len(list(trainer.run()))
    clock = Ticking()
    trainer = make(minutes=1.0, valid=None, clock=clock)
    records = trainer.run()
    first = next(records)
    clock.now += 3600.0
    trainer.clock.leave_out_pause()
    assert 1 + len(list(records)) == pytest.approx(usual, abs=1)
    assert trainer.counters.seconds - first.seconds < 61


NUMBERED = {
    "stream": encoded_stream(range(V)),
    "documents": encoded_documents([[0, 1, 2], [3], [4, 5, 6, 7], list(range(8, V))]),
}


@pytest.mark.parametrize("text", NUMBERED)
@pytest.mark.parametrize("stateless", [False, True])
@pytest.mark.parametrize("epochs", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("batch_size", "bptt"), [(1, 1), (2, 3), (4, 2), (3, 50)])
def test_every_token_is_a_target_once_an_epoch(
    text: str, stateless: bool, epochs: float, batch_size: int, bptt: int
) -> None:
    """In a text in which no token repeats, each is a target `epochs` times."""
    trainer = make(
        NUMBERED[text], epochs=epochs, stateless=stateless, batch_size=batch_size, bptt=bptt
    )
    list(trainer.run())
    assert trainer.seen == Counter(dict.fromkeys(range(V), int(epochs)))
    assert trainer.counters.tokens == V * epochs
    assert trainer.counters.epoch == int(epochs)


def test_a_run_ends_at_the_step_that_reaches_its_length() -> None:
    """Half an epoch, and a number of steps."""
    trainer = make(epochs=0.5)
    list(trainer.run())
    assert 35 <= trainer.counters.tokens < 35 + 12
    trainer = make(steps=11)
    list(trainer.run())
    assert trainer.counters.step == 11


def test_every_record_but_the_last_of_a_step_is_unsettled() -> None:
    """A checkpoint made when the trainer is settled loses no record."""
    trainer = make(steps=12, evals=12)
    flags = [(record.step, trainer.settled) for record in trainer.run()]
    for (step, settled), (following, _) in itertools.pairwise([*flags, (None, True)]):
        assert settled == (step != following)
    assert not all(settled for _, settled in flags)


def test_a_stop_waits_for_all_records_of_a_step() -> None:
    """Between two records of a step it waits for the second one."""
    trainer = make(steps=12, evals=12)
    records: list[Record] = []
    for record in trainer.run():
        records.append(record)
        if record.step == 3:
            trainer.stop("enough")
    assert [record.kind for record in records if record.step == 3] == ["step", "evaluation"]
    assert trainer.counters.step == 3
    assert trainer.counters.finished == ""


def markov(count: int, seed: int) -> list[int]:
    draws = np.random.default_rng(seed)
    ids = [2]
    for _ in range(count):
        ids.append(2 + int(draws.choice(4, p=CHAIN[ids[-1] - 2])))
    return ids[1:]


CHAIN = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.05, 0.05, 0.45, 0.45], [0.9, 0.0, 0.1, 0.0], [0.25, 0.25, 0.25, 0.25]]
)


@pytest.mark.parametrize("cell", [name for name, spec in CELLS.items() if spec.learns_input])
def test_a_source_of_known_entropy_is_learnt_and_not_beaten(cell: str) -> None:
    """An order-1 chain over four symbols: within 0.03 nats of its own log-loss, never below it.

    The chain's log-loss on the very text that the model is measured on; the model cannot be better
    but by chance, of which 0.005 nats are granted for 3,000 tokens.
    """
    valid = markov(3000, seed=2)
    own = [-np.log(CHAIN[a - 2, b - 2]) for a, b in itertools.pairwise(valid)]
    left, vectors = np.linalg.eig(CHAIN.T)
    stationary = np.real(vectors[:, np.argmax(np.real(left))])
    stationary = stationary / stationary.sum()
    logs = np.where(CHAIN > 0, np.log(np.where(CHAIN > 0, CHAIN, 1.0)), 0.0)
    entropy = float(-(stationary[:, None] * CHAIN * logs).sum())
    assert abs(np.mean(own) - entropy) < 0.03
    slow = cell == "mogrifier"
    trainer = make(
        encoded_stream(markov(4000, seed=1)), encoded_stream(valid), epochs=10.0 if slow else 6.0,
        learning_rate=0.05 if slow else 0.02, batch_size=8, bptt=20, clip_norm=1.0, evals=1,
        dropout={},
        model=tiny_model(cell, V, num_layers=1, hidden_size=8),
    )  # fmt: skip
    (record,) = evaluations(trainer)
    distance = record.tally.nats_per_token - float(np.mean(own))
    assert -0.005 < distance < 0.03


@pytest.mark.parametrize("stateless", [False, True])
def test_a_text_of_one_symbol_is_memorised(stateless: bool) -> None:
    """`aaaa...`: the loss goes to zero, stays finite and is never negative."""
    trainer = make(
        encoded_stream([2] * 200), encoded_stream([2] * 20), epochs=20.0, learning_rate=0.1,
        stateless=stateless, clip_norm=1.0, dropout={}, batch_size=2, bptt=10,
    )  # fmt: skip
    *records, last = trainer.run()
    assert 0.0 <= last.tally.nats_per_token < 0.01
    assert last.tally.perplexity >= 1.0
    nats = [record.nats_per_token for record in records if isinstance(record, StepRecord)]
    assert all(0.0 <= value < 10.0 for value in nats)


def test_the_state_between_windows_is_detached() -> None:
    """Truncated back-propagation: nothing of an earlier step is kept alive."""
    trainer = make(steps=4, valid=None)
    list(trainer.run())
    assert trainer.state.hidden is not None
    assert not any(part.requires_grad for layer in trainer.state.hidden for part in layer)
    assert trainer.state.generator.get_state().tolist() != seeded(5).get_state().tolist()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_changes_the_loss_but_not_the_reported_nats(smoothing: float) -> None:
    """The loss is (1 - s) (-ln p(target)) + s mean(-ln p); the record has -ln p(target)."""
    trainer = make(label_smoothing=smoothing, dropout={})
    window = next(trainer.task.batches.epoch(trainer.counters.position))
    with torch.no_grad():
        logits, _ = trainer.model(torch.from_numpy(window.inputs))
        surprise = -logits.double().log_softmax(dim=-1)
        own = surprise.gather(-1, torch.from_numpy(window.targets)[..., None])[..., 0].mean()
    loss, nats, _ = trainer.task.loss(trainer.model, window, None, trainer.state.generator)
    loss, nats = loss / window.tokens, nats / window.tokens
    assert float(nats) == pytest.approx(float(own), abs=1e-6)
    expected = (1 - smoothing) * float(own) + smoothing * float(surprise.mean())
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-6)
    assert loss.requires_grad
    assert not nats.requires_grad


def test_only_the_output_layer_of_a_reservoir_learns() -> None:
    """Recurrence, inputs and embedding do not change; the loss falls."""
    trainer = make(cell="esn", epochs=9.0, clip_norm=1.0, dropout={}, learning_rate=0.01)
    untrained = copy.deepcopy(trainer.model)
    before = untrained.state_dict()
    list(trainer.run())
    after, first = (evaluate(engine(model), STREAM).nats for model in (trainer.model, untrained))
    assert after < first
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("output")), name


# ------------------------------------------------------------------ recipes of the literature

PLAIN = {
    "optimizer": "sgd", "learning_rate": 0.5, "weight_decay": 0.0, "clip_norm": 0.0,
    "schedule": "constant", "warmup": 0.0, "valid": None,
}  # fmt: skip
NO_DROPOUT = {"dropout": {}}


def test_gradients_of_several_windows_make_one_step() -> None:
    """w <- w - rate * mean of the gradients at the same weights, the state carried in between."""
    trainer = make(**PLAIN, **NO_DROPOUT, accumulate=2, steps=1)
    model = copy.deepcopy(trainer.model)
    reading = BatchSpec(batch_size=3, bptt=4, seed=5, line_end=VOCABULARY.line_end)
    windows = list(Batches(STREAM, reading).epoch(Position()))[:2]
    state, total = None, 0.0
    for window in windows:
        ids, targets = torch.from_numpy(window.inputs), torch.from_numpy(window.targets)
        logits, state = model(ids, state)
        state = tuple(tuple(part.detach() for part in layer) for layer in state)
        real = targets >= 0
        total = total + 0.5 * torch.nn.functional.cross_entropy(logits[real], targets[real])
    total.backward()
    list(trainer.run())
    assert trainer.counters.tokens == sum(window.tokens for window in windows)
    for (name, weight), old in zip(
        trainer.model.named_parameters(), model.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, old - 0.5 * old.grad, msg=name)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_accumulation_loses_no_window(count: int) -> None:
    """Every token is a target once in each pass; the last step may have fewer batches."""
    trainer = make(accumulate=count, epochs=3.0, valid=None)
    list(trainer.run())
    assert trainer.seen == Counter({index: 3 * n for index, n in Counter(STREAM.ids).items()})
    windows = sum(len(list(trainer.task.batches.epoch(Position(epoch=n)))) for n in range(3))
    assert trainer.counters.step == -(-windows // count)


@pytest.mark.parametrize("stop", range(1, 13))
def test_a_stop_in_any_batch_of_a_step_changes_nothing(stop: int) -> None:
    """It waits for the other batches, also at the end of an epoch, and resumes to the same end."""
    chosen = {"accumulate": 4, "epochs": 4.0, "bptt": 5, "valid": None}
    whole = make(**chosen)
    list(whole.run())
    stopped = make(**chosen)
    original, calls = stopped.gradient_step.add, []

    def add(*given) -> None:
        calls.append(given)
        if len(calls) == stop:
            stopped.stop("now")
        original(*given)

    stopped.gradient_step.add = add
    list(stopped.run())
    assert len(calls) == -(-stop // 4) * 4
    final, _, _ = resumed(stopped.snapshot(), **chosen)
    assert differences(final, whole.snapshot()) == []


def test_the_last_step_is_a_mean_over_the_remaining_windows() -> None:
    """One window alone moves the weights as without accumulation."""
    moved = []
    for count in (1, 4):
        trainer = make(**PLAIN, **NO_DROPOUT, accumulate=count, epochs=0.01)
        list(trainer.run())
        assert trainer.counters.step == 1
        moved.append(weights_of(trainer))
    torch.testing.assert_close(moved[0], moved[1])


def test_states_are_reset_with_their_probability() -> None:
    """For some sequences of some windows; at 1 for all of them, so each window is independent."""
    trainer = make(state_reset=0.5, valid=None, model=tiny_model("learnt state", V))
    windows = trainer.task.batches.epoch(Position())
    trainer.gradient_step.add(next(windows), 1.0)
    carried = trainer.state.hidden
    first = trainer.model.initial_state(3)
    window = next(windows)
    kinds = set()
    for _ in range(40):
        before = trainer.task.loss.state_before(
            trainer.model, window, carried, trainer.state.generator
        )
        for row in range(3):
            fresh = torch.equal(before[0][0][row], first[0][0][row])
            assert fresh or torch.equal(before[0][0][row], carried[0][0][row])
            assert torch.equal(before[1][1][row], (first if fresh else carried)[1][1][row])
            kinds.add((row, fresh))
    assert len(kinds) == 6
    loss = make(state_reset=1.0, valid=None).task.loss
    before = loss.state_before(tiny_model("lstm", V), window, carried, trainer.state.generator)
    assert not any(part.any() for layer in before for part in layer)


def test_the_rate_follows_random_lengths_of_windows() -> None:
    """(Merity et al. 2018)."""
    settings = PLAIN | {"train": encoded_stream(random_tokens(600)), "batch_size": 1}
    trainer = make(**settings, random_bptt=True, bptt=30, epochs=1.0)
    lengths = [len(window.inputs) for window in trainer.task.batches.epoch(Position())]
    list(trainer.run())
    assert trainer.rates == pytest.approx([0.5 * size / 30 for size in lengths])
    assert len(set(lengths)) > 5


def test_averaging_begins_when_validation_stops_improving() -> None:
    """NT-ASGD: sgd until then, from then on the plain mean of the weights is evaluated."""
    settings = {"optimizer": "nt-asgd", "learning_rate": 2.0, "clip_norm": 0.0, "evals": 30,
                "epochs": 6.0, "schedule": "constant"}  # fmt: skip
    trainer, plain = make(**settings), make(**settings | {"optimizer": "sgd"})
    nats = [record.tally.nats for record in evaluations(trainer)]
    list(plain.run())
    begun = trainer.counters.averaged_from
    assert 0 < begun < trainer.counters.step
    assert nats == trainer.counters.validation_nats
    for weight, other in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(weight, other)
    again = make(**settings)
    for record in again.run():
        if again.counters.step >= begun and isinstance(record, EvaluationRecord):
            break
    weights = [weights_of(again)]
    step = again.step
    again.step = lambda *given: (step(*given), weights.append(weights_of(again)))
    list(again.run())
    with again.state.kept_weights():
        torch.testing.assert_close(weights_of(again), torch.stack(weights).mean(dim=0))


def test_an_exploding_gradient_is_named_with_its_step_and_place() -> None:
    """Training continues with the clipped gradient; there are a few warnings at most."""
    trainer = make(valid=None, epochs=9.0, clip_norm=0.5)
    trainer.model.layers[1].rnn.weight_hh_l0.register_hook(lambda gradient: gradient * 1e6)
    warnings = [record for record in trainer.run() if isinstance(record, WarningRecord)]
    assert len(warnings) == MAX_WARNINGS
    assert warnings[0].step == 1
    for word in ("step 1: the gradient explodes", "layers.1.rnn.weight_hh_l0", "tokens read"):
        assert word in warnings[0].text
    assert warnings[1].text.startswith("step 2:")


def test_clip_value_limits_each_gradient() -> None:
    """No weight of sgd moves by more than rate times clip_value; the norm is not cut."""
    settings = {"optimizer": "sgd", "learning_rate": 1.0, "schedule": "constant", "warmup": 0.0}
    trainer = make(valid=None, steps=1, clip_value=1e-3, clip_norm=1.0, weight_decay=0.0,
                   dropout={}, **settings)  # fmt: skip
    before = weights_of(trainer)
    list(trainer.run())
    moves = (weights_of(trainer) - before).abs()
    assert 0.9e-3 < float(moves.max()) <= 1e-3 + 1e-6
    assert float(moves.norm()) > 1.5e-3  # several were cut, none to the norm


@pytest.mark.parametrize(
    ("settings", "start"),
    [({"average_trigger": 2}, "stale"), ({"average_trigger": 99, "average_latest": 0.5}, "late")],
)
def test_averaging_begins_after_validations_without_gain_or_late(settings, start: str) -> None:
    """After two without a gain, or at half of the run."""
    trainer = make(optimizer="sgd", learning_rate=3.0, clip_norm=0.0, evals=20, epochs=5.0,
                   schedule="constant", dropout={}, **settings)  # fmt: skip
    stale, expected = 0, None
    for record in evaluations(trainer):
        stale = 0 if record.best else stale + 1
        due = stale >= 2 if start == "stale" else record.progress >= 0.5
        if due and expected is None:
            expected = record.step
    assert expected is not None
    assert trainer.counters.averaged_from == expected


def test_skipped_steps_are_not_part_of_the_mean() -> None:
    """It is the mean of the weights after each step since it began."""
    trainer = make(optimizer="sgd", evals=20, epochs=5.0, schedule="constant", dropout={},
                   average_trigger=99, average_latest=0.3, on_nonfinite="skip")  # fmt: skip
    spoilt, step, weights = {9, 10, 11}, trainer.step, []

    def sometimes(*given) -> None:
        if trainer.counters.step in spoilt:
            raise DivergenceError("spoilt")
        step(*given)
        if trainer.state.average:
            weights.append(weights_of(trainer))

    trainer.step = sometimes
    for _ in trainer.run():
        if trainer.state.average and not weights:
            start = weights_of(trainer)
            spoilt |= {trainer.counters.step + 2, trainer.counters.step + 3}
    assert trainer.counters.skipped == 5
    average = torch.cat([tensor.flatten() for tensor in trainer.state.average.tensors.values()])
    expected = torch.stack([start, *weights]).mean(dim=0)
    torch.testing.assert_close(average, expected, rtol=1e-4, atol=1e-6)


class Cramped:
    """A model whose device holds at most `rows` sequences at once."""

    def __init__(self, model, rows: int) -> None:
        self.rows, self.plain, self.calls = rows, model.read, []
        self.errors = itertools.cycle(memory_errors())

    def __call__(self, ids, state=None, generator=None):
        self.calls.append(ids.shape[1])
        if ids.shape[1] > self.rows:
            raise next(self.errors)
        return self.plain(ids, state, generator)


@pytest.mark.parametrize("rows", [1, 2])
def test_too_little_memory_splits_the_batches(rows: int, monkeypatch) -> None:
    """With one warning for each halving; weights and losses are as with enough memory."""
    roomy = make(steps=12, dropout={}, valid=None)
    expected = step_records(roomy)
    trainer = make(steps=12, dropout={}, valid=None)
    cramped = Cramped(trainer.model, rows)
    monkeypatch.setattr(trainer.model, "read", cramped)
    records = list(trainer.run())
    warnings = [record.text for record in records if isinstance(record, WarningRecord)]
    assert len(warnings) == {1: 2, 2: 1}[rows]
    assert (
        "too little memory for 3 sequences at once; batches are now split into 2 parts"
        in warnings[0]
    )
    assert trainer.counters.parts == {1: 3, 2: 2}[rows]
    assert max(cramped.calls[6:]) <= rows
    torch.testing.assert_close(weights_of(trainer), weights_of(roomy), atol=1e-5, rtol=1e-4)
    steps = [record for record in records if isinstance(record, StepRecord)]
    assert [r.nats_per_token for r in steps] == pytest.approx(
        [r.nats_per_token for r in expected], rel=1e-4
    )


def test_too_little_memory_for_a_single_row_is_an_error(monkeypatch) -> None:
    trainer = make(steps=3, dropout={}, valid=None)
    monkeypatch.setattr(trainer.model, "read", Cramped(trainer.model, 0))
    with pytest.raises(
        EnvironmentFailure, match="too little memory for one sequence of this model"
    ):
        list(trainer.run())


def test_too_little_memory_in_the_middle_of_a_step_repeats_all_of_it(monkeypatch) -> None:
    """Story: of accumulated batches only the first one of a step was repeated."""
    roomy = make(steps=6, dropout={}, valid=None, accumulate=2)
    list(roomy.run())
    trainer = make(steps=6, dropout={}, valid=None, accumulate=2)
    cramped = Cramped(trainer.model, 99)

    def smaller(*given):
        if len(cramped.calls) == 3:
            cramped.rows = 2  # the second window of the second step does not fit
        return cramped(*given)

    monkeypatch.setattr(trainer.model, "read", smaller)
    list(trainer.run())
    assert trainer.counters.parts == 2
    assert trainer.counters.tokens == roomy.counters.tokens
    torch.testing.assert_close(weights_of(trainer), weights_of(roomy), atol=1e-5, rtol=1e-4)


def test_the_trainer_learns_any_task() -> None:
    """It uses nothing but the loss and the evaluator of the task."""
    trainer = make(**PLAIN | {"valid": VALID}, steps=40, evals=2, dropout={})
    nats = iter([9.0, 7.0])

    class Judge:
        tokens = 3

        def __call__(self, model) -> Tally:
            return Tally(nats=next(nats), tokens=3, words=1, chars=3, bytes=3)

    def loss(model, batch, state, generator):
        value = batch.tokens * model.output.bias.pow(2).sum()
        return Sums(value, value.detach(), model.initial_state(len(batch.kept)))

    with torch.no_grad():
        trainer.model.output.bias.fill_(1.0)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    trainer.task = replace(trainer.task, loss=loss, evaluate=Judge())
    trainer.gradient_step.task = trainer.task
    assert [record.tally.nats for record in evaluations(trainer)] == [9.0, 7.0]
    changed = [n for n, w in trainer.model.state_dict().items() if not torch.equal(w, before[n])]
    assert changed == ["output.bias"]
    assert trainer.model.output.bias.abs().max() < 0.01


def test_figures_of_another_validation_text_are_forgotten() -> None:
    """Story: a trial of a search, judged on a part, never improved when trained longer on all."""
    part = make(evals=4, steps=8)
    list(part.run())
    assert part.counters.best is not None
    longer = make(valid=encoded_stream([3, 5, 4] * 20), evals=4, steps=16)
    longer.restore(part.snapshot())
    assert longer.counters.best is None
    same = make(evals=4, steps=16)
    same.restore(part.snapshot())
    assert same.counters.best == part.counters.best

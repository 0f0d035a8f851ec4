"""The scale of float16 losses: it adapts, changes nothing else, and never stops a run by itself."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers import tiny_model
from test_static_step import LINES, V, copied, make, nats_of, reading_nothing, weights_of

from charlm.errors import DivergenceError, RunError
from charlm.nn import low_precision
from charlm.nn.low_precision import LossScale
from charlm.text.batches import Position
from charlm.training import trainer as trainer_module
from charlm.training.records import WarningRecord
from charlm.training.trainer import Trainer

LARGEST = 65504.0
"""Largest number of float16."""
KINDS = ("plain", "host", "static", "float16", "float16 host")
"""Ways to compute a step; `host` decides there whether a step is finite. Those without a copy
in float16 only have its range."""

FITTING = {"hidden_size": 8, "embedding_size": 8}
"""Sizes of models whose copy is not padded, and keeps their hooks."""


@pytest.fixture(autouse=True)
def frequent_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 5)


def scaled(kind: str = "float16", factor: float = 1024.0, **chosen: Any) -> Trainer:
    """Return a trainer with a scale that begins with this factor."""
    low = torch.float16 if "float16" in kind else None
    values = {
        "model": tiny_model("lstm", V, dropout=0.2, **FITTING),
        "schedule": "constant",
        "clip_norm": 0.1,
    }
    trainer = make(static=kind != "plain", low=low, **values | chosen)
    if low is None:
        trainer.state.loss_scale = LossScale(torch.device("cpu"))
        reshaped(trainer, lambda g: g.masked_fill(g.abs() > LARGEST, torch.inf))
    if "host" in kind:
        vars(trainer.gradient_step)["decides"] = False
    trainer.state.loss_scale.factor.fill_(factor)
    return trainer


def reshaped(trainer: Trainer, function: Callable[[torch.Tensor], torch.Tensor]) -> Trainer:
    """Apply a function to the gradients of the logits."""

    def hook(_module: Any, _inputs: Any, out: torch.Tensor) -> None:
        if out.requires_grad:
            out.register_hook(function)

    trainer.model.output.register_forward_hook(hook)
    return trainer


def overflowing_at(trainer: Trainer, *steps: int) -> Trainer:
    """Make gradients infinite in these steps, counted from 1; the loss is as it was."""
    return reshaped(
        trainer, lambda g: g + (torch.inf if trainer.counters.step + 1 in steps else 0.0)
    )


def factors_of(trainer: Trainer) -> list[float]:
    """Train, and return the factor after each step."""
    factors, step = [], trainer.recovery.run

    def run(*given: Any) -> None:
        step(*given)
        factors.append(float(trainer.state.loss_scale.factor))

    trainer.recovery.run = run  # type: ignore[method-assign]
    warnings = [record.text for record in trainer.run() if isinstance(record, WarningRecord)]
    assert not warnings
    return factors


def test_the_scale_follows_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: doubled after three good steps, halved at once, between 1 and the largest one."""
    monkeypatch.setattr(low_precision, "GROWTH_STEPS", 3)
    monkeypatch.setattr(low_precision, "MAX_SCALE", 8.0)
    scale, found = LossScale(torch.device("cpu")), []
    scale.factor.fill_(2.0)
    for norm, loss in [(1, 1), (2, 1), (0, 1), (1, 1), (1, 1), ("inf", 1), (1, 1), (1, 1),
                       ("nan", "nan"), (1, 1), ("nan", 1), ("inf", 1), ("inf", 1),
                       *[(1, 1)] * 13]:  # fmt: skip
        *numbers, overflows = scale.after(torch.tensor(float(norm)), torch.tensor(float(loss)))
        scale.put(*numbers)
        found.append((float(scale.factor), bool(overflows)))
    factors, overflows = zip(*found, strict=True)
    assert factors == (
        2,
        2,
        4,
        4,
        4,
        2,
        2,
        2,
        2,
        4,
        2,
        1,
        1,
        *(1, 1),
        *(2, 2, 2),
        *(4, 4, 4),
        *[8] * 5,
    )
    assert [number for number, flag in enumerate(overflows) if flag] == [5, 10, 11]


@pytest.mark.parametrize("kind", KINDS)
def test_training_from_an_absurd_scale_equals_training_from_a_good_one(kind: str) -> None:
    """To the bit, once it is halved: the steps before have changed nothing but the scale."""
    chosen: dict[str, Any] = {"model": tiny_model("lstm", V, **FITTING), "steps": 20}
    trainer = scaled(kind, 2.0**30, **copy.deepcopy(chosen))
    factors = factors_of(trainer)
    halvings = next(n for n in range(1, 20) if factors[n] == factors[n - 1])
    assert factors[:halvings] == [2.0 ** (29 - n) for n in range(halvings)]
    good = scaled(kind, factors[halvings], **chosen)
    for batch, _ in zip(good.task.batches.epoch(Position()), range(halvings), strict=False):
        good.counters.pass_batch(batch)
    good.counters.step, good.counters.skipped = halvings, halvings
    assert factors_of(good) == factors[halvings:]
    ours, theirs = trainer.checkpoint().tensors, good.checkpoint().tensors
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_plain_and_static_steps_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step in the scale, in all counters, and in the weights."""
    monkeypatch.setattr(low_precision, "GROWTH_STEPS", 4)
    ends = {}
    for kind in KINDS:
        chosen = {"train": LINES, "accumulate": 2, "model": tiny_model("lstm", V, **FITTING)}
        trainer = scaled(kind, 2.0**25, on_nonfinite="skip", **chosen)
        factors = factors_of(overflowing_at(trainer, 16))
        ends[kind] = trainer, factors
    for kind in KINDS:
        reference, expected = ends["float16 host" if "float16" in kind else "plain"]
        trainer, factors = ends[kind]
        assert factors == expected
        assert len(set(expected)) > 5 and expected[15] == expected[14] / 2
        assert any(after > before for before, after in pairwise(expected))
        for name in ("step", "tokens", "skipped", "skipped_in_a_row", "position", "sum_tokens"):
            assert getattr(trainer.counters, name) == getattr(reference.counters, name), name
        torch.testing.assert_close(weights_of(trainer), weights_of(reference), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_overflow_changes_nothing_but_the_scale(kind: str) -> None:
    """It is no failed step, whatever `on_nonfinite` is, even if only one window overflows."""
    trainer, kept = scaled(kind, accumulate=2, steps=8, on_nonfinite="stop"), []
    calls, step = [], trainer.step
    reshaped(trainer, lambda g: g * (torch.inf if calls.append(0) or len(calls) == 8 else 1.0))

    def watched(batches: Any) -> None:
        before = copied(trainer.checkpoint()).tensors
        step(batches)
        after = trainer.checkpoint().tensors
        kept.append({n for n in before if not torch.equal(before[n], after[n])})

    trainer.step = watched  # type: ignore[method-assign]
    factors = factors_of(trainer)
    assert factors == [1024.0] * 3 + [512.0] * 5
    if "host" not in kind and kind != "plain":  # there the step is left early
        changed = {name.partition(".")[0] for name in kept.pop(3)}
        assert changed == {"hidden", "generator", "loss_scale"}
    assert len(kept) == 7 and all("model.output.weight" in names for names in kept)
    assert (trainer.counters.skipped, trainer.counters.skipped_in_a_row) == (1, 0)
    assert trainer.counters.updates == 7


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_gradients_that_are_never_finite_are_failed_steps(kind: str, on_nonfinite: str) -> None:
    """As soon as the scale would fall below 1."""
    trainer = scaled(kind, 8.0, on_nonfinite=on_nonfinite, steps=20)
    overflowing_at(trainer, *range(6, 15))
    before, text = weights_of(trainer), r"step 9: the gradient .*is not finite"
    if on_nonfinite == "stop":
        with pytest.raises(DivergenceError, match=text):
            list(trainer.run())
        assert not torch.equal(weights_of(trainer), before)
        assert float(trainer.state.loss_scale.factor) == 1.0
        return
    records = list(trainer.run())
    warnings = [record.text for record in records if isinstance(record, WarningRecord)]
    failed = 6  # steps 9 to 14; 6 to 8 have halved the scale
    assert sum(int(w.split(" steps were")[0].split()[-1]) if "steps were" in w else 1
               for w in warnings) == failed  # fmt: skip
    assert (trainer.counters.skipped, trainer.counters.step) == (9, 20)
    assert trainer.counters.skipped_in_a_row == 0


@pytest.mark.parametrize("kind", ["plain", "float16", "float16 host"])
def test_resuming_equals_never_stopping(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: the scale is restored, and the steps since it changed."""
    monkeypatch.setattr(low_precision, "GROWTH_STEPS", 6)
    whole, saved = overflowing_at(scaled(kind, steps=20), 3), {}
    records = []
    for record in whole.run():
        records.append(record)
        saved[record.step] = copied(whole.checkpoint())
    assert {int(s.tensors["loss_scale.good_steps"]) for s in saved.values()} > {1, 2}
    for step in (5, 10):
        other = overflowing_at(scaled(kind, 2.0, steps=20), 99)
        other.restore(copied(saved[step]))
        assert nats_of(other.run()) == nats_of(records)[step // 5 :]
        for name, tensor in whole.checkpoint().tensors.items():
            assert torch.equal(other.checkpoint().tensors[name], tensor), name


def test_checkpoints_without_a_scale() -> None:
    """Those of float32 have none, and need none; older ones of float16 begin with the first one."""
    exact = make(static=True, steps=5)
    assert exact.state.loss_scale is None
    list(exact.run())
    saved = copied(exact.checkpoint())
    assert not [name for name in saved.tensors if "scale" in name]
    trainer = scaled("float16", 2.0, model=tiny_model("lstm", V))
    trainer.state.loss_scale.good_steps.fill_(3.0)
    trainer.restore(saved)
    assert [float(t) for t in trainer.state.loss_scale.tensors.values()] == [1024.0, 0.0]
    exact.restore(copied(trainer.checkpoint()))
    assert exact.state.loss_scale is None


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("factor", torch.tensor(0.0)), ("factor", torch.tensor(torch.inf)), ("factor", torch.ones(1)),
     ("good_steps", torch.tensor(-1.0)), ("other", torch.tensor(1.0))],
)  # fmt: skip
def test_a_damaged_scale_is_refused(name: str, tensor: torch.Tensor) -> None:
    trainer = scaled(steps=5)
    saved = copied(trainer.checkpoint())
    saved.tensors[f"loss_scale.{name}"] = tensor
    with pytest.raises(RunError, match="loss_scale"):
        trainer.restore(saved)


def test_no_number_is_read_in_a_step() -> None:
    """A CUDA graph holds the scale, its counter and the decision."""
    trainer = reading_nothing(scaled("float16", 2.0**20, steps=20))
    list(trainer.run())
    assert trainer.counters.skipped and float(trainer.state.loss_scale.factor) < 2.0**20

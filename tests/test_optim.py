"""Optimisers and schedules by name: rates by hand, a quadratic made smaller by every optimiser."""

import copy
import functools
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from charlm.config.class_path import resolve
from charlm.config.optimizers import OPTIMIZERS, SCHEDULES, OptimizerSpec
from charlm.config.training import TrainingSettings
from charlm.training.averaging import non_monotone
from charlm.training.optim import build_optimizer
from charlm.training.schedule import rate_factor

BY_HAND = {
    # at progress 0, 0.5 and 1 with final_rate 0.1
    "cosine": (1.0, 0.1 + 0.9 * 0.5, 0.1),
    "linear": (1.0, 0.55, 0.1),
    "constant": (1.0, 1.0, 1.0),
    "step": (1.0, 0.5, 0.1),
    "plateau": (1.0, 1.0, 1.0),
    "decay": (1.0, 1.0, 1.0),  # by passes over the text, of which there are none here
}


def settings(schedule: str, **values) -> TrainingSettings:
    return TrainingSettings(schedule=schedule, **({"warmup": 0.0, "final_rate": 0.1} | values))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_hand(name: str) -> None:
    """At the beginning, in the middle and at the end."""
    factors = [rate_factor(settings(name), progress) for progress in (0.0, 0.5, 1.0)]
    assert factors == pytest.approx(BY_HAND[name], abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_every_schedule_stays_within_its_bounds(name: str, warmup: float) -> None:
    """It rises in the warm-up, never rises after it, and is a share: above 0, at most 1."""
    chosen = settings(name, warmup=warmup)
    shares = [rate_factor(chosen, n / 200) for n in range(201)]
    top = math.ceil(200 * warmup)
    assert all(0.0 < share <= 1.0 for share in shares)
    assert shares[:top] == sorted(shares[:top])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert max(shares) == 1.0
    assert rate_factor(chosen, 2.0) == shares[-1]
    assert rate_factor(chosen, -1.0) == shares[0]


def test_the_warm_up_by_hand() -> None:
    """A straight line from near nothing, then the schedule over the rest."""
    chosen = settings("linear", warmup=0.2)
    shares = [rate_factor(chosen, progress) for progress in (0.0, 0.05, 0.1, 0.2, 0.6, 1.0)]
    assert shares == pytest.approx([0.001, 0.25, 0.5, 1.0, 0.55, 0.1])


def test_the_step_schedule_by_hand() -> None:
    """Whole for half of the run, then halved at every tenth, never below the final share."""
    shares = [rate_factor(settings("step", final_rate=0.0), n / 10) for n in range(11)]
    assert shares == [1, 1, 1, 1, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]
    assert rate_factor(settings("step", final_rate=0.2), 0.9) == 0.2


@pytest.mark.parametrize(
    ("name", "momentum"),
    [*((name, 0.0) for name in OPTIMIZERS), ("sgd", 0.5), ("nt-asgd", 0.5), ("rmsprop", 0.5)],
)
def test_every_optimiser_lowers_a_quadratic(name: str, momentum: float) -> None:
    """0.5 |x|^2 from (3, -2): a tenth of it or less after 300 small steps."""
    x = nn.Parameter(torch.tensor([3.0, -2.0]))
    values = {"optimizer": name, "learning_rate": 0.05, "momentum": momentum, "weight_decay": 0.0}
    optimizer = build_optimizer([x], TrainingSettings(**values))
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = 0.5 * (x * x).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert losses[5] < losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_have_the_bits_of_those_of_torch(name: str) -> None:
    """With a state that goes on in another optimiser, and no gradient of a step itself."""
    spec, chosen = OPTIMIZERS[name], TrainingSettings(optimizer=name, learning_rate=0.05)
    one, other = (nn.Parameter(torch.tensor([3.0, -2.0, 0.1])) for _ in range(2))
    options = {**spec.options, "lr": 0.05, "weight_decay": 0.0}
    if spec.has_betas:
        options["betas"] = (chosen.beta1, chosen.beta2)
    theirs = resolve(spec.kind)([other], **options)
    for number in range(6):
        if number % 3 == 0:
            state = copy.deepcopy(theirs.state_dict())
            ours = build_optimizer([one], chosen)
            ours.load_state_dict(state)
        for weight, optimizer in ((one, ours), (other, theirs)):
            weight.grad = weight.detach().sin() * (number + 1)
            optimizer.step()
        assert torch.equal(one, other) and one.is_leaf
    assert isinstance(ours, type(theirs))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_pickled_optimiser_is_one_of_torch(name: str) -> None:
    """With its state: the copy takes the step that the original takes."""
    weight = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = build_optimizer([weight], TrainingSettings(optimizer=name, learning_rate=0.05))
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is resolve(OPTIMIZERS[name].kind)
    copied = again.param_groups[0]["params"][0]
    assert torch.equal(copied, weight) and copied is not weight
    copied.grad = weight.grad = torch.tensor([-3.0, 0.5])
    optimizer.step()
    again.step()
    assert torch.equal(copied, weight)


def counted(step: Callable[..., None]) -> Callable[..., None]:
    """Count the calls of a method."""

    @functools.wraps(step)
    def wrapper(self: "Counting", closure: None = None) -> None:
        self.calls += 1
        step(self, closure)

    return wrapper


class Counting(torch.optim.SGD):
    """An optimiser that is not of torch, whose wrapper counts its steps."""

    calls = 0
    step = counted(torch.optim.SGD.step)


def test_the_wrappers_of_another_optimiser_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of torch are known to be needless."""
    spec = OptimizerSpec(kind=f"{__name__}:Counting", learning_rate=1.0)
    monkeypatch.setitem(OPTIMIZERS, "sgd", spec)
    weight = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer([weight], TrainingSettings(optimizer="sgd", learning_rate=0.5))
    weight.grad = torch.ones(1)
    optimizer.step()
    assert weight.item() == 0.5 and optimizer.calls == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_settings_reach_the_optimiser(name: str) -> None:
    """Rate and weight decay; a decayed weight without gradient shrinks."""
    x = nn.Parameter(torch.ones(2))
    chosen = TrainingSettings(optimizer=name, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer([x], chosen)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.5)
    x.grad = torch.zeros(2)
    optimizer.step()
    assert (x < 1.0).all()


def test_plain_sgd_by_hand() -> None:
    """x - rate (gradient + decay x), and with momentum the running sum."""
    x = nn.Parameter(torch.tensor([2.0]))
    chosen = TrainingSettings(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.25)
    optimizer = build_optimizer([x], chosen)
    speed, value = 0.0, 2.0
    for gradient in (1.0, -1.0, 3.0):
        x.grad = torch.tensor([gradient])
        optimizer.step()
        speed = 0.5 * speed + gradient + 0.25 * value
        value -= 0.1 * speed
        assert x.item() == pytest.approx(value, rel=1e-6)


def test_averaging_begins_when_the_newest_is_worse_than_an_old_best() -> None:
    """Algorithm 1 of Merity et al. 2018, by hand: n = 5."""
    assert not non_monotone([5.0])
    assert not non_monotone([3, 9, 9, 9, 9, 9])  # nothing is five validations older
    assert non_monotone([3, 9, 9, 9, 9, 9, 9])
    assert not non_monotone([3, 9, 9, 9, 9, 9, 2])
    assert non_monotone([4, 3, 9, 9, 9, 9, 9, 3.5])


def test_beta1_decays_the_first_moment() -> None:
    """beta1 = 0 is Adam without momentum: after a gradient of zero a weight stands still."""
    for beta1, moves in ((0.9, True), (0.0, False)):
        weight = torch.nn.Parameter(torch.ones(1))
        settings = TrainingSettings(beta1=beta1, learning_rate=0.1, weight_decay=0.0)
        optimizer = build_optimizer([weight], settings)
        for gradient in (1.0, 0.0):
            before = weight.detach().clone()
            weight.grad = torch.tensor([gradient])
            optimizer.step()
        assert (weight != before).item() == moves

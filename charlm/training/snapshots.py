"""What a saved state must look like before anything of it is used.

Sums tell that a file is as it was written; they do not tell that it was written by charlm, for
this model. A tensor of a wrong shape in an optimiser makes torch write outside of its memory.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from charlm.errors import RunError
from charlm.nn.encoder import State
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.checkpoints import Checkpoint
from charlm.training.flat import optimizer_tensors
from charlm.training.train_state import TrainState
from charlm.units import Tally

MOST = 2**53


def checked_counters(content: Mapping[str, Any]) -> TrainState:
    """TrainState from the plain values of a state. Raises ValueError or TypeError for a misfit."""
    counters, fresh = TrainState(**content), TrainState()
    for f in fields(TrainState):
        value, default = getattr(counters, f.name), getattr(fresh, f.name)
        numbers = [value] if isinstance(default, int | float) else []
        if f.name == "best_nats":
            numbers = [] if value is None else [value]
        elif f.name == "best_tally":
            numbers = [] if value is None else list(Tally(**value).sums().values())
        elif f.name == "validation_nats":
            numbers = list(value)
        elif f.name == "finished" and not isinstance(value, str):
            raise ValueError(f"{f.name} is {value!r:.80}")
        whole = isinstance(default, int)
        for number in numbers:
            kinds = (int,) if whole else (int, float)
            if isinstance(number, bool) or not isinstance(number, kinds):
                raise ValueError(f"{f.name} is {number!r:.80}")
            if not (math.isfinite(number) and 0 <= number <= MOST):
                raise ValueError(f"{f.name} is {number}")
    if counters.parts < 1 or not 0.0 < counters.plateau <= 1.0:
        raise ValueError(f"parts are {counters.parts}, plateau is {counters.plateau}")
    return counters


def counters_of(saved: Checkpoint) -> TrainState:
    """Return the counters of a checkpoint. Raises RunError where they make no sense."""
    try:
        counters = checked_counters(saved.counters)
        if counters.step != saved.step:
            raise ValueError(f"its counters tell of step {counters.step}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"the state of step {saved.step} does not fit: {error}") from error
    return counters


def check_like(name: str, tensor: Tensor, expected: Tensor) -> None:
    """Raise ValueError unless a tensor has the shape and type of another and is finite."""
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise ValueError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {expected.dtype} "
            f"of shape {tuple(expected.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds a number that is not finite")


def check_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless these are weights of a model of this kind."""
    known = {name: weight.detach() for name, weight in model.state_dict().items()}
    for name, tensor in tensors.items():
        if name in known:
            check_like(name, tensor, known[name])


def check_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], steps: int
) -> None:
    """Raise ValueError unless an optimiser of this kind can go on from these tensors.

    What they must look like is found by one step of a copy with gradients of zero. Weights that
    have had no gradient yet (rare clusters of an adaptive softmax) have no entries.
    """
    groups = []
    for group in optimizer.param_groups:
        weights = [torch.zeros_like(weight, device="cpu") for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        groups.append({**group, "params": weights})
    kind: Any = type(optimizer)
    twin = kind(groups)
    twin.step()
    expected = optimizer_tensors(twin)
    for name, tensor in tensors.items():
        if name not in expected:
            raise ValueError(f"optimizer.{name} is not known")
        check_like(f"optimizer.{name}", tensor, expected[name])
    there = {name.partition(".")[0] for name in tensors}
    missing = [name for name in expected if name.partition(".")[0] in there and name not in tensors]
    if missing or (steps and expected and not tensors):
        raise ValueError(f"optimizer.{(missing or list(expected))[0]} is missing")


def check_state(model: RecurrentLanguageModel, state: State | None) -> None:
    """Raise ValueError unless a recurrent state has the layers and widths of the model's."""
    if state is None:
        return
    rows = len(state[0][0]) if state[0] and state[0][0].dim() else 0
    first = model.initial_state(max(rows, 1))
    widths = [[part.shape for part in layer] for layer in first]
    if [[part.shape for part in layer] for layer in state] != widths:
        raise ValueError("the hidden state has other layers or sizes than the model")
    for parts, wanted in zip(state, first, strict=True):
        for part, other in zip(parts, wanted, strict=True):
            check_like("hidden", part.cpu(), other.detach().cpu())

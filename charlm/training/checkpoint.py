"""Checkpoints in memory: the train state as named tensors and plain numbers, and back.

A checkpoint is checked before it is used: its hashes prove that the file is unchanged, not that
charlm wrote it for this model. An optimiser tensor of a wrong shape would make torch write out of
bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from charlm.errors import RunError
from charlm.inference.figures import figures_from
from charlm.nn.encoder import Encoder, State, saved_tensors
from charlm.nn.low_precision import LossScale
from charlm.runs.checkpoints import Checkpoint
from charlm.runs.tensors import put_weights
from charlm.tasks.task import Order
from charlm.training.train_state import Counters, TrainState

MAX_COUNTER = 2**53
GENERATOR_SIZES = {16, 36, 44, 5056}
"""Bytes of the state of torch's generators: on CUDA, on MPS (two versions), and on a processor."""


def to_checkpoint(state: TrainState, hidden: State | None) -> Checkpoint:
    """Return everything needed to resume; `hidden` is the state of all sequences of a batch."""
    groups = {
        "model": saved_tensors(state.model),
        "optimizer": optimizer_tensors(state.optimizer),
        "hidden": _hidden_tensors(hidden),
        "average": state.average.tensors if state.average else {},
        "loss_scale": state.loss_scale.tensors if state.loss_scale else {},
    }
    tensors = {
        f"{group}.{name}": tensor
        for group, named in groups.items()
        for name, tensor in named.items()
    }
    tensors["generator"] = state.generator.get_state()
    counters = state.counters
    return Checkpoint(step=counters.step, tensors=tensors, counters=asdict(counters))


def restore(state: TrainState, checkpoint: Checkpoint, batches: Order) -> list[str]:
    """Put a checkpoint into a train state and return warnings.

    If the checkpoint is from a version of charlm that cut documents in other places, the sequences
    at its position may not be those of its recurrent state. Their group then begins again. Raises
    RunError if the checkpoint does not fit the model, the optimiser or the text.
    """
    model, device = state.model, state.generator.device
    try:
        counters = counters_of(checkpoint)
        weights, average = _group(checkpoint, "model"), _group(checkpoint, "average")
        optimizer, scale = _group(checkpoint, "optimizer"), _group(checkpoint, "loss_scale")
        hidden = _hidden_state(model, _group(checkpoint, "hidden"), device)
        _check_weights(model, weights)
        _check_weights(model, average)
        _check_optimizer(state.optimizer, optimizer, counters.updates)
        _check_scale(scale)
        before = _sequences_before(counters, batches)
        warnings = []
        if hidden is not None and before is not None and before != len(hidden[0][0]):
            counters, hidden = replace(counters, offset=0), None
            warnings.append(
                f"the checkpoint of step {counters.step} is from a version of charlm that cut "
                "documents in other places; some are read again, so the weights will differ from "
                "those of an uninterrupted run"
            )
        put_weights(model, weights)
        _load_optimizer(state.optimizer, optimizer)
        if state.loss_scale:
            state.loss_scale.restore(scale)
        state.counters, state.hidden = counters, hidden
        state.begin_average()
        if state.average:
            state.average.restore(average)
        return warnings + _restore_generator(state, checkpoint)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
        raise _misfit(checkpoint, error) from error


def counters_of(checkpoint: Checkpoint) -> Counters:
    """Return the counters of a checkpoint. Raises RunError if they make no sense."""
    try:
        counters = _checked_counters(checkpoint.counters)
        if counters.step != checkpoint.step:
            raise ValueError(f"its counters are those of step {counters.step}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _misfit(checkpoint, error) from error
    return counters


def _misfit(checkpoint: Checkpoint, error: Exception) -> RunError:
    return RunError(f"the state of step {checkpoint.step} does not fit: {error}")


def _group(checkpoint: Checkpoint, group: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint whose names begin with `group` and a dot."""
    prefix = f"{group}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix)
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors in the state of an optimiser, named `<weight number>.<name>`."""
    return {
        f"{index}.{name}": value
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` into an optimiser."""
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})


def _hidden_tensors(hidden: State | None) -> dict[str, Tensor]:
    """Return the tensors of a recurrent state, named `<layer>.<number>`."""
    return {
        f"{layer}.{number}": tensor
        for layer, tensors in enumerate(hidden or ())
        for number, tensor in enumerate(tensors)
    }


def _hidden_state(
    model: Encoder, named: Mapping[str, Tensor], device: torch.device
) -> State | None:
    """Return the state with the tensors of `_hidden_tensors`. Raises an error if they misfit."""
    if not named:
        return None
    state = model.initial_state(max(len(named["0.0"]), 1))
    expected = _hidden_tensors(state)
    if named.keys() != expected.keys():
        raise ValueError("the hidden state has other layers than the model")
    for name, tensor in expected.items():
        _check_like(f"hidden.{name}", named[name].cpu(), tensor.detach().cpu())
    return tuple(
        tuple(named[f"{layer}.{number}"].to(device) for number in range(len(tensors)))
        for layer, tensors in enumerate(state)
    )


def _restore_generator(state: TrainState, checkpoint: Checkpoint) -> list[str]:
    """Restore the generator, or seed it again if it was one of another kind of device."""
    saved = checkpoint.tensors["generator"]
    is_of_another = len(saved) != len(state.generator.get_state())
    if not is_of_another or len(saved) not in GENERATOR_SIZES:
        state.generator.set_state(saved)
        return []
    state.generator.manual_seed((state.settings.seed or 0) + checkpoint.step)
    return [
        f"step {checkpoint.step} was made on another kind of device; random numbers differ "
        "from here on"
    ]


def _checked_counters(content: Mapping[str, Any]) -> Counters:
    """Return counters from the plain values of a checkpoint.

    Raises ValueError or TypeError if a value is not of its kind or out of range.
    """
    counters, fresh = Counters(**content), Counters()
    for f in fields(Counters):
        value, default = getattr(counters, f.name), getattr(fresh, f.name)
        if f.name == "best_tally":
            for name, entry in ({} if value is None else figures_from(value).sums()).items():
                if name != "kind":
                    _check_numbers(f"{f.name}.{name}", entry)
        elif f.name == "finished" and not isinstance(value, str):
            raise ValueError(f"{f.name} is {value!r:.80}")
        elif f.name == "validation_nats" or isinstance(default, int | float):
            _check_numbers(f.name, value, whole=isinstance(default, int))
        elif f.name == "best_nats" and value is not None:
            _check_numbers(f.name, value)
    if counters.parts < 1 or not 0.0 < counters.plateau <= 1.0:
        raise ValueError(f"parts are {counters.parts}, plateau is {counters.plateau}")
    return counters


def _check_numbers(name: str, values: Any, *, whole: bool = False) -> None:
    """Raise ValueError unless all values of nested lists are finite numbers, or whole ones.

    Only nats can be negative: those of a density.
    """
    if isinstance(values, list | tuple):
        for value in values:
            _check_numbers(name, value, whole=whole)
        return
    if isinstance(values, bool) or not isinstance(values, int if whole else int | float):
        raise ValueError(f"{name} is {values!r:.80}")
    lowest = -MAX_COUNTER if "nats" in name else 0
    if not (math.isfinite(values) and lowest <= values <= MAX_COUNTER):
        raise ValueError(f"{name} is {values}")


def _check_like(name: str, tensor: Tensor, expected: Tensor) -> None:
    """Raise ValueError unless a tensor is finite and has the shape and type of another."""
    if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
        raise ValueError(
            f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected {expected.dtype} "
            f"of shape {tuple(expected.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} holds a number that is not finite")


def _check_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    known = {name: weight.detach() for name, weight in model.state_dict().items()}
    for name in tensors.keys() & known.keys():
        _check_like(name, tensors[name], known[name])


def _check_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], updates: int
) -> None:
    """Raise ValueError unless an optimiser of this kind can continue from these tensors.

    One step of a copy with zero gradients shows what they must look like. Weights that have had no
    gradient yet (rare clusters of an adaptive softmax) have no entries.
    """
    groups = []
    for group in optimizer.param_groups:
        weights = [torch.zeros_like(weight, device="cpu") for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        on_cpu = {"capturable": False} if "capturable" in group else {}
        groups.append({**group, **on_cpu, "lr": float(group["lr"]), "params": weights})
    kind: Any = type(optimizer)
    copy = kind(groups)
    copy.step()
    expected = optimizer_tensors(copy)
    for name, tensor in tensors.items():
        if name not in expected:
            raise ValueError(f"optimizer.{name} is not known")
        _check_like(f"optimizer.{name}", tensor, expected[name])
    entries = {name.partition(".")[0] for name in tensors}
    missing = [n for n in expected if n.partition(".")[0] in entries and n not in tensors]
    if missing or (updates and expected and not tensors):
        raise ValueError(f"optimizer.{(missing or list(expected))[0]} is missing")


def _check_scale(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless these are the tensors of a `LossScale`, or none."""
    expected = LossScale(torch.device("cpu")).tensors
    if tensors and tensors.keys() != expected.keys():
        raise ValueError(f"loss_scale has {', '.join(tensors)}; expected {', '.join(expected)}")
    for name, tensor in tensors.items():
        _check_like(f"loss_scale.{name}", tensor, expected[name])
        lowest = 1.0 if name == "factor" else 0.0
        if float(tensor) < lowest:
            raise ValueError(f"loss_scale.{name} is {float(tensor):g}")


def _sequences_before(counters: Counters, batches: Order) -> int | None:
    """Return the number of sequences in the batch before the position, or None in a new group.

    Raises ValueError if the text has no batch at the position.
    """
    batch = next(iter(batches.epoch(counters.position)), None)
    if batch is None:
        raise ValueError(f"the text has no batch at {counters.position}")
    return None if batch.first or batch.places is None else len(batch.places.before)

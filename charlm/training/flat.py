"""Optimisers and recurrent states as flat tables of tensors, for snapshots, and back."""

import torch
from torch import Tensor

from charlm.nn.encoder import State


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as `<weight number>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Go on from what `optimizer_tensors` gave. Raises KeyError or ValueError for a misfit."""
    content = optimizer.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**content, "state": entries})


def state_tensors(state: State | None) -> dict[str, Tensor]:
    """A recurrent state as `<layer>.<part>`; nothing for none."""
    return {
        f"{layer}.{part}": tensor
        for layer, parts in enumerate(state or ())
        for part, tensor in enumerate(parts)
    }


def restored_state(tensors: dict[str, Tensor], device: torch.device) -> State | None:
    """The state that `state_tensors` was given."""
    layers: dict[int, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = name.split(".")
        layers.setdefault(int(layer), {})[int(part)] = tensor.to(device)
    if not layers:
        return None
    return tuple(
        tuple(parts[part] for part in sorted(parts)) for _, parts in sorted(layers.items())
    )

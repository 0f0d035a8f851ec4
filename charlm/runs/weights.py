"""Weights as safetensors bytes and back, checked against the model before anything is used."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm.config import ModelSettings
from charlm.errors import RunError
from charlm.nn.model import RecurrentLanguageModel

LARGEST_HEADER = 8 << 20
FORMAT_METADATA = {"format": "pt"}
"""One entry only: safetensors writes several in an order that is drawn at random."""


def tensors_to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Safetensors content; the same tensors give the same bytes."""
    from safetensors.torch import save

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return bytes(save(plain, metadata=FORMAT_METADATA))


def tensors_from_file(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises RunError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    read_header(path)
    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor, from the header alone. Raises RunError when damaged."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
            if length > LARGEST_HEADER:
                raise RunError(f"{path}: not a safetensors file; expected one written by charlm")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: (item["dtype"], tuple(item["shape"])) for name, item in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def model_tensors(model: RecurrentLanguageModel) -> dict[str, Tensor]:
    """The weights by name; a tied output matrix is left out, being the embedding."""
    tensors = dict(model.state_dict())
    if model.settings.tie_weights:
        tensors.pop("output.weight")
    return tensors


def load_model_weights(path: Path, settings: ModelSettings, vocab_size: int) -> Any:
    """A model of these settings with the weights of the file.

    Names and shapes are compared with the file's header before anything is allocated. Raises
    RunError when they differ or a weight is not finite.
    """
    found = {name: shape for name, (_, shape) in read_header(path).items()}
    depth = settings.num_layers or 0
    if depth > len(found):  # a claim of many layers must not cost the time to build them
        raise RunError(
            f"{path}: holds {len(found)} tensors, config.json expects {depth} layers. "
            "The run's files do not match"
        )
    with torch.device("meta"):
        blueprint = model_tensors(RecurrentLanguageModel(settings, vocab_size))
    expected = {name: tuple(tensor.shape) for name, tensor in blueprint.items()}
    if found != expected:
        raise RunError(f"{path}: {_difference(found, expected)}. The run's files do not match")
    model = RecurrentLanguageModel(settings, vocab_size)
    put_weights(model, tensors_from_file(path))
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise RunError(f"{path}: {broken[0]} holds a value that is not finite; train again")
    return model


def put_weights(model: RecurrentLanguageModel, tensors: dict[str, Tensor]) -> None:
    """Copy weights into a model of the same shapes."""
    if model.settings.tie_weights:
        tensors = {**tensors, "output.weight": tensors["embedding.weight"]}
    model.load_state_dict(tensors)


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return (
                f"{name} has shape {found.get(name, 'none')}, "
                f"config.json expects {expected.get(name, 'none')}"
            )
    return "the same"

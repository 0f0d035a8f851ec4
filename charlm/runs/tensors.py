"""Tensors in safetensors files, and the weights of a torch model."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from charlm.errors import RunError
from charlm.files.safe_read import file_size, read_bytes
from charlm.nn.encoder import Encoder
from charlm.runs.weights import read_header

FORMAT_METADATA = {"format": "pt"}
"""Metadata of every file: one entry, since safetensors writes several in random order."""


def tensors_to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return the content of a safetensors file; equal tensors give equal bytes."""
    from safetensors.torch import save

    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    return bytes(save(plain, metadata=FORMAT_METADATA))


def tensors_from_file(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file. Raises RunError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    read_header(path)
    try:
        return dict(load(read_bytes(path, file_size(path))))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def put_weights(model: Encoder, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a model of these shapes."""
    if model.settings.tie_weights:
        tensors = {**tensors, "output.weight": tensors["embedding.weight"]}
    model.load_state_dict(tensors)

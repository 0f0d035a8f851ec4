"""Tensors as safetensors bytes and back, and the weights of a torch model among them."""

from pathlib import Path

from torch import Tensor

from charlm.errors import RunError
from charlm.files.safe_read import file_size, read_bytes
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.weights import read_header

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
        return dict(load(read_bytes(path, file_size(path))))
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def put_weights(model: RecurrentLanguageModel, tensors: dict[str, Tensor]) -> None:
    """Copy weights into a model of the same shapes."""
    if model.settings.tie_weights:
        tensors = {**tensors, "output.weight": tensors["embedding.weight"]}
    model.load_state_dict(tensors)

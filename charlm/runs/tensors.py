"""Tensors in safetensors files, and the weights of a torch model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from charlm.errors import RunError
from charlm.files.safe_read import file_size, read_bytes
from charlm.nn.encoder import Encoder
from charlm.runs.weights import header_pieces, read_header

FORMAT_METADATA = {"format": "pt"}
"""Metadata of every file: one entry, since safetensors writes several in random order."""
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""Names of the types of numbers, in the order of the format, in which files have the last first."""


def tensors_to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a safetensors file; equal tensors give equal bytes."""
    return b"".join(tensor_pieces(tensors))


def tensor_pieces(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """Return the content of a safetensors file in pieces: a header, and the memory of each tensor.

    Tensors in the memory of the processor are not copied. As in files of the library, those of
    larger numbers come first, and then their names decide. Raises ValueError for another type.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    order = sorted(plain, key=lambda name: (-list(TYPES).index(plain[name].dtype), name))
    types = {name: (TYPES[plain[name].dtype], tuple(plain[name].shape)) for name in order}
    values = [plain[name].reshape(-1).view(torch.uint8).numpy().data for name in order]
    return [*header_pieces(types, [len(value) for value in values], FORMAT_METADATA), *values]


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

"""Weights of a run as arrays, checked against its settings before they are read."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.weights import expected_shapes, runs_without_torch, task_shapes
from charlm.config.model import ModelSettings
from charlm.errors import RunError, UsageError
from charlm.files.safe_read import file_size, parse_json, read_bytes

MAX_HEADER = 4 << 20
"""Bytes of the longest header that is read."""
MAX_WEIGHT = 1e15
"""Largest weight that is accepted: far above any trained one; sums of larger ones overflow."""
OLD_SCALE = "output.scale"
"""Tensor that holds the calibration factor of older runs; newer ones have it in config.json."""
SCALAR: tuple[str, tuple[int, ...]] = ("F32", ())
"""Type and shape of one number."""


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each tensor in a safetensors file, from its header alone.

    Raises RunError if the header is damaged or the file is not as long as it says.
    """
    size = file_size(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
            if length > MAX_HEADER:
                raise RunError(f"{path}: not a safetensors file; expected one written by charlm")
            header = parse_json(file.read(length), path)
        header.pop("__metadata__", None)
        end = max((int(item["data_offsets"][1]) for item in header.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"{size:,} bytes; expected {8 + length + end:,} by its header")
        return {name: (item["dtype"], tuple(item["shape"])) for name, item in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def header_pieces(
    types: Mapping[str, tuple[str, tuple[int, ...]]],
    sizes: Sequence[int],
    metadata: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Return the header of a safetensors file; the memory of its tensors follows.

    `types` are type and shape of each tensor in the order of the file, `sizes` their bytes.
    """
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for (name, (kind, shape)), size in zip(types.items(), sizes, strict=True):
        begin, end = end, end + size
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text]


def load_arrays(
    path: Path,
    settings: ModelSettings,
    vocab_size: int,
    task: Mapping[str, Any] | None = None,
    conditions: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Return the weights in a file by name; `task` is the table in config.json.

    The header is compared with the settings before anything is allocated. Raises RunError if names
    or shapes differ, or if a weight is not finite.
    """
    header = read_header(path)
    kinds = sorted({kind for kind, _ in header.values()} - {"F32"}, key=str)
    if kinds:
        raise RunError(f"{path}: holds numbers of type {kinds[0]}; expected F32. Train again")
    shapes = {name: shape for name, (_, shape) in header.items()}
    if header.get(OLD_SCALE) == SCALAR:
        del shapes[OLD_SCALE]
    depth = settings.num_layers or 0
    if depth > len(shapes):  # before a huge number of layers is listed
        raise RunError(
            f"{path}: holds {len(shapes)} tensors, config.json expects {depth} layers. "
            "The run's files do not match"
        )
    try:
        expected = _expected(settings, vocab_size, task, conditions)
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error
    if shapes != expected:
        raise RunError(f"{path}: {_difference(shapes, expected)}. The run's files do not match")
    arrays = read_tensors(path)
    for name, array in arrays.items():
        highest = float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0)))
        if not highest <= MAX_WEIGHT:  # true for NaN too
            raise RunError(
                f"{path}: {name} holds {highest:.0e}, which is not finite or beyond any trained "
                "weight; train again"
            )
    arrays.pop(OLD_SCALE, None)
    return arrays


def _expected(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any] | None, conditions: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, by name. Raises UsageError if a size does not fit."""
    plain = runs_without_torch(settings)
    if task is not None:
        if plain:
            return task_shapes(settings, vocab_size, task)
        from charlm.nn.task_models import model_shapes

        return model_shapes(settings, vocab_size, task)
    if plain:
        return expected_shapes(settings, vocab_size, conditions)
    from charlm.nn.model import tensor_shapes

    return tensor_shapes(settings, vocab_size, conditions)


def has_old_scale(path: Path) -> bool:
    """Return whether a file of weights holds a calibration factor, as older runs do."""
    return read_header(path).get(OLD_SCALE) == SCALAR


def old_logit_scale(path: Path) -> float:
    """Return the calibration factor in a file of weights, or 1. Raises RunError for a bad one."""
    if not has_old_scale(path):
        return 1.0
    scale = float(read_tensors(path)[OLD_SCALE])
    if not scale > 0.0:
        raise RunError(f"{path}: {OLD_SCALE} is {scale}; expected more than 0. Train again")
    return scale


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file, of any types. Raises RunError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(read_bytes(path, file_size(path))))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def _difference(shapes: dict[str, Any], expected: dict[str, Any]) -> str:
    """Describe the first difference between two tables of shapes."""
    names = sorted(shapes.keys() | expected.keys())
    name = next(name for name in names if shapes.get(name) != expected.get(name))
    return (
        f"{name} has shape {shapes.get(name, 'none')}, "
        f"config.json expects {expected.get(name, 'none')}"
    )

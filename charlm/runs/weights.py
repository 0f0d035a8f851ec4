"""Weights of a run as arrays, checked against what its settings ask for before they are read."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.weights import expected_shapes, runs_without_torch
from charlm.config.model import ModelSettings
from charlm.errors import RunError, UsageError
from charlm.files.safe_read import file_size, parse_json, read_bytes

MAX_HEADER = 4 << 20
MAX_WEIGHT = 1e15
"""No trained weight comes near; with larger ones sums overflow."""
OLD_SCALE = "output.scale"
"""Tensor that holds the calibration factor of older runs; newer ones have it in config.json."""
SCALAR: tuple[str, tuple[int, ...]] = ("F32", ())


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor, from the header alone.

    Raises RunError when it is damaged, or when the file is not as long as it says.
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


def load_arrays(
    path: Path, settings: ModelSettings, vocab_size: int
) -> dict[str, NDArray[np.float32]]:
    """The weights in the file, by name.

    Names and shapes are compared with the file's header before anything is allocated. Raises
    RunError when they differ or a weight is not finite.
    """
    header = read_header(path)
    kinds = sorted({kind for kind, _ in header.values()} - {"F32"}, key=str)
    if kinds:
        raise RunError(f"{path}: holds numbers of type {kinds[0]}; expected F32. Train again")
    found = {name: shape for name, (_, shape) in header.items()}
    if header.get(OLD_SCALE) == SCALAR:
        del found[OLD_SCALE]
    depth = settings.num_layers or 0
    if depth > len(found):  # a claim of many layers must not cost the time to list them
        raise RunError(
            f"{path}: holds {len(found)} tensors, config.json expects {depth} layers. "
            "The run's files do not match"
        )
    try:
        shapes = expected_shapes if runs_without_torch(settings) else _torch_shapes
        expected = shapes(settings, vocab_size)
    except UsageError as error:
        raise RunError(f"{path}: {error}") from error
    if found != expected:
        raise RunError(f"{path}: {_difference(found, expected)}. The run's files do not match")
    arrays = _arrays_from_file(path)
    for name, array in arrays.items():
        highest = float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0)))
        if not highest <= MAX_WEIGHT:  # not a number is not either
            raise RunError(
                f"{path}: {name} holds {highest:.0e}, which is not finite or beyond any trained "
                "weight; train again"
            )
    arrays.pop(OLD_SCALE, None)
    return arrays


def has_old_scale(path: Path) -> bool:
    """Return whether a file of weights holds a calibration factor, as older runs do."""
    return read_header(path).get(OLD_SCALE) == SCALAR


def old_logit_scale(path: Path) -> float:
    """Return the calibration factor in a file of weights, or 1. Raises RunError for a bad one."""
    if not has_old_scale(path):
        return 1.0
    scale = float(_arrays_from_file(path)[OLD_SCALE])
    if not scale > 0.0:
        raise RunError(f"{path}: {OLD_SCALE} is {scale}; expected more than 0. Train again")
    return scale


def _torch_shapes(settings: ModelSettings, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Of models that only torch computes."""
    from charlm.nn.model import tensor_shapes

    return tensor_shapes(settings, vocab_size)


def _arrays_from_file(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(read_bytes(path, file_size(path))))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return (
                f"{name} has shape {found.get(name, 'none')}, "
                f"config.json expects {expected.get(name, 'none')}"
            )
    return "the same"

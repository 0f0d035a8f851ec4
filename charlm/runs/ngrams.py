"""The files of n-gram runs.

An n-gram run is a folder like the run of a network, with `ngrams.safetensors` instead of weights:

    keys.2 .. keys.n                        int64, as in `NgramModel`
    log10_p.1 .. log10_p.n                  float32
    log10_backoff.1 .. log10_backoff.n-1    float32

The companion of a network is such a run in the folder `ngram` of its run, without a vocabulary of
its own.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm import __version__
from charlm.errors import RunError
from charlm.files.atomic import (
    MANIFEST,
    file_fingerprint,
    fingerprint,
    json_bytes,
    write_file,
    write_json,
)
from charlm.files.safe_read import file_size, read_bytes
from charlm.ngrams.model import NgramModel
from charlm.runs import layout
from charlm.runs.weights import read_header
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.vocabulary import Vocabulary

MAX_LOG = 1e6
"""Largest logarithm that is accepted; ARPA files have -99 for a probability of zero."""


def ngram_config(
    order: int,
    vocabulary: Vocabulary,
    boundaries: Boundaries,
    unk_types: float | None = None,
    direction: str = "forward",
) -> dict[str, Any]:
    """Return the content of config.json; the arguments are as in `model_config`."""
    return {
        "format": layout.FORMAT,
        "charlm": __version__,
        "model": {"kind": layout.NGRAM, "order": order, "direction": direction},
        "vocab_size": len(vocabulary),
        "vocabulary": asdict(vocabulary.settings),
        **boundaries.to_config(),
        **({} if unk_types is None else {"unk_types": unk_types}),
    }


def write_ngrams(
    path: Path, config: Mapping[str, Any], model: NgramModel, tokenizer: bytes | None = None
) -> None:
    """Write the model files of an n-gram run, and the manifest.

    `tokenizer` is the content of tokenizer.json; a companion has none. The manifest also covers the
    encoded text in `data/`, which must exist already. Raises EnvironmentFailure.
    """
    files = {layout.CONFIG: json_bytes(config), layout.NGRAMS: ngrams_to_bytes(model)}
    if tokenizer is not None:
        files[layout.TOKENIZER] = tokenizer
    for name, data in files.items():
        write_file(path / name, data)
    entries = {name: fingerprint(data) for name, data in files.items()}
    for file in sorted(path.glob("data/*/*")):
        entries[file.relative_to(path).as_posix()] = file_fingerprint(file)
    write_json(path / MANIFEST, {"format": layout.FORMAT, "files": entries})


def ngrams_to_bytes(model: NgramModel) -> bytes:
    """Return the content of ngrams.safetensors; equal models give equal bytes."""
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    for order, keys in enumerate(model.keys, 2):
        tensors[f"keys.{order}"] = np.ascontiguousarray(keys, np.int64)
    for order, values in enumerate(model.log_p, 1):
        tensors[f"log10_p.{order}"] = np.ascontiguousarray(values, np.float32)
    for order, values in enumerate(model.log_backoff, 1):
        tensors[f"log10_backoff.{order}"] = np.ascontiguousarray(values, np.float32)
    return bytes(save(tensors))


def read_ngrams(path: Path, order: int, vocab_size: int) -> NgramModel:
    """Read ngrams.safetensors of this order and vocabulary. Raises RunError.

    The header is compared with what is expected before anything is allocated, and every key and
    number is checked.
    """
    header = read_header(path)
    if len(header) != 3 * order - 2:  # before a huge order is listed
        raise RunError(
            f"{path}: holds {len(header)} tensors; expected {3 * order - 2} for order {order}. "
            "The run's files do not match"
        )
    sizes = {1: vocab_size + 1}
    for length in range(2, order + 1):
        sizes[length] = next(iter(header.get(f"keys.{length}", ("", ()))[1]), -1)
    expected = {f"keys.{n}": ("I64", (size,)) for n, size in sizes.items() if n > 1}
    expected |= {f"log10_p.{n}": ("F32", (size,)) for n, size in sizes.items()}
    expected |= {f"log10_backoff.{n}": ("F32", (size,)) for n, size in sizes.items() if n < order}
    for name, form in expected.items():
        if header.get(name) != form:
            raise RunError(
                f"{path}: {name} is {header.get(name, 'missing')}; expected {form}. The run's "
                "files do not match"
            )
    arrays = _arrays(path)
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.abs(array).max(initial=0.0) <= MAX_LOG:
            raise RunError(f"{path}: {name} holds numbers that are not finite; fit it again")
    for length in range(2, order + 1):
        _check_keys(path, arrays[f"keys.{length}"], sizes[length - 1], vocab_size)
    return NgramModel(
        vocab_size=vocab_size,
        keys=[arrays[f"keys.{length}"] for length in range(2, order + 1)],
        log_p=[arrays[f"log10_p.{length}"] for length in range(1, order + 1)],
        log_backoff=[arrays[f"log10_backoff.{length}"] for length in range(1, order)],
    )


def _check_keys(path: Path, keys: NDArray[np.int64], contexts: int, vocab_size: int) -> None:
    """Raise RunError unless keys are sorted, and made of nodes and tokens that exist."""
    rising = bool((keys[1:] > keys[:-1]).all())
    limit = contexts * (vocab_size + 1)
    inside = not len(keys) or (int(keys[0]) >= 0 and int(keys[-1]) < limit)
    if not rising or not inside or bool((keys % (vocab_size + 1) == vocab_size).any()):
        raise RunError(
            f"{path}: its n-grams are not sorted, or not of the vocabulary; expected a file that "
            "charlm ngram wrote. Fit it again"
        )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(read_bytes(path, file_size(path))))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error})") from error

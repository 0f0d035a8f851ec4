"""The files of n-gram runs.

An n-gram run is a folder like the run of a network, with `ngrams.safetensors` instead of weights:

    tokens.2 .. tokens.n                    last token of each n-gram
    children.1 .. children.n-1              number of longer n-grams that begin with each n-gram
    log10_p.1 .. log10_p.n                  float32
    log10_backoff.1 .. log10_backoff.n-1    float32

Tokens and children have the smallest unsigned type that holds them. The n-grams of an order are
sorted as in `NgramModel`, whose keys follow from both: the file has 10 bytes for each n-gram of
characters, and keys of 8 bytes would make it 16.

The companion of a network is such a run in the folder `ngram` of its run, without a vocabulary of
its own.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import RunError
from charlm.ngrams.model import NgramModel
from charlm.runs.weights import header_pieces, read_header, read_tensors

TYPES = {"float32": "F32", "uint32": "U32", "uint16": "U16", "uint8": "U8"}
"""Names of the types of numbers, in the order of files."""
UNSIGNED = ("U8", "U16", "U32")
"""Types of tokens and children in a file."""
MAX_LOG = 1e6
"""Largest logarithm that is accepted; ARPA files have -99 for a probability of zero."""


def ngram_pieces(model: NgramModel) -> list[bytes | memoryview]:
    """Return the content of ngrams.safetensors in pieces; equal models give equal bytes.

    Tensors of larger numbers come first, and then their names decide, as in files of the library.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for length, keys in enumerate(model.keys, 2):
        contexts = keys // (model.vocab_size + 1)
        tensors[f"children.{length - 1}"] = _smallest(
            np.bincount(contexts, minlength=model.sizes[length - 2])
        )
        contexts *= model.vocab_size + 1
        tensors[f"tokens.{length}"] = _smallest(np.subtract(keys, contexts, out=contexts))
    for length, values in enumerate(model.log_p, 1):
        tensors[f"log10_p.{length}"] = np.ascontiguousarray(values, np.float32)
    for length, values in enumerate(model.log_backoff, 1):
        tensors[f"log10_backoff.{length}"] = np.ascontiguousarray(values, np.float32)
    order = sorted(tensors, key=lambda name: (list(TYPES).index(tensors[name].dtype.name), name))
    types = {name: (TYPES[tensors[name].dtype.name], tensors[name].shape) for name in order}
    pieces = [tensors[name].view(np.uint8).data for name in order]
    return [*header_pieces(types, [len(piece) for piece in pieces]), *pieces]


def _smallest(values: NDArray[np.int64]) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def read_ngrams(path: Path, order: int, vocab_size: int) -> NgramModel:
    """Read ngrams.safetensors of this order and vocabulary. Raises RunError.

    The header is compared with what is expected before anything is allocated, and every key and
    number is checked.
    """
    header = read_header(path)
    if len(header) != 4 * order - 3:  # before a huge order is listed
        raise RunError(
            f"{path}: holds {len(header)} tensors; expected {4 * order - 3} for order {order}. "
            "The run's files do not match"
        )
    sizes = {1: vocab_size + 1}
    for length in range(2, order + 1):
        sizes[length] = next(iter(header.get(f"tokens.{length}", ("", ()))[1]), -1)
    expected: dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
    expected = {f"tokens.{n}": (UNSIGNED, (size,)) for n, size in sizes.items() if n > 1}
    expected |= {f"children.{n}": (UNSIGNED, (size,)) for n, size in sizes.items() if n < order}
    expected |= {f"log10_p.{n}": (("F32",), (size,)) for n, size in sizes.items()}
    expected |= {
        f"log10_backoff.{n}": (("F32",), (size,)) for n, size in sizes.items() if n < order
    }
    for name, (types, shape) in expected.items():
        kind, found = header.get(name, ("missing", ()))
        if kind not in types or found != shape:
            raise RunError(
                f"{path}: {name} is {kind} {found}; expected {' or '.join(types)} {shape}. The "
                "run's files do not match"
            )
    arrays = read_tensors(path)
    for name, array in arrays.items():
        if array.dtype == np.float32 and not np.abs(array).max(initial=0.0) <= MAX_LOG:
            raise RunError(f"{path}: {name} holds numbers that are not finite; fit it again")
    return NgramModel(
        vocab_size=vocab_size,
        keys=[
            _keys(path, arrays[f"children.{length - 1}"], arrays[f"tokens.{length}"], vocab_size)
            for length in range(2, order + 1)
        ],
        log_p=[arrays[f"log10_p.{length}"] for length in range(1, order + 1)],
        log_backoff=[arrays[f"log10_backoff.{length}"] for length in range(1, order)],
    )


def _keys(
    path: Path, children: NDArray[Any], tokens: NDArray[Any], vocab_size: int
) -> NDArray[np.int64]:
    """Return the keys of one order. Raises RunError unless they are sorted and made of entries."""
    if int(children.sum(dtype=np.int64)) == len(tokens):
        keys: NDArray[np.int64] = np.repeat(np.arange(len(children)) * (vocab_size + 1), children)
        keys += tokens
        if int(tokens.max(initial=0)) < vocab_size and bool((keys[1:] > keys[:-1]).all()):
            return keys
    raise RunError(
        f"{path}: its n-grams are not sorted, or not of the vocabulary; expected a file that "
        "charlm ngram wrote. Fit it again"
    )

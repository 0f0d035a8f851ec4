"""The bag of words in a run that gives labels: its logits are added to those of the network.

`bag.safetensors` has the features (F,) as int64, their weights (F, K) and the priors (K,) as
float32, of `charlm.text.bag_of_words.BagOfWords`. The key `bag` in config.json is F; without it a
file is not read.
"""

from pathlib import Path

import numpy as np

from charlm.errors import RunError
from charlm.runs.layout import BAG
from charlm.runs.weights import read_header, read_tensors
from charlm.text.bag_of_words import BagOfWords


def bag_to_bytes(bag: BagOfWords) -> bytes:
    """Return the content of bag.safetensors; equal bags give equal bytes."""
    from safetensors.numpy import save

    return bytes(
        save(
            {
                "features": bag.features,
                "priors": bag.priors.astype(np.float32),
                "weights": bag.weights.astype(np.float32),
            }
        )
    )


def read_bag(run: Path, features: int, labels: int, vocab_size: int) -> BagOfWords:
    """Read the bag of words of a run with this many features and labels. Raises RunError."""
    path = run / BAG
    expected = {
        "features": ("I64", (features,)),
        "priors": ("F32", (labels,)),
        "weights": ("F32", (features, labels)),
    }
    if (found := read_header(path)) != expected:
        raise RunError(f"{path}: holds {found}; expected {expected}. The run's files do not match")
    arrays = read_tensors(path)
    numbers = arrays["features"]
    in_order = bool((np.diff(numbers, prepend=-1) > 0).all())
    if not in_order or numbers[-1:].sum() >= (vocab_size + 1) * vocab_size:
        raise RunError(
            f"{path}: its features are not sorted, or not of the vocabulary; expected a file that "
            "charlm train wrote. Restore the run from a copy"
        )
    weights, priors = arrays["weights"], arrays["priors"]
    if not (np.isfinite(weights).all() and np.isfinite(priors).all()):
        raise RunError(f"{path}: holds numbers that are not finite; train again")
    return BagOfWords(
        features=numbers,
        weights=weights.astype(np.float64),
        priors=priors.astype(np.float64),
        vocab_size=vocab_size,
    )

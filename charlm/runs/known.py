"""The documents of a run's text, to find out if a generated document is one of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.phases import phase
from charlm.runs.run import Run
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS


def known_documents(run: Run) -> Callable[[str], bool]:
    """Return a function that reports if a text is a document of the run, held-out or not.

    Documents are compared by 64-bit hashes. Raises RunError or CorpusError if the text of the run
    is gone or has changed.
    """
    vocabulary = run.text_vocabulary
    with phase("reading the text of the run"):
        dataset = run.dataset
        splits = (dataset.train, dataset.valid, dataset.test)
        hashes = np.unique(np.concatenate([_hashes(text) for text in splits if text is not None]))

    def is_known(text: str) -> bool:
        """Return whether a text is a document of the run's text."""
        key = _hash(vocabulary.encode(text))
        index = int(np.searchsorted(hashes, key))
        return index < len(hashes) and int(hashes[index]) == key

    return is_known


def _hashes(text: EncodedText) -> NDArray[np.int64]:
    """Return a hash of each document: the ids before each EOS, and after the last one."""
    ends = np.flatnonzero(np.asarray(text.ids) == EOS)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(text.ids)]])
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return np.fromiter((_hash(text.ids[a:b]) for a, b in pairs), np.int64, len(starts))


def _hash(ids: NDArray[Any]) -> int:
    return hash(ids.astype(np.uint32).tobytes())

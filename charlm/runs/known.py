"""The documents of a run's text, to tell whether something generated is among them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.phases import phase
from charlm.runs.run import Run
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS


def known_documents(run: Run) -> Callable[[str], bool]:
    """Return a test for documents of a run's texts, held-out ones included.

    The texts are those kept with the run, else its sources, which must not have changed. Documents
    are remembered by 64-bit hashes. Raises RunError or CorpusError where there is no text any more.
    """
    vocabulary = run.text_vocabulary
    with phase("reading the text of the run"):
        dataset = run.dataset
        parts = [part for part in (dataset.train, dataset.valid, dataset.test) if part is not None]
        hashes = np.unique(np.concatenate([_hashes(part) for part in parts]))

    def is_known(text: str) -> bool:
        """Return whether a text is one of the documents."""
        wanted = _hash(vocabulary.encode(text))
        place = int(np.searchsorted(hashes, wanted))
        return place < len(hashes) and int(hashes[place]) == wanted

    return is_known


def _hashes(text: EncodedText) -> NDArray[np.int64]:
    """Return a hash of each document: of what is before each EOS, and after the last one."""
    ends = np.flatnonzero(np.asarray(text.ids) == EOS)
    starts = np.concatenate([[0], ends + 1])
    stops = np.concatenate([ends, [len(text.ids)]])
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return np.fromiter((_hash(text.ids[a:b]) for a, b in pairs), np.int64, len(starts))


def _hash(ids: NDArray[Any]) -> int:
    return hash(ids.astype(np.uint32).tobytes())

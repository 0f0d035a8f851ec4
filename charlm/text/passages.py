"""Passages that two texts have in common, found by hashes of runs of characters.

Every run of `LENGTH` characters has a hash, blanks and line ends left out, so that a paragraph that
was only wrapped again counts as the same. Of the runs those are compared whose hash ends in zeros,
which chooses the same runs in both texts (Schleimer, Wilkerson & Aiken 2003, "Winnowing").
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

LENGTH = 40
"""Characters of a run, without blanks: about eight words."""
SAMPLED = 16
"""Number of runs of which one is compared; a power of two."""
MIN_SHARED_RUNS = 10
"""Number of compared runs in both texts below which nothing is concluded."""

_FACTOR = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2 ** 64
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def copied_fraction(known: Iterable[str], text: Iterable[str]) -> float:
    """Return the fraction of the distinct runs of a text that are in a known text too.

    A phrase that recurs, such as a message of a log, a licence or a refrain, counts once. The
    texts come in pieces. It is 0 for fewer than `MIN_SHARED_RUNS` compared runs in both.
    """
    own = np.unique(np.concatenate([*_sampled(text)]))
    found = np.zeros(len(own), np.bool_)
    for others in _sampled(known):
        found |= np.isin(own, others)
    shared = int(found.sum())
    return shared / len(own) if shared >= MIN_SHARED_RUNS else 0.0


def _sampled(pieces: Iterable[str]) -> Iterator[NDArray[np.uint64]]:
    """Yield the hashes of the compared runs of a text, and an empty array first."""
    yield np.zeros(0, np.uint64)
    rest = ""
    for piece in pieces:
        joined = rest + "".join(piece.split())
        if len(joined) >= LENGTH:
            hashes = _hashes(joined)
            yield hashes[hashes >> np.uint64(64 - SAMPLED.bit_length() + 1) == 0]
            joined = joined[len(joined) - LENGTH + 1 :]
        rest = joined


def _hashes(text: str) -> NDArray[np.uint64]:
    """Return the hash of each run of a text, modulo 2 ** 64: sum of c[i + k] * _FACTOR ** k."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    powers = np.full(len(codes) + 1, _FACTOR, np.uint64)
    inverses = np.full(len(codes) + 1, _INVERSE, np.uint64)
    powers[0] = inverses[0] = 1
    powers, inverses = np.cumprod(powers), np.cumprod(inverses)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers[:-1])])
    hashes = (sums[LENGTH:] - sums[:-LENGTH]) * inverses[: len(codes) - LENGTH + 1]
    return np.asarray(hashes * np.uint64(_FACTOR), np.uint64)  # mixes the highest bits

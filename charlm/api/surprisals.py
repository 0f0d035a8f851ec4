"""Surprisal of each token or word of a text, in bits."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.inference.scores import Score
from charlm.listing import WORDS, HeatText, Listing, Part

if TYPE_CHECKING:
    from charlm.inspect.text_view import TextView

PARTS = ("token", "word")
"""Parts of a text that have a surprisal of their own."""


class Surprisal(NamedTuple):
    """Surprisal of one token or word.

    `piece` is its slice of the text, from `start` to `end`; joined, the pieces are the text. `rank`
    is one more than the number of likelier tokens, None for a word; `oov` is true if it, or a token
    of it, is unknown.
    """

    piece: str
    bits: float
    start: int
    end: int
    rank: int | None
    oov: bool

    def __repr__(self) -> str:
        return f"Surprisal({self.piece!r}, {self.bits:.3f} bits)"


class Surprisals(Listing[Surprisal]):
    """Surprisals of a text, in its order; notebooks colour the text.

    `vocab_size` is the number of entries among which a blind guess is made.
    """

    def __init__(self, items: Iterable[Surprisal], vocab_size: int) -> None:
        super().__init__(items)
        self.vocab_size = vocab_size

    @property
    def bits(self) -> NDArray[np.float64]:
        """Surprisals as an array, shape (N,)."""
        return np.array([item.bits for item in self], np.float64)

    def rows(self) -> list[dict[str, Any]]:
        """Return the fields of each surprisal."""
        return [item._asdict() for item in self]

    def shown_rows(self) -> list[dict[str, Any]]:
        """See `Listing.shown_rows`."""
        parts = [Part(item.piece, item.bits) for item in self]
        return [{"text": HeatText(parts, self.vocab_size)}]


def token_surprisals(view: "TextView") -> Surprisals:
    """Return the surprisals of the tokens of a text."""
    parts = [Part(token.text, token.bits, token.oov) for token in view.tokens]
    return _surprisals(parts, [token.rank for token in view.tokens], view.vocab_size)


def word_surprisals(score: Score) -> Surprisals:
    """Return the surprisals of the words of a score."""
    parts = score.word_parts
    return _surprisals(parts, [None] * len(parts), WORDS)


def _surprisals(parts: Sequence[Part], ranks: Sequence[int | None], vocab_size: int) -> Surprisals:
    """Return the surprisals of the parts of a text, each with its place."""
    places = pairwise(accumulate((len(part.text) for part in parts), initial=0))
    return Surprisals(
        (
            Surprisal(part.text, part.bits, start, end, rank, part.oov)
            for part, rank, (start, end) in zip(parts, ranks, places, strict=True)
        ),
        vocab_size,
    )

"""Batches of texts and their translations, both of like length, and their order.

inputs          EOS a b c    the source, padded at its end as in `groups`
target_inputs   EOS x y      the translation, one step later
targets         x y EOS      the token that each step predicts
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from charlm.text.batches import PADDING, Int64, Position
from charlm.text.encoded import EncodedText
from charlm.text.groups import Groups, TextBatch, padded, text_lengths


@dataclass(frozen=True, kw_only=True)
class PairBatch(TextBatch):
    """A batch of sources, `inputs` (T, B), and translations, `targets` (T', B).

    Targets behind an EOS are PADDING. `lengths` counts the steps of the sources.
    """

    target_inputs: Int64
    """Inputs of the decoder, shape (T', B)."""

    def at(self, columns: Int64) -> Self:
        """Return a batch of some texts of this one, by their columns."""
        steps = int(np.count_nonzero(self.targets[:, columns] != PADDING, axis=0).max())
        return replace(
            super().at(columns),
            targets=self.targets[:steps, columns],
            target_inputs=self.target_inputs[:steps, columns],
        )


def pair_batch(
    sources: EncodedText, targets: EncodedText, rows: Int64, following: Position | None = None
) -> PairBatch:
    """Return the batch of these rows of both texts; `following` is the position after it."""
    inputs, lengths = padded(sources, rows)
    target_inputs, steps = padded(targets, rows)
    expected = np.roll(target_inputs, -1, axis=0)
    expected[steps - 1, np.arange(len(rows))] = targets.ids[targets.ends[rows] - 1]
    expected[np.arange(len(expected))[:, np.newaxis] >= steps] = PADDING
    return PairBatch(
        inputs=inputs,
        targets=expected,
        target_inputs=target_inputs,
        first=True,
        kept=np.arange(len(rows)),
        tokens=int(steps.sum()),
        next=following or Position(),
        lengths=lengths,
        rows=rows,
    )


class PairGroups(Groups):
    """The batches of a parallel text."""

    def __init__(
        self, sources: EncodedText, targets: EncodedText, batch_size: int, seed: int
    ) -> None:
        super().__init__(sources, batch_size, seed)
        self.translations = targets

    @property
    def total(self) -> int:
        """Number of target tokens, with an EOS for each text."""
        return len(self.translations.ids)

    @property
    def lengths(self) -> Int64:
        """Keys by which pairs are sorted; see `pair_lengths`."""
        return pair_lengths(self.text, self.translations)

    def batch(self, rows: Int64, following: Position) -> PairBatch:
        """Return the batch of these pairs."""
        return pair_batch(self.text, self.translations, rows, following)


def pair_lengths(sources: EncodedText, targets: EncodedText) -> Int64:
    """Return the steps of the longer side of each pair, shape (documents,)."""
    return np.maximum(text_lengths(sources), text_lengths(targets))

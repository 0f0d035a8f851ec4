"""Groups: batches of whole texts of like length, and the order in which training reads them.

Texts are padded at their end only, so no step of a text reads a pad:

    inputs    text 0   | EOS a b c |      the first input is the start symbol, the closing EOS is
              text 1   | EOS d . . |      not read: a text of n tokens has n + 1 steps
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from charlm.text.batches import PADDING, Batch, Int64, Position
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS

BATCHES_SORTED = 20
"""Number of batches whose texts are sorted by length together."""
READ_TOGETHER = 64
"""Maximum number of texts that are read side by side without training."""


@dataclass(frozen=True, kw_only=True)
class TextBatch(Batch):
    """A batch of whole texts: `inputs` (T, B), and `targets` whose last axis is that of the texts.

    Each text begins from the initial state, and `tokens` counts the targets.
    """

    lengths: Int64
    """Steps of each text, shape (B,)."""
    rows: Int64
    """Number of each text in its split, shape (B,)."""

    def at(self, columns: Int64) -> Self:
        """Return a batch of some texts of this one, by their columns."""
        targets = self.targets[..., columns]
        return replace(
            self,
            inputs=self.inputs[: self.lengths[columns].max(), columns],
            targets=targets,
            kept=np.arange(len(columns)),
            tokens=int(np.count_nonzero(targets != PADDING)),
            lengths=self.lengths[columns],
            rows=self.rows[columns],
        )


class LabelBatch(TextBatch):
    """A batch of texts with labels: `targets` (B,) are the ids of the labels."""


class Groups(ABC):
    """The batches of texts of like length, epoch by epoch, from any position."""

    def __init__(self, text: EncodedText, batch_size: int, seed: int) -> None:
        self.text, self.batch_size, self.seed = text, batch_size, seed

    @property
    @abstractmethod
    def total(self) -> int:
        """Number of targets of an epoch."""

    @property
    def lengths(self) -> Int64:
        """Keys by which texts are sorted, shape (N,): like ones come into one batch."""
        return text_lengths(self.text)

    @abstractmethod
    def batch(self, rows: Int64, following: Position) -> TextBatch:
        """Return the batch of these texts; `following` is the position after it."""

    def typical(self, batch: Batch) -> float:
        """Return the targets of a batch if it were full: only the last of an epoch may not be."""
        return batch.tokens * self.batch_size / len(batch.kept)

    def epoch(self, position: Position) -> Iterator[TextBatch]:
        """Yield the rest of an epoch. Its order depends on the seed and the epoch number only."""
        groups = self._groups(position.epoch)
        for number in range(position.group, len(groups)):
            last = number == len(groups) - 1
            following = Position(epoch=position.epoch + last, group=0 if last else number + 1)
            yield self.batch(groups[number], following)

    def _groups(self, epoch: int) -> list[Int64]:
        """Return the texts of each batch: all texts in random order, nearby ones sorted."""
        order = np.random.default_rng([self.seed, epoch])
        texts, size = order.permutation(self.text.documents), self.batch_size
        lengths = self.lengths
        batches: list[Int64] = []
        for begin in range(0, len(texts), size * BATCHES_SORTED):
            chunk = texts[begin : begin + size * BATCHES_SORTED]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            batches += [chunk[at : at + size] for at in range(0, len(chunk), size)]
        return [batches[number] for number in order.permutation(len(batches))]


class LabelGroups(Groups):
    """The batches of texts with labels."""

    def __init__(
        self, text: EncodedText, targets: NDArray[np.int32], batch_size: int, seed: int
    ) -> None:
        super().__init__(text, batch_size, seed)
        self.targets = targets.astype(np.int64)

    @property
    def total(self) -> int:
        """Number of texts."""
        return len(self.targets)

    def batch(self, rows: Int64, following: Position) -> LabelBatch:
        """Return the batch of these texts."""
        inputs, lengths = padded(self.text, rows)
        return LabelBatch(
            inputs=inputs,
            targets=self.targets[rows],
            first=True,
            kept=np.arange(len(rows)),
            tokens=len(rows),
            next=following,
            lengths=lengths,
            rows=rows,
        )


def text_lengths(text: EncodedText) -> Int64:
    """Return the number of steps of each text, shape (documents,): its tokens and the start."""
    return np.diff(text.ends, prepend=0)


def padded(text: EncodedText, rows: Int64) -> tuple[Int64, Int64]:
    """Return the inputs (T, B) of these texts, padded with EOS, and their lengths (B,) in steps."""
    starts = np.where(rows > 0, text.ends[rows - 1], 0)
    lengths = text.ends[rows] - starts
    steps = np.arange(1, int(lengths.max(initial=1)))[:, np.newaxis]
    read = steps < lengths  # (T - 1, B)
    inputs = np.full((len(steps) + 1, len(rows)), EOS, np.int64)
    inputs[1:][read] = text.ids[(starts + steps - 1)[read]]
    return inputs, lengths


def groups_by_length(lengths: Int64, batch_size: int, max_steps: int = 1 << 15) -> list[Int64]:
    """Return texts in batches of like length, the short ones first, for reading each text once.

    A batch has at most `batch_size` texts, and at most `max_steps` steps with its padding unless it
    is a single text. Every text is in one batch.
    """
    order = np.argsort(lengths, kind="stable")
    batches: list[Int64] = []
    begin = 0
    while begin < len(order):
        ahead = lengths[order[begin : begin + batch_size]]
        fitting = ahead * np.arange(1, len(ahead) + 1) <= max_steps
        count = max(int(fitting.sum()), 1)  # sizes only grow, so those that fit come first
        batches.append(order[begin : begin + count])
        begin += count
    return batches

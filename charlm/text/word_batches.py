"""Batches of sentences of like length, with the steps and the letters of their words.

words      EU rejects .          tokens are read as in `charlm.text.groups`
inputs     EOS eu rejects .      the token at step s is read by step s
firsts     1 2 3                 steps of the first token of each word; 0 where there is none
spelled    0 1 2 3               spelling of each step in `letters`, from 1; 0 for EOS and pads
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from charlm.text.batches import PADDING, Int64, Position
from charlm.text.documents import END
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.groups import Groups, TextBatch, padded
from charlm.text.sentences import Int32, Sentences, places_within
from charlm.text.tokenizers.vocabulary import Vocabulary

MAX_LETTERS = 40
"""Letters of a word that are read; the rest of longer ones, mostly addresses, is left out."""


@dataclass(frozen=True, kw_only=True)
class WordBatch(TextBatch):
    """A batch of sentences: `targets` (Wmax, B) are the tags of their words, or PADDING.

    `tokens` counts the words.
    """

    firsts: Int64
    """Step of the first token of each word, shape (Wmax, B); 0 behind the last word."""
    lasts: Int64
    """Step of the last token of each word, shape (Wmax, B); 0 behind the last word."""
    counts: Int64
    """Words of each sentence, shape (B,)."""
    letters: Int64
    """Letters of the distinct spellings, EOS first, shape (C, U); U is 0 if they are not read."""
    letter_lengths: Int64
    """Steps of each spelling, shape (U,): its letters and the start."""
    spelled: Int64
    """Spelling of the word that each step reads, from 1, shape (T, B); 0 for EOS and padding."""

    def word_places(self) -> tuple[Int64, Int64]:
        """Return number and sentence (words,) of each word, sentence after sentence."""
        inside = np.arange(len(self.firsts)) < self.counts[:, np.newaxis]
        sentence, word = np.nonzero(inside)
        return word, sentence

    def at(self, columns: Int64) -> Self:
        """See `TextBatch.at`."""
        steps = int(self.lengths[columns].max(initial=0))
        words = int(self.counts[columns].max(initial=0))
        spelled = self.spelled[:steps, columns]
        used, renumbered = np.unique(np.append(spelled.ravel(), 0), return_inverse=True)
        lengths = self.letter_lengths[used[1:] - 1]
        return replace(
            self,
            inputs=self.inputs[:steps, columns],
            targets=self.targets[:words, columns],
            kept=np.arange(len(columns)),
            tokens=int(self.counts[columns].sum()),
            lengths=self.lengths[columns],
            rows=self.rows[columns],
            firsts=self.firsts[:words, columns],
            lasts=self.lasts[:words, columns],
            counts=self.counts[columns],
            letters=self.letters[: int(lengths.max(initial=1)), used[1:] - 1],
            letter_lengths=lengths,
            spelled=renumbered[:-1].reshape(spelled.shape),
        )


def word_batch(
    sentences: Sentences,
    rows: Int64,
    targets: Int32 | None = None,
    letters: Vocabulary | None = None,
    following: Position | None = None,
) -> WordBatch:
    """Return these sentences as a batch.

    `targets` are the tags of all words, shape (W,). Words are spelled if `letters`, a vocabulary of
    characters, is given.
    """
    inputs, lengths = padded(sentences.text, rows)
    counts, numbers = sentences.counts[rows], sentences.numbers(rows)
    columns = np.repeat(np.arange(len(rows)), counts)
    inside = places_within(counts)
    shape = int(counts.max(initial=0)), len(rows)
    firsts, lasts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    firsts[inside, columns] = sentences.firsts[numbers] + 1
    lasts[inside, columns] = sentences.lasts[numbers] + 1
    tags = np.full(shape, PADDING, np.int64)
    if targets is not None:
        tags[inside, columns] = targets[numbers]
    spelled = np.zeros(inputs.shape, np.int64)
    spellings, steps = np.empty((1, 0), np.int64), np.empty(0, np.int64)
    if letters is not None:
        used, spelling = np.unique(sentences.spelling[numbers], return_inverse=True)
        spellings, steps = spelled_out([sentences.words[number] for number in used], letters)
        begins, stops = firsts[inside, columns], lasts[inside, columns]
        widths = stops - begins + 1
        steps_of = np.repeat(begins, widths) + places_within(widths)
        spelled[steps_of, np.repeat(columns, widths)] = np.repeat(spelling + 1, widths)
    return WordBatch(
        inputs=inputs,
        targets=tags,
        first=True,
        kept=np.arange(len(rows)),
        tokens=len(numbers),
        next=following or Position(),
        lengths=lengths,
        rows=rows,
        firsts=firsts,
        lasts=lasts,
        counts=counts,
        letters=spellings,
        letter_lengths=steps,
        spelled=spelled,
    )


def spelled_out(words: list[str], letters: Vocabulary) -> tuple[Int64, Int64]:
    """Return the letters of words as inputs, shape (C, words), EOS first, and their steps (words,).

    Of a long word the first `MAX_LETTERS` are read.
    """
    ids, ends = letters.encode_marked("".join(word[:MAX_LETTERS] + END for word in words))
    text = EncodedText(ids=ids, ends=ends, counts=TextCounts(), is_stream=False)
    return padded(text, np.arange(len(words)))


class WordGroups(Groups):
    """The batches of sentences of tagged words."""

    def __init__(
        self,
        sentences: Sentences,
        targets: Int32,
        batch_size: int,
        seed: int,
        letters: Vocabulary | None = None,
    ) -> None:
        super().__init__(sentences.text, batch_size, seed)
        self.sentences, self.targets, self.letters = sentences, targets, letters

    @property
    def total(self) -> int:
        """Number of words."""
        return len(self.targets)

    def batch(self, rows: Int64, following: Position) -> WordBatch:
        """Return the batch of these sentences."""
        return word_batch(self.sentences, rows, self.targets, self.letters, following)

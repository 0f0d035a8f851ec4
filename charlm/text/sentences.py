"""Sentences: encoded texts of one sentence each, with the tokens of every word."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from charlm.text.batches import Int64
from charlm.text.documents import END, check_text
from charlm.text.encoded import EncodedText, TextCounts, count_text
from charlm.text.groups import text_lengths
from charlm.text.tokenizers.spans import Places, token_spans
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary

Int32 = NDArray[np.int32]
CHUNK_CHARS = 1 << 16
"""Characters of sentences that are encoded together, at least."""
_WORD = re.compile(r"[^ \t\r\n]+")


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Sentences as documents of an encoded text: the words joined by single blanks, then EOS."""

    text: EncodedText
    words: Sequence[str]
    """Distinct spellings."""
    spelling: Int32
    """Number of each word's spelling in `words`, shape (W,), sentence after sentence."""
    firsts: Int32
    """First token of each word, counted in its sentence, shape (W,)."""
    lasts: Int32
    """Last token of each word, included, shape (W,)."""
    ends: Int64
    """Number of words up to the end of each sentence, shape (N,)."""

    @property
    def documents(self) -> int:
        """Number of sentences."""
        return len(self.ends)

    @cached_property
    def counts(self) -> Int64:
        """Words of each sentence, shape (N,)."""
        counts: Int64 = np.diff(self.ends, prepend=0)
        return counts

    @cached_property
    def lengths(self) -> Int64:
        """Steps of each sentence, shape (N,): its tokens and the start."""
        return text_lengths(self.text)

    def numbers(self, rows: Int64) -> Int64:
        """Return the numbers of the words of these sentences, sentence after sentence."""
        counts = self.counts[rows]
        numbers: Int64 = np.repeat(self.ends[rows] - counts, counts) + places_within(counts)
        return numbers

    def sentences_at(self, rows: Int64) -> "Sentences":
        """Return these sentences, in this order."""
        numbers = self.numbers(rows)
        return Sentences(
            text=self.text.documents_at(rows),
            words=self.words,
            spelling=self.spelling[numbers],
            firsts=self.firsts[numbers],
            lasts=self.lasts[numbers],
            ends=np.cumsum(self.counts[rows]),
        )

    def words_of(self, row: int) -> list[str]:
        """Return the words of a sentence."""
        return [self.words[number] for number in self.spelling[self.numbers(np.array([row]))]]


def places_within(counts: Int64) -> Int64:
    """Return the places, from 0, of the items of groups of these sizes, group after group."""
    places: Int64 = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def encode_sentences(sentences: Iterable[Sequence[str]], vocabulary: Vocabulary) -> Sentences:
    """Encode sentences, each a sequence of words, as one document each.

    A token that covers parts of two words counts for both. A word without a token of its own, such
    as a single U+00A0 between blanks, is read at the token before it. Raises CorpusError for a lone
    surrogate.
    """
    known: dict[str, int] = {}
    ids, ends = [np.empty(0, vocabulary.dtype)], [np.empty(0, np.int64)]
    spelling: list[int] = []
    firsts, lasts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    word_ends: list[int] = []
    counts, total = TextCounts(), 0
    for chunk in _chunks(sentences):
        text = "".join(" ".join(words) + END for words in chunk)
        chunk_ids, chunk_ends = vocabulary.encode_marked(text)
        chunk_firsts, chunk_lasts = _places(vocabulary, text, chunk, chunk_ids, chunk_ends)
        ids.append(chunk_ids)
        ends.append(chunk_ends + total)
        firsts.append(chunk_firsts)
        lasts.append(chunk_lasts)
        total += len(chunk_ids)
        counts += count_text(text)[0]
        for words in chunk:
            spelling += [known.setdefault(word, len(known)) for word in words]
            word_ends.append(len(spelling))
    return Sentences(
        text=EncodedText(
            ids=np.concatenate(ids), ends=np.concatenate(ends), counts=counts, is_stream=False
        ),
        words=list(known),
        spelling=np.array(spelling, np.int32),
        firsts=np.concatenate(firsts).astype(np.int32),
        lasts=np.concatenate(lasts).astype(np.int32),
        ends=np.array(word_ends, np.int64),
    )


def is_word(text: str) -> bool:
    """Return True for a text that may be a word or a tag: not blank, without line ends and tabs."""
    return bool(text.strip()) and not set(text) & set("\t\r\n")


def split_words(text: str) -> list[tuple[str, int]]:
    """Return the words of a line of text, cut at blanks, tabs and CR, and where each begins."""
    return [(match[0], match.start()) for match in _WORD.finditer(text)]


def _chunks(sentences: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """Yield sentences that are encoded together: all are ASCII, which is faster, or none is."""
    chunk: list[Sequence[str]] = []
    chars, is_ascii = 0, True
    for words in sentences:
        for word in words:
            check_text(word, f"the word {word!r:.80}")
        if chunk and (chars >= CHUNK_CHARS or is_ascii != all(map(str.isascii, words))):
            yield chunk
            chunk, chars = [], 0
        chunk.append(words)
        chars += sum(map(len, words))
        is_ascii = all(map(str.isascii, words))
    if chunk:
        yield chunk


def _places(
    vocabulary: Vocabulary, text: str, chunk: Sequence[Sequence[str]], ids: Ids, ends: Places
) -> tuple[Places, Places]:
    """Return the tokens of the words of some sentences, each counted in its sentence."""
    begins, stops = token_spans(vocabulary, text, ids)
    lengths = np.array([len(word) + 1 for words in chunk for word in words], np.int64)
    counts = np.array([len(words) for words in chunk])
    extra = np.repeat(np.cumsum(counts == 0), counts)  # ENDs of sentences without a word
    word_ends = np.cumsum(lengths) - 1 + extra
    word_begins = word_ends - lengths + 1
    before = np.repeat(ends - np.diff(ends, prepend=0), counts)  # tokens of earlier sentences
    firsts = np.searchsorted(stops, word_begins, "right") - before
    lasts = np.searchsorted(begins, word_ends, "left") - 1 - before
    lasts = np.maximum(lasts, 0)
    return np.minimum(firsts, lasts), lasts

"""Vocabularies of words and of byte-pair encoding, encoded by the `tokenizers` library."""

import json
import re
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import VocabularySettings
from charlm.text.documents import END
from charlm.text.tokenizers.cutting import cut_safely, fine_pieces
from charlm.text.tokenizers.decoders import (
    BlankDecoder,
    BytesDecoder,
    Decoder,
    TableDecoder,
    byte_name,
    byte_strings,
)
from charlm.text.tokenizers.tokenizer_json import (
    EOS,
    LETTERS,
    LINE_END,
    UNK,
    UNKNOWN_TEXT,
    WORD_CUTS,
    Json,
    byte_level,
    no_surrogates,
    sequence,
    split,
)
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary, normalizes

ASCII_WORDS = {
    "whitespace": re.compile(r"\n|[^\t\x0B\f\r \n]+"),
    "text": re.compile(
        r"\n|[\t\x0B\f\r ]+|[A-Za-z0-9_]+(?:'[A-Za-z0-9_]+)*|[^A-Za-z0-9_\t\x0B\f\r \n]"
    ),
}
"""Patterns that find the words of `tokenizer_json.WORD_CUTS` in ASCII text."""


class _LibraryVocabulary(Vocabulary):
    """A vocabulary of words or BPE, with text cut by `tokenizers` in bounded pieces."""

    def _piece_ids(self, pieces: list[str]) -> list[list[int]]:
        """Return the ids of each piece."""
        encodings = self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """See `Vocabulary.encode_marked`."""
        documents = [list(cut_safely(part, self.piece_chars)) for part in text.split(END)]
        pieces = [piece for document in documents for piece in document]
        encoded = iter(self._piece_ids(pieces))
        arrays: list[Ids] = []
        ends: list[int] = []
        total = 0
        for number, document in enumerate(documents):
            ids = [index for _ in document for index in next(encoded)]
            if number < len(documents) - 1:
                ids.append(EOS)
                ends.append(total + len(ids))
            total += len(ids)
            arrays.append(np.array(ids, self.dtype))
        return np.concatenate(arrays), np.array(ends, np.int64)

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        plain = not normalizes(self.settings)
        pieces: list[str] = []
        for part in cut_safely(text, self.piece_chars):
            shown = part if plain else self.tokenizer.normalizer.normalize_str(part)
            encoding = (self.tokenizer if plain else self._without_normalizer).encode(shown)
            ids, offsets = encoding.ids, encoding.offsets  # each access makes a new list
            places = [(0, 0), *offsets, (len(shown), len(shown))]
            for at, (start, end) in enumerate(offsets, start=1):
                whole = places[at - 1][1] <= start and end <= places[at + 1][0]
                pieces.append(shown[start:end] if whole else self.token_text(ids[at - 1]))
        return pieces

    @cached_property
    def _without_normalizer(self) -> Any:
        """Tokenizer for normalised text, which a second normalisation can change."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.to_json() | {"normalizer": None}))


class WordVocabulary(_LibraryVocabulary):
    """A vocabulary of words and blanks, or of the words between blanks with EOS at line ends."""

    piece_chars = 1 << 12

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:
        """See `Vocabulary.pre_tokenizer`."""
        return WORD_CUTS[settings.words]

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:  # noqa: ARG004
        """See `Vocabulary.can_hold`."""
        return all(tokens) and no_surrogates(tokens)

    def _piece_ids(self, pieces: list[str]) -> list[list[int]]:
        """Encode ASCII pieces by Python's regular expressions, which are ten times faster."""
        slow = [number for number, piece in enumerate(pieces) if not piece.isascii()]
        result: list[list[int]] = [[]] * len(pieces)
        if slow:
            encoded = super()._piece_ids([pieces[number] for number in slow])
            for number, ids in zip(slow, encoded, strict=True):
                result[number] = ids
        known = self.ids.get
        for number in sorted(set(range(len(pieces))) - set(slow)):
            result[number] = [known(word, UNK) for word in self._ascii_words(pieces[number])]
        return result

    def words(self, text: str) -> list[str]:
        """Cut a text into normalised words, known or not."""
        words: list[str] = []
        for part in fine_pieces(text):
            if part.isascii():
                words += self._ascii_words(part)
                continue
            normal = self.normalizer()
            shown = normal.normalize_str(part) if normal else part
            cut = self.tokenizer.pre_tokenizer.pre_tokenize_str(shown)
            words += [word for word, _ in cut]
        return words

    def _ascii_words(self, text: str) -> list[str]:
        cut = ASCII_WORDS[self.settings.words].findall
        return cut(text.lower() if self.settings.lowercase else text)

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        table = [unk_text, LINE_END, *self.tokens[2:]]
        return BlankDecoder(table) if self.line_ends_are_eos else TableDecoder(table)


class BpeVocabulary(_LibraryVocabulary):
    """A vocabulary of byte-pair encoding over UTF-8 bytes (Sennrich et al. 2016)."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return sequence(split(r"\n", "Isolated"), byte_level(use_regex=True))

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """See `Vocabulary.can_hold`."""
        known, letters = set(tokens), set(LETTERS)
        parts = {part for left, right in merges for part in (left, right, left + right)}
        return letters | parts <= known and all(letters.issuperset(token) for token in tokens)

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        return BytesDecoder(byte_strings(self.tokens), unk_text)

    def token_text(self, index: int) -> str:
        """See `Vocabulary.token_text`."""
        name = super().token_text(index)
        return name if index < 2 else byte_name(byte_strings([name], skip=0)[0])

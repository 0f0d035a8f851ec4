"""Vocabularies of words and of byte-pair encoding, encoded by the `tokenizers` library."""

import json
import re
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import VocabularySettings
from charlm.text.documents import END
from charlm.text.tokenizers import tokenizer_json
from charlm.text.tokenizers.cutting import cut_safely, fine_pieces
from charlm.text.tokenizers.tokenizer_json import BLANK, EOS, LETTERS, UNK, Json
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary

ASCII_WORDS = {
    "whitespace": re.compile(r"\n|[^\t\x0B\f\r \n]+"),
    "text": re.compile(
        r"\n|[\t\x0B\f\r ]+|[A-Za-z0-9_]+(?:'[A-Za-z0-9_]+)*|[^A-Za-z0-9_\t\x0B\f\r \n]"
    ),
    "bare": re.compile(r"[A-Za-z0-9_]+(?:'[A-Za-z0-9_]+)*|[^A-Za-z0-9_\t\x0B\f\r \n]"),
}
"""Patterns that find the words of `tokenizer_json.WORD_CUTS` in ASCII text."""
BETWEEN_BLANKS = re.compile(
    r"\n|[^\n" + re.sub(r"\\x\{(\w+)\}", lambda match: chr(int(match[1], 16)), BLANK) + "]+"
)
"""Pattern that finds the words of the rule "whitespace" in any text."""


class _LibraryVocabulary(Vocabulary):
    """A vocabulary of words or BPE, with text cut by `tokenizers` in bounded pieces."""

    def _piece_ids(self, pieces: list[str]) -> list[list[int]]:
        encodings = self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """See `Vocabulary.encode_marked`."""
        documents = [list(cut_safely(each, self.piece_chars)) for each in text.split(END)]
        encoded = iter(self._piece_ids([piece for document in documents for piece in document]))
        arrays: list[Ids] = []
        for document in documents:
            ids = [index for _ in document for index in next(encoded)]
            ids.append(EOS)  # removed again after the last document
            arrays.append(np.array(ids, self.dtype))
        ends = np.cumsum([len(ids) for ids in arrays[:-1]], dtype=np.int64)
        return np.concatenate(arrays)[:-1], ends

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        tokenizer = self._without_normalizer if self.normalizes else self.tokenizer
        pieces: list[str] = []
        for part in map(self.normalized, cut_safely(text, self.piece_chars)):
            encoding = tokenizer.encode(part)
            ids, offsets = encoding.ids, encoding.offsets  # each access makes a new list
            places = [(0, 0), *offsets, (len(part), len(part))]
            for at, (start, end) in enumerate(offsets, start=1):
                whole = places[at - 1][1] <= start and end <= places[at + 1][0]
                pieces.append(part[start:end] if whole else self.token_text(ids[at - 1]))
        return pieces

    @cached_property
    def _without_normalizer(self) -> Any:
        """Tokenizer for normalised text, which a second normalisation can change."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.to_json() | {"normalizer": None}))


class WordVocabulary(_LibraryVocabulary):
    """A vocabulary of words and blanks, of bare words, or of what blanks separate."""

    piece_chars = 1 << 12

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:
        """See `Vocabulary.pre_tokenizer`."""
        return tokenizer_json.WORD_CUTS[settings.words]

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:  # noqa: ARG004
        """See `Vocabulary.can_hold`."""
        return all(tokens) and tokenizer_json.no_surrogates(tokens)

    def _piece_ids(self, pieces: list[str]) -> list[list[int]]:
        """Encode plain pieces by Python's regular expressions, which are ten times faster."""
        slow = [piece for piece in pieces if not self._is_plain(piece)]
        encoded = iter(super()._piece_ids(slow) if slow else [])
        known = self.ids.get
        return [
            [known(word, UNK) for word in self._plain_words(piece)]
            if self._is_plain(piece)
            else next(encoded)
            for piece in pieces
        ]

    def words(self, text: str) -> list[str]:
        """Cut a text into normalised words, known or not."""
        words: list[str] = []
        for piece in fine_pieces(text):
            if self._is_plain(piece):
                words += self._plain_words(piece)
                continue
            cuts = self.tokenizer.pre_tokenizer.pre_tokenize_str(self.normalized(piece))
            words += [word for word, _ in cuts]
        return words

    def _is_plain(self, text: str) -> bool:
        """Return whether Python's regular expressions cut a text as `tokenizers` does."""
        return text.isascii() or (self.settings.words == "whitespace" and not self.normalizes)

    def _plain_words(self, text: str) -> list[str]:
        if not text.isascii():
            return BETWEEN_BLANKS.findall(text)
        words = ASCII_WORDS[self.settings.words].findall
        return words(text.lower() if self.settings.lowercase else text)


class BpeVocabulary(_LibraryVocabulary):
    """A vocabulary of byte-pair encoding over UTF-8 bytes (Sennrich et al. 2016)."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        lines = tokenizer_json.split(r"\n", "Isolated")
        return tokenizer_json.sequence(lines, tokenizer_json.byte_level(use_regex=True))

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """See `Vocabulary.can_hold`."""
        letters = set(LETTERS)
        merged = {token for left, right in merges for token in (left, right, left + right)}
        return letters | merged <= set(tokens) and all(map(letters.issuperset, tokens))

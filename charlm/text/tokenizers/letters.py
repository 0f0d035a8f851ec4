"""Vocabularies of letters: one token for each character, or for each byte."""

from abc import abstractmethod
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import VocabularySettings
from charlm.text.documents import END
from charlm.text.tokenizers import tokenizer_json
from charlm.text.tokenizers.decoders import BYTE_OF_LETTER, byte_name
from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS, UNK, Json
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary, code_points


class _CodeVocabulary(Vocabulary):
    """A vocabulary of characters or bytes, with a table from code to id."""

    table: NDArray[Any]

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """See `Vocabulary.encode_marked`."""
        if self.normalizes:
            text = END.join(map(self.normalized, text.split(END)))
        ids = self._ids(text)
        return ids, np.flatnonzero(ids == EOS) + 1

    def _ids(self, text: str) -> Ids:
        return np.take(self.table, self._codes(text))

    @abstractmethod
    def _codes(self, text: str) -> NDArray[Any]: ...


class CharVocabulary(_CodeVocabulary):
    """A vocabulary of Unicode code points."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return tokenizer_json.split(r"[\s\S]", "Isolated")

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:  # noqa: ARG004
        """See `Vocabulary.can_hold`."""
        return all(len(token) == 1 for token in tokens) and tokenizer_json.no_surrogates(tokens)

    @cached_property
    def table(self) -> NDArray[Any]:  # type: ignore[override]
        """Ids of all code points, shape (0x110000,)."""
        table = np.full(0x110000, UNK, self.dtype)
        table[[ord(token) for token in self.tokens[2:]]] = np.arange(2, len(self))
        table[ord(END)] = EOS
        return table

    @cached_property
    def _ascii_table(self) -> bytes:
        return self.table[:256].tobytes()

    def _ids(self, text: str) -> Ids:
        if self.dtype == np.uint8 and text.isascii():  # several times faster than numpy's take
            return np.frombuffer(text.encode("ascii").translate(self._ascii_table), np.uint8)
        return super()._ids(text)

    def _codes(self, text: str) -> NDArray[Any]:
        return code_points(text)

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        return list(self.normalized(text))


class ByteVocabulary(_CodeVocabulary):
    """The vocabulary of UTF-8 bytes: byte b always has id b + 2, and nothing is unknown."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return tokenizer_json.byte_level(use_regex=False)

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """See `Vocabulary.can_hold`."""
        return tokens == LETTERS and not merges

    @cached_property
    def table(self) -> NDArray[Any]:  # type: ignore[override]
        """Ids of all bytes, shape (257,); the last entry is END."""
        table = np.full(257, UNK, self.dtype)
        for index, letter in enumerate(self.tokens[2:], start=2):
            table[BYTE_OF_LETTER[letter]] = index
        table[256] = EOS
        return table

    def _codes(self, text: str) -> NDArray[Any]:
        documents = [np.frombuffer(each.encode("utf-8"), np.uint8) for each in text.split(END)]
        if len(documents) == 1:
            return documents[0]
        mark = np.array([256], np.uint16)
        return np.concatenate([codes for each in documents for codes in (each, mark)][:-1])

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        return [byte_name(bytes([byte])) for byte in self.normalized(text).encode("utf-8")]

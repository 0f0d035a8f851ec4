"""Vocabularies: text to ids and back, for characters, bytes, words and byte-pair encoding.

Ids 0 and 1 are UNK and EOS; EOS is also the input at the start of a document. The other entries
are ordered by count, then by code point, so that a text always gives the same ids.
Characters and bytes are encoded through a numpy table; words and BPE by the `tokenizers` library.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.config.class_path import resolve
from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import UNITS, UnitSpec
from charlm.text.documents import check_text
from charlm.text.tokenizers import decoders, tokenizer_json
from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS, LINE_END, UNK, UNKNOWN_TEXT, Json

Ids = NDArray[Any]


class Vocabulary(ABC):
    """A vocabulary of one unit. `encode` maps text to ids, `decode` maps ids to text.

    END marks in a text (see `text.documents`) become EOS.
    """

    piece_chars: ClassVar[int] = 1 << 16
    """Maximum number of characters that are encoded at a time; longer words are cut."""
    unk, eos = UNK, EOS

    def __init__(
        self,
        settings: VocabularySettings,
        tokens: Sequence[str],
        merges: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.settings = settings
        self.tokens = list(tokens)
        self.merges = list(merges)

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:
        """Return the pre-tokenizer of `tokenizer.json`, which cuts a text into tokens.

        It must cut lines first, so that a text can be encoded in pieces.
        """
        raise NotImplementedError

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """Return True if a file may have these entries (besides UNK and EOS) and merges."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def unit(self) -> str:
        """Name of the unit."""
        return self.settings.unit

    @property
    def spec(self) -> UnitSpec:
        """Facts about the unit."""
        return UNITS[self.unit]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Smallest integer type that holds every id."""
        return np.dtype(np.min_scalar_type(max(len(self) - 1, 0)))

    @cached_property
    def tokenizer(self) -> Any:
        """This vocabulary as a `tokenizers.Tokenizer`."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.to_json()))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids by token."""
        return {token: index for index, token in enumerate(self.tokens)}

    def encode(self, text: str) -> Ids:
        """Return the ids of a text, shape (tokens,), in the vocabulary's dtype.

        Raises CorpusError for a lone surrogate, which is not valid in a text.
        """
        check_text(text)
        return self.encode_marked(text)[0]

    @abstractmethod
    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """Return the ids of a text, and the position in them after each END."""

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> decoders.Decoder:
        """Return a decoder that takes ids one by one and gives text as soon as it is complete."""
        if self.spec.byte_level:
            return decoders.BytesDecoder(self.tokens, unk_text)
        table = [unk_text, LINE_END, *self.tokens[2:]]
        if self.drops_blanks:
            return decoders.BlankDecoder(table)
        return decoders.TableDecoder(table)

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """Return the (normalised) text of each token of `encode(text)`, as in `token_text`."""

    def decode(self, ids: Iterable[int], unk_text: str = UNKNOWN_TEXT) -> str:
        """Return the text of ids, with a line end for EOS and `unk_text` for UNK."""
        decoder = self.decoder(unk_text)
        return "".join(decoder.feed(int(index)) for index in ids) + decoder.finish()

    def unknown(self, text: str) -> list[str]:
        """Return the distinct pieces of a text that are not in the vocabulary, in order."""
        return list(dict.fromkeys(self.unknown_pieces(text)))

    def unknown_pieces(self, text: str) -> list[str]:
        """Return the piece of each token of a text that is UNK."""
        ids = self.encode(text)
        if UNK not in ids:
            return []
        pairs = zip(self.pieces(text), ids.tolist(), strict=True)
        return [piece for piece, index in pairs if index == UNK]

    def token_text(self, index: int) -> str:
        """Return the text of one token, the name of UNK or EOS, or bytes as `<0xE2 0x80>`."""
        if index in (UNK, EOS):
            return "<unk>" if index == UNK else "<eos>"
        token = self.tokens[index]
        return decoders.byte_name(decoders.byte_string(token)) if self.spec.byte_level else token

    @cached_property
    def byte_lengths(self) -> NDArray[np.int64]:
        """Number of bytes that each byte-level token spells, shape (V,); UNK and EOS have 1."""
        lengths = [len(decoders.byte_string(token)) for token in self.tokens[2:]]
        return np.array([1, 1, *lengths], np.int64)

    @cached_property
    def line_end(self) -> int | None:
        """Id of the line end, or None if it is not a token."""
        if self.line_ends_are_eos:
            return EOS
        return self.ids.get(LETTERS[0x0A] if self.spec.byte_level else LINE_END)

    @property
    def line_ends_are_eos(self) -> bool:
        """True if a line end in the text is EOS (blank-separated words)."""
        return self.tokens[EOS] == LINE_END

    @property
    def drops_blanks(self) -> bool:
        """True if blanks are not tokens; then decoded words have one between them."""
        return tokenizer_json.drops_blanks(self.settings)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `tokenizer.json`."""
        return tokenizer_json.tokenizer_json(self.settings, self.tokens, self.merges)

    @property
    def normalizes(self) -> bool:
        """True if the settings change a text before it is encoded."""
        return self.settings.lowercase or self.settings.normalize != "none"

    def normalized(self, text: str) -> str:
        """Return a text as the settings change it before it is encoded."""
        return self.tokenizer.normalizer.normalize_str(text) if self.normalizes else text


def vocabulary_class(unit: str) -> type[Vocabulary]:
    """Return the vocabulary class of a unit."""
    cls: type[Vocabulary] = resolve(UNITS[unit].vocabulary)
    return cls


def load_vocabulary(path: Path) -> Vocabulary:
    """Read a `tokenizer.json` that charlm wrote. Raises RunError for any other file."""
    content = tokenizer_json.read_tokenizer_file(path)
    settings, tokens, merges = tokenizer_json.parse_tokenizer_json(content, str(path))
    return vocabulary_class(settings.unit)(settings, tokens, merges)


def code_points(text: str) -> NDArray[Any]:
    """Return the Unicode code points of a text, END included, shape (characters,)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)

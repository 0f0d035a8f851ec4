"""Vocabularies: text to ids and back, for characters, bytes, words and byte-pair encoding.

Ids 0 and 1 are UNK and EOS; EOS is also what a model reads at the start of a document. The other
ids go by count, descending, then by code point, so the same text gives the same ids everywhere.
Characters and bytes are encoded through a numpy table; words and BPE by the `tokenizers` library.
"""

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise, starmap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from charlm.config.class_path import resolve
from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import UNITS, UnitSpec
from charlm.text.documents import END, check_text
from charlm.text.tokenizers.decoders import (
    BYTE_OF_LETTER,
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
    parse_tokenizer_json,
    read_tokenizer_file,
    sequence,
    split,
    tokenizer_json,
)

Ids = NDArray[Any]
ASCII_WORDS = {
    "whitespace": re.compile(r"\n|[^\t\x0B\f\r \n]+"),
    "text": re.compile(
        r"\n|[\t\x0B\f\r ]+|[A-Za-z0-9_]+(?:'[A-Za-z0-9_]+)*|[^A-Za-z0-9_\t\x0B\f\r \n]"
    ),
}
"""What the patterns of `tokenizer_json.WORD_CUTS` cut out of ASCII text."""
FINE_CHARS = 256
"""Characters of pieces of which those that are ASCII need no library."""


def smallest_dtype(size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds ids 0 to size - 1."""
    return np.dtype(np.min_scalar_type(max(size - 1, 0)))


class Vocabulary(ABC):
    """Tokens of one unit. `encode` maps text to ids, `decode` maps ids to text.

    END marks inside of a text (see `text.corpus`) become EOS.
    """

    piece_chars: ClassVar[int] = 1 << 16
    """Characters that are encoded at once, at most; longer words are cut."""
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
        """Return how `tokenizers` cuts a text into tokens, as in `tokenizer.json`.

        Lines must be cut first, so that a text can be encoded in pieces.
        """
        raise NotImplementedError

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """Report whether a file may have these entries (beside UNK and EOS) and merges."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def unit(self) -> str:
        """The name of the unit."""
        return self.settings.unit

    @property
    def spec(self) -> UnitSpec:
        """Facts about the unit."""
        return UNITS[self.unit]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest integer type that holds every id."""
        return smallest_dtype(len(self))

    @cached_property
    def tokenizer(self) -> Any:
        """The same vocabulary as a `tokenizers.Tokenizer`."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.to_json()))

    @cached_property
    def ids(self) -> dict[str, int]:
        """From token to id."""
        return {token: index for index, token in enumerate(self.tokens)}

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (tokens,), in the vocabulary's dtype.

        Raises CorpusError for a lone surrogate, which no text can hold.
        """
        check_text(text)
        return self.encode_marked(text)[0]

    @abstractmethod
    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """Ids of a text and the positions in them just after each END mark."""

    @abstractmethod
    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """A decoder that takes ids one by one and gives text as soon as it is complete."""

    @abstractmethod
    def pieces(self, text: str) -> list[str]:
        """What each token of `encode(text)` looks like in the (normalised) text.

        Where it is a part of a character, its name, as `token_text` gives it.
        """

    def decode(self, ids: Iterable[int], unk_text: str = UNKNOWN_TEXT) -> str:
        """The text of ids; EOS shows as a line end, UNK as `unk_text`."""
        decoder = self.decoder(unk_text)
        return "".join(decoder.feed(int(index)) for index in ids) + decoder.finish()

    def unknown(self, text: str) -> list[str]:
        """The distinct pieces of a text that are not in the vocabulary, in order of appearance."""
        pairs = zip(self.pieces(text), self.encode(text), strict=True)
        return list(dict.fromkeys(piece for piece, index in pairs if index == UNK))

    def token_text(self, index: int) -> str:
        """How one token reads: its text, or the name of UNK and EOS."""
        return {UNK: "<unk>", EOS: "<eos>"}.get(index) or self.tokens[index]

    @cached_property
    def line_end(self) -> int | None:
        """The id of the line end, where it is a token of its own."""
        if self.line_ends_are_eos:
            return EOS
        return self.ids.get(LETTERS[0x0A] if self.spec.byte_level else LINE_END)

    @property
    def line_ends_are_eos(self) -> bool:
        """Whether a line end in the text is the end symbol (blank-separated words)."""
        return self.tokens[EOS] == LINE_END

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`."""
        return tokenizer_json(self.settings, self.tokens, self.merges)

    def normalizer(self) -> Any:
        """The `tokenizers` normaliser of these settings, or None."""
        return self.tokenizer.normalizer if _normalizes(self.settings) else None


class _CodeVocabulary(Vocabulary):
    """Shared by characters and bytes: one code, one table row, one id."""

    table: NDArray[Any]

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """See `Vocabulary.encode_marked`."""
        if _normalizes(self.settings):
            normalise = self.tokenizer.normalizer.normalize_str
            text = END.join(normalise(part) for part in text.split(END))
        ids = self._ids(text)
        return ids, np.flatnonzero(ids == EOS) + 1

    def _ids(self, text: str) -> Ids:
        return np.take(self.table, self._codes(text))

    @abstractmethod
    def _codes(self, text: str) -> NDArray[Any]: ...


class CharVocabulary(_CodeVocabulary):
    """Unicode code points."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return split(r"[\s\S]", "Isolated")

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:  # noqa: ARG004
        """See `Vocabulary.can_hold`."""
        return all(len(token) == 1 for token in tokens) and no_surrogates(tokens)

    @cached_property
    def table(self) -> NDArray[Any]:  # type: ignore[override]
        """Id of each code point, shape (0x110000,)."""
        table = np.full(0x110000, UNK, self.dtype)
        table[[ord(token) for token in self.tokens[2:]]] = np.arange(2, len(self))
        table[ord(END)] = EOS
        return table

    @cached_property
    def _ascii_table(self) -> bytes:
        return self.table[:256].tobytes()

    def _ids(self, text: str) -> Ids:
        if self.dtype == np.uint8 and text.isascii():  # several times faster than a numpy lookup
            return np.frombuffer(text.encode("ascii").translate(self._ascii_table), np.uint8)
        return super()._ids(text)

    def _codes(self, text: str) -> NDArray[Any]:
        return code_points(text)

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        return TableDecoder([unk_text, LINE_END, *self.tokens[2:]])

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        if _normalizes(self.settings):
            text = self.tokenizer.normalizer.normalize_str(text)
        return list(text)


class ByteVocabulary(_CodeVocabulary):
    """UTF-8 bytes: byte b has id b + 2, whatever the corpus, and nothing is unknown."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return byte_level(use_regex=False)

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """See `Vocabulary.can_hold`."""
        return tokens == LETTERS and not merges

    @cached_property
    def table(self) -> NDArray[Any]:  # type: ignore[override]
        """Id of each byte, shape (257,); the last row is END."""
        table = np.full(257, UNK, self.dtype)
        for index, letter in enumerate(self.tokens[2:], start=2):
            table[BYTE_OF_LETTER[letter]] = index
        table[256] = EOS
        return table

    def _codes(self, text: str) -> NDArray[Any]:
        parts = [np.frombuffer(part.encode("utf-8"), np.uint8) for part in text.split(END)]
        if len(parts) == 1:
            return parts[0]
        mark = np.array([256], np.uint16)
        return np.concatenate([part for body in parts for part in (body, mark)][:-1])

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        return BytesDecoder(byte_strings(self.tokens), unk_text)

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`."""
        if _normalizes(self.settings):
            text = self.tokenizer.normalizer.normalize_str(text)
        return [byte_name(bytes([byte])) for byte in text.encode("utf-8")]

    def token_text(self, index: int) -> str:
        """See `Vocabulary.token_text`."""
        name = super().token_text(index)
        return name if index < 2 else byte_name(bytes([BYTE_OF_LETTER[name]]))


class _LibraryVocabulary(Vocabulary):
    """Shared by words and BPE: `tokenizers` does the cutting, in bounded pieces."""

    def _piece_ids(self, pieces: list[str]) -> list[list[int]]:
        """Ids of each piece."""
        found = self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return [item.ids for item in found]

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
        plain = not _normalizes(self.settings)
        found: list[str] = []
        for part in cut_safely(text, self.piece_chars):
            shown = part if plain else self.tokenizer.normalizer.normalize_str(part)
            tokens = (self.tokenizer if plain else self._plain).encode(shown)
            ids, offsets = tokens.ids, tokens.offsets  # each is made anew when it is asked for
            places = [(0, 0), *offsets, (len(shown), len(shown))]
            for at, (start, end) in enumerate(offsets, start=1):
                whole = places[at - 1][1] <= start and end <= places[at + 1][0]
                found.append(shown[start:end] if whole else self.token_text(ids[at - 1]))
        return found

    @cached_property
    def _plain(self) -> Any:
        """The tokenizer for normalised text; to normalise twice can give another text."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(json.dumps(self.to_json() | {"normalizer": None}))


class WordVocabulary(_LibraryVocabulary):
    """Words: reversible pieces of text, or whatever stands between blanks with EOS at line ends."""

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
        """ASCII pieces by Python's own regular expressions, ten times faster; the same ids."""
        slow = [number for number, piece in enumerate(pieces) if not piece.isascii()]
        result: list[list[int]] = [[]] * len(pieces)
        if slow:
            found = super()._piece_ids([pieces[number] for number in slow])
            for number, ids in zip(slow, found, strict=True):
                result[number] = ids
        known = self.ids.get
        for number in sorted(set(range(len(pieces))) - set(slow)):
            result[number] = [known(word, UNK) for word in self._ascii_words(pieces[number])]
        return result

    def words(self, text: str) -> list[str]:
        """The words that a text is cut into, normalised, whether they are entries or not."""
        found: list[str] = []
        for part in _fine_parts(text):
            if part.isascii():
                found += self._ascii_words(part)
                continue
            normal = self.normalizer()
            shown = normal.normalize_str(part) if normal else part
            cut = self.tokenizer.pre_tokenizer.pre_tokenize_str(shown)
            found += [word for word, _ in cut]
        return found

    def _ascii_words(self, text: str) -> list[str]:
        cut = ASCII_WORDS[self.settings.words].findall
        return cut(text.lower() if self.settings.lowercase else text)

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        table = [unk_text, LINE_END, *self.tokens[2:]]
        return BlankDecoder(table) if self.line_ends_are_eos else TableDecoder(table)


class BpeVocabulary(_LibraryVocabulary):
    """Byte-pair encoding over UTF-8 bytes (Sennrich et al. 2016); nothing is unknown."""

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


def vocabulary_class(unit: str) -> type[Vocabulary]:
    """Return the vocabulary class of a unit."""
    cls: type[Vocabulary] = resolve(UNITS[unit].vocabulary)
    return cls


def load_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a `tokenizer.json` that charlm wrote. Raises RunError for anything else."""
    settings, tokens, merges = parse_tokenizer_json(read_tokenizer_file(path), str(path))
    return vocabulary_class(settings.unit)(settings, tokens, merges)


def code_points(text: str) -> NDArray[Any]:
    """Unicode code points of a text, END included, shape (characters,)."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def cut_safely(text: str, size: int) -> Iterator[str]:
    """Pieces of at most `size` characters, cut where no token of any unit can cross.

    After a line end, or before a single blank that stands between two other characters; only
    where so many characters have neither, after `size` of them, or a few before or after that, so
    that no normal form reaches over the cut.
    """
    start = 0
    while len(text) - start > size:
        cut = _safe_cut(text, start, start + size)
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _fine_parts(text: str) -> list[str]:
    """A text, or short pieces of it where it is not all ASCII: most of them are, and are fast.

    Only cut where no word can cross.
    """
    if text.isascii():
        return [text]
    parts = list(cut_safely(text, FINE_CHARS))
    return parts if all(starmap(_is_safe, pairwise(parts))) else [text]


def _is_safe(left: str, right: str) -> bool:
    """Whether no word crosses a cut: it is at a line end or at a single blank."""
    single = right[0] == " " and not left[-1].isspace() and not right[1:2].isspace()
    return left[-1] == LINE_END or single


def _safe_cut(text: str, start: int, stop: int) -> int:
    line = text.rfind(LINE_END, start, stop)
    if line >= 0:
        return line + 1
    blank = stop
    while (blank := text.rfind(" ", start + 1, blank)) > 0:
        if not text[blank - 1].isspace() and not text[blank + 1].isspace():
            return blank
    places = chain(range(stop, start, -1), range(stop + 1, len(text)))
    return next((place for place in places if _begins_apart(text[place])), len(text))


def _begins_apart(character: str) -> bool:
    """Whether NFC and NFKC leave a character apart from what comes before it.

    Combining marks join it, and vowels and final consonants of Hangul; a character whose
    decomposition begins with one of them does so too.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    joins = unicodedata.combining(first) or unicodedata.category(first)[0] == "M"
    return not joins and not "\u1160" <= first <= "\u11ff"


def _normalizes(settings: VocabularySettings) -> bool:
    return settings.lowercase or settings.normalize != "none"

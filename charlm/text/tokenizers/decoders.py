"""Decoders: ids to text one by one, each piece of text as soon as it is complete."""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Sequence

from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS

BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(LETTERS)}


class Decoder(ABC):
    """Turns ids into text one by one; text that is not complete yet is held back."""

    @abstractmethod
    def feed(self, index: int) -> str:
        """The text that this id completes."""

    def finish(self) -> str:
        """What is left at the end."""
        return ""


class TableDecoder(Decoder):
    """Each id is its text."""

    def __init__(self, table: list[str]) -> None:
        self.table = table

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        return self.table[index]


class BlankDecoder(TableDecoder):
    """Words with one blank between them, none around a line end."""

    at_line_start = True

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        text = self.table[index]
        blank = "" if self.at_line_start or index == EOS else " "
        self.at_line_start = index == EOS
        return blank + text


class BytesDecoder(Decoder):
    """Bytes gathered until they are whole UTF-8 characters."""

    def __init__(self, table: list[bytes], unk_text: str) -> None:
        self.table = [unk_text.encode("utf-8"), b"\n", *table[2:]]
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        return self.utf8.decode(self.table[index])

    def finish(self) -> str:
        """See `Decoder.finish`."""
        return self.utf8.decode(b"", final=True)


def byte_strings(tokens: Sequence[str], skip: int = 2) -> list[bytes]:
    """The bytes of byte-level tokens; the first `skip` are specials and stay empty."""
    spelt = [bytes(BYTE_OF_LETTER[letter] for letter in token) for token in tokens[skip:]]
    return [b""] * skip + spelt


def byte_name(data: bytes) -> str:
    """The text of bytes where they are whole UTF-8, else their hexadecimal form `<0xE2 0x80>`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "<" + " ".join(f"0x{byte:02X}" for byte in data) + ">"

"""Decoders: convert ids to text one by one, each piece as soon as it is complete."""

import codecs
from abc import ABC, abstractmethod

from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS

BYTE_OF_LETTER = {letter: byte for byte, letter in enumerate(LETTERS)}


class Decoder(ABC):
    """Decoder of ids that holds back incomplete text."""

    @abstractmethod
    def feed(self, index: int) -> str:
        """Return the text that this id completes."""

    def finish(self) -> str:
        """Return the text that is still held back, at the end."""
        return ""


class TableDecoder(Decoder):
    """Decoder that looks up the text of each id."""

    def __init__(self, table: list[str]) -> None:
        self.table = table

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        return self.table[index]


class BlankDecoder(TableDecoder):
    """Decoder of words that puts one blank between them, but none around a line end."""

    at_line_start = True

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        text = self.table[index]
        blank = "" if self.at_line_start or index == EOS else " "
        self.at_line_start = index == EOS
        return blank + text


class BytesDecoder(Decoder):
    """Decoder of bytes that collects them to whole UTF-8 characters."""

    def __init__(self, tokens: list[str], unk_text: str) -> None:
        self.table = [unk_text.encode("utf-8"), b"\n", *map(byte_string, tokens[2:])]
        self.utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        return self.utf8.decode(self.table[index])

    def finish(self) -> str:
        """See `Decoder.finish`."""
        return self.utf8.decode(b"", final=True)


def byte_string(token: str) -> bytes:
    """Return the bytes that a byte-level token spells."""
    return bytes(BYTE_OF_LETTER[letter] for letter in token)


def byte_name(data: bytes) -> str:
    """Return bytes as text if they are complete UTF-8, else in the form `<0xE2 0x80>`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "<" + " ".join(f"0x{byte:02X}" for byte in data) + ">"

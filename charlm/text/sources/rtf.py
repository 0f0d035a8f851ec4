"""Rich Text Format (RTF 1.9.1) to plain text: a line for each paragraph."""

import codecs
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\([a-zA-Z]+)(-?\d+)? ?|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.S
)

_WORDS = {
    "par": "\n", "line": "\n", "sect": "\n", "page": "\n", "row": "\n", "tab": "\t", "cell": "\t",
    "emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "emspace": " ", "enspace": " ", "qmspace": " ",
}  # fmt: skip
_SYMBOLS = {
    "~": "\u00a0", "_": "-", "\n": "\n", "\r": "\n", "\\": "\\", "{": "{", "}": "}",
}  # fmt: skip
_SKIPPED = frozenset({
    "annotation", "atnauthor", "atnid", "author", "bkmkend", "bkmkstart", "colortbl", "comment",
    "datastore", "deleted", "filetbl", "fldinst", "fonttbl", "footer", "footerf", "footerl",
    "footerr", "footnote", "generator", "header", "headerf", "headerl", "headerr", "info",
    "keywords", "latentstyles", "listoverridetable", "listtable", "nonshppict", "object",
    "operator", "pict", "private", "revtbl", "rsidtbl", "stylesheet", "subject", "themedata",
    "title", "xmlnstbl",
})  # fmt: skip
"""Words of groups that are no text."""
_PAGES = {
    "mac": "mac_roman", "pc": "cp437", "pca": "cp850", "cp10000": "mac_roman", "cp65001": "utf-8",
}  # fmt: skip
"""Python's names of code pages."""


@dataclass
class _Group:
    """What a group in braces inherits from the one around it."""

    skip: bool = False
    fallback: int = 1
    """Characters that replace a character given by its number, for old programs."""


def rtf_text(data: bytes) -> str:
    r"""Return the text of an RTF file. Raises ValueError if it does not begin with "{\rtf".

    Characters of fonts with another code page than the file's are read in that of the file.
    """
    if not data.lstrip().startswith(b"{\\rtf"):
        raise ValueError("no RTF")
    return _Reader().read(data)


class _Reader:
    """State of reading one file."""

    def __init__(self) -> None:
        self.page = "cp1252"
        self.groups = [_Group()]
        self.pieces: list[str] = []
        self.bytes = b""
        """Bytes of the code page that are not decoded yet; two may be one character."""
        self.ignored = 0
        """Characters to leave out, since they replace the one before."""

    def read(self, data: bytes) -> str:
        """Return the text."""
        position = 0
        while match := _TOKEN.match(data, position):
            position = match.end()
            code, word, number, symbol, brace, plain = match.groups()
            if code:
                self.add_bytes(bytes([int(code, 16)]))
            elif plain:
                self.add_bytes(plain)
            elif word:
                position += self.control(word.decode(), int(number or b"1"), number is not None)
            elif symbol:
                self.add(_SYMBOLS.get(symbol.decode("latin-1"), ""))
                self.groups[-1].skip |= symbol == b"*"
            elif brace:
                self.brace(brace)
        self.flush()
        joined = "".join(self.pieces)  # surrogates come as two numbers
        return joined.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def brace(self, brace: bytes) -> None:
        """Begin or end a group."""
        self.flush()
        self.ignored = 0
        if brace == b"{":
            self.groups.append(_Group(self.groups[-1].skip, self.groups[-1].fallback))
        elif len(self.groups) > 1:
            self.groups.pop()

    def control(self, word: str, number: int, given: bool) -> int:
        """Obey a word; return the number of bytes of data after it."""
        group = self.groups[-1]
        if word in _WORDS:
            self.add(_WORDS[word])
        elif word == "u" and given:
            self.flush()
            self.add(chr(number % 65536))
            self.ignored = group.fallback
        elif word == "uc":
            group.fallback = max(0, number) if given else 1
        elif word in _SKIPPED:
            group.skip |= number != 0  # \\deleted0 ends a deleted passage
        elif word in _PAGES or (word == "ansicpg" and given):
            self.set_page(_PAGES.get(word, f"cp{number}"))
        elif word == "bin":
            return max(0, number) if given else 0
        return 0

    def set_page(self, name: str) -> None:
        try:
            self.page = codecs.lookup(
                {"cp10000": "mac_roman", "cp65001": "utf-8"}.get(name, name)
            ).name
        except LookupError:
            self.page = "cp1252"

    def add(self, text: str) -> None:
        """Add characters, unless the group is skipped."""
        self.flush()
        if not self.groups[-1].skip:
            self.pieces.append(text)

    def add_bytes(self, data: bytes) -> None:
        """Add bytes of the code page."""
        left_out = min(self.ignored, len(data))
        self.ignored -= left_out
        if not self.groups[-1].skip:
            self.bytes += data[left_out:]

    def flush(self) -> None:
        """Decode the bytes so far."""
        if self.bytes:
            self.pieces.append(self.bytes.decode(self.page, "replace"))
            self.bytes = b""

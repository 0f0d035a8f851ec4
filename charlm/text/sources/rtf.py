"""Rich Text Format (RTF 1.9.1) to plain text: a line for each paragraph."""

import codecs
import re
from dataclasses import dataclass, replace

_TOKEN = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\([a-zA-Z]+)(-?\d+)? ?|\\(.)|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.S
)

_WORDS = {
    "par": "\n", "line": "\n", "sect": "\n", "page": "\n", "column": "\n", "softline": "\n",
    "cell": "\n", "nestcell": "\n", "tab": "\t",
    "emdash": "—", "endash": "–", "bullet": "•", "lquote": "‘", "rquote": "’", "ldblquote": "“",
    "rdblquote": "”", "emspace": " ", "enspace": " ", "qmspace": " ",
    "zwj": "\u200d", "zwnj": "\u200c", "ltrmark": "\u200e", "rtlmark": "\u200f",
}  # fmt: skip
_SYMBOLS = {
    "~": "\u00a0", "_": "-", "\n": "\n", "\r": "\n", "\\": "\\", "{": "{", "}": "}",
}  # fmt: skip
_SKIPPED = frozenset({
    "annotation", "atnauthor", "atnid", "author", "bkmkend", "bkmkstart", "colortbl", "comment",
    "datastore", "filetbl", "fldinst", "fonttbl", "footer", "footerf", "footerl",
    "footerr", "footnote", "generator", "header", "headerf", "headerl", "headerr", "info",
    "keywords", "latentstyles", "listoverridetable", "listtable", "listtext", "nonesttables",
    "nonshppict", "object", "operator", "pict", "pntext", "private", "revtbl", "rsidtbl", "rxe",
    "stylesheet", "subject", "tc", "tcn", "themedata", "title", "xe", "xmlnstbl",
})  # fmt: skip
"""Words of groups that are no text."""
_HIDDEN = frozenset({"deleted", "mvf", "v"})
"""Words of text that is deleted, moved away or hidden, until its group ends or the word has a 0."""
_PAGES = {
    "mac": "mac_roman", "pc": "cp437", "pca": "cp850", "cp10000": "mac_roman", "cp10001": "cp932",
    "cp10006": "mac_greek", "cp10007": "mac_cyrillic", "cp10029": "mac_latin2",
    "cp10081": "mac_turkish", "cp65001": "utf-8",
}  # fmt: skip
"""Python's names of code pages."""
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "cp936", 136: "cp950", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
"""Code pages of the character sets of fonts; other fonts have the code page of the file."""


@dataclass
class _Group:
    """Properties that a group in braces inherits from the one around it."""

    skip: bool = False
    hidden: frozenset[str] = frozenset()
    """Words of `_HIDDEN` in force."""
    font: int = -1
    fallback: int = 1
    """Characters that replace a character given by its number, for old programs."""
    in_fonts: bool = False
    """True in the table of fonts."""


def rtf_text(data: bytes) -> str:
    r"""Return the text of an RTF file. Raises ValueError if it does not begin with "{\rtf"."""
    if not data.lstrip().startswith(b"{\\rtf"):
        raise ValueError("no RTF")
    return _Reader().read(data)


class _Reader:
    """State of reading one file."""

    def __init__(self) -> None:
        self.page = "cp1252"
        self.groups = [_Group()]
        self.pieces: list[str] = []
        self.fonts: dict[int, str] = {}
        """Code pages of fonts with a character set of their own."""
        self.default_font = -1
        self.bytes = bytearray()
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
            self.groups.append(replace(self.groups[-1]))
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
            group.skip = True
            group.in_fonts |= word == "fonttbl"
        elif word in _HIDDEN:
            group.hidden = group.hidden | {word} if number else group.hidden - {word}
        elif word == "plain":
            self.flush()
            group.hidden, group.font = frozenset(), self.default_font
        elif word in _PAGES or (word == "ansicpg" and given):
            self.page = _page(_PAGES.get(word, f"cp{number}"))
        elif word == "bin":
            return max(0, number) if given else 0
        elif given:
            self.set_font(group, word, number)
        return 0

    def set_font(self, group: _Group, word: str, number: int) -> None:
        """Choose a font for text, or note its character set in the table of fonts."""
        if word in ("f", "deff"):
            self.flush()
            group.font = number
            self.default_font = number if word == "deff" else self.default_font
        elif group.in_fonts and word == "fcharset" and number in _CHARSETS:
            self.fonts[group.font] = _CHARSETS[number]

    def add(self, text: str) -> None:
        """Add characters, unless the group is skipped."""
        self.flush()
        if not (self.groups[-1].skip or self.groups[-1].hidden):
            self.pieces.append(text)

    def add_bytes(self, data: bytes) -> None:
        """Add bytes of the code page."""
        left_out = min(self.ignored, len(data))
        self.ignored -= left_out
        if not (self.groups[-1].skip or self.groups[-1].hidden):
            self.bytes += data[left_out:]

    def flush(self) -> None:
        """Decode the bytes so far."""
        if self.bytes:
            page = self.fonts.get(self.groups[-1].font, self.page)
            self.pieces.append(self.bytes.decode(page, "replace"))
            self.bytes.clear()


def _page(name: str) -> str:
    """Return the name of a code page, or Western European if Python does not know it."""
    try:
        return codecs.lookup(_PAGES.get(name, name)).name
    except LookupError:
        return "cp1252"

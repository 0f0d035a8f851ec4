"""Texts of word processors and e-books, converted to plain text as they are read.

    .docx  Word and most others          .odt  LibreOffice
    .rtf   TextEdit, WordPad, Scrivener  .epub e-books without copy protection

A paragraph becomes a line. Fonts, pictures, comments, notes and deleted passages are left out. The
formats: ECMA-376, OASIS OpenDocument 1.3, EPUB 3.3, and Rich Text Format 1.9.1.
"""

import re
import zipfile
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote
from xml.etree import ElementTree

from charlm.errors import CorpusError
from charlm.files.escapes import escape_unprintable
from charlm.text.sources.rtf import rtf_text

MAX_BYTES = 1 << 28
"""Limit of a part of a file, unpacked; ten times the longest novels with all their markup."""

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
"""Another name of the same elements, in files that Word saves as "Strict"."""
_WORD_MARKS = {
    _WORD + name: mark
    for name, mark in (("tab", "\t"), ("br", "\n"), ("cr", "\n"), ("noBreakHyphen", "-"))
}
_ODF = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_ODF_SKIPPED = (
    *(_ODF + name for name in ("tracked-changes", "note", "table-of-content")),
    "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}annotation",
)
_HTML_BLOCKS = frozenset({
    "article", "blockquote", "br", "dd", "div", "dt", "figure", "h1", "h2", "h3", "h4", "h5", "h6",
    "hr", "li", "p", "pre", "section", "tr",
})  # fmt: skip
_HTML_SKIPPED = frozenset({"head", "math", "rp", "rt", "script", "style", "svg"})


class _Markup:
    """Target of an XML parser: collects text. Subclasses know the elements of a format."""

    skipped: tuple[str, ...] = ()
    """Elements whose content is left out."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.depth_skipped = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        self.depth_skipped += tag in self.skipped
        self.open.append(tag)
        if not self.depth_skipped:
            self.pieces.append(self.at_start(tag, attributes))

    def end(self, tag: str) -> None:
        """End an element."""
        self.open.pop()
        if not self.depth_skipped:
            self.pieces.append(self.at_end(tag))
        self.depth_skipped -= tag in self.skipped

    def data(self, text: str) -> None:
        """Add characters between elements."""
        if not self.depth_skipped:
            self.pieces.append(self.characters(text))

    def close(self) -> str:
        """Return the text."""
        return "".join(self.pieces)

    def at_start(self, tag: str, attributes: dict[str, str]) -> str:
        """Return the text that the beginning of an element stands for."""
        raise NotImplementedError

    def at_end(self, tag: str) -> str:
        """Return the text that the end of an element stands for."""
        raise NotImplementedError

    def characters(self, text: str) -> str:
        """Return what is kept of characters."""
        raise NotImplementedError


class _Word(_Markup):
    """Elements of WordprocessingML."""

    skipped = ("{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",)

    def at_start(self, tag: str, attributes: dict[str, str]) -> str:  # noqa: ARG002
        """Return white space that an element stands for."""
        in_run = self.open[-2:-1] == [_WORD + "r"]  # tab stops of paragraphs are elsewhere
        return _WORD_MARKS.get(tag, "") if in_run else ""

    def at_end(self, tag: str) -> str:
        """Return a line end after a paragraph."""
        return "\n" if tag == _WORD + "p" else ""

    def characters(self, text: str) -> str:
        """Return the characters of text."""
        return text if self.open[-1] == _WORD + "t" else ""


class _OpenDocument(_Markup):
    """Elements of OpenDocument texts."""

    skipped = _ODF_SKIPPED
    paragraphs = (_ODF + "p", _ODF + "h")

    def at_start(self, tag: str, attributes: dict[str, str]) -> str:
        """Return white space that an element stands for."""
        if tag == _ODF + "s":
            count = attributes.get(_ODF + "c", "1")
            return " " * (min(int(count), 1000) if count.isdecimal() else 1)
        return {_ODF + "tab": "\t", _ODF + "line-break": "\n"}.get(tag, "")

    def at_end(self, tag: str) -> str:
        """Return a line end after a paragraph."""
        return "\n" if tag in self.paragraphs else ""

    def characters(self, text: str) -> str:
        """Return the characters of text."""
        in_paragraph = any(tag in self.paragraphs for tag in self.open)
        if not in_paragraph:
            return ""
        folded = re.sub(r"[ \t\r\n]+", " ", text)
        last = next((piece for piece in reversed(self.pieces) if piece), "")
        return folded.removeprefix(" ") if last.endswith((" ", "\n")) else folded


class _Html(HTMLParser):
    """Text of a page, a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.depth_skipped = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        """Obey a tag."""
        self.depth_skipped += tag in _HTML_SKIPPED
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        """Obey a tag."""
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_endtag(self, tag: str) -> None:
        """Obey a tag."""
        self.depth_skipped -= tag in _HTML_SKIPPED and self.depth_skipped > 0
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_data(self, data: str) -> None:
        """Add characters."""
        if not self.depth_skipped:
            self.pieces.append(re.sub(r"[^\S\u00a0]+", " ", data))

    def text(self) -> str:
        """Return the lines that are not blank."""
        lines = (line.strip(" ") for line in "".join(self.pieces).split("\n"))
        return "".join(line + "\n" for line in lines if line)


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a part of an archive. Raises ValueError if it is too large, KeyError if missing."""
    info = archive.getinfo(name)
    if info.file_size > MAX_BYTES:
        raise ValueError(f"{name} has {info.file_size:,} bytes")
    return archive.read(info)


def _xml_text(path: Path, part: str, target: _Markup) -> str:
    with zipfile.ZipFile(path) as archive:
        data = _part(archive, part)
    if b"<!DOCTYPE" in data[:4096]:  # word processors write none; it could define entities
        raise ValueError("it has a document type")
    parser = ElementTree.XMLParser(target=target)
    parser.feed(data.replace(_STRICT, _WORD[1:-1].encode()))
    return cast(str, parser.close())


def _docx_text(path: Path) -> str:
    return _xml_text(path, "word/document.xml", _Word())


def _odt_text(path: Path) -> str:
    return _xml_text(path, "content.xml", _OpenDocument())


def _epub_text(path: Path) -> str:
    """Return the chapters of an e-book in their order, without its table of contents."""
    with zipfile.ZipFile(path) as archive:
        container = ElementTree.fromstring(_part(archive, "META-INF/container.xml"))
        book = next(
            each.attrib["full-path"] for each in container.iter() if "full-path" in each.attrib
        )
        package = list(ElementTree.fromstring(_part(archive, book)).iter())
        items = {each.get("id"): each for each in package if each.tag.endswith("}item")}
        texts = []
        for reference in (each for each in package if each.tag.endswith("}itemref")):
            item = items[reference.get("idref")]
            if "nav" in item.get("properties", "").split():
                continue
            page = _Html()
            place = PurePosixPath(book).parent / unquote(item.attrib["href"])
            page.feed(_part(archive, str(place)).decode("utf-8-sig"))
            page.close()
            texts.append(page.text())
    return "\n".join(texts)


def _rtf_text(path: Path) -> str:
    return rtf_text(path.read_bytes())


CONVERTED: dict[str, Callable[[Path], str]] = {
    ".docx": _docx_text,
    ".odt": _odt_text,
    ".epub": _epub_text,
    ".rtf": _rtf_text,
}
"""Functions that return the text of a file, by suffix."""


def converted(path: Path) -> bytes:
    """Return the text of a file of a word processor in UTF-8.

    Raises CorpusError if it is damaged, protected or of another format, OSError if it cannot be
    read.
    """
    suffix = path.suffix.lower()
    try:
        text = CONVERTED[suffix](path)
        return text.encode("utf-8")
    except (
        *(zipfile.BadZipFile, zlib.error, ElementTree.ParseError, NotImplementedError),
        *(KeyError, ValueError, StopIteration, RuntimeError, EOFError),
    ) as error:
        raise CorpusError(
            f"{escape_unprintable(str(path))} cannot be read as {suffix}; expected a file that is "
            "whole and not protected. Open it in the program that wrote it and save it as plain "
            "text"
        ) from error

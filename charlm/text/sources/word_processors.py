"""Texts of word processors and e-books, converted to plain text as they are read.

    .docx  Word and most others          .odt  LibreOffice
    .rtf   TextEdit, WordPad, Scrivener  .epub e-books without copy protection

A paragraph becomes a line, also in the cells of tables. Fonts, pictures, comments, notes, hidden
text and deleted passages are left out. The formats: ECMA-376, OASIS OpenDocument 1.3, EPUB 3.3, and
Rich Text Format 1.9.1.
"""

import codecs
import lzma
import posixpath
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

from charlm.errors import CorpusError
from charlm.files.escapes import escape_unprintable
from charlm.text.sources.rtf import rtf_text

MAX_KEPT = 1 << 25
"""Bytes of converted texts that are kept: some ten long novels."""
_KEPT: dict[tuple[Path, int, int, int], bytes] = {}
"""Converted texts by path, inode, size and modification time of the file; the newest is last."""
_LOCK = threading.Lock()
MAX_BYTES = 1 << 28
"""Limit of the parts read from a file, unpacked; ten times the longest novels with their markup."""

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
"""Another name of the same elements, in files that Word saves as "Strict"."""
_WORD_MARKS = {
    _WORD + name: mark
    for name, mark in (("tab", "\t"), ("br", "\n"), ("cr", "\n"), ("noBreakHyphen", "-"))
}
_ODF = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_STYLE = "{urn:oasis:names:tc:opendocument:xmlns:style:1.0}"
_SVG = "{urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0}"
_ODF_SKIPPED = (
    *(_ODF + name for name in ("tracked-changes", "note", "hidden-text", "ruby-text")),
    *(_ODF + name for name in ("table-of-content", "alphabetical-index", "illustration-index")),
    *(_SVG + name for name in ("title", "desc")),  # descriptions of pictures
    "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}annotation",
)
_HTML_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "div",
    "dl", "dt", "figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
})  # fmt: skip
_HTML_SKIPPED = frozenset({"head", "math", "rp", "rt", "script", "style", "svg"})
_EPUB_SKIPPED = frozenset({
    "endnote", "endnotes", "footnote", "footnotes", "noteref", "pagebreak", "rearnote", "rearnotes",
    "toc",
})  # fmt: skip
"""Values of `epub:type` of elements that are left out."""
_PAGE_TYPES = ("application/xhtml+xml", "text/html", "")
"""Types of the items of an e-book that are pages, not pictures."""


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
            self.add(self.at_start(tag, attributes))

    def end(self, tag: str) -> None:
        """End the last element, by the name with which it began in `start` of this class."""
        tag = self.open.pop()
        if not self.depth_skipped:
            self.add(self.at_end(tag))
        self.depth_skipped -= tag in self.skipped

    def data(self, text: str) -> None:
        """Add characters between elements."""
        if not self.depth_skipped:
            self.add(self.characters(text))

    def add(self, text: str) -> None:
        """Add text, if there is any."""
        if text:
            self.pieces.append(text)

    def doctype(self, name: str, *_: str | None) -> NoReturn:
        """Refuse a document type: word processors write none, and it could define entities."""
        raise ValueError(f"it has a document type, {name}")

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

    skipped = (
        *(_WORD + name for name in ("del", "moveFrom", "rt")),  # deleted, moved away, furigana
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
    )
    hidden = False
    """True in a run of hidden text."""
    contents = -1
    """Number of elements around a table of contents; -1 outside of one."""
    joined = False
    """True in a paragraph whose end is deleted."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""
        super().start(tag, attributes)
        if tag in self.skipped and self.open[-3:-1] == [_WORD + "pPr", _WORD + "rPr"]:
            self.joined = True

    def at_start(self, tag: str, attributes: dict[str, str]) -> str:
        """Return white space that an element stands for."""
        value = attributes.get(_WORD + "val")
        if tag == _WORD + "r":
            self.hidden = False
        elif tag == _WORD + "vanish" and self.open[-3:-1] == [_WORD + "r", _WORD + "rPr"]:
            self.hidden = value not in ("0", "false", "off")
        elif tag == _WORD + "docPartGallery" and value == "Table of Contents":
            self.contents = len(self.open) - 4  # of sdt, sdtPr, docPartObj and this one
        elif tag == _WORD + "txbxContent" and self.pieces and self.pieces[-1][-1] != "\n":
            return "\n"  # a box of text is inside of a paragraph
        in_run = self.open[-2:-1] == [_WORD + "r"]  # tab stops of paragraphs are elsewhere
        return self.shown(_WORD_MARKS.get(tag, "") if in_run else "")

    def at_end(self, tag: str) -> str:
        """Return a line end after a paragraph."""
        if tag == _WORD + "sdt" and len(self.open) == self.contents:
            self.contents = -1
        if tag != _WORD + "p":
            return ""
        joined, self.joined, self.hidden = self.joined, False, False
        return self.shown("" if joined else "\n")

    def characters(self, text: str) -> str:
        """Return the characters of text."""
        return self.shown(text if self.open[-1] == _WORD + "t" else "")

    def shown(self, text: str) -> str:
        """Return text if it is shown here as a part of the document, else nothing."""
        return "" if self.hidden or self.contents >= 0 else text


class _OpenDocument(_Markup):
    """Elements of OpenDocument texts."""

    skipped = _ODF_SKIPPED
    paragraphs = (_ODF + "p", _ODF + "h")
    depth = 0
    """Number of paragraphs around the present place."""
    style = ""
    """Name of the style that is defined at the present place."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: set[str] = set()
        """Names of styles of hidden text."""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element; a hidden one as `hidden-text`."""
        is_hidden = attributes.get(_ODF + "display") == "none"
        if tag == _STYLE + "style":
            self.style = attributes.get(_STYLE + "name", "")
        elif tag == _STYLE + "text-properties" and is_hidden:
            self.hidden.add(self.style)
        is_hidden |= attributes.get(_ODF + "style-name") in self.hidden
        super().start(_ODF + "hidden-text" if is_hidden else tag, attributes)

    def at_start(self, tag: str, attributes: dict[str, str]) -> str:
        """Return white space that an element stands for."""
        self.depth += tag in self.paragraphs
        if tag == _ODF + "s":
            count = attributes.get(_ODF + "c", "1")
            return " " * (min(int(count), 1000) if re.fullmatch(r"\d{1,9}", count) else 1)
        return {_ODF + "tab": "\t", _ODF + "line-break": "\n"}.get(tag, "")

    def at_end(self, tag: str) -> str:
        """Return a line end after a paragraph."""
        self.depth -= tag in self.paragraphs
        return "\n" if tag in self.paragraphs else ""

    def characters(self, text: str) -> str:
        """Return the characters of text."""
        if not self.depth:
            return ""
        folded = re.sub(r"[ \t\r\n]+", " ", text)
        after_blank = not self.pieces or self.pieces[-1].endswith((" ", "\n"))
        return folded.removeprefix(" ") if after_blank else folded


class _Html(HTMLParser):
    """Text of a page, a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.left_out: str | None = None
        """Tag of the element that is left out, if the present place is in one."""
        self.depth = 0
        """Number of elements with that tag around the present place."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        types = (dict(attrs).get("epub:type") or "").split()
        if not self.left_out and (tag in _HTML_SKIPPED or not _EPUB_SKIPPED.isdisjoint(types)):
            self.left_out = tag
        self.depth += tag == self.left_out
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """Add an element without content."""
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        self.depth -= tag == self.left_out
        self.left_out = self.left_out if self.depth else None
        self.pieces += ["\n"] * (tag in _HTML_BLOCKS)

    def handle_data(self, data: str) -> None:
        """Add characters."""
        if not self.left_out:
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


def _xml_text(data: bytes, target: _Markup) -> str:
    parser = ElementTree.XMLParser(target=target)
    parser.feed(data.replace(_STRICT, _WORD[1:-1].encode()))
    return cast(str, parser.close())


def _docx_text(path: Path) -> str:
    """Return the text of the main part, which is not word/document.xml in some files."""
    with zipfile.ZipFile(path) as archive:
        part = "word/document.xml"
        if part not in archive.namelist():
            parts = ElementTree.fromstring(_part(archive, "_rels/.rels"))
            for each in parts:
                if each.get("Type", "").endswith("/officeDocument"):
                    part = each.attrib["Target"].lstrip("/")
        data = _part(archive, part)
    return _xml_text(data, _Word())


def _odt_text(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        data = _part(archive, "content.xml")
    return _xml_text(data, _OpenDocument())


def _epub_text(path: Path) -> str:
    """Return the chapters of an e-book in their order, without its table of contents."""
    texts, size = [], 0
    with zipfile.ZipFile(path) as archive:
        for name in dict.fromkeys(_pages(archive)):
            data = _part(archive, name)
            if (size := size + len(data)) > MAX_BYTES:
                raise ValueError(f"its pages have more than {MAX_BYTES:,} bytes")
            page = _Html()
            wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            page.feed(data.decode("utf-16" if wide else "utf-8-sig"))
            page.close()
            texts.append(page.text())
    return "\n".join(text for text in texts if text)


def _pages(archive: zipfile.ZipFile) -> Iterator[str]:
    """Yield the names of the pages of an e-book, in their order, without tables of contents."""
    container = ElementTree.fromstring(_part(archive, "META-INF/container.xml"))
    books = [each.attrib["full-path"] for each in container.iter() if "full-path" in each.attrib]
    book = books[0] if books else "content.opf"
    package = list(ElementTree.fromstring(_part(archive, book)).iter())

    def place(href: str) -> str:
        name = unquote(urldefrag(href).url)
        return posixpath.normpath(posixpath.join(posixpath.dirname(book), name))

    items = {each.get("id"): each for each in package if each.tag.endswith("}item")}
    contents = {
        place(each.get("href", ""))
        for each in package
        if each.get("type") == "toc" or "nav" in each.get("properties", "").split()
    }
    for reference in (each for each in package if each.tag.endswith("}itemref")):
        item = items[reference.get("idref")]
        if (name := place(item.attrib["href"])) in contents:
            continue
        if reference.get("linear") != "no" and item.get("media-type", "") in _PAGE_TYPES:
            yield name


def _rtf_text(path: Path) -> str:
    return rtf_text(path.read_bytes())


CONVERTED: dict[str, Callable[[Path], str]] = {
    ".docx": _docx_text,
    ".odt": _odt_text,
    ".epub": _epub_text,
    ".rtf": _rtf_text,
}
"""Functions that return the text of a file, by suffix."""


def _reason(error: Exception) -> str:
    """Return the reason of an error; KeyError would put it in quotes."""
    return str(error.args[0]) if isinstance(error, KeyError) else str(error) or "it is cut short"


def converted(path: Path) -> bytes:
    """Return the text of a file of a word processor in UTF-8.

    A corpus reads its files several times, so the newest texts are kept, up to MAX_KEPT bytes.
    Raises CorpusError if the file is damaged, protected or of another format, OSError if it cannot
    be read.
    """
    status = path.stat()
    key = path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns
    with _LOCK:
        text = _KEPT.pop(key, None)
    if text is None:
        text = _convert(path)
    with _LOCK:
        _KEPT[key] = text  # as the newest
        while sum(map(len, _KEPT.values())) > MAX_KEPT:
            del _KEPT[next(iter(_KEPT))]
    return text


def _convert(path: Path) -> bytes:
    """Convert a file; see `converted`."""
    suffix = path.suffix.lower()
    try:
        return CONVERTED[suffix](path).encode("utf-8")
    except (
        *(zipfile.BadZipFile, zlib.error, ElementTree.ParseError, NotImplementedError),
        *(KeyError, ValueError, RuntimeError, EOFError, AssertionError, lzma.LZMAError),
    ) as error:
        reason = escape_unprintable(_reason(error)[:100])
        raise CorpusError(
            f"{escape_unprintable(str(path))} cannot be read as {suffix} ({reason}); expected a "
            "file that is whole and not protected. Open it in the program that wrote it and save "
            "it as plain text"
        ) from error

"""Texts of word processors and e-books: paragraphs become lines, everything else is left out."""

import zipfile
from pathlib import Path

import pytest
from helpers import nested
from waiting import bounded

from charlm.config.settings import settings_from
from charlm.errors import CorpusError
from charlm.text.corpus import Corpus
from charlm.text.sources import word_processors
from charlm.text.sources.rtf import rtf_text
from charlm.training.start import start

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
ODF = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"


def zipped(path: Path, **parts: str) -> Path:
    """Write an archive; "__" in a name stands for a slash, "_" for a dot."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), text)
    return path


def read(*names: Path, **options: str) -> str:
    return "".join(Corpus([str(name) for name in names], **options).chunks())


def docx(path: Path, body: str, namespace: str = WORD) -> Path:
    text = f'<w:document xmlns:w="{namespace}" xmlns:m="{MC}"><w:body>{body}</w:body></w:document>'
    return zipped(path, word__document_xml=text)


MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "<w:p><w:r><w:t>“Day,</w:t></w:r> <w:r><w:t> Ann.”</w:t></w:r></w:p><w:p/>",
            "“Day, Ann.”\n\n",
        ),
        ("<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r></w:p>", "a\tb\nc\n"),
        ("<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>a</w:t></w:r></w:p>", "a\n"),
        ("<w:p><w:del><w:r><w:delText>no</w:delText></w:r></w:del></w:p>", "\n"),
        ("<w:p><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>", "new\n"),
        ("<w:p><w:r><w:instrText>PAGE</w:instrText><w:t>a</w:t></w:r></w:p>", "a\n"),
        ("<w:p><w:moveFrom><w:r><w:t>no</w:t></w:r></w:moveFrom></w:p>", "\n"),
        (
            "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>no</w:t><w:br/></w:r><w:r><w:rPr>"
            "<w:vanish w:val='0'/></w:rPr><w:t>a</w:t></w:r><w:r><w:t>b</w:t></w:r></w:p>",
            "ab\n",
        ),
        ("<w:p><w:ruby><w:rt><w:r><w:t>no</w:t></w:r></w:rt><w:t>a</w:t></w:ruby></w:p>", "a\n"),
        (
            "<w:p><w:pPr><w:rPr><w:del/></w:rPr></w:pPr><w:r><w:t>a</w:t></w:r></w:p>"
            "<w:p><w:r><w:t>b</w:t></w:r></w:p>",
            "ab\n",
        ),
        (
            "<w:sdt><w:sdtPr><w:docPartObj><w:docPartGallery w:val='Table of Contents'/>"
            "</w:docPartObj></w:sdtPr><w:sdt><w:p><w:r><w:t>no</w:t></w:r></w:p></w:sdt><w:p/>"
            "</w:sdt><w:sdt><w:p><w:r><w:t>a</w:t></w:r></w:p></w:sdt>",
            "a\n",
        ),
        (
            "<w:p><w:r><w:t>a</w:t><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
            "</w:txbxContent></w:r><w:r><w:t>b</w:t></w:r></w:p>",
            "a\nbox\nb\n",
        ),
        ("<m:Fallback><w:p><w:r><w:t>twice</w:t></w:r></w:p></m:Fallback>", ""),
    ],
)
def test_word(tmp_path: Path, body: str, text: str) -> None:
    """Runs are joined; deleted and hidden text, fields and copies for old programs are left out."""
    assert read(docx(tmp_path / "a.docx", body)) == text
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    assert read(docx(tmp_path / "b.docx", body, strict)) == text


def test_word_files_name_their_main_part(tmp_path: Path) -> None:
    """Word on the web writes document2.xml."""
    relations = '<r xmlns="x"><r Type="a/officeDocument" Target="/word/document2.xml"/></r>'
    text = f'<d xmlns:w="{WORD}"><w:p><w:r><w:t>a</w:t></w:r></w:p></d>'
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document2.xml", text)
    assert read(tmp_path / "a.docx") == "a\n"


def test_open_document(tmp_path: Path) -> None:
    """White space is folded, as the format demands; notes and deleted text are left out."""
    content = (
        f'<o:document xmlns:t="{ODF}" xmlns:o="{OFFICE}"><t:tracked-changes><t:p>no</t:p>'
        "</t:tracked-changes> <t:h>One</t:h>\n <t:p>“Good\n   <t:span>day</t:span>,<t:s t:c='2'/>"
        "Ann<t:note><t:p>no</t:p></t:note>.<t:tab/>x<t:line-break/>y”</t:p></o:document>"
    )
    assert read(zipped(tmp_path / "a.odt", content_xml=content)) == "One\n“Good day,  Ann.\tx\ny”\n"


def test_open_document_leaves_out_what_is_not_shown(tmp_path: Path) -> None:
    """Descriptions of pictures, hidden text and pronunciations are not text of the page."""
    style = "urn:oasis:names:tc:opendocument:xmlns:style:1.0"
    svg = "urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"
    content = (
        f'<o:d xmlns:t="{ODF}" xmlns:o="{OFFICE}" xmlns:s="{svg}" xmlns:y="{style}">'
        "<y:style y:name='T1'><y:text-properties/></y:style><y:style y:name='T2'>"
        "<y:text-properties t:display='none'/></y:style><t:section t:display='none'><t:p>no</t:p>"
        "</t:section><t:p t:style-name='T2'>no</t:p><t:p>a<t:span t:style-name='T2'>no"
        "<t:span>no</t:span></t:span><t:span t:style-name='T1'>b</t:span><s:desc>no</s:desc>"
        "<t:hidden-text>no</t:hidden-text><t:ruby-text>no</t:ruby-text></t:p></o:d>"
    )
    assert read(zipped(tmp_path / "a.odt", content_xml=content)) == "ab\n"


def test_many_empty_elements_take_linear_time(tmp_path: Path) -> None:
    """The story: each blank looked back over all elements before it, for minutes in large files."""
    body = "<t:a/> " * 200_000
    content = f'<o:d xmlns:t="{ODF}" xmlns:o="{OFFICE}"><t:p>{body}</t:p></o:d>'
    path = zipped(tmp_path / "a.odt", content_xml=content)
    with bounded():
        assert read(path) == "\n"


def book(path: Path) -> Path:
    container = '<c><rootfiles><rootfile full-path="O/b.opf"/></rootfiles></c>'
    opf = (
        '<package xmlns="o"><manifest><item id="n" href="nav.xhtml" properties="nav"/>'
        '<item id="1" href="one%20a.xhtml"/><item id="2" href="two.xhtml"/></manifest>'
        '<spine><itemref idref="n"/><itemref idref="2"/><itemref idref="1"/></spine></package>'
    )
    page = "<!DOCTYPE html><html><head><title>no</title></head><body>{}</body></html>"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("O/b.opf", opf)
        archive.writestr("O/nav.xhtml", page.format("<p>Contents</p>"))
        archive.writestr(
            "O/one a.xhtml", page.format("<p>A &amp;\n <i>b</i>,\u00a0c.</p><hr/><p>D.</p>")
        )
        archive.writestr(
            "O/two.xhtml", page.format("<h1>Two</h1><script>no</script><p>E<br/>F</p>")
        )
    return path


def test_e_books_are_read_in_the_order_of_their_spine(tmp_path: Path) -> None:
    assert read(book(tmp_path / "a.epub")) == "Two\nE\nF\n\nA & b,\u00a0c.\nD.\n"


def small_book(path: Path, pages: dict[str, str | bytes], package: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", '<c full-path="O/b.opf"/>')
        archive.writestr("O/b.opf", f'<package xmlns="o">{package}</package>')
        for name, page in pages.items():
            archive.writestr(name, page)
    return path


def test_e_books_of_other_layouts(tmp_path: Path) -> None:
    """Pages beside the package, in UTF-16; pictures, contents and other pages are left out."""
    package = (
        '<item id="1" href="../T/1.html" media-type="text/html"/><item id="2" href="c.html"/>'
        '<item id="3" href="p.jpg" media-type="image/jpeg"/><item id="4" href="n.html"/>'
        '<itemref idref="2"/><itemref idref="3"/><itemref idref="1"/><itemref idref="1"/>'
        '<itemref idref="4" linear="no"/><reference type="toc" href="c.html#top"/>'
    )
    pages = {"T/1.html": "<p>é</p>".encode("utf-16"), "O/c.html": "Contents"}
    assert read(small_book(tmp_path / "a.epub", pages, package)) == "é\n"


def test_cells_and_notes_of_e_books(tmp_path: Path) -> None:
    """A cell is a line, as in the other formats, and notes are left out with their numbers."""
    page = (
        "<table><tr><td>a</td><td>b</td></tr></table><p>c<a epub:type='noteref'>1</a>."
        "<span epub:type='pagebreak'/></p><aside epub:type='x footnote'><aside>no</aside>no</aside>"
        "d<p>e</p>"
    )
    package = '<item id="1" href="1.html"/><itemref idref="1"/>'
    assert read(small_book(tmp_path / "a.epub", {"O/1.html": page}, package)) == "a\nb\nc.\nd\ne\n"


RTF = r"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}{\*\generator x;}\f0 "


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (
            r"\'93Day,\'94 {\i said} Ann.\par" + "\n" + r"\pard Next\line line\tab x",
            "“Day,” said Ann.\nNext\nline\tx",
        ),
        (r"a\emdash b \ldblquote c\rdblquote  \{d\}\~e\_f\-g", "a—b “c” {d}\u00a0e-fg"),
        (r"\u8220?x\u8221\'94 \uc2\u8212 --y\uc0\u233 z", "“x” —yéz"),
        (r"{\uc2 a}\u233?b \u-10179?\u-8704?", "aéb 😀"),
        (
            r"a{\footnote no}{\pict 0}{\deleted no}{\deleted0 b}{\field{\*\fldinst X}{\fldrslt c}}",
            "abc",
        ),
        (r"{\*\bin3 }}}}a\bin2 }}b", "ab"),
        (r"a\deleted no\deleted0{\mvf no}b\v no\plain c{\v no}{\listtext 1.\tab}d", "abcd"),
        (r"\trowd a\cell b\cell\row c", "a\nb\nc"),
    ],
)
def test_rtf(tmp_path: Path, rtf: str, text: str) -> None:
    """The story: RTF was read as text with all its commands, without a word."""
    (tmp_path / "a.rtf").write_bytes((RTF + rtf + "}").encode("ascii"))
    assert read(tmp_path / "a.rtf") == text
    assert read(tmp_path / "a.rtf", encoding="utf-16") == text  # --encoding is for text files


def test_rtf_of_other_code_pages() -> None:
    """Two bytes may be one character, and one of them may be written as a letter."""
    assert rtf_text(rb"{\rtf1\ansicpg932 \'83\'70\'83p}") == "パパ"
    assert rtf_text(rb"{\rtf1\mac \'8e\'d2}") == "é“"
    assert rtf_text(rb"{\rtf1\ansicpg99999 \'e9}") == "é"


def test_rtf_of_fonts_with_other_code_pages() -> None:
    """The story: Russian that WordPad wrote on an English machine was read as accented letters."""
    fonts = rb"{\rtf1\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 A;}{\f1\fcharset204 A;}}"
    assert rtf_text(fonts + rb"\f0 \'e9\f1 \'cf\'f0{\f0\'e9}\'e8\plain\'e9}") == "éПрéиé"
    assert rtf_text(fonts.replace(rb"deff0", rb"deff1") + rb"\'cf}") == "П"


@pytest.mark.parametrize("name", ["a.docx", "a.odt", "a.epub", "a.rtf"])
@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04 cut short", b"\xd0\xcf\x11\xe0"])
def test_other_files_by_these_names_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=f"{name} cannot be read as .*save it as plain text"):
        read(tmp_path / name)
    zipped(tmp_path / name, other="x")
    with pytest.raises(CorpusError, match="cannot be read as"):
        read(tmp_path / name)


def test_entities_and_huge_parts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file must not become gigabytes."""
    bomb = '<!DOCTYPE d [<!ENTITY a "aaaa">]><d>&a;</d>'
    for text in (bomb, f"<!--{5000 * ' '}-->{bomb}"):
        with pytest.raises(CorpusError, match="document type"):
            read(zipped(tmp_path / "a.docx", word__document_xml=text))
    package = "".join(f'<item id="{n}" href="{n}"/><itemref idref="{n}"/>' for n in range(3))
    small_book(tmp_path / "a.epub", {f"O/{n}": "a" * 200 for n in range(3)}, package)
    monkeypatch.setattr("charlm.text.sources.word_processors.MAX_BYTES", 500)
    with pytest.raises(CorpusError, match="more than 500 bytes"):
        read(tmp_path / "a.epub")
    monkeypatch.setattr("charlm.text.sources.word_processors.MAX_BYTES", 10)
    with pytest.raises(CorpusError):
        read(docx(tmp_path / "a.docx", "<w:p/>"))


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"{\\rtf1 a}", "ends in .rtf"),
        (b"%PDF-1.7\n\xff\xfe\xfa\0\1", "pdftotext"),
        (b"PK\x03\x04\xff\0", ".docx"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "auto"])
def test_documents_by_other_names_get_advice(
    tmp_path: Path, data: bytes, advice: str, encoding: str
) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        read(tmp_path / "a.txt", encoding=encoding)
    assert advice in str(caught.value)


def test_folders_of_manuscripts(tmp_path: Path) -> None:
    """Pictures are skipped with a warning, lock files of Word and notes of Scrivener without."""
    docx(tmp_path / "a.docx", "<w:p><w:r><w:t>a</w:t></w:r></w:p>")
    (tmp_path / "~$a.docx").write_bytes(b"\4Ann\0")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    data = tmp_path / "Book.scriv" / "Files" / "Data" / "1"
    data.mkdir(parents=True)
    (data / "content.rtf").write_bytes(b"{\\rtf1 s}")
    for path in (data / "notes.rtf", data / "synopsis.txt", tmp_path / "Book.scriv" / "B.scrivx"):
        path.write_text("{\\rtf1 note}")
    corpus = Corpus([str(tmp_path)])
    assert "".join(corpus.chunks()) == "s\na\n"
    assert [warning for warning in corpus.warnings if "cover.jpg skipped" in warning]
    assert read(tmp_path / "Book.scriv") == "s"


def test_a_training_converts_a_document_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: six conversions of a novel in one run, 0.2 s each."""
    calls = list[Path]()
    convert = word_processors._convert

    def counted(path: Path) -> bytes:
        calls.append(path)
        return convert(path)

    monkeypatch.setattr(word_processors, "_convert", counted)
    novel = docx(tmp_path / "novel.docx", "<w:p><w:r><w:t>abc abd cab</w:t></w:r></w:p>" * 40)
    settings = nested(
        sources=[str(novel)], steps=2, hidden_size=4, num_layers=1, batch_size=2, bptt=5, seed=1
    )
    list(start(settings_from(settings), tmp_path / "runs").records())
    assert calls == [novel]


def test_a_changed_document_is_converted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are kept up to a limit, the oldest goes first, and a change of the file shows."""
    novel = docx(tmp_path / "a.docx", "<w:p><w:r><w:t>old</w:t></w:r></w:p>")
    assert read(novel) == "old\n"
    docx(novel, "<w:p><w:r><w:t>newer</w:t></w:r></w:p>")
    assert read(novel) == "newer\n"
    monkeypatch.setattr(word_processors, "MAX_KEPT", 8)
    other = docx(tmp_path / "b.docx", "<w:p><w:r><w:t>other</w:t></w:r></w:p>")
    assert (read(other), read(novel)) == ("other\n", "newer\n")
    assert sum(map(len, word_processors._KEPT.values())) <= 8

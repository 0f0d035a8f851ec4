"""Reading text: exact decoding, document marks, sizes and splits, for any chunk size."""

import codecs
import hashlib
import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.config.corpus import DOCUMENT_NAMES
from charlm.errors import CorpusError, UsageError
from charlm.text.corpus import Corpus
from charlm.text.documents import END, TextStats, scan, span, split_point

# Few enough control characters that no text of up to 30 is taken for a binary file.
CHARACTERS = st.one_of(
    st.sampled_from("\n\r a\x85\u2028\x0b\x0c\x00é\u0301👩\u200d"), st.characters(codec="utf-8")
)
TEXTS = st.text(CHARACTERS, max_size=30)
SIZES = st.integers(1, 9)


def tiny(corpus: Corpus, block: int = 1 << 20, chunk: int = 1 << 20) -> Corpus:
    corpus._block_bytes, corpus._chunk_chars = block, chunk
    return corpus


def whole(*sources, block: int = 1 << 20, **options) -> str:
    return "".join(tiny(Corpus([str(s) for s in sources], **options), block).chunks())


def naive(texts: list[str], document: str, *, keep_cr: bool = False, glue: bool = False) -> str:
    """Return the text with document marks, by rules applied to whole texts."""
    if document == "stream":
        texts = [text for text in texts if text]
        between = ["" if glue or text[-1] in "\r\n" else "\n" for text in texts]
        return "".join(itertools.chain.from_iterable(zip(texts, [*between[:-1], ""], strict=False)))
    documents: list[str] = []
    for text in texts:
        if document != "file" and not keep_cr:
            text = text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")
        if document == "file":
            documents += [text] if text else []
        elif document == "line":
            documents += [line.removesuffix("\n") for line in re.findall("[^\n]*\n|[^\n]+", text)]
        else:
            documents += [part for part in re.split("\n\n+", text.strip("\n")) if part]
    return "".join(document + END for document in documents)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


# ------------------------------------------------------------------ documents


@pytest.mark.parametrize("document", DOCUMENT_NAMES[1:])
@settings(max_examples=80)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3),
    block=SIZES,
    chunk=SIZES,
    rules=st.fixed_dictionaries({"keep_cr": st.booleans(), "glue": st.booleans()}),
)
def test_documents_do_not_depend_on_where_blocks_and_chunks_end(
    folder, document, texts, block, chunk, rules
):
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    corpus = tiny(Corpus([str(path) for path in paths], document=document, **rules), block, chunk)
    plain = [text.removeprefix("\ufeff") for text in texts]
    chunks = list(corpus.chunks())
    assert "".join(chunks) == naive(plain, document, **rules) == "".join(corpus.chunks())
    assert all(chunk <= len(part) < 2 * chunk for part in chunks[:-1])
    assert all(0 < len(part) < 2 * chunk for part in chunks[-1:])


@pytest.mark.parametrize("document", DOCUMENT_NAMES[1:])
@given(text=st.text(st.sampled_from("\n\nab\r"), max_size=12), chunk=SIZES, keep=st.booleans())
def test_a_text_in_memory_follows_the_same_rules(document, text, chunk, keep):
    corpus = tiny(Corpus.from_text(text, document, keep_cr=keep), chunk=chunk)
    assert "".join(corpus.chunks()) == naive([text], document, keep_cr=keep)


def test_documents_by_hand():
    """Lines may be empty, blank lines separate paragraphs, an empty text has no documents."""
    e = END
    for text, document, expected in [
        ("a\n\nb", "line", f"a{e}{e}b{e}"),
        ("a\n", "line", f"a{e}"),
        ("\n", "line", e),
        ("\n\na\nb\n\n\n\nc\n", "paragraph", f"a\nb{e}c{e}"),
        ("\n\n", "paragraph", ""),
        ("a\n\nb\n", "file", f"a\n\nb\n{e}"),
        ("a\n\nb\n", "stream", "a\n\nb\n"),
    ]:
        assert "".join(Corpus.from_text(text, document).chunks()) == expected
    for document in DOCUMENT_NAMES[1:]:
        assert list(Corpus.from_text("", document).chunks()) == []


def test_only_line_feed_ends_a_line(tmp_path):
    """CR, VT, FF, NEL, U+2028 and NUL stay in the text; CR LF is a line end too."""
    text = "a\rb\x0bc\x0cd\x85e\u2028f\x00g\r\nh"
    (tmp_path / "a.txt").write_bytes(text.encode())
    kept = whole(tmp_path / "a.txt", document="line", keep_cr=True)
    assert kept == text.replace("\n", END) + END
    assert whole(tmp_path / "a.txt", document="line") == text.replace("\r\n", END) + END


def test_blank_lines_with_a_kept_cr_are_reported(tmp_path):
    """Such a text has no paragraphs."""
    (tmp_path / "dos.txt").write_bytes(b"a\r\n\r\nb")
    assert whole(tmp_path / "dos.txt", document="paragraph") == f"a{END}b{END}"
    corpus = Corpus([str(tmp_path / "dos.txt")], document="paragraph", keep_cr=True)
    assert "".join(corpus.chunks()) == f"a\r\n\r\nb{END}"
    assert "CR LF" in corpus.warnings[0]


def test_an_unknown_kind_of_document_is_refused():
    with pytest.raises(UsageError, match=r"'chapter'; expected one of auto, stream, line"):
        Corpus.from_text("a", "chapter")


# ------------------------------------------------------------------ decoding


@example(data=b"\x00\x00\x00\x00\x88\xeb\xe0\x00", block=3, codec="shift_jis")
@given(
    data=st.binary(max_size=24),
    block=SIZES,
    codec=st.sampled_from(["utf-8", "gb18030", "cp1252", "shift_jis"]),
)
def test_invalid_bytes_are_placed_as_by_a_decoder_of_the_whole(folder, data, block, codec):
    """Line, offset and bytes do not depend on blocks."""
    path = folder / "any.txt"
    path.write_bytes(b"x" + data)  # not a magic number, not a byte-order mark
    try:
        expected = path.read_bytes().decode(codec)
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].decode(codec).count("\n")
        with pytest.raises(CorpusError) as caught:
            whole(path, block=block, encoding=codec)
        bad = error.object[error.start]
        assert f"line {line}, byte {error.start}: 0x{bad:02x}" in str(caught.value)
    else:
        assert whole(path, block=block, encoding=codec) == expected


def test_the_message_for_invalid_bytes_has_place_and_advice(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"one\ntwo\nit\x92s late, caf\xe9 na\xefve")
    with pytest.raises(CorpusError) as caught:
        whole(path)
    assert caught.value.exit_code == 3
    message = re.sub(r" \(it could also be .*?\)", "", str(caught.value))
    assert message == (
        f"{path}: line 3, byte 10: 0x92 is not valid UTF-8; the file seems to be CP1252. "
        "Convert it, for example with iconv; most commands that read files also take "
        "--encoding cp1252 or --errors replace."
    )
    assert whole(path, encoding="cp1252") == "one\ntwo\nit’s late, café naïve"


@pytest.mark.parametrize("block", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("bad", "shows"),
    [
        (b"\xe2\x82", "byte 2: 0xe2 0x82 is"),  # cut short by the end of the file
        (b"\xed\xa0\x80", "byte 2: 0xed is"),  # a surrogate
        (b"\xed\xbf\xbf", "byte 2: 0xed is"),  # END itself
        (b"\xc0\x80", "byte 2: 0xc0 is"),  # overlong
    ],
)
def test_sequences_that_are_not_utf8_are_refused(tmp_path, bad, shows, block):
    """Also across blocks."""
    (tmp_path / "a").write_bytes(b"\xc3\xa9" + bad)
    with pytest.raises(CorpusError, match=shows):
        whole(tmp_path / "a", block=block)


@pytest.mark.parametrize("block", [1, 2, 100])
def test_replaced_places_are_counted(tmp_path, block):
    """U+FFFD that is in the text is not counted."""
    (tmp_path / "a.txt").write_bytes(b"\xffa\xe2\x82b\xef\xbf\xbdc\xe2")
    corpus = tiny(Corpus([str(tmp_path / "a.txt")], errors="replace"), block)
    for _ in range(2):
        assert "".join(corpus.chunks()) == "\ufffda\ufffdb\ufffdc\ufffd"
    assert corpus.warnings == [
        f"{tmp_path}/a.txt: 3 places were not valid UTF-8, replaced by U+FFFD."
    ]


def test_a_byte_order_mark_is_dropped_with_a_note(tmp_path):
    """At the start of a file; elsewhere U+FEFF is a character."""
    for name in "ab":
        (tmp_path / name).write_bytes(codecs.BOM_UTF8 + "x\ufeff\n".encode())
    corpus = Corpus([str(tmp_path / "a"), str(tmp_path / "b")])
    assert "".join(corpus.chunks()) == "x\ufeff\nx\ufeff\n"
    assert corpus.warnings == [
        f"{tmp_path}/{name} begins with a byte-order mark; it was removed." for name in "ab"
    ]


TEXT = "Wide characters, of which each takes several bytes.\n" * 3


@pytest.mark.parametrize(
    "codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_wide_encodings_are_recognised_and_read_when_named(tmp_path, codec):
    (tmp_path / "a.txt").write_bytes(TEXT.encode(codec))
    with pytest.raises(CorpusError, match=f"--encoding {codec}"):
        whole(tmp_path / "a.txt")
    for block in (1, 3, 1000):
        assert whole(tmp_path / "a.txt", block=block, encoding=codec) == TEXT


def test_a_mark_is_dropped_in_wide_encodings_too(tmp_path):
    (tmp_path / "a.txt").write_bytes(("\ufeff" + TEXT).encode("utf-16-le"))
    corpus = Corpus([str(tmp_path / "a.txt")], encoding="UTF-16LE")
    assert "".join(corpus.chunks()) == TEXT
    assert "byte-order mark" in corpus.warnings[0]


def test_utf16_without_a_mark_is_explained(tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT.encode("utf-16-le"))
    with pytest.raises(CorpusError, match=r"BOM.*--encoding utf-16-le"):
        whole(tmp_path / "a.txt", encoding="utf-16")


def test_half_a_surrogate_pair_is_refused_from_any_codec(tmp_path):
    """UTF-7 can encode lone surrogates, even END."""
    (tmp_path / "a.txt").write_bytes(b"x+3/8-y")
    with pytest.raises(CorpusError, match=r"surrogate pair, U\+DFFF"):
        whole(tmp_path / "a.txt", encoding="utf-7")
    with pytest.raises(CorpusError, match=r"surrogate pair, U\+D800, .* at character 1"):
        Corpus.from_text("a\ud800")


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "a\0b"])
def test_an_unknown_encoding_is_a_usage_error(name):
    """So is a codec that is not for text."""
    with pytest.raises(UsageError, match="not a known text encoding"):
        Corpus(["x"], encoding=name)


def test_errors_is_strict_or_replace():
    with pytest.raises(UsageError, match="strict, replace"):
        Corpus(["x"], errors="ignore")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "PNG image"),
        (b"\xff\xd8\xff\xe0\0", "JPEG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04..", "zip"),
        (b"\x7fELF\x02", "program"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x1f\x8b\x08\0", r"gzip data.*end in \.gz"),
        (b"BZh91AY&SY", r"bzip2 data.*\.bz2"),
        (b"\0" * 257 + b"ustar", "tar archive"),
        (bytes(range(1, 9)) * 50 + b"text" * 100, "400 of its first 800 bytes are control"),
        (b"\0" * 100, "100 are NUL"),
    ],
)
def test_files_that_are_not_text_are_refused(tmp_path, data, kind):
    (tmp_path / "odd.txt").write_bytes(data)
    for block in (1, 1000):
        with pytest.raises(CorpusError, match=rf"odd\.txt.*{kind}"):
            whole(tmp_path / "odd.txt", block=block)


def test_odd_characters_are_kept(tmp_path):
    """If they are few."""
    text = "plain words " * 20 + "\0\0\x01\x1f\x7f\x80\x9f\ufffe\uffff\ue000\U0010ffff"
    (tmp_path / "a.txt").write_bytes(text.encode())
    assert whole(tmp_path / "a.txt") == text
    (tmp_path / "b.txt").write_bytes(b"BZh is a word \x1b[1mbold")
    assert whole(tmp_path / "b.txt") == "BZh is a word \x1b[1mbold"


# ------------------------------------------------------------------ measuring and splitting

MARKED = st.text(st.sampled_from("aé👩\n" + END), max_size=30)


def cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@example(text="", size=1)
@given(text=MARKED, size=SIZES)
def test_text_stats_do_not_depend_on_chunks(text, size):
    assert scan(cut(text, size)) == TextStats(
        chars=len(text),
        documents=text.count(END),
        bytes=len(text.replace(END, "\n").encode()),
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    )


@given(text=MARKED, size=SIZES, start=st.integers(0, 40), stop=st.none() | st.integers(0, 40))
def test_a_span_is_a_slice(text, size, start, stop):
    """Of characters, or of documents with their END."""
    parts = list(span(cut(text, size), start, stop, documents=False))
    assert "".join(parts) == text[start:stop] and all(parts)
    documents = re.findall(f"[^{END}]*{END}|[^{END}]+", text)
    assert "".join(span(cut(text, size), start, stop, documents=True)) == "".join(
        documents[start:stop]
    )


def test_a_span_stops_reading_at_its_end():
    def chunks():
        yield "abc"
        raise AssertionError("read too far")

    assert list(span(iter(["abc", "def"]), 1, 3, documents=False)) == ["bc"]
    with pytest.raises(AssertionError):
        list(span(chunks(), 0, 4, documents=False))


def stats_of(chars: int, documents: int) -> TextStats:
    return TextStats(chars=chars, documents=documents, bytes=chars, sha256="")


def test_a_split_holds_out_the_given_fraction():
    """With at least one document on either side."""
    assert split_point(stats_of(100, 0), 0.1, documents=False) == 90
    assert split_point(stats_of(100, 0), 0, documents=False) == 100
    for documents, fraction, point in [(10, 0.2, 8), (2, 0.01, 1), (2, 0.99, 1), (3, 0.1, 2)]:
        assert split_point(stats_of(100, documents), fraction, documents=True) == point
    assert split_point(stats_of(100, 5), 0, documents=True) == 5
    assert split_point(stats_of(100, 1), 0.1, documents=True) == 0
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="cannot be held out"):
            split_point(stats_of(100, 0), fraction, documents=False)


@given(text=MARKED, fraction=st.floats(0, 0.99), documents=st.booleans())
def test_both_sides_of_a_split_are_the_text(text, fraction, documents):
    point = split_point(scan([text]), fraction, documents=documents)
    head = "".join(span([text], 0, point, documents=documents))
    tail = "".join(span([text], point, None, documents=documents))
    assert head + tail == text

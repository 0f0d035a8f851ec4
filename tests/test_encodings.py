"""Encodings of files: recognised, listed in one error, and read with `auto`."""

import codecs

import pytest
from helpers import Call

from charlm.errors import CorpusError, UsageError
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.sources.decoding import codec_name
from charlm.text.sources.encodings import MAX_LISTED, recognise

TEXTS = {
    "French": ("Le café était fermé à cause de la fête. Où êtes-vous allé, « mon » garçon ?\n",
               ("cp1252", "mac_roman")),
    "Spanish": ("¿Qué pasó, señor? Mañana será otro día, dijo el niño.\n", ("cp1252", "latin-1")),
    "Polish": ("Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni i równi.\n",
               ("cp1250", "iso8859_2")),
    "Russian": ("Все люди рождаются свободными и равными в своём достоинстве.\n",
                ("cp1251", "koi8_r", "cp866", "iso8859_5")),
    "Greek": ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.\n", ("cp1253",)),
    "Arabic": ("يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.\n", ("cp1256",)),
    "Japanese": ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n",
                 ("shift_jis", "euc_jp")),
    "Chinese": ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。\n",
                ("gb18030", "big5")),
    "Korean": ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.\n",
               ("euc_kr",)),
}  # fmt: skip
CASES = [(language, codec) for language, (_, codecs_of) in TEXTS.items() for codec in codecs_of]
WIDE = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def read(corpus: Corpus) -> str:
    return "".join(corpus.chunks())


def text_of(language: str, codec: str) -> str:
    return TEXTS[language][0].encode(codec, "ignore").decode(codec)


@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize(("language", "codec"), CASES)
def test_auto_finds_the_encoding_of_a_text(tmp_path, language: str, codec: str, times: int) -> None:
    """The guess is reported."""
    text = text_of(language, codec) * times
    (tmp_path / "a.txt").write_bytes(("plain\n" * times + text).encode(codec))
    corpus = Corpus([str(tmp_path / "a.txt")], encoding="auto")
    assert read(corpus) == read(corpus) == "plain\n" * times + text
    (note,) = corpus.warnings
    assert note.startswith(f"{tmp_path}/a.txt was read as ") and "--encoding" in note


@pytest.mark.parametrize("codec", WIDE)
def test_auto_reads_each_file_by_its_own_mark(tmp_path, codec: str) -> None:
    """Or by its NULs."""
    (tmp_path / "a.txt").write_bytes(("naïve 猫 text\n" * 9).encode(codec))
    (tmp_path / "b.txt").write_bytes("naïve 猫\n".encode())
    corpus = Corpus([str(tmp_path)], encoding="auto")
    assert read(corpus) == "naïve 猫 text\n" * 9 + "naïve 猫\n"
    assert all(f"{tmp_path}/a.txt" in note for note in corpus.warnings) and corpus.warnings


def test_valid_utf_8_is_always_utf_8(tmp_path) -> None:
    """One byte at the end of a long file may decide."""
    good = ("plain text without anything\n" * 9999).encode()
    assert str(recognise([good, "é\n".encode()])) == "UTF-8"
    assert str(recognise([good + b"caf\xc3", b"\xa9"])) == "UTF-8"
    bad = recognise([good, "La fête à la forêt où j'étais née\n".encode("cp1252")])
    assert bad is not None and (bad.name, bad.sure) == ("cp1252", False)
    assert recognise([b"a\xc3"]) != recognise([b"a"])
    assert recognise([]) == recognise([b"a"])


@pytest.mark.parametrize("language", TEXTS)
def test_utf_8_with_a_damaged_place_stays_utf_8(tmp_path, language: str) -> None:
    """A guess such as CP1250 would read every other letter of the file wrongly."""
    text = TEXTS[language][0]
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() * 3 + b"caf\xe9\n" + text.encode())
    with pytest.raises(CorpusError) as caught:
        read(Corpus([str(path)]))
    assert "line 4" in str(caught.value) and "0xe9 is not valid UTF-8, but most" in str(
        caught.value
    )
    assert "--encoding" not in str(caught.value) and "--errors replace" in str(caught.value)
    for encoding in ("utf-8", "auto"):
        corpus = Corpus([str(path)], encoding=encoding, errors="replace")
        assert read(corpus) == text * 3 + "caf\ufffd\n" + text
    (tmp_path / "b.txt").write_bytes("café à la forêt\n".encode("cp1252"))
    with pytest.raises(CorpusError, match=r"a.txt: line 4.*; most of it is valid UTF-8\n.*CP1252"):
        read(Corpus([str(tmp_path)]))


def test_all_badly_encoded_files_are_listed_at_once(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("fine\n")
    for number, (language, codec) in enumerate([("French", "cp1252"), ("Russian", "koi8_r")]):
        (tmp_path / f"b{number}.txt").write_bytes(text_of(language, codec).encode(codec))
    (tmp_path / "c.txt").write_bytes("wide text\n".encode("utf-16"))
    (tmp_path / "d.txt").write_text("naïve\n")
    with pytest.raises(CorpusError) as caught:
        read(Corpus([str(tmp_path)]))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("3 of 5 files are not valid UTF-8. Convert it")
    assert lines[0].startswith(f"  {tmp_path}/b0.txt: line 1, byte 6: 0xe9; it seems to be CP1252")
    assert lines[1].startswith(f"  {tmp_path}/b1.txt: line 1, byte 0: 0xf7; it seems to be KOI8_R")
    assert lines[2] == f"  {tmp_path}/c.txt: looks like UTF-16"
    assert "--encoding auto" in first and "--errors replace" in first
    french, russian = text_of("French", "cp1252"), text_of("Russian", "koi8_r")
    expected = f"fine\n{french}{russian}wide text\nnaïve\n"
    assert read(Corpus([str(tmp_path)], encoding="auto")) == expected


def test_a_long_list_of_bad_files_is_cut(tmp_path) -> None:
    for number in range(MAX_LISTED + 2):
        (tmp_path / f"{number:03}.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(CorpusError, match=r"(?s)52 of 52 files.*\n  and 2 more\Z") as caught:
        read(Corpus([str(tmp_path)]))
    assert str(caught.value).count("seems to be") == MAX_LISTED


def test_a_table_is_decoded_by_auto_too(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes("text,n\ncafé à la forêt,1\n".encode("cp1252"))
    (tmp_path / "b.jsonl").write_bytes(codecs.BOM_UTF8 + '{"text": "naïve"}\n'.encode())
    corpus = Corpus([str(tmp_path / "a.csv")], encoding="auto")
    assert read(corpus) == f"café à la forêt{END}"
    assert "a.csv was read as CP1252" in corpus.warnings[0]


def test_badly_encoded_tables_are_listed_too(tmp_path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_bytes("text,n\ncafé à la forêt,1\n".encode("cp1252"))
    with pytest.raises(CorpusError, match="3 of 3 files") as caught:
        read(Corpus([str(tmp_path)]))
    assert str(caught.value).count("line 2, byte 10: 0xe9; it seems to be CP1252") == 3


def test_a_file_that_fits_no_encoding_is_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    monkeypatch.setattr("charlm.text.sources.encodings._likeliest", lambda _: None)
    with pytest.raises(CorpusError, match=r"was not recognised.*--encoding"):
        read(Corpus([str(tmp_path / "a.txt")], encoding="auto"))


def test_auto_needs_the_whole_text() -> None:
    with pytest.raises(UsageError, match="--encoding auto needs to read the whole text"):
        codec_name("auto")


def test_the_command_line_refuses_or_guesses_an_encoding(tmp_path, call: Call) -> None:
    """`charlm vocab` counts the letters of both files, and reports the guess on stderr."""
    text = "Où êtes-vous, à la fête ?\n"
    (tmp_path / "a.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "b.txt").write_text(text, encoding="utf-8")
    code, _, err = call("vocab", str(tmp_path))
    assert code == 3 and "seems to be CP1252" in err
    code, out, err = call("vocab", str(tmp_path), "--encoding", "auto", "--json")
    assert code == 0 and "a.txt was read as CP1252" in err and '"ê"' in out

"""Datasets: split first, exact counts whatever the chunks, the cache on disk the same as memory."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import corpus_of, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.text_units import UNITS
from charlm.errors import CharlmError, CorpusError, EnvironmentFailure, UsageError
from charlm.text import dataset as dataset_module
from charlm.text import idcache, splits
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.documents import END
from charlm.text.encoded import (
    EncodedText,
    TextCounts,
    count_text,
    encode_text,
    read_encoded,
    write_encoded,
)
from charlm.text.idcache import cache_folder
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

CHARACTERS = st.sampled_from("ab \n\t\x1c\x85\u3000é猫🚀") | st.characters(codec="utf-8")
TEXTS = st.lists(st.text(CHARACTERS, max_size=15), min_size=1, max_size=5).map(END.join)
FORMS = [*({"unit": unit} for unit in UNITS), {"unit": "word", "words": "whitespace"}]


def load(text: str, document: str = "stream", *, chunk: int = 1 << 20, **corpus) -> Dataset:
    settings = CorpusSettings(**corpus)
    return load_dataset(settings, VocabularySettings(), corpus=corpus_of(text, document, chunk))


def same(left: EncodedText, right: EncodedText) -> bool:
    return (
        np.array_equal(left.ids, right.ids)
        and left.ids.dtype == right.ids.dtype
        and left.ends.tolist() == right.ends.tolist()
        and (left.counts, left.is_stream) == (right.counts, right.is_stream)
    )


def in_chunks(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# ------------------------------------------------------------------ splitting


def test_the_vocabulary_comes_from_the_training_part_only() -> None:
    """Ten characters, the last held out: z stands only there, so it is UNK."""
    data = load("abcabcabcz")
    assert data.vocabulary.tokens == ["<unk>", "<eos>", "a", "b", "c"]
    assert data.train.ids.tolist() == [2, 3, 4] * 3
    assert data.valid is not None
    assert data.valid.ids.tolist() == [UNK]
    assert data.coverage == 1.0
    assert data.test is None


def test_documents_are_held_out_whole() -> None:
    """The last of four lines is held out; each ends with EOS at a position of `ends`."""
    data = load("ab\nb\n\na", "line", valid_frac=0.25)
    a, b = data.vocabulary.ids["a"], data.vocabulary.ids["b"]
    assert data.train.ids.tolist() == [a, b, EOS, b, EOS, EOS]
    assert data.train.ends.tolist() == [3, 5, 6]
    assert data.train.documents == 3
    assert not data.train.is_stream
    assert data.valid is not None
    assert data.valid.ids.tolist() == [a, EOS]
    assert data.split("train") is data.train
    assert data.split("valid") is data.valid


def test_documents_can_be_held_out_at_random() -> None:
    """A share of them, drawn: no line is lost, none is in both, and the draw does not change."""
    lines = [f"{number:03d}" for number in range(200)]
    parts = [
        load("\n".join(lines), "line", chunk=chunk, valid_frac=0.25, hold_out="random")
        for chunk in (1 << 20, 7)
    ]
    found = [
        [data.vocabulary.decode(part.ids).splitlines() for part in (data.train, data.valid)]
        for data in parts
        if data.valid
    ]
    assert found[0] == found[1]
    train, valid = found[0]
    assert sorted(train + valid) == lines
    assert len(valid) == 50
    assert train == sorted(train)
    assert valid == sorted(valid) != lines[150:]
    assert 5 < sum(line < "100" for line in valid) < 45
    assert parts[0].fingerprint != load("\n".join(lines), "line", valid_frac=0.25).fingerprint


def test_a_stream_has_no_documents_to_draw() -> None:
    """The refusal says what to give."""
    with pytest.raises(UsageError, match="one stream; expected documents to choose from"):
        load("abcabc", hold_out="random")


def test_a_stream_is_one_document_without_an_end() -> None:
    """Line ends are characters of it."""
    data = load("a\nb\n", valid_frac=0)
    assert EOS not in data.train.ids
    assert data.train.ends.tolist() == [4]
    assert data.train.is_stream
    assert data.valid is None


def test_paragraphs_keep_their_inner_line_ends() -> None:
    """Two lines, a blank one, one line: two documents."""
    data = load("a\nb\n\nc\n", "paragraph", valid_frac=0)
    assert data.vocabulary.decode(data.train.ids) == "a\nb\nc\n"
    assert data.train.ends.tolist() == [4, 6]


def test_files_for_validation_and_test_leave_the_corpus_whole(tmp_path) -> None:
    """Named files are used as they are, and nothing is held out of the training text."""
    for name, text in [("train", "abab"), ("valid", "az"), ("test", "bb"), ("empty", "")]:
        (tmp_path / name).write_text(text)
    path = {name: str(tmp_path / name) for name in ("train", "valid", "test", "empty")}
    data = load_dataset(
        CorpusSettings(sources=(path["train"],), valid=(path["valid"],), test=(path["test"],)),
        VocabularySettings(),
    )
    assert [part.ids.tolist() for part in (data.train, data.valid, data.test)] == [
        [2, 3, 2, 3],
        [2, UNK],
        [3, 3],
    ]
    assert data.name == "train"
    empty = load_dataset(
        CorpusSettings(sources=(path["train"],), valid=(path["empty"],)), VocabularySettings()
    )
    assert empty.valid is None


def test_a_tenth_is_held_out_up_to_a_number_of_characters(monkeypatch) -> None:
    monkeypatch.setattr(splits, "VALID_CHARS", 30)
    sizes = {chars: load("ab" * (chars // 2)).valid.counts.chars for chars in (100, 200, 2000)}
    assert sizes == {100: 10, 200: 20, 2000: 30}


@pytest.mark.parametrize("change", ["size", "time", "file"])
def test_a_text_that_changes_while_it_is_read_is_refused(
    change: str, tmp_path, monkeypatch
) -> None:
    """Between two passes: another size, a later time, or another file of the same size and time."""
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("abab" * 100)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    build = dataset_module.build_vocabulary

    def changed(*arguments, **named):
        target = other if change == "file" else path
        target.write_text("baba" * (101 if change == "size" else 100))
        os.utime(target, ns=(times[0], times[1] + (change == "time")))
        target.replace(path)
        return build(*arguments, **named)

    monkeypatch.setattr(dataset_module, "build_vocabulary", changed)
    with pytest.raises(CorpusError, match="a changed while it was read"):
        load_dataset(CorpusSettings(sources=(str(path),)), VocabularySettings())


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
@pytest.mark.parametrize("text", ["a", "abc\n"])
def test_a_single_document_is_learnt_and_not_held_out(document: str, text: str) -> None:
    """A tenth of one document was the whole of it: nothing was left to learn (KeyError)."""
    data = load(text, document)
    assert data.train.documents == 1
    assert data.valid is None


def test_two_characters_are_enough() -> None:
    """The shortest text that can be learnt from is not split either."""
    data = load("ab", valid_frac=0.9)
    assert data.train.ids.tolist() == [2, 3]
    assert data.valid is None


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a", "has one character")])
def test_less_than_two_characters_are_refused(text: str, message: str) -> None:
    """With a sentence and the exit code of a corpus error."""
    with pytest.raises(CorpusError, match=message):
        load(text)


def test_a_text_without_a_single_token_is_refused() -> None:
    """Blanks only are no words; there would be nothing to learn, for ever."""
    form = VocabularySettings(unit="word", words="whitespace")
    with pytest.raises(CorpusError, match="has no words"):
        load_dataset(CorpusSettings(), form, corpus=corpus_of("  \t  "))
    tail = load_dataset(CorpusSettings(), form, corpus=corpus_of("a b" + " " * 17))
    assert tail.valid is None


def test_a_given_vocabulary_is_used_as_it_is() -> None:
    """Continuing a run on other text keeps the ids of the run."""
    given_one = vocabulary_of("zb")
    data = load_dataset(
        CorpusSettings(valid_frac=0),
        VocabularySettings(unit="word"),
        corpus=corpus_of("abz"),
        vocabulary=given_one,
    )
    assert data.vocabulary is given_one
    assert data.train.ids.tolist() == [UNK, given_one.ids["b"], given_one.ids["z"]]


# ------------------------------------------------------------------ counting


@given(text=TEXTS, size=st.integers(1, 9))
@settings(max_examples=200)
def test_counts_are_those_of_python_whatever_the_chunks(text: str, size: int) -> None:
    """Characters, UTF-8 bytes and words; a mark is one character, one byte and a blank."""
    total, after_blank = [0, 0, 0], True
    for chunk in in_chunks(text, size):
        counts, after_blank = count_text(chunk, after_blank)
        for place, value in enumerate((counts.chars, counts.bytes, counts.words)):
            total[place] += value
    shown = text.replace(END, "\n")
    assert total == [len(text), len(shown.encode()), len(shown.split())]


@pytest.mark.parametrize("form", FORMS, ids=str)
@given(text=TEXTS, size=st.integers(1, 9))
@settings(max_examples=25)
def test_ids_and_counts_do_not_depend_on_chunks(form: dict, text: str, size: int) -> None:
    """Ids, ends and counts of a text read in pieces are those of the text read at once."""
    vocabulary = vocabulary_of("ab a\nb é猫", **form)
    document = "line" if END in text else "stream"
    if END in text and not text.endswith(END):
        text += END
    whole = encode_text(lambda: [text], vocabulary, document)
    cut = encode_text(lambda: in_chunks(text, size), vocabulary, document)
    assert same(whole, cut)
    if document == "line":
        assert whole.documents == text.count(END)
        assert whole.ends[-1] == len(whole.ids)
    shown = text.replace(END, "\n")
    assert whole.counts == TextCounts(
        chars=len(text), bytes=len(shown.encode()), words=len(shown.split())
    )


def test_a_dataset_does_not_depend_on_chunks() -> None:
    """Split, ids and fingerprint are those of the text; another text has another fingerprint."""
    text = "to be\nor not\n\nto be 猫\n" * 3
    for document in ("stream", "line", "paragraph"):
        whole, cut = (load(text, document, chunk=size) for size in (1 << 20, 5))
        assert whole.valid is not None
        assert cut.valid is not None
        assert same(whole.train, cut.train)
        assert same(whole.valid, cut.valid)
        assert whole.fingerprint == cut.fingerprint
        assert load(text + "!", document).fingerprint != whole.fingerprint


# ------------------------------------------------------------------ the cache


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Every text is large enough for the cache, which is an empty folder."""
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    return tmp_path / "cache"


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("document", ["stream", "line"])
def test_the_cache_holds_what_memory_would(form: dict, document: str, cache, monkeypatch) -> None:
    """Large texts are mapped from disk: same ids, ends and counts, and the second time no work."""
    text = "to be\nor not\nto be 猫\n" * 3
    options = CorpusSettings(), VocabularySettings(**form)
    cached = load_dataset(*options, corpus=corpus_of(text, document, 7))
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 1 << 20)
    memory = load_dataset(*options, corpus=corpus_of(text, document))
    for name in ("train", "valid"):
        assert isinstance(cached.split(name).ids, np.memmap)
        assert same(cached.split(name), memory.split(name))
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    monkeypatch.setattr(idcache, "_write_cache", lambda *_: pytest.fail("encoded again"))
    again = load_dataset(*options, corpus=corpus_of(text, document, 3))
    assert same(again.train, memory.train)


def test_the_cache_is_keyed_by_content(cache) -> None:
    """Another text, document rule or vocabulary is another entry; another name is not."""
    load("abab\nab", valid_frac=0)
    assert len(list(cache.iterdir())) == 1
    load("abab\nab", valid_frac=0, chunk=2)
    assert len(list(cache.iterdir())) == 1
    load("abab\nba", valid_frac=0)
    load("abab\nab", "line", valid_frac=0)
    options = CorpusSettings(valid_frac=0), VocabularySettings(unit="byte")
    load_dataset(*options, corpus=corpus_of("abab\nab"))
    assert len(list(cache.iterdir())) == 4


DAMAGES = {
    "ids cut short": ("ids.bin", lambda data: data[:-1]),
    "no ids": ("ids.bin", lambda data: b""),
    "no ends": ("ends.bin", lambda data: b""),
    "ends cut short": ("ends.bin", lambda data: data[:-8]),
    "ends in disorder": ("ends.bin", lambda data: data[8:16] + data[:8] + data[16:]),
    "no JSON": ("counts.json", lambda data: data[:-1]),
    "JSON of another kind": ("counts.json", lambda data: b"null"),
    "a list": ("counts.json", lambda data: b"[]"),
    "a field missing": ("counts.json", lambda data: data.replace(b"dtype", b"dtypo")),
    "a field too many": ("counts.json", lambda data: data.replace(b'"chars"', b'"cars"')),
    "ids that are no ids": ("counts.json", lambda data: data.replace(b"uint8", b"object")),
    "signed ids": ("counts.json", lambda data: data.replace(b"uint8", b"int8")),
    "wider ids": ("counts.json", lambda data: data.replace(b"uint8", b"uint16")),
    "a file missing": ("ends.bin", None),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_cache_is_told_and_made_again(what: str, cache) -> None:
    """Reading it is a CorpusError with the folder; loading a dataset builds it again."""
    text = "ab\nb\nab\nb\n"
    first = load(text, "line", valid_frac=0)
    (folder,) = cache.iterdir()
    name, damage = DAMAGES[what]
    expected = EncodedText(
        ids=first.train.ids.copy(),
        ends=first.train.ends,
        counts=first.train.counts,
        is_stream=first.train.is_stream,
    )
    if damage is None:
        (folder / name).unlink()
    else:
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).write_bytes(damage(data))
    with pytest.raises(CorpusError, match=f"{folder.name}.*damaged"):
        read_encoded(folder)
    assert same(load(text, "line", valid_frac=0).train, expected)
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_is_told(cache, tmp_path) -> None:
    """A file where the folder should be: the message names another way out."""
    cache.write_text("in the way")
    with pytest.raises(EnvironmentFailure, match="CHARLM_CACHE"):
        load("abab")


@pytest.mark.parametrize("closed", [True, False])
def test_what_is_written_is_read(closed: bool, tmp_path) -> None:
    """ids, their type, ends and counts; also of a text without a token."""
    for ids, ends in [([2, 300, 1], [2, 3]), ([], [])]:
        encoded = EncodedText(
            ids=np.array(ids, np.uint16),
            ends=np.array(ends, np.int64),
            counts=TextCounts(chars=3, bytes=4, words=1),
            is_stream=not closed,
        )
        write_encoded(tmp_path / "x", encoded)
        assert same(read_encoded(tmp_path / "x"), encoded)
    content = json.loads((tmp_path / "x" / "counts.json").read_text())
    assert content == {"chars": 3, "bytes": 4, "words": 1, "closed": closed, "dtype": "uint16"}
    with pytest.raises(CharlmError):
        read_encoded(tmp_path / "nowhere")


def test_a_text_that_its_vocabulary_does_not_know_is_told() -> None:
    """Nearly all of it was UNK once, with a coverage of 1 in run.json."""
    plain = VocabularySettings()
    known = load_dataset(CorpusSettings(), plain, corpus=Corpus.from_text("abc" * 50))
    for text, share in (("abc" * 50, 1.0), ("xyza" * 50, 0.25)):
        corpus = Corpus.from_text(text)
        found = load_dataset(CorpusSettings(), plain, corpus=corpus, vocabulary=known.vocabulary)
        assert found.coverage == pytest.approx(share, abs=0.01)
        assert any("75 % of the training tokens" in note for note in found.warnings) == (
            share < 1.0
        )
    rare = " ".join(f"w{n}" for n in range(9000)) + " the cat" * 1500
    words = VocabularySettings(unit="word", min_count=2)
    found = load_dataset(CorpusSettings(), words, corpus=Corpus.from_text(rare))
    assert any("--unit char or bpe" in note for note in found.warnings)


@pytest.mark.parametrize(
    ("document", "keep", "crlf"),
    [("line", False, False), ("line", True, True), ("stream", False, True), ("file", False, True)],
)
def test_a_model_knows_whether_its_lines_end_with_cr_lf(
    document: str, keep: bool, crlf: bool
) -> None:
    """A list is learnt without the CR, or every name would end with one."""
    corpus = Corpus.from_text("Anna\r\nBert\r\n" * 20, document, keep_cr=keep)
    found = load_dataset(CorpusSettings(), VocabularySettings(), corpus=corpus)
    assert found.boundaries.crlf == crlf == ("\r" in found.vocabulary.ids)
    assert any("--keep-cr" in note for note in found.warnings) == (not crlf)


def test_texts_that_are_not_used_leave_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a month, when another text is encoded; what was read since then, and others', stays."""
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    cache = tmp_path / "cache"

    def entries(text: str) -> set[str]:
        load_dataset(
            CorpusSettings(valid_frac=0.0), VocabularySettings(),
            corpus=Corpus.from_text(text), cache=cache,
        )  # fmt: skip
        return {folder.name for folder in cache.iterdir()}

    (first,) = entries("abc" * 20)
    (cache / ("f" * 32)).mkdir()  # not of ours
    os.utime(cache / ("f" * 32), (1e9, 1e9))
    os.utime(cache / first, (1e9, 1e9))
    assert first in entries("abc" * 20)  # is read, and young again
    assert first in entries("bcd" * 20)
    os.utime(cache / first, (1e9, 1e9))
    left = entries("cde" * 20)
    assert first not in left
    assert "f" * 32 in left
    assert len(left) == 3

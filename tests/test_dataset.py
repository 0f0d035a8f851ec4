"""Datasets: split first, exact counts for any chunks, and a cache that equals memory."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import corpus_of, encoded_documents, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CharlmError, CorpusError, EnvironmentFailure, UsageError
from charlm.text import idcache, splits
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.documents import END
from charlm.text.encoded import (
    EncodedText,
    TextCounts,
    encode_text,
    read_encoded,
    write_encoded,
)
from charlm.text.idcache import cache_folder
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

CHARACTERS = st.sampled_from("ab \n\t\x1c\x85\u3000é猫🚀") | st.characters(codec="utf-8")
TEXTS = st.lists(st.text(CHARACTERS, max_size=15), min_size=1, max_size=5).map(END.join)
FORMS = [
    *({"unit": unit} for unit in TEXT_UNITS),
    *({"unit": "word", "words": words} for words in ("whitespace", "bare")),
]


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
    """The last of ten characters is held out, so its z is UNK."""
    data = load("abcabcabcz")
    assert data.vocabulary.tokens == ["<unk>", "<eos>", "a", "b", "c"]
    assert data.train.ids.tolist() == [2, 3, 4] * 3
    assert data.valid is not None
    assert data.valid.ids.tolist() == [UNK]
    assert data.coverage == 1.0
    assert data.test is None


def test_documents_are_held_out_whole() -> None:
    """The last of four lines is held out; each document ends with EOS at a position of `ends`."""
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
    """No line is lost or in both parts, and the choice does not change."""
    lines = [f"{number:03d}" for number in range(200)]
    parts = [
        load("\n".join(lines), "line", chunk=chunk, valid_frac=0.25, hold_out="random")
        for chunk in (1 << 20, 7)
    ]
    results = [
        [data.vocabulary.decode(part.ids).splitlines() for part in (data.train, data.valid)]
        for data in parts
        if data.valid
    ]
    assert results[0] == results[1]
    train, valid = results[0]
    assert sorted(train + valid) == lines
    assert len(valid) == 50
    assert train == sorted(train)
    assert valid == sorted(valid) != lines[150:]
    assert 5 < sum(line < "100" for line in valid) < 45
    assert parts[0].fingerprint != load("\n".join(lines), "line", valid_frac=0.25).fingerprint


def test_a_stream_has_no_documents_to_hold_out_at_random() -> None:
    with pytest.raises(UsageError, match="one stream; expected documents to choose from"):
        load("abcabc", hold_out="random")


def test_a_stream_is_one_document_without_an_end() -> None:
    data = load("a\nb\n", valid_frac=0)
    assert EOS not in data.train.ids
    assert data.train.ends.tolist() == [4]
    assert data.train.is_stream
    assert data.valid is None


def test_paragraphs_keep_their_inner_line_ends() -> None:
    data = load("a\nb\n\nc\n", "paragraph", valid_frac=0)
    assert data.vocabulary.decode(data.train.ids) == "a\nb\nc\n"
    assert data.train.ends.tolist() == [4, 6]


def test_files_for_validation_and_test_leave_the_corpus_whole(tmp_path) -> None:
    """Nothing is held out of the training text."""
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
    """A given fraction has no such limit."""
    monkeypatch.setattr(splits, "VALID_CHARS", 30)
    sizes = {chars: load("ab" * (chars // 2)).valid.counts.chars for chars in (100, 200, 2000)}
    assert sizes == {100: 10, 200: 20, 2000: 30}
    assert load("ab" * 1000, valid_frac=0.1).valid.counts.chars == 200


@pytest.mark.parametrize("document", ["line", "paragraph", "file"])
@pytest.mark.parametrize("text", ["a", "abc\n"])
def test_a_single_document_is_not_held_out(document: str, text: str) -> None:
    """Once nothing was left to train on."""
    data = load(text, document)
    assert data.train.documents == 1
    assert data.valid is None


def test_two_characters_are_enough() -> None:
    """The shortest text is not split."""
    data = load("ab", valid_frac=0.9)
    assert data.train.ids.tolist() == [2, 3]
    assert data.valid is None


@pytest.mark.parametrize(("text", "message"), [("", "is empty"), ("a", "has one character")])
def test_fewer_than_two_characters_are_refused(text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        load(text)


def test_a_text_without_a_single_token_is_refused() -> None:
    """Blanks are not words."""
    form = VocabularySettings(unit="word", words="whitespace")
    with pytest.raises(CorpusError, match="has no words"):
        load_dataset(CorpusSettings(), form, corpus=corpus_of("  \t  "))
    tail = load_dataset(CorpusSettings(), form, corpus=corpus_of("a b" + " " * 17))
    assert tail.valid is None


def test_a_given_vocabulary_is_used_unchanged() -> None:
    """A run continued on other text keeps its ids."""
    vocabulary = vocabulary_of("zb")
    data = load_dataset(
        CorpusSettings(valid_frac=0),
        VocabularySettings(unit="word"),
        corpus=corpus_of("abz"),
        vocabulary=vocabulary,
    )
    assert data.vocabulary is vocabulary
    assert data.train.ids.tolist() == [UNK, vocabulary.ids["b"], vocabulary.ids["z"]]


# ------------------------------------------------------------------ counting


@pytest.mark.parametrize("form", FORMS, ids=str)
@given(text=TEXTS, size=st.integers(1, 9))
@settings(max_examples=25)
def test_ids_and_counts_do_not_depend_on_chunks(form: dict, text: str, size: int) -> None:
    """Characters, bytes and words are counted as Python counts them."""
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
    """Another text has another fingerprint."""
    text = "to be\nor not\n\nto be 猫\n" * 3
    for document in ("stream", "line", "paragraph"):
        whole, cut = (load(text, document, chunk=size) for size in (1 << 20, 5))
        assert same(whole.train, cut.train)
        assert same(whole.valid, cut.valid)
        assert whole.fingerprint == cut.fingerprint
        assert load(text + "!", document).fingerprint != whole.fingerprint


# ------------------------------------------------------------------ the cache


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Put every text into the cache, an empty folder."""
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    return tmp_path / "cache"


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("document", ["stream", "line"])
def test_a_cached_text_equals_one_in_memory(form: dict, document: str, cache, monkeypatch) -> None:
    """The second load encodes nothing."""
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
def test_a_damaged_cache_is_refused_and_built_again(what: str, cache) -> None:
    text = "ab\nb\nab\nb\n"
    first = load(text, "line", valid_frac=0)
    (folder,) = cache.iterdir()
    name, damage = DAMAGES[what]
    expected = replace(first.train, ids=first.train.ids.copy())
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


def test_a_cache_that_cannot_be_written_is_reported(cache, tmp_path) -> None:
    """The message names the variable that moves it."""
    cache.write_text("in the way")
    with pytest.raises(EnvironmentFailure, match="CHARLM_CACHE"):
        load("abab")


@pytest.mark.parametrize("closed", [True, False])
def test_an_encoded_text_is_saved_and_loaded(closed: bool, tmp_path) -> None:
    """Also for a text without tokens."""
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


def test_a_vocabulary_that_does_not_fit_the_text_is_reported() -> None:
    """Nearly all of it was UNK once, with a coverage of 1 in run.json."""
    plain = VocabularySettings()
    known = load_dataset(CorpusSettings(), plain, corpus=Corpus.from_text("abc" * 50))
    for text, coverage in (("abc" * 50, 1.0), ("xyza" * 50, 0.25)):
        corpus = Corpus.from_text(text)
        data = load_dataset(CorpusSettings(), plain, corpus=corpus, vocabulary=known.vocabulary)
        assert data.coverage == pytest.approx(coverage, abs=0.01)
        reported = any("75 % of the training tokens" in note for note in data.warnings)
        assert reported == (coverage < 1.0)
    rare = " ".join(f"w{n}" for n in range(9000)) + " the cat" * 1500
    words = VocabularySettings(unit="word", min_count=2)
    data = load_dataset(CorpusSettings(), words, corpus=Corpus.from_text(rare))
    assert any("--unit char or bpe" in note for note in data.warnings)


@pytest.mark.parametrize(
    ("document", "keep", "crlf"),
    [("line", False, False), ("line", True, True), ("stream", False, True), ("file", False, True)],
)
def test_a_model_knows_if_its_lines_end_with_cr_lf(document: str, keep: bool, crlf: bool) -> None:
    """A list is read without the CR, or every name would end with one."""
    corpus = Corpus.from_text("Anna\r\nBert\r\n" * 20, document, keep_cr=keep)
    data = load_dataset(CorpusSettings(), VocabularySettings(), corpus=corpus)
    assert data.boundaries.crlf == crlf == ("\r" in data.vocabulary.ids)
    assert any("--keep-cr" in note for note in data.warnings) == (not crlf)


def test_unused_texts_are_removed_from_the_cache(cache: Path) -> None:
    """After a month without use, when another text is encoded; other folders stay."""

    def entries(text: str) -> set[str]:
        load(text, valid_frac=0.0)
        return {folder.name for folder in cache.iterdir()}

    (first,) = entries("abc" * 20)
    (cache / ("f" * 32)).mkdir()  # of another program
    os.utime(cache / ("f" * 32), (1e9, 1e9))
    os.utime(cache / first, (1e9, 1e9))
    assert first in entries("abc" * 20)  # reading it renews its time
    assert first in entries("bcd" * 20)
    os.utime(cache / first, (1e9, 1e9))
    left = entries("cde" * 20)
    assert first not in left
    assert "f" * 32 in left
    assert len(left) == 3


def test_documents_are_selected_with_their_start_symbols() -> None:
    text = replace(encoded_documents([[5, EOS], [6, 7, EOS], [EOS]]), firsts=np.array([20, 21, 22]))
    part = text.documents_at(np.array([2, 0]))
    assert part.ids.tolist() == [EOS, 5, EOS] and part.ids.dtype == text.ids.dtype
    assert part.ends.tolist() == [1, 3] and part.firsts.tolist() == [22, 20]
    none = replace(text, firsts=None).documents_at(np.array([], np.int64))
    assert (none.documents, len(none.ids), none.firsts) == (0, 0, None)

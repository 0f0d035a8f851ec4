"""Building vocabularies: order, limits and counts, checked by hand on short texts."""

import pytest
from helpers import CORPUS, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CorpusError, UsageError
from charlm.text.documents import END
from charlm.text.tokenizers import building
from charlm.text.tokenizers.building import (
    BuiltVocabulary,
    build_vocabulary,
    count_ids,
)
from charlm.text.tokenizers.cutting import safe_chunks
from charlm.text.tokenizers.tokenizer_json import LETTERS, UNK

TEXTS = st.text(st.sampled_from("aab é猫\n " + END), max_size=60)


def built(text: str | list[str], unit: str = "char", **options) -> BuiltVocabulary:
    chunks = [text] if isinstance(text, str) else text
    return build_vocabulary(lambda: chunks, VocabularySettings(unit=unit, **options))


def in_chunks(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def test_ids_are_in_order_of_count_and_code_point() -> None:
    """Three b, two a and two c; document marks are not counted."""
    result = built("cabb" + END + "acb" + END)
    assert result.vocabulary.tokens == ["<unk>", "<eos>", "b", "a", "c"]
    assert result.counts.tolist() == [0, 0, 3, 2, 2]
    assert result.coverage == 1.0


def test_words_are_counted_exactly() -> None:
    """Blanks, line ends and punctuation are words under the reversible rule."""
    result = built("to be, or not to be\nto", "word")
    tokens, counts = result.vocabulary.tokens, result.counts
    assert tokens == ["<unk>", "<eos>", " ", "to", "be", "\n", ",", "not", "or"]
    assert counts.tolist() == [0, 0, 5, 3, 2, 1, 1, 1, 1]


def test_blank_separated_words_are_counted_exactly() -> None:
    """Line ends are counted as EOS."""
    result = built("to be, or not to be\nto\n", "word", words="whitespace")
    assert result.vocabulary.tokens == ["<unk>", "\n", "to", "be", "be,", "not", "or"]
    assert result.counts.tolist() == [0, 2, 3, 1, 1, 1, 1]


def test_rare_tokens_are_counted_as_unk() -> None:
    rare = built("aabbbc", min_count=2)
    assert rare.vocabulary.tokens == ["<unk>", "<eos>", "b", "a"]
    assert rare.counts.tolist() == [1, 0, 3, 2]
    assert rare.coverage == pytest.approx(5 / 6)
    small = built("aabbbc", max_size=3)
    assert small.vocabulary.tokens == ["<unk>", "<eos>", "b"]
    assert small.counts.tolist() == [3, 0, 3]
    assert small.coverage == 0.5
    words = built("a b a", "word", words="whitespace", max_size=3)
    assert words.vocabulary.tokens == ["<unk>", "\n", "a"]


def test_characters_seen_once_are_dropped_from_large_alphabets_only() -> None:
    """512 characters are all kept."""
    letters = "".join(chr(0x4E00 + number) for number in range(512))
    assert len(built(letters).vocabulary) == 514
    more = built(letters + "ab" + "ab")
    assert more.vocabulary.tokens == ["<unk>", "<eos>", "a", "b"]
    assert more.vocabulary.settings.min_count == 2
    assert len(built(letters + "ab", min_count=1).vocabulary) == 516


def test_words_seen_once_are_dropped_only_from_long_texts(monkeypatch) -> None:
    """Below FEW_WORDS every word is kept."""
    monkeypatch.setattr(building, "FEW_WORDS", 6)
    short = built("a a a b c", "word", words="whitespace")
    assert len(short.vocabulary) == 5
    long = built("a a a a b c", "word", words="whitespace")
    assert long.vocabulary.tokens == ["<unk>", "\n", "a"]
    assert long.counts.tolist() == [2, 0, 4]


def test_literal_unk_in_a_text_is_the_unknown_token(monkeypatch) -> None:
    """The Penn Treebank has it; rare words are then kept."""
    monkeypatch.setattr(building, "FEW_WORDS", 2)
    result = built("the <unk> sat on <unk>\n", "word", words="whitespace")
    assert result.vocabulary.tokens == ["<unk>", "\n", "on", "sat", "the"]
    assert result.counts.tolist() == [2, 1, 1, 1, 1]
    assert result.warnings == [
        "The text has 2 literal <unk>, which are read as the unknown token UNK."
    ]
    assert result.coverage == pytest.approx(4 / 6)


def test_a_huge_alphabet_is_refused(monkeypatch) -> None:
    """A picture read as text once made a model of 241 GB (char-rnn PR #12)."""
    monkeypatch.setattr(building, "MAX_ALPHABET", 3)
    assert len(built("abc").vocabulary) == 5
    with pytest.raises(CorpusError, match=r"4 distinct characters.*--unit byte.*--max-size"):
        built("abcd")
    assert len(built("abcd", max_size=4).vocabulary) == 4


def test_the_vocabulary_of_bytes_is_fixed() -> None:
    """Byte b is id b + 2."""
    result = built("aé" + END, "byte")
    assert result.vocabulary.tokens == ["<unk>", "<eos>", *LETTERS]
    assert {index for index in range(258) if result.counts[index]} == {
        2 + value for value in "aé".encode()
    }
    assert result.counts.sum() == 3


def test_bpe_joins_the_most_frequent_pair_first() -> None:
    """In "abab abab ac": a and b, then ab and ab."""
    result = built("abab abab ac", "bpe")
    assert result.vocabulary.merges[:2] == [("a", "b"), ("ab", "ab")]
    assert set(LETTERS) < set(result.vocabulary.tokens)
    assert result.vocabulary.decode(result.vocabulary.encode("abab")) == "abab"
    limited = built("abab abab ac", "bpe", max_size=259)
    assert len(limited.vocabulary) == 259
    assert limited.vocabulary.merges == [("a", "b")]
    with pytest.raises(UsageError, match="at least 258"):
        built("abab", "bpe", max_size=100)


def test_text_is_normalised_before_it_is_counted() -> None:
    assert built("AaÉe\u0301", lowercase=True, normalize="nfc").vocabulary.tokens[2:] == ["a", "é"]
    assert built("To to", "word", lowercase=True).counts.tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize("unit", TEXT_UNITS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_vocabulary_does_not_depend_on_where_chunks_end(unit: str, size: int) -> None:
    text = (CORPUS + END) * 3
    whole = built(text, unit)
    cut = built(in_chunks(text, size), unit)
    assert cut.vocabulary.to_json() == whole.vocabulary.to_json()
    assert cut.counts.tolist() == whole.counts.tolist()


@pytest.mark.parametrize("form", [{"unit": unit} for unit in TEXT_UNITS], ids=str)
@pytest.mark.parametrize("text", ["", END, "   ", "\n"])
def test_an_almost_empty_text_makes_a_small_vocabulary(form: dict, text: str) -> None:
    for words in ("text", "whitespace"):
        result = built(text, words=words, **form)
        assert len(result.counts) == len(result.vocabulary)
        assert 0.0 <= result.coverage <= 1.0


@pytest.mark.parametrize(
    "form",
    [*({"unit": unit} for unit in TEXT_UNITS)]
    + [{"unit": "word", "words": words} for words in ("whitespace", "bare")],
    ids=str,
)
@given(text=TEXTS)
@settings(max_examples=25)
def test_counts_equal_those_of_the_encoded_text(form: dict, text: str) -> None:
    result = built(text, **form)
    assert result.counts.tolist() == count_ids([text], result.vocabulary).tolist()


@given(chunks=st.lists(TEXTS, max_size=4), size=st.integers(1, 40))
@settings(max_examples=100)
def test_safe_chunks_lose_nothing(chunks: list[str], size: int) -> None:
    assert "".join(safe_chunks(chunks, size)) == "".join(chunks)


def test_a_token_across_two_chunks_is_kept_whole() -> None:
    text = "the cats and the dogs\nsat on the mat" + END + "the end"
    vocabulary = vocabulary_of(text, "word")
    whole = vocabulary.encode_marked(text)[0].tolist()
    for size in range(1, 12):
        chunks = safe_chunks(in_chunks(text, size), 8)
        assert [index for chunk in chunks for index in vocabulary.encode_marked(chunk)[0]] == whole
    assert UNK not in whole

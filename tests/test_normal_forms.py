"""Normal forms: a text has the same ids however it is cut, as Unicode composes across any cut."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import TEXT_UNITS
from charlm.text.encoded import encode_text
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.cutting import cut_safely, safe_chunks, starts_character
from charlm.text.tokenizers.vocabulary import vocabulary_class
from charlm.text.tokenizers.words import WordVocabulary

NORMALS = [
    {"normalize": "nfc"},
    {"normalize": "nfkc"},
    {"normalize": "nfkc", "lowercase": True},
    {"lowercase": True},
]
# what composes with what is before it: marks, Hangul, kana with their half-width forms
JOINING = st.text(
    st.sampled_from(
        "aE<\u0301\u0323\u0338\u3099かハ\uff8a\uff9e\u1112\u1161\u11ab\u314f\uac00"
        "\u09c7\u09beİΣ\u00b4 \n"
    ),
    max_size=40,
)


@pytest.fixture
def tiny_pieces(monkeypatch) -> int:
    """Blocks of a few characters, as a long text without blanks has blocks of many."""
    monkeypatch.setattr(safe_chunks, "__defaults__", (5,))
    for unit in TEXT_UNITS:
        monkeypatch.setattr(vocabulary_class(unit), "piece_chars", 5)
    return 5


def normal_form(text: str, form: dict) -> str:
    """The text as Python's own tables give it."""
    if form.get("normalize"):
        text = unicodedata.normalize(form["normalize"].upper(), text)
    return "".join(c.lower() for c in text) if form.get("lowercase") else text


@pytest.mark.parametrize("form", NORMALS, ids=str)
@pytest.mark.parametrize("unit", ["char", "byte", "bpe"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_long_text_is_normalised_as_a_whole(unit, size, form, tiny_pieces) -> None:
    """Before, a letter and its accent on two sides of a block's end stayed two characters."""
    text = "e\u0301a\u0323\u0301か\u3099\u1112\u1161\u11abE\uff8a\uff9eo" * 4
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    built = build_vocabulary(lambda: chunks, VocabularySettings(unit=unit, **form))
    encoded = encode_text(lambda: chunks, built.vocabulary, "stream")
    assert built.vocabulary.decode(encoded.ids) == normal_form(text, form)
    if unit != "bpe":  # its pieces may differ, as a cut in a word without end has always been
        whole = build_vocabulary(lambda: [text], VocabularySettings(unit=unit, **form))
        assert built.counts.tolist() == whole.counts.tolist()
        assert encoded.ids.tolist() == whole.vocabulary.encode(text).tolist()


@pytest.mark.parametrize("form", NORMALS, ids=str)
@given(text=JOINING, size=st.integers(1, 6))
@settings(max_examples=150)
def test_pieces_normalised_are_the_text_normalised(form: dict, text: str, size: int) -> None:
    """This holds for every position of the cut."""
    pieces = [normal_form(piece, form) for piece in cut_safely(text, size)]
    assert "".join(pieces) == normal_form(text, form)


def test_no_composition_reaches_over_a_cut() -> None:
    """By Unicode's table, the second half of a composed character never begins a piece.

    Hangul is composed by rule; its vowels and final consonants are not in the table. Kirat Rai is
    in that of Python 3.14.
    """
    decompositions = (
        unicodedata.decomposition(chr(code)).split() for code in range(sys.maxunicode)
    )
    seconds = {chr(int(d[1], 16)) for d in decompositions if len(d) == 2 and d[0][0] != "<"}
    seconds |= set(map(chr, [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]))
    seconds.add("\U00016d67")
    assert len(seconds) > 100
    assert not any(map(starts_character, seconds))
    marks = [chr(code) for code in range(sys.maxunicode) if unicodedata.combining(chr(code))]
    assert not any(map(starts_character, marks))
    assert all(map(starts_character, "aé猫\u1112 \n'"))


def test_a_run_of_blanks_is_never_counted_in_two(monkeypatch) -> None:
    """A word rule that looks at short pieces once took a cut between two blanks for a safe one."""
    monkeypatch.setattr("charlm.text.tokenizers.cutting.FINE_CHARS", 4)
    text = "éaé   b"
    vocabulary = WordVocabulary(VocabularySettings(unit="word"), ["<unk>", "<eos>"])
    assert isinstance(vocabulary, WordVocabulary)
    assert vocabulary.words(text) == ["éaé", "   ", "b"]

"""Notes on unknown tokens: which they are, and how texts would have fewer."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import Call, started, vocabulary_of

from charlm.report.scores import unknown_warning
from charlm.text.rewritings import APART, BARE, apart, bare, frequent_note, helpful, rewriting_note
from charlm.text.tokenizers.vocabulary import Vocabulary

QUOTES = "the quotes, apostrophes and dashes of a keyboard"


@pytest.fixture(scope="module")
def treebank() -> Vocabulary:
    """Words as in Penn Treebank: lower case, without punctuation marks."""
    return vocabulary_of("the dogs did n't bark\nhe 's here <unk>\n", "word", words="whitespace")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He didn't, she's “in”.", "He did n't , she 's “ in ” ."),
        ("It cost 1,000.50 (more)!", "It cost 1,000.50 ( more ) !"),
        ("Don’t", "Do n’t"),
        ("the dogs' bone", "the dogs ' bone"),
        ("", ""),
    ],
)
def test_marks_and_clitics_are_set_apart(text: str, expected: str) -> None:
    """No letter or number is changed, only blanks are added."""
    assert apart(text) == expected
    assert apart(text).replace(" ", "") == text.replace(" ", "")


def test_without_marks_clitics_stay() -> None:
    assert bare("He didn't, she's “in”.") == "He did n't she 's in"


def test_rewritings_that_help_are_named_together(treebank: Vocabulary) -> None:
    """Each is counted after those before it; BARE replaces APART."""
    texts = ["The dogs didn’t bark.", "He's here!"]
    assert helpful(treebank, texts) == (["lower case", BARE, QUOTES], 5, 0)
    marked = vocabulary_of("the dogs bark . he is , here\n", "word", words="whitespace")
    assert helpful(marked, ["the dogs bark.", "here, he is."]) == ([APART], 3, 0)


def test_typographic_marks_and_accents() -> None:
    letters = vocabulary_of('it\'s a "café" - so...', "char")
    texts = ["it’s — “so…”", "cafe\u0301"]
    assert helpful(letters, texts) == (["composed accents (Unicode NFC)", QUOTES], 7, 0)
    assert rewriting_note(letters, texts).startswith("If the texts had composed accents")
    assert "0 of 7 unknown tokens would remain" in rewriting_note(letters, texts)


def test_tabs_and_line_ends_are_not_taken_for_punctuation() -> None:
    letters = vocabulary_of("it is so", "char")
    blanks = "blanks in place of tabs and line ends"
    assert helpful(letters, ["it\tis", "so\nis"]) == ([blanks], 2, 0)


def test_nothing_is_said_without_a_gain(treebank: Vocabulary) -> None:
    assert rewriting_note(treebank, ["zebra quagga", "the dogs"]) == ""
    assert rewriting_note(treebank, ["he <unk> here"]) == ""
    assert frequent_note(treebank, ["he <unk> here", "the dogs"]) == ""


def test_a_note_may_need_a_rewriting() -> None:
    marked = vocabulary_of("the dogs bark . he is , here\n", "word", words="whitespace")
    note = rewriting_note(marked, ["the dogs bark.", "here, he is."], needed=APART)
    assert APART in note and note == rewriting_note(marked, ["the dogs bark.", "here, he is."])
    assert "lower case" in rewriting_note(marked, ["The dogs"])
    assert rewriting_note(marked, ["The dogs"], needed=APART) == ""


def test_the_most_frequent_unknown_pieces_come_first() -> None:
    letters = vocabulary_of("abc", "char")
    assert frequent_note(letters, ["azb", "a\u0301z\u200d", "cz"]) == (
        "Unknown, the most frequent first: 'z', U+0301, U+200D"
    )
    assert frequent_note(letters, ["defghij"]).endswith("'h' and 2 more")


def test_score_names_unknown_characters_of_a_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    list(started(tmp_path / "checkpoints", "x", text="it's a cab. " * 40).records())
    Path("texts.txt").write_text("it’s a cab\nit's a cab\nit’s\n")
    _, _, err = call("score", "--file", "texts.txt")
    assert "2 of 3 texts contain unknown tokens" in err
    assert "Unknown, the most frequent first: '’'\n" in err
    assert f"If the texts had {QUOTES}, 0 of 2 unknown tokens would remain" in err
    _, _, err = call("score", "--file", "texts.txt", "--by", "word")
    assert "Words with them (oov is 1) have the surprisal of UNK" in err
    _, _, err = call("score", "it’s")
    assert "most frequent" not in err and QUOTES in err


@pytest.mark.parametrize(("types", "added"), [(1, False), (50, True)])
def test_words_have_no_penalized_log_probability(types: int, added: bool) -> None:
    """The note says what to add to the surprisals of unknown words, if it is anything."""
    run = SimpleNamespace(unk_penalty=math.log(types), unk_types=types, unk_types_recorded=True)
    note = unknown_warning(run, Counter([0, 2]), None, by_word=True)
    assert note.startswith("1 of 2 texts contain unknown tokens (UNK). Words with them (oov is 1)")
    assert "penalized" not in note and ("add 3.912 nats for each" in note) == added

"""Advice on a text: only lists, sorted lists, repeats and few tokens are reported."""

import random
import string
from pathlib import Path

import pytest

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.text.advice import (
    FEW_TOKENS,
    MIN_MARKS,
    list_advice,
    numbers_advice,
    shared_advice,
    size_advice,
)
from charlm.text.corpus import Corpus
from charlm.text.dataset import load_dataset
from charlm.text.documents import END
from charlm.text.passages import copied_fraction
from charlm.text.splits import split_corpus

ROOT = Path(__file__).parent.parent
RNG = random.Random(0)


def names(count: int, *, words: int = 1) -> list[str]:
    """Return entries as lists have them: a few letters each."""

    def word() -> str:
        return "".join(RNG.choices(string.ascii_lowercase, k=RNG.randint(3, 9)))

    return [" ".join(word() for _ in range(words)) for _ in range(count)]


def stream(lines: list[str]) -> list[str]:
    return list_advice("\n".join(lines) + "\n", "stream", ends_held_out=True)


VERSE = """\
Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date;
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade,
Nor lose possession of that fair thou ow'st;
Nor shall death brag thou wander'st in his shade,
When in eternal lines to time thou grow'st:
So long as men can breathe or eyes can see,
So long lives this, and this gives life to thee.
"""
SHORT_VERSE = """\
so much depends
upon

a red wheel
barrow

glazed with rain
water

beside the white
chickens
"""
PLAY = """\
First Citizen:
Speak, speak.

All:
Resolved. resolved.

Second Citizen:
Would you proceed especially against him?

All:
Against him first.
"""
RUNNING = {
    "verse": VERSE * 3,
    "short verse": SHORT_VERSE * 9,
    "a play": PLAY * 9,
    "prose": (ROOT / "corpora" / "tales.txt").read_text(encoding="utf-8"),
    "a README": (ROOT / "README.md").read_text(encoding="utf-8"),
    "Python": (ROOT / "charlm" / "api" / "model.py").read_text(encoding="utf-8"),
    "C++": (ROOT / "charlm" / "backends" / "kernels" / "library.cpp").read_text(encoding="utf-8"),
    "settings": (ROOT / "pyproject.toml").read_text(encoding="utf-8") * 3,
    "numbers": "".join(f"{number * 0.37:.2f}\n" for number in range(99)),
    "a word on each line": "the cat sat on the mat and the dog ".replace(" ", "\n") * 9,
    "a protein": "".join(f"{''.join(RNG.choices('ACDEFGH', k=60))}\n" for _ in range(99)),
    "Chinese": "".join(f"{''.join(RNG.choices('天地玄黄宇宙', k=k))}。\n" for k in range(20, 99)),
    "a table": "".join(f"{name.replace(' ', ',')}\n" for name in names(99, words=9)),
    "tags": "".join(f"<{name.replace(' ', '-')}/>\n" for name in names(99, words=9)),
    "one long line": "word " * 9999,
    "nothing": "",
    "a few names": "\n".join(["Anna", "Bert", "Clara"]),
}


@pytest.mark.parametrize("kind", RUNNING)
def test_running_text_is_never_called_a_list(kind: str) -> None:
    """Poems, plays, code and settings have short lines too."""
    assert list_advice(RUNNING[kind], "stream", ends_held_out=True) == []


@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_list_read_as_a_stream_is_reported(words: int) -> None:
    (note,) = stream(names(60, words=words))
    assert "looks like a list" in note
    assert note.endswith("--document line --hold-out random")
    assert "sorted" not in note


def test_molecules_and_addresses_are_a_list() -> None:
    """The story: 5,000 molecules were read as one stream, since brackets looked like code."""
    first, last = "C1=CC(=C{}C=C1)[N+]([O-])=O", "https://example.org/{}?page=1#top"
    for form in (first, last):
        lines = [form.format(letters.upper() * RNG.randint(0, 9)) for letters in names(60)]
        assert "--document line" in stream(lines)[0]
    assert stream([f"{first.format('C')}{'C' * 20}"[:30] for _ in range(60)]) == []


def test_a_sorted_list_may_have_long_lines() -> None:
    """Nine of ten lines of running text are never in order."""
    titles = [name.title() for name in names(60, words=8)]
    assert stream(titles) == []
    for order in (sorted(titles), sorted(titles, reverse=True)):
        (note,) = stream(order)
        assert ", sorted)" in note


def test_a_sorted_list_of_lines_needs_another_hold_out() -> None:
    """All held-out names would begin with the last letters."""
    entries = sorted(names(60))
    text = "".join(entry + END for entry in entries)
    (note,) = list_advice(text, "line", ends_held_out=True)
    assert "--hold-out random" in note
    assert list_advice(text, "line", ends_held_out=False) == []
    shuffled = RNG.sample(entries, len(entries))
    assert list_advice("".join(entry + END for entry in shuffled), "line", ends_held_out=True) == []


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_held_out_documents_in_the_training_text_are_counted(size: int) -> None:
    """Blank documents and a few repeats do not count."""
    train = "".join(f"n{number}{END}" for number in range(100)) + END
    held_out = f"n5{END}{END}n7{END} {END}new{END}newer{END}"
    cut = [[text[at : at + size] for at in range(0, len(text), size)] for text in (train, held_out)]
    (note,) = shared_advice(*cut, "line")
    assert note.startswith("50 % of the held-out documents (2 of 4)")
    assert "awk" in note
    one_of_many = f"n5{END}" + "".join(f"x{n}{END}" for n in range(99))
    assert shared_advice([train], [one_of_many], "line") == []


def test_a_text_of_few_tokens_is_reported() -> None:
    assert size_advice(FEW_TOKENS, 9999, "word") == []
    assert "5 words" in size_advice(5, 30, "word")[0]
    assert "--unit char (30 characters)" in size_advice(5, 30, "word")[0]
    assert "--unit char" not in size_advice(5, 5, "char")[0]


def test_advice_is_reported_when_a_text_is_read(tmp_path: Path) -> None:
    """Following the advice ends it."""
    entries = sorted(set(names(400)))
    (tmp_path / "names.txt").write_text("\n".join(entries))
    source = (str(tmp_path / "names.txt"),)

    def notes(**settings) -> list[str]:
        data = load_dataset(CorpusSettings(sources=source, **settings), VocabularySettings())
        return [note for note in data.warnings if "hold" in note or "held" in note]

    assert "--document line --hold-out random" in notes()[0]
    assert "--hold-out random" in notes(document="line")[0]
    assert notes(document="line", hold_out="random") == []
    (tmp_path / "names.txt").write_text("\n".join(entries * 2))
    (note,) = notes(document="line", hold_out="random")
    assert "are in the training text too" in note
    data = load_dataset(
        CorpusSettings(), VocabularySettings(unit="word"), corpus=Corpus.from_text("one two three")
    )
    assert any("--unit char" in note for note in data.warnings)


def prose(seed: int, count: int = 6000) -> str:
    """Return `count` random words in lines of ten."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("abcdefghijklm", k=5)) for _ in range(count)]
    return "".join(" ".join(words[at : at + 10]) + "\n" for at in range(0, count, 10))


def in_pieces(text: str, size: int) -> list[str]:
    """Cut a text into pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.mark.parametrize("size", [7, 39, 1000, 1 << 20])
def test_copied_fraction_of_a_text_that_is_half_known(size: int) -> None:
    """It is a half, however the texts are cut, and wherever the lines of the copy end."""
    known, other = prose(1), prose(2)
    mixed = other + known[: len(known) // 2].replace("\n", " \r\n ") + known[len(known) // 2 :]
    assert copied_fraction(in_pieces(known, size), in_pieces(mixed, 1000)) == pytest.approx(
        0.5, abs=0.03
    )
    assert copied_fraction(in_pieces(known, size), in_pieces(other, size)) == 0.0
    assert copied_fraction(in_pieces(known, size), in_pieces(known, 1000)) == 1.0


def test_copied_passages_of_a_short_text_are_no_evidence() -> None:
    text = prose(1, 40)
    assert copied_fraction([text], [text[:50]]) == 0.0
    assert copied_fraction([], []) == copied_fraction([text], [""]) == 0.0


def test_phrases_that_recur_are_no_copies() -> None:
    """The story: a log was reported as several drafts, since each line has one of two messages."""
    messages = ["connection accepted from the client; " * 3, "request finished, no errors; " * 3]
    lines = [f"{' '.join(names(1, words=8))} {RNG.choice(messages)}\n" for _ in range(2000)]
    assert 0 < copied_fraction(lines[:1800], lines[1800:]) < 0.1


def test_drafts_in_one_folder_are_reported(tmp_path: Path) -> None:
    """The story: a novelist trained on two drafts of a novel, and the loss looked splendid."""
    draft = prose(1)
    (tmp_path / "draft 1.txt").write_text(draft)
    (tmp_path / "draft 2.txt").write_text(draft.replace("a", "e", 500))
    corpus = Corpus([str(tmp_path)])
    split_corpus(corpus, CorpusSettings())
    (warning,) = corpus.warnings
    assert "passages of the held-out text are in the training text too" in warning
    assert "--valid" in warning
    (tmp_path / "draft 2.txt").unlink()
    corpus = Corpus([str(tmp_path)])
    split_corpus(corpus, CorpusSettings())
    assert corpus.warnings == []


@pytest.mark.parametrize(
    ("unit", "words", "marks", "advised"),
    [
        ("word", "text", MIN_MARKS, True),
        ("word", "bare", MIN_MARKS, True),
        ("word", "text", MIN_MARKS - 1, False),
        ("word", "whitespace", MIN_MARKS, False),
        ("char", "text", MIN_MARKS, False),
    ],
)
def test_a_text_prepared_for_words_is_reported(
    tmp_path: Path, unit: str, words: str, marks: int, advised: bool
) -> None:
    """The story: Penn Treebank with --unit word had perplexity 31, since <unk> and blanks count."""
    path = tmp_path / "a.txt"
    path.write_text(" the <unk> of N years \n" * marks + " the group \n" * 60)
    settings = CorpusSettings(sources=(str(path),), document="stream")
    dataset = load_dataset(settings, VocabularySettings(unit=unit, words=words))
    notes = [note for note in dataset.warnings if "--words whitespace" in note]
    assert len(notes) == advised
    assert all("<unk>" in note and "10 times" in note for note in notes)


@pytest.mark.parametrize(
    ("rows", "advised"),
    [
        ([str(at / 4) for at in range(30)], True),
        (["-1,5", "+2e-3", " 7 "] * 10, True),
        (["1"] * 5, False),  # too few to say
        (["1", "two"] * 20, False),
        (["1984 was a year"] * 30, False),
        (["31415926535897932384"] * 30, False),  # digits of pi
        (["02139", "10001"] * 30, False),  # codes of places
        (["0", "0.5", "123456789012345"] * 30, True),
    ],
)
@pytest.mark.parametrize("mark", ["\n", END])
def test_a_text_of_numbers_may_be_a_series(rows: list[str], advised: bool, mark: str) -> None:
    """It was learned as text without a word about it."""
    advice = numbers_advice("".join(row + mark for row in rows))
    assert bool(advice) == advised
    assert all("unit number" in sentence for sentence in advice)


def test_training_on_a_column_of_numbers_gives_advice(tmp_path: Path) -> None:
    file = tmp_path / "n.csv"
    file.write_text("v\n" + "".join(f"{at}\n" for at in range(50)), encoding="utf-8")
    settings = CorpusSettings(sources=(str(file),))
    dataset = load_dataset(settings, VocabularySettings())
    assert any("Each line of the text is a number" in each for each in dataset.warnings)

"""Datasets of tagged words: what is read, held out, kept with a run, and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError
from charlm.text.dataset import Dataset
from charlm.text.encoded import read_encoded, write_encoded
from charlm.text.labels import UNSEEN
from charlm.text.tagged import LETTERS, TAGGED, Tagged
from charlm.text.task_text import Given, gold_of

WORDS = VocabularySettings(unit="word", words="whitespace", lowercase=True)
TASK = TaskSettings()
TRAIN = "".join(
    f"Ann{n} I-PER\nsaw O\nNew I-LOC\nYork I-LOC\nBob B-LOC\n. O\n\n" for n in range(20)
)
OTHER = "Ann3 B-PER\nsaw O\nACME B-ORG\n! B-PUNCT\n"


def dataset(folder: Path, train: str = TRAIN, other: str = "", **options) -> Dataset:
    """Return the dataset of a file of training text, and of one of test text."""
    (folder / "train.conll").write_text(train, encoding="utf-8")
    sources: dict[str, tuple[str, ...]] = {"sources": (f"{folder}/train.conll",)}
    if other:
        (folder / "test.conll").write_text(other, encoding="utf-8")
        sources["test"] = (f"{folder}/test.conll",)
    task = options.pop("task", TASK)
    settings = Settings(corpus=CorpusSettings(**sources), vocabulary=WORDS, task=task)
    return TAGGED.load(settings, Given(**options))


def tags(made: Tagged, split: str) -> list[list[str]]:
    names = [*made.labels.names, "?"]
    ids = np.split(made.targets[split], made.sentences[split].ends[:-1])
    return [[names[number] for number in part] for part in ids]


def test_spans_of_any_scheme_are_learned_as_iob2(tmp_path: Path):
    made = dataset(tmp_path)
    gold = gold_of(made, Tagged)
    assert gold.labels.names == ("B-LOC", "B-PER", "I-LOC", "O") and gold.spans
    assert set(map(tuple, tags(gold, "train"))) == {("B-PER", "O", "B-LOC", "I-LOC", "B-LOC", "O")}
    assert "Tags are IOB1: they are read as spans, and learned as IOB2." in made.warnings


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("I-LOC", "i-loc", "these have no prefix and type: i-loc"),
        (" O", " B-X", "none is O"), (" I-LOC", " NOUN", ""),
    ],
)  # fmt: skip
def test_tags_that_only_look_like_spans_are_reported(
    old: str, new: str, reason: str, tmp_path: Path
):
    """One misspelled tag is enough to make no spans of all others."""
    train = TRAIN.replace(old, new)
    train = train if reason else train.replace("I-PER", "PROPN").replace("B-LOC", "PROPN")
    made = dataset(tmp_path, train)
    assert not gold_of(made, Tagged).spans
    found = [text for text in made.warnings if "not read as spans" in text]
    assert found == (
        [f"Tags are not read as spans, since {reason}. Correct them if tags mark spans."]
        if reason else []
    )  # fmt: skip


def test_a_tenth_of_the_sentences_is_held_out_at_random(tmp_path: Path):
    made = dataset(tmp_path)
    gold = gold_of(made, Tagged)
    first = [[part.words_of(row)[0] for row in range(part.documents)]
             for part in gold.sentences.values()]  # fmt: skip
    assert [len(part) for part in first] == [18, 2] and first[1] != ["Ann18", "Ann19"]
    assert sorted(first[0] + first[1]) == sorted(f"Ann{n}" for n in range(20))
    assert made.valid is not None and made.valid.documents == 2
    assert gold.total("train") == 18 * 6 and made.fingerprint == dataset(tmp_path).fingerprint


def test_training_keeps_a_sentence_with_each_tag(tmp_path: Path):
    made = dataset(tmp_path, "".join(f"a A\nb T{n}\nc T{n % 2}\n\n" for n in range(20)))
    gold = gold_of(made, Tagged)
    assert len(gold.labels) == 21 and not any("lacks" in warning for warning in made.warnings)
    assert made.valid is None and gold.sentences["train"].documents == 20
    made = dataset(tmp_path, "".join(f"a A\nb T{n % 4}\n\n" for n in range(20)))
    assert made.valid is not None and made.valid.documents == 2


def test_tags_that_training_lacks_are_unseen_and_told(tmp_path: Path):
    made = dataset(tmp_path, other=OTHER)
    gold = gold_of(made, Tagged)
    assert tags(gold, "test") == [["B-PER", "O", "?", "?"]]
    assert (gold.targets["test"] == UNSEEN).sum() == 2
    text = "Tags of the test text that training lacks: B-ORG, B-PUNCT (2 words, counted as wrong)"
    assert text in made.warnings
    assert gold.record()["labels"]["test"] == {"B-LOC": 0, "B-PER": 1, "I-LOC": 0, "O": 1}


def test_tags_that_are_no_spans_are_kept(tmp_path: Path):
    made = dataset(tmp_path, "I PRON\nsaw VERB\nO X\n\n" * 12, "I PRON\nB-x NUM\n")
    gold = gold_of(made, Tagged)
    assert gold.labels.names == ("PRON", "VERB", "X") and not gold.spans
    assert not any("as spans" in warning for warning in made.warnings)
    assert tags(gold, "test") == [["PRON", "?"]]


def test_spans_that_break_the_scheme_are_counted(tmp_path: Path):
    made = dataset(tmp_path, "Ann B-PER\nsaw O\nBob I-PER\n\n" * 10)
    assert "9 spans of training that begin with I- are read too." in " ".join(made.warnings)


def test_letters_are_those_of_training_words_in_their_case(tmp_path: Path):
    made = dataset(tmp_path, "Ähm O\nNEW B-LOC\n\n" * 9, "x O\n")
    letters = gold_of(made, Tagged).letters
    assert letters is not None and set(letters.tokens[2:]) == set("ÄhmNEW")
    assert "ähm" in made.vocabulary.tokens


@pytest.mark.parametrize(
    ("task", "given", "has_letters"),
    [
        (TASK, False, True),
        (TASK, True, False),
        (TaskSettings(characters=True), True, True),
        (TaskSettings(characters=False), False, False),
    ],
)
def test_letters_are_read_by_rule_or_as_asked(task, given: bool, has_letters, tmp_path: Path):
    vocabulary = dataset(tmp_path).vocabulary if given else None
    made = gold_of(dataset(tmp_path, task=task, vocabulary=vocabulary), Tagged)
    assert (made.letters is not None) == has_letters
    assert (set(made.tokenizers()) == {LETTERS}) == has_letters


def test_kept_letters_are_used_again(tmp_path: Path):
    made = dataset(tmp_path)
    letters = gold_of(made, Tagged).letters
    assert letters is not None
    again = dataset(tmp_path, vocabulary=made.vocabulary, more={LETTERS: letters})
    assert gold_of(again, Tagged).letters is letters


def test_examples_of_python_are_the_sentences_of_a_file(tmp_path: Path):
    made = dataset(tmp_path)
    own = ["I-PER", "O", "I-LOC", "I-LOC", "B-LOC", "O"]
    pairs = [([f"Ann{n}", "saw", "New", "York", "Bob", "."], own) for n in range(20)]
    given = TAGGED.load(Settings(vocabulary=WORDS, task=TASK), Given(examples=pairs))
    assert given.fingerprint == made.fingerprint and given.name == "examples"
    assert tags(gold_of(given, Tagged), "valid") == tags(gold_of(made, Tagged), "valid")


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ((["a", "b"], ["O", "O"]), ""),
        ((("a",), ("O",)), ""),
        (None, "expected the words of a sentence and their tags"),
        (("a b", ["O", "O"]), "expected the words of a sentence and their tags"),
        ((["a", 1], ["O", "O"]), "expected the words of a sentence and their tags"),
        ((["a", "b"], ["O"]), "expected a tag for each of its 2 words"),
        (([], []), "expected a tag for each of its 0 words"),
        ((["a\nb"], ["O"]), "without line ends, not 'a\\nb'"),
        ((["a"], [" "]), "without line ends, not ' '"),
    ],
)
def test_examples_are_checked(pair, says: str):
    assert says in TAGGED.check_example(pair) and bool(says) == bool(TAGGED.check_example(pair))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a O\nb O\n", "all training words have the tag 'O'; expected two or more tags"),
        (
            "".join(f"w{n} t{n}\n\n" for n in range(600)),
            "the training words have 600 tags; expected at most 500",
        ),
    ],
)
def test_tags_that_cannot_be_learned_are_refused(text: str, says: str, tmp_path: Path):
    with pytest.raises(CorpusError, match=says):
        dataset(tmp_path, text)


# ------------------------------------------------------------------ on disk


def kept(made: Dataset, path: Path) -> dict:
    """Write a dataset as a run keeps it, and return the table `task` of its config.json."""
    gold = gold_of(made, Tagged)
    for name in gold.targets:
        text = made.split(name)
        assert text is not None
        write_encoded(path / "data" / name, text)
        gold.write(path / "data" / name, name)
    for name, vocabulary in gold.tokenizers().items():
        (path / name).write_text(json.dumps(vocabulary.to_json()), encoding="utf-8")
    table = {"labels": list(gold.labels.names), "spans": gold.spans, "letters": 9}
    return {"task": table}


def read(path: Path, config: dict) -> Tagged:
    splits = {each.name: read_encoded(each) for each in sorted((path / "data").iterdir())}
    gold = TAGGED.read(path, config, splits)
    assert isinstance(gold, Tagged)
    return gold


def test_what_a_run_keeps_is_read_again(tmp_path: Path):
    made = dataset(tmp_path, other=OTHER)
    again, gold = read(tmp_path, kept(made, tmp_path)), gold_of(made, Tagged)
    assert again.labels == gold.labels and again.spans and again.letters is not None
    for split in ("train", "valid", "test"):
        assert tags(again, split) == tags(gold, split)
        for name in ("words", "spelling", "firsts", "lasts", "ends"):
            one, other = (getattr(each.sentences[split], name) for each in (again, gold))
            assert list(one) == list(other), name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.json", b'["a", "b"]'),
        ("words.json", b'{"a": 1}'),
        ("spellings.bin", b"\xff" * 24),
        ("spellings.bin", b"\0" * 7),
        ("places.bin", b"\0" * 8),
        ("places.bin", b"\x7f\0\0\0" * 48),
        ("sentences.bin", b"\0" * 8),
        ("targets.bin", b"\x7f\0\0\0" * 24),
        ("words.json", None),
    ],
)
def test_damaged_files_are_named(name: str, content, tmp_path: Path):
    config = kept(dataset(tmp_path), tmp_path)
    path = tmp_path / "data" / "valid" / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"valid.*(damaged|delete)"):
        read(tmp_path, config)

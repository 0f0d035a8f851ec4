"""Datasets of labelled texts: labels, targets, what is held out, and cut texts."""

import numpy as np
import pytest

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError
from charlm.text.dataset import Dataset
from charlm.text.labelled import LABELLED, encode_texts, held_out_rows, shortened
from charlm.text.labels import UNSEEN, Labels, read_targets, write_targets
from charlm.text.task_text import Given
from charlm.text.tokenizers.tokenizer_json import EOS

WORDS = VocabularySettings(unit="word", words="bare", lowercase=True)
TEXTS = [(f"a {name} film, number {i}", name) for i in range(20) for name in ("good", "bad")]


def load(examples=TEXTS, *, valid_frac=None, **task) -> Dataset:
    settings = Settings(
        corpus=CorpusSettings(document="line", valid_frac=valid_frac),
        vocabulary=WORDS,
        task=TaskSettings(task="classify", **task),
    )
    return LABELLED.load(settings, Given(examples=examples))


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["10", "9", "-1", "9"], ["-1", "9", "10"]),
        (["c10", "c9", "C1", "c9"], ["C1", "c9", "c10"]),
        (["b", "2", "b", "1" * 5000], ["2", "1" * 5000, "b"]),
    ],
)
def test_labels_are_in_natural_order(given, expected):
    assert Labels.of(given).names == tuple(expected)


def test_labels_that_are_not_known_are_unseen():
    assert Labels(("a", "b")).ids(["b", "c", None, "a"]).tolist() == [1, UNSEEN, UNSEEN, 0]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["a", "a"], "all training texts have the label 'a'; expected two"),
        ([], "all training texts have no label"),
        (["a", "b", "c"], "3 of 3 labels are different; expected few"),
        ([*map(str, range(15)), *"aaaaa"], "16 of 20 labels are different"),
        ([*map(str, range(501))] * 2, "501 labels; expected at most 500"),
        (["a", "a", "b\udce9", "b\udce9"], r"the label 'b\\udce9' has half of a surrogate pair"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(labels, problem):
    with pytest.raises(CorpusError, match=problem):
        Labels.of(labels)


def test_targets_come_back_from_disk_and_damaged_ones_are_refused(tmp_path):
    targets = np.array([0, 2, UNSEEN], np.int32)
    write_targets(tmp_path, targets)
    assert read_targets(tmp_path, 3, 3).tolist() == targets.tolist()
    for documents, labels in ((2, 3), (3, 2)):
        with pytest.raises(CorpusError, match=r"targets\.bin: the targets are damaged"):
            read_targets(tmp_path, documents, labels)
    (tmp_path / "targets.bin").unlink()
    with pytest.raises(CorpusError, match="the targets are damaged"):
        read_targets(tmp_path, 3, 3)


def test_training_texts_have_no_unseen_label(tmp_path):
    """Frequencies of labels cannot be counted then."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        write_targets(tmp_path / name, np.array([0, UNSEEN], np.int32))
    assert read_targets(tmp_path / "test", 2, 2).tolist() == [0, UNSEEN]
    with pytest.raises(CorpusError, match="targets from -1 to 0 of 2 labels"):
        read_targets(tmp_path / "train", 2, 2)


# ------------------------------------------------------------------ splits


def test_each_text_is_a_document_beside_its_target():
    data = load(valid_frac=0.0)
    assert data.labelled is not None and data.labelled.labels.names == ("bad", "good")
    assert data.train.documents == len(TEXTS) and data.valid is None
    assert data.vocabulary.decode(data.train.ids[:7]) == "a good film , number 0\n"
    assert data.labelled.targets["train"].tolist() == [1, 0] * 20
    assert data.labelled.counts("train") == {"bad": 20, "good": 20}
    assert data.boundaries.document == "line" and not data.boundaries.eos_inside


def test_a_tenth_of_each_label_is_held_out_at_random():
    data = load()
    assert data.labelled is not None and data.valid is not None
    assert data.labelled.counts("valid") == {"bad": 2, "good": 2}
    assert data.train.documents + data.valid.documents == len(TEXTS)
    again = load()
    assert again.fingerprint == data.fingerprint != load(TEXTS[::-1]).fingerprint
    assert np.array_equal(again.valid.ids, data.valid.ids)


def test_each_label_keeps_a_text_for_training():
    targets = np.array([0] * 50 + [1] + [2, 2], np.int32)
    for fraction in (0.1, 0.9, 1.0):
        left = np.bincount(targets[~held_out_rows(targets, 3, fraction)], minlength=3)
        assert left.min() >= 1
    assert held_out_rows(targets, 3, 0.1)[:50].sum() == 5
    assert held_out_rows(np.array([0, 0, 1], np.int32), 2, 0.1).sum() == 1
    assert not held_out_rows(targets, 3, 0.0).any()


# ------------------------------------------------------------------ cutting


@pytest.mark.parametrize(
    ("part", "most", "expected"),
    [
        ("ends", 3, [0, 1, 5]), ("ends", 4, [0, 1, 4, 5]), ("ends", 1, [0]), ("start", 2, [0, 1]),
        ("end", 2, [4, 5]), ("ends", 6, [0, 1, 2, 3, 4, 5]), ("start", 9, [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_a_long_text_keeps_its_ends_start_or_end(part, most, expected):
    assert shortened(np.arange(6), most, part).tolist() == expected


@pytest.mark.parametrize("part", ["ends", "start", "end"])
def test_texts_are_cut_one_by_one(part):
    texts = ["a b c d e f g", "", "a b", "g f e d c b a", "a b c"]
    vocabulary = load([(text, "xy"[i % 2]) for i, text in enumerate(texts) if text]).vocabulary
    cut = encode_texts(texts, vocabulary, 3, part)
    expected = [[*shortened(vocabulary.encode(text), 3, part).tolist(), EOS] for text in texts]
    assert [ids.tolist() for ids in np.split(cut.ids, cut.ends)[:-1]] == expected
    assert cut.counts == encode_texts(texts, vocabulary, 99, part).counts


# ------------------------------------------------------------------ bad input


def test_rows_without_text_or_label_are_skipped_and_counted():
    data = load([*TEXTS, ("", "good"), ("a", " "), ("\n", "bad")], valid_frac=0.0)
    assert data.train.documents == len(TEXTS)
    assert data.warnings[0] == (
        "The examples: 3 rows without a text or a label skipped (example 41 has no text)."
    )
    with pytest.raises(CorpusError, match="3 of 4 rows lack a text or a label"):
        load([("a", "b"), *[("", "good")] * 3])

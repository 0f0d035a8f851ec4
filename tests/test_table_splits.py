"""Tables of one corpus: test files are read from the columns of the training file."""

import itertools
from pathlib import Path

import pytest

from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.text.labelled import LABELLED
from charlm.text.labels import UNSEEN
from charlm.text.parallel import PARALLEL
from charlm.text.task_text import TaskText

ROWS = [(f"good film {n}", "pos") if n % 2 else (f"bad film {n}", "neg") for n in range(40)]


def written(name: str, head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = ["\t".join(cells) for cells in [head, *rows]]
    Path(name).write_text("\n".join(lines) + "\n")
    return name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_labels_are_read_from_the_columns_of_training(order: tuple[int, ...]) -> None:
    """Other columns of a test file may have names that are preferred where none is known."""
    train = written("train.tsv", ["sentence", "sentiment"], ROWS)
    head = ["text", "label", "sentence", "sentiment"]
    rows = [("a summary", "5", *row) for row in ROWS[:10]]
    moved = [tuple(row[place] for place in order) for row in [tuple(head), *rows]]
    test = written("test.tsv", list(moved[0]), moved[1:])
    dataset = LABELLED.load(Settings(corpus=CorpusSettings(sources=[train], test=[test])))
    assert dataset.test is not None
    targets = dataset.labelled.targets["test"]
    assert targets.tolist() == [n % 2 for n in range(10)]
    words = dataset.vocabulary.decode(dataset.test.ids[: dataset.test.ends[0] - 1])
    assert "bad film 0" in words


def test_other_names_are_read_if_those_of_training_are_missing() -> None:
    train = written("train.tsv", ["sentence", "sentiment"], ROWS)
    test = written("test.tsv", ["label", "text"], [(b, a) for a, b in ROWS[:4]])
    dataset = LABELLED.load(Settings(corpus=CorpusSettings(sources=[train], test=[test])))
    assert UNSEEN not in dataset.labelled.targets["test"]


def test_pairs_are_read_in_the_direction_of_training() -> None:
    """A test file with the two columns exchanged was translated the other way round."""
    pairs = [(f"a dog number {n}", f"ein Hund Nummer {n}") for n in range(40)]
    train = written("train.tsv", ["en", "de"], pairs)
    task: TaskText = PARALLEL
    corpora = {
        "same": written("same.tsv", ["en", "de"], pairs[:8]),
        "exchanged": written("exchanged.tsv", ["de", "en"], [(b, a) for a, b in pairs[:8]]),
        "longer": written("longer.tsv", ["de", "x", "en"], [(b, "?", a) for a, b in pairs[:8]]),
    }
    read = {
        name: task.load(
            Settings(
                corpus=CorpusSettings(sources=[train], test=[test]),
                task=TaskSettings(task="translate"),
            )
        )
        for name, test in corpora.items()
    }
    first = read["same"]
    assert first.test is not None
    for other in read.values():
        assert other.test is not None
        assert other.test.ids.tolist() == first.test.ids.tolist()
        assert other.fingerprint == first.fingerprint


def test_translations_that_may_be_missing_are_counted() -> None:
    pairs = [(f"a dog number {n}", "NA" if n % 10 == 3 else f"Hund {n}") for n in range(40)]
    corpus = CorpusSettings(sources=[written("train.tsv", ["en", "de"], pairs)])
    task = TaskSettings(task="translate")
    warnings = PARALLEL.load(Settings(corpus=corpus, task=task)).warnings
    assert any("4 translations such as NA, read as it is written" in each for each in warnings)


@pytest.mark.parametrize(
    ("task", "head"), [(LABELLED, ["review", "label"]), (PARALLEL, ["en", "de"])]
)
def test_splits_of_one_form_are_reported_once(task: TaskText, head: list[str]) -> None:
    """The sentence of the first table has a hint that others need not have."""
    names = [written(f"{name}.tsv", head, ROWS) for name in ("train", "valid", "test")]
    corpus = CorpusSettings(sources=names[:1], valid=names[1:2], test=names[2:])
    warnings = task.load(Settings(corpus=corpus)).warnings
    (reported,) = (sentence for sentence in warnings if "separated by tabs" in sentence)
    assert reported.startswith("train.tsv") and "add --no-header" in reported

"""The models of all tasks in Python: lists of answers, figures of kept validation texts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlm
from charlm.errors import CorpusError, UsageError
from charlm.runs.layout import read_record

LINES = ["one two", "three four", "two three one", "four"] * 10
EXAMPLES: dict[str, list[tuple[Any, Any]]] = {
    "classify": [(line, "even" if len(line) % 2 == 0 else "odd") for line in LINES],
    "tag": [(line.split(), [word[0].upper() for word in line.split()]) for line in LINES],
    "translate": [(line, " ".join(line.split()[::-1])) for line in LINES],
}
OPTIONS = {"steps": 2, "hidden": 4, "embedding": 4, "batch": 4, "seed": 1, "progress": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models that were trained for two steps, by task."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {**OPTIONS, "checkpoints": folder}
    models: dict[str, Any] = {
        task: charlm.fit(examples=examples, task=task, name=task, **options)
        for task, examples in EXAMPLES.items()
    }
    series = folder / "series.csv"
    series.write_text("value\n" + "".join(f"{number % 7}\n" for number in range(200)))
    models["series"] = charlm.fit(series, unit="number", name="series", **options)
    return models


@pytest.mark.parametrize("task", [*EXAMPLES, "series"])
def test_the_validation_texts_of_a_run_are_evaluated_by_default(
    models: dict[str, Any], task: str, tmp_path: Path
) -> None:
    """As `Model.evaluate` does; each of these calls was a TypeError."""
    model = models[task]
    counts = model.evaluate()
    found, recorded = counts.summary(), read_record(model.path)["results"]["valid"]
    plain = {name: value for name, value in recorded.items() if isinstance(value, float | int)}
    assert {name: found[name] for name in plain} == pytest.approx(plain, rel=1e-4, abs=1e-5)
    assert len(plain) >= 4
    assert repr(counts).startswith(type(counts).__name__) and len(repr(counts)) < 120
    bare = tmp_path / "bare"
    shutil.copytree(model.path, bare, ignore=shutil.ignore_patterns("data"))
    with pytest.raises(CorpusError, match="run bare keeps no validation text; expected one"):
        charlm.load(bare).evaluate()


@pytest.mark.parametrize(
    ("task", "name"), [("classify", "labels"), ("tag", "tags"), ("translate", "references")]
)
def test_texts_without_what_lies_beside_them_are_refused(
    models: dict[str, Any], task: str, name: str
) -> None:
    with pytest.raises(UsageError, match=f"{name} is None; expected a"):
        models[task].evaluate(["one two"])
    with pytest.raises(UsageError, match="texts is None; expected a str or several"):
        models[task].evaluate(**{name: ["a"]})


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("classify", ["label", "probability"]),
        ("tag", ["words", "tags"]),
        ("translate", ["text", "probability"]),
    ],
)
def test_answers_are_a_list_that_notebooks_show(
    models: dict[str, Any], task: str, columns: list[str]
) -> None:
    """The story: `predict` gave a generator, of which a notebook shows its address."""
    texts = ["one two", "four three"] * 6
    answers = models[task].predict(texts)
    assert len(answers) == len(texts)
    assert repr(answers[:]) == repr(list(models[task].predict_each(iter(texts))))
    assert repr(answers).startswith("Predictions([") and repr(answers).endswith(", and 2 more])")
    assert answers._repr_html_().count("<tr>") == 1 + len(texts)
    rows = answers.rows()
    assert [list(row) for row in rows] == [columns] * len(texts)
    assert all(isinstance(value, str | float) for row in rows for value in row.values())
    if task == "tag":
        assert rows[1]["words"] == "four three" and len(rows[1]["tags"].split()) == 2


@pytest.mark.parametrize("task", ["classify", "tag", "translate"])
def test_tables_are_no_texts(models: dict[str, Any], task: str) -> None:
    """The names of their columns were answered."""
    frame = pytest.importorskip("pandas").DataFrame({"text": ["one two"], "id": [1]})
    for texts in ({"text": ["one two"]}, frame):
        with pytest.raises(UsageError, match=r"texts is a \w+; expected a str.*Give one column"):
            models[task].predict(texts)
    assert len(models[task].predict(frame["text"])) == 1


def test_times_are_no_numbers_of_a_series(models: dict[str, Any]) -> None:
    """They were read as days since 1970."""
    with pytest.raises(UsageError, match="expected numbers"):
        models["series"].forecast(1, values=np.array(["2024-01-01", "2024-01-02"], "datetime64[D]"))


def test_a_series_answers_no_texts(models: dict[str, Any]) -> None:
    """The story: `predict` raised an AttributeError that named `predict_each`."""
    with pytest.raises(UsageError, match=r"run series, a model of a series.*Use forecast"):
        models["series"].predict([1.0, 2.0])

"""Doubts about labels: alike, several in one, missing, amounts; and labels that raise none."""

import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings
from charlm.text.examples import read_examples
from charlm.text.label_doubts import doubts_of_labels
from charlm.text.labelled import LABELLED
from charlm.text.sources.text_lines import FileRules


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["Pos", "neg", "pos"], ['"Pos", "pos"', "differ only in capitals"]),
        (["a b", "a  b", "c"], ['"a b", "a  b"']),
        (['"pos"', "pos", "neg"], ['"pos"', "quotes"]),
        (["1", "1.0", "2"], ['("1", "1.0")']),
        (["07", "7", "8"], ['("07", "7")']),
        (["a|b", "a", "b", "b|c"], ["2 of 4 labels look like several in one", '"a|b", "b|c"']),
        (["a, b", "a", "b", "b, c"], ["2 of 4 labels look like several in one"]),
        (["action;drama", "drama;war"], ["2 of 2 labels look like several in one"]),
        (["pos", "neg", "NA", "NA"], ['2 training texts have the label "NA"']),
        (["pos", "neg", "-"], ['1 training text has the label "-"']),
        (
            [f"{n / 4}" for n in range(12)],
            ["The 12 labels are numbers with decimals, such as 0.25"],
        ),
    ],
)
def test_doubtful_labels(labels: list[str], expected: list[str]) -> None:
    (doubt,) = doubts_of_labels(labels)
    for part in expected:
        assert part in doubt
    (doubt,) = doubts_of_labels(labels, noun="condition")
    assert "label" not in doubt


@pytest.mark.parametrize(
    "labels",
    [
        ["pos", "neg", "neutral"],
        [str(n) for n in range(12)],
        ["1.0", "2.0", "3.0"],
        ["1.5", "2.5"],
        ["Arts, crafts", "Science; nature", "Sports"],
        ["Paris, France", "Lyon, France", "Rome, Italy"],
        ["King, Stephen", "King, Martin", "Austen, Jane"],
        ["1", "1,5", "2", "2,5", "3"],
        ["912345678901234001", "912345678901234002"],
        ["1" * 5000, "2"],
        ["NUM:date", "NUM:count", "HUM:ind"],
        ["no", "yes", "not", "none"],
        ["", "a", "b"],
    ],
)
def test_labels_without_doubts(labels: list[str]) -> None:
    """Stars, sections, places, names and ids are labels; "" is that of a text without one."""
    assert not list(doubts_of_labels(labels))


def test_labels_of_other_splits_are_compared_too(tmp_path: Path) -> None:
    for name, labels in (("train", ("1", "0")), ("test", ("1.0", "0.0"))):
        rows = [f"text {n},{labels[n % 2]}\n" for n in range(20)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(rows))
    corpus = CorpusSettings(
        sources=[str(tmp_path / "train.csv")], test=[str(tmp_path / "test.csv")]
    )
    warnings = " ".join(LABELLED.load(Settings(corpus=corpus)).warnings)
    assert '"0", "0.0"' in warnings
    assert '"1", "1.0"' in warnings


def test_nan_is_no_label(tmp_path: Path) -> None:
    """NaN of JSON and Parquet is a missing number; pandas has no other for a column of numbers."""
    texts, values = ["a", "b", "c"], [1.0, math.nan, 0.0]
    table = pyarrow.table({"text": texts, "label": values})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = [{"text": text, "label": value} for text, value in zip(texts, values, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.parquet", "a.jsonl"):
        read = read_examples([str(tmp_path / name)], FileRules())
        assert [each.label for each in read] == ["1.0", None, "0.0"]

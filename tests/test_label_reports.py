"""Reports of runs that give labels, on records as training writes them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from charlm.errors import UsageError
from charlm.files.atomic import json_bytes
from charlm.inference.counts import LabelCounts
from charlm.inference.figures import TaskComparison, TaskDifference
from charlm.report import labels
from charlm.report.axes import RunLog
from charlm.report.curves import plot_of
from charlm.report.label_tables import comparison_table
from charlm.report.progress import evaluation_line, step_line
from charlm.runs.card import model_card
from charlm.training.records import EvaluationRecord, StepRecord

PART = {"tokens": 900, "documents": 100, "chars": 4000, "bytes": 4000, "words": 800}
SUMS = {"step": 10, "epoch": 0, "seconds": 5.0, "target": "text"}


def summary(right: int, texts: int = 100) -> dict:
    """Figures of two balanced labels."""
    half = texts // 2
    wrong = half - right // 2
    return LabelCounts(
        confusion=((right // 2, wrong), (wrong, right // 2)), nats=0.4 * texts
    ).summary()


def record_of(right: int = 90, **results: object) -> dict:
    """The parts of run.json that reports read."""
    return {
        "status": "finished",
        "settings": {
            "task": {"task": "classify", "both_ways": True, "pooling": "concat"},
            "vocabulary": {"unit": "word"},
            "model": {
                "num_layers": 1, "hidden_size": 128, "cell": "lstm", "dropout": 0.4,
                "embedding_size": 128,
            },
            "training": {
                "steps": 10, "minutes": None, "epochs": None, "batch_size": 32,
                "optimizer": "adamw", "learning_rate": 0.002, "seed": 1,
            },
        },
        "corpus": {
            "name": "reviews", "sources": [], "document": "line", "vocabulary": 50,
            "fingerprint": "0",
            "parts": {"train": PART, "valid": PART, "test": PART},
            "labels": {"train": {"neg": 50, "p|s": 50}},
        },
        "parameters": 1000,
        "machine": {"device_name": "cpu", "threads": 1},
        "floors": {
            "majority": {"label": "neg", "valid": 0.5, "test": 0.5},
            "bag_of_words": {"valid": 0.8, "test": 0.82},
        },
        "results": {
            "step": 10, "seconds": 5.0, "valid": summary(right), "test": summary(right), **results
        },
    }  # fmt: skip


def test_a_plan_names_labels_and_floors() -> None:
    """Labels with their shares; a dominant label and many labels are reported."""
    text, model, run = labels.LABEL_REPORT.plan_lines(record_of())
    assert text[1] == "labels neg 50.0 %, p|s 50.0 %"
    assert "most frequent label 0.500; bag of words" in text[2] and "0.800" in text[2]
    assert "read both ways, last + mean + maximum" in model and "32 texts" in run
    assert "one label dominates" in labels.label_shares({"a": 8, "b": 2})
    assert "dominates" not in labels.label_shares({"a": 6, "b": 4})
    many = {f"l{number}": number + 1 for number in range(20)}
    assert labels.label_shares(many).startswith("l19 9.5 %, l18")
    assert labels.label_shares(many).endswith("and 12 labels more")


def test_results_stand_beside_the_floors() -> None:
    """Accuracy with its interval, the bag of words with the difference, calibration, units."""
    floors = {
        "difference": [0.08, 0.01, 0.15],
        "unit": {"unit": 87, "accuracy": 0.57, "of": 384},
    }
    record = record_of(
        90, floors=floors, logit_scale=0.7, valid_uncalibrated=summary(90) | {"ece": 0.2}
    )
    pairs = labels.LABEL_REPORT.result_pairs(record, record["results"])
    named = dict(pairs)
    assert "accuracy 0.900 (0.8" in named["validation"] and "nats/text" in named["test"]
    assert pairs[3][1] == "accuracy 0.820 by naive Bayes; this run +8.0 points (+1.0 to +15.0)"
    assert "0.200 before" in named["calibrated"]
    assert named["units"].startswith("one unit alone 0.57 (unit 87); all 384: 0.90")
    assert "warning" not in named


@pytest.mark.parametrize(("scale", "ignored"), [(0.0, True), (0.0004, True), (0.7, False)])
def test_a_network_that_is_left_out_is_reported(scale: float, ignored: bool) -> None:
    """The story: "logits times 0.000" did not say that the network had no part in 0.855."""
    record = record_of(90, logit_scale=scale, valid_uncalibrated=summary(90) | {"ece": 0.2})
    calibrated = dict(labels.LABEL_REPORT.result_pairs(record, record["results"]))["calibrated"]
    assert ("(it has no part in the labels)" in calibrated) == ignored


def test_a_run_that_learned_nothing_is_reported() -> None:
    """52 right of 100 are not shown to be better than the half of one label."""
    record = record_of(52)
    warnings = [text for name, text in labels.LABEL_REPORT.result_pairs(record, record["results"])
                if name == "warning"]  # fmt: skip
    assert warnings == ["not shown to be better than the most frequent label (neg: 0.500)"] * 2


def test_training_lines_count_texts() -> None:
    """Loss and speed of texts, and the figures of a validation."""
    step = StepRecord(
        **SUMS, tokens=320, progress=0.5, nats_per_token=0.5, learning_rate=0.1,
        gradient_norm=1.0, clipped=0.0, tokens_per_second=1200.0,
    )  # fmt: skip
    assert step_line(step, "word") == "0.500 nats/text  1,200 texts/s"
    tally = LabelCounts.of(np.eye(2), [0, -1])
    record = EvaluationRecord(**SUMS, tokens=320, progress=0.5, best=True, tally=tally)
    line = evaluation_line(record, "word", labels.LABEL_REPORT)
    assert "validation accuracy 0.500, macro-F1" in line and "best so far" in line
    assert "1 text with labels that training lacks" in line


def test_a_card_has_labels_floors_and_a_row_for_each_label() -> None:
    """As a hub expects it; marks of Markdown in a label are escaped."""
    card = model_card("movies", record_of())
    assert "pipeline_tag: text-classification" in card and "recurrent classifier" in card
    assert "| accuracy | 0.9000 | 0.9000 |" in card
    assert "| accuracy of a bag of words (naive Bayes) | 0.8000 | 0.8200 |" in card
    assert "| p\\|s | 0.9000 | 0.9000 | 0.9000 | 50 |" in card
    assert "charlm predict --run movies" in card and "charlm sample" not in card
    assert "type: accuracy, value: 0.9000" in card
    assert "no results" in model_card("movies", record_of() | {"results": None})


def test_a_card_names_labels_in_the_order_of_the_outputs() -> None:
    """Keys of run.json are sorted as text, so that 10 comes before 2."""
    counts = LabelCounts(confusion=((3, 1), (0, 8)))  # of the labels 2 and 10
    record = record_of(valid=counts.summary(), test=counts.summary())
    record["corpus"]["labels"] = {"train": {"2": 30, "10": 70}}
    card = model_card("stars", record)
    assert "| 2 | 1.0000 | 0.7500 |" in card and "| 10 | 0.8889 | 1.0000 |" in card
    assert model_card("stars", json.loads(json_bytes(record))) == card


def test_a_card_lists_the_first_of_many_labels_in_one_cell() -> None:
    """Each has a row below; a cell of 500 of them cannot be read."""
    counts = LabelCounts.of(np.eye(12), np.arange(12))
    record = record_of(valid=counts.summary(), test=counts.summary())
    record["corpus"]["labels"] = {"train": {f"x{n}": 1 for n in range(12)}}
    card = model_card("many", record)
    assert "x7 8.3 % and 4 more |" in card and "x8 8.3 %" not in card
    assert "| x11 | 1.0000 |" in card


def test_curves_of_labels_are_in_nats_per_text() -> None:
    """Over texts; figures of tokens are refused, and so are labels beside language models."""
    steps = [
        {"kind": "step", "step": n, "texts": 32 * n, "seconds": n, "nats_per_text": 1 / n}
        for n in (1, 2)
    ]
    records = [
        *steps,
        {"kind": "evaluation", "step": 2, "texts": 64, "seconds": 2, "valid_nats_per_text": 0.6},
    ]
    log = RunLog(name="movies", path=Path("movies"), run=record_of(), records=records)
    plot = plot_of([log])
    assert (plot.x, plot.y) == ("texts", "nats/text")
    assert plot.curves[0].training == [(32.0, 1.0), (64.0, 0.5)]
    assert plot.curves[0].validation == [(64.0, 0.6)]
    assert plot_of([log], x="epochs").curves[0].training[1][0] == 0.64
    for axes in ({"y": "bits/byte"}, {"x": "tokens"}):
        with pytest.raises(UsageError, match="counts texts; expected runs of one task"):
            plot_of([log], **axes)
    settings = record_of()["settings"] | {"task": {}}
    tales = RunLog(
        name="tales", path=Path("tales"), run=record_of() | {"settings": settings}, records=[]
    )
    with pytest.raises(UsageError, match=r"tales counts tokens; .* --y bits/byte"):
        plot_of([tales], y="nats/text")


def test_a_comparison_has_a_line_for_each_run_at_80_columns() -> None:
    """The story: "no difference shown" took three lines."""
    counts = LabelCounts(confusion=((40, 10), (10, 40)))
    change = TaskDifference("accuracy", -0.014, low=-0.032, high=0.0, p=0.17)
    result = TaskComparison(
        names=["movies", "small"], counts=[counts] * 2, differences=[None, change], notes=[]
    )
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_table(result))
    header, *rows = console.file.getvalue().splitlines()
    assert len(rows) == 2 and header.split()[-1] == "difference"
    assert rows[1].rstrip().endswith("0.17  not shown")

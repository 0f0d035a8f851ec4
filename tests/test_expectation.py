"""Expectations: measured points are reproduced, and unmeasured plans have none."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded_stream, vocabulary_of

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.ngram.kneser_ney import ngram_nats
from charlm.nn.model import count_parameters
from charlm.text.dataset import Dataset
from charlm.training.plan.expectation import MEASURED, MILLIONS, SPREAD, expected, kind_of
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import OPERATIONS_PER_WEIGHT_AND_TOKEN

DRAWN = np.random.default_rng(0).choice(8, 3000, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])


def dataset(valid: bool = True, unit: str = "char") -> Dataset:
    return Dataset(
        name="x", vocabulary=vocabulary_of(unit=unit),
        train=encoded_stream(DRAWN[:2000]), valid=encoded_stream(DRAWN[2000:]) if valid else None,
        test=None, fingerprint="",
    )  # fmt: skip


def plan_of(work: float, vocab_size: int, cell: str = "lstm") -> Plan:
    """Return a plan that spends 10^work operations on each token of the text."""
    model = ModelSettings(cell=cell, num_layers=1, hidden_size=64, embedding_size=16)
    each = OPERATIONS_PER_WEIGHT_AND_TOKEN * count_parameters(model, vocab_size)
    return Plan(
        settings=Settings(model=model, training=TrainingSettings(epochs=1.0)),
        reasons={"training.learning_rate": "for adamw"}, passes=10.0**work / each, steps=1000.0,
    )  # fmt: skip


@pytest.mark.parametrize("at", range(len(MEASURED["letters"])))
def test_a_measured_point_is_its_ratio_to_the_n_grams(at: int) -> None:
    data = dataset()
    work, ratio = MEASURED["letters"][at]
    expectation = expected(data, plan_of(work, len(data.vocabulary)))
    assert expectation is not None
    plain = ngram_nats(data.train.ids, data.valid.ids, len(data.vocabulary))
    assert expectation["ngram_nats"] == plain
    assert expectation["nats"] == pytest.approx(ratio * plain, rel=1e-6)
    assert expectation["low"] == pytest.approx(expectation["nats"] * (1 - SPREAD))
    assert expectation["high"] == pytest.approx(expectation["nats"] * (1 + SPREAD))


@pytest.mark.parametrize("kind", MEASURED)
def test_more_work_is_never_expected_to_be_worse(kind: str) -> None:
    places, ratios = zip(*MEASURED[kind], strict=True)
    assert list(places) == sorted(places)
    assert list(ratios) == sorted(ratios, reverse=True)
    assert all(0.5 < ratio < 1.5 for ratio in ratios)
    assert all(math.isfinite(place) for place in places)


def test_an_unmeasured_plan_has_no_expectation() -> None:
    data = dataset()
    size = len(data.vocabulary)
    assert expected(dataset(valid=False), plan_of(7.0, size)) is None
    assert expected(data, plan_of(7.0, size, cell="gru")) is None
    assert expected(dataset(unit="bpe"), plan_of(7.0, len(dataset(unit="bpe").vocabulary))) is None
    assert expected(data, replace(plan_of(7.0, size), steps=99.0)) is None
    assert expected(data, replace(plan_of(7.0, size), reasons={})) is None  # a rate that was given
    assert expected(data, plan_of(7.0, size)) is not None
    assert expected(data, plan_of(4.0, size)) is None
    assert expected(data, plan_of(12.0, size)) is None


@pytest.mark.parametrize(
    ("unit", "vocab_size", "tokens", "kind"),
    [("word", 10_000, 900_000, "words"), ("word", 10_000, MILLIONS, "words"),
     ("word", 51, MILLIONS, "millions of letters"), ("char", 3_000, MILLIONS - 1, "letters"),
     ("byte", 256, MILLIONS, "millions of letters")],
)  # fmt: skip
def test_the_kind_of_text_by_its_tokens(unit: str, vocab_size: int, tokens: int, kind) -> None:
    """Few kinds of words are letters."""
    assert kind_of(unit, vocab_size, tokens) == kind


LEFT_OUT = "russian", "prose", "wikitext2"
"""Texts that were not used to make the plan."""


def test_the_table_agrees_with_the_measurements() -> None:
    """The best run of each text is within its expected range."""
    file = Path(__file__).parent.parent / "scripts" / "experiments" / "plans.jsonl"
    runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    runs = [run for run in runs if run["kind"] == "run" and run["text"] not in LEFT_OUT]
    best = {}
    for run in runs:
        key = run["text"], run["minutes"]
        if key not in best or run["nats"] < best[key]["nats"]:
            best[key] = run
    assert len(best) >= 4
    for (text, minutes), run in best.items():
        work = math.log10(6 * run["weights"] * run["passes"])
        unit = "word" if text.startswith("ptb") else "char"
        kind = kind_of(unit, run["vocab_size"], run["train_tokens"])
        ratio = np.interp(work, *zip(*MEASURED[kind], strict=True))
        assert run["nats"] == pytest.approx(ratio * run["ngram_nats"], rel=SPREAD), (text, minutes)

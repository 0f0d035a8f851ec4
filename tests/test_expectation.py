"""Expectations: the fit of the measured runs, their interval, and plans that have none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import encoded_stream, vocabulary_of

import fit_expectation
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.ngrams.kneser_ney import ngram_nats
from charlm.nn.model import count_parameters
from charlm.text.dataset import Dataset
from charlm.training.plan import expectation
from charlm.training.plan.expectation import MAX_WORK, MIN_TOKENS, MIN_WORK, SPREAD, expected
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import OPERATIONS_PER_WEIGHT_AND_TOKEN

TOKENS = MIN_TOKENS + 5_000
RANDOM = np.random.default_rng(0).choice(8, TOKENS + 1000)


def dataset(valid: bool = True, unit: str = "char", tokens: int = TOKENS) -> Dataset:
    return Dataset(
        name="x", vocabulary=vocabulary_of(unit=unit),
        train=encoded_stream(RANDOM[:tokens]),
        valid=encoded_stream(RANDOM[TOKENS:]) if valid else None,
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


def nats_of(work: float, data: Dataset) -> float:
    expectation = expected(data, plan_of(work, len(data.vocabulary)))
    assert expectation is not None
    return float(expectation["nats"])


def test_the_interval_holds_the_expectation_and_scales_with_the_n_grams() -> None:
    data = dataset()
    known = expected(data, plan_of(7.0, len(data.vocabulary)))
    assert known is not None
    assert known["ngram_nats"] == ngram_nats(data.train.ids, data.valid.ids, len(data.vocabulary))
    plan = plan_of(7.0, len(data.vocabulary))
    rare = len(data.vocabulary) / (plan.passes * TOKENS)
    ratio = math.exp(expectation.expected_log_ratio(7.0, TOKENS, rare))
    assert known["nats"] == pytest.approx(ratio * known["ngram_nats"])
    assert known["low"] == pytest.approx(known["nats"] * math.exp(-SPREAD))
    assert known["high"] == pytest.approx(known["nats"] * math.exp(SPREAD))


def test_more_time_is_never_expected_to_be_worse() -> None:
    """It means more operations per token and more passes."""
    data = dataset()
    losses = [nats_of(work, data) for work in np.linspace(MIN_WORK, MAX_WORK, 20)]
    assert sorted(losses, reverse=True) == losses


def test_operations_help_up_to_a_limit_that_grows_with_the_text() -> None:
    limit = expectation.USEFUL + math.log10(TOKENS)
    below, at, above = (
        expectation.expected_log_ratio(work, TOKENS, 0.0) for work in (limit - 1, limit, limit + 1)
    )
    assert below > at == above
    assert expectation.expected_log_ratio(limit + 1, 10 * TOKENS, 0.0) < at


def test_entries_have_to_be_learned() -> None:
    few, many = (expectation.expected_log_ratio(7.0, TOKENS, rare) for rare in (0.001, 0.1))
    assert few < many


def test_an_unmeasured_plan_has_no_expectation() -> None:
    data = dataset()
    size = len(data.vocabulary)
    assert expected(data, plan_of(7.0, size)) is not None
    assert expected(dataset(valid=False), plan_of(7.0, size)) is None
    assert expected(data, plan_of(7.0, size, cell="gru")) is None
    assert expected(dataset(unit="bpe"), plan_of(7.0, len(dataset(unit="bpe").vocabulary))) is None
    assert expected(data, replace(plan_of(7.0, size), steps=99.0)) is None
    assert expected(data, replace(plan_of(7.0, size), reasons={})) is None  # a rate that was given
    assert expected(dataset(tokens=MIN_TOKENS - 1), plan_of(7.0, size)) is None
    assert expected(data, plan_of(MIN_WORK - 0.1, size)) is None
    assert expected(data, plan_of(MAX_WORK + 0.1, size)) is None


def test_the_constants_are_the_fit_of_the_measured_runs() -> None:
    """`scripts/fit_expectation.py` prints them."""
    runs = list(fit_expectation.plan_like(fit_expectation.records()))
    fitted = fit_expectation.fit(runs)
    assert round(fitted.intercept, 3) == expectation.INTERCEPT
    assert round(fitted.slope, 3) == expectation.SLOPE
    assert round(fitted.rare, 2) == expectation.RARE
    assert fitted.useful == expectation.USEFUL
    measured = fit_expectation.Measured("a", 7.3, 6.1, 0.01, 0.0)
    predicted = expectation.expected_log_ratio(7.3, round(10**6.1), 0.01)
    assert fitted.predict(measured) == pytest.approx(predicted, abs=1e-3)
    assert round(fit_expectation.spread(fit_expectation.left_out(runs)), 3) == SPREAD
    assert MIN_WORK <= min(run.operations for run in runs) <= MIN_WORK + 0.1
    assert MAX_WORK - 0.1 <= max(run.operations for run in runs) <= MAX_WORK
    assert min(run.tokens for run in runs) == pytest.approx(math.log10(MIN_TOKENS), abs=0.05)


def test_the_interval_holds_four_fifths_of_the_left_out_runs() -> None:
    """Each text has the same weight, however many runs it has."""
    runs = list(fit_expectation.plan_like(fit_expectation.records()))
    errors = fit_expectation.left_out(runs)
    bound = fit_expectation.spread(errors)
    shares = fit_expectation.weights([run for run, _ in errors])
    inside = sum(
        share for share, (_, error) in zip(shares, errors, strict=True) if abs(error) <= bound
    )
    texts = {run.text for run in runs}
    assert 0.8 * len(texts) <= inside + 1e-9 < 0.9 * len(texts)


def test_a_left_out_text_does_not_affect_its_own_prediction() -> None:
    runs = [
        fit_expectation.Measured(text, operations, 6.0, rare, rare - 0.1 * (operations - 7.0))
        for text in ("a", "b") for operations in (6.5, 7.0, 7.5) for rare in (0.0, 0.1)
    ]  # fmt: skip
    odd = fit_expectation.Measured("c", 7.0, 6.0, 0.0, 0.5)
    errors = dict(fit_expectation.left_out([*runs, odd]))
    assert errors[odd] == pytest.approx(0.5)  # the others lie on a plane through 0


def test_a_novel_that_was_not_measured_ends_within_its_interval() -> None:
    """3.2 MB, 12 minutes: 1.04 (0.99 to 1.09) was expected, and 1.149 came; n-grams had 1.267."""
    tokens, quiet = 2_880_000, 3e11
    work = math.log10(quiet * 60.0 * 12.0 * 0.9 / tokens)
    log_ratio = expectation.expected_log_ratio(work, tokens, 100 / (3 * tokens))
    assert abs(math.log(1.149 / 1.267) - log_ratio) < SPREAD

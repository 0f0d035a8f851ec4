"""Figures of labelled texts: laws, brute force and scikit-learn on random cases."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from charlm.backends.softmax import log_softmax
from charlm.inference import counts
from charlm.inference.counts import LabelCounts
from charlm.inference.figures import figures_from
from charlm.units import Tally, loss_of

CASES = [(2, 40, 0), (3, 200, 1), (6, 57, 2), (4, 5, 3)]


def case(labels: int, texts: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and gold labels, one of them unseen."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, labels, texts)
    logits = random.normal(size=(texts, labels)) + 1.5 * np.eye(labels)[targets]
    targets[texts // 2] = -1
    return logits, targets


@pytest.mark.parametrize(("labels", "texts", "seed"), CASES)
def test_counts_of_parts_add_up(labels: int, texts: int, seed: int) -> None:
    """counts(A) + counts(B) = counts(A and B)."""
    logits, targets = case(labels, texts, seed)
    cut = texts // 3
    parts = [LabelCounts.of(logits[s], targets[s], 0.7) for s in (slice(cut), slice(cut, None))]
    whole, total = LabelCounts.of(logits, targets, 0.7), parts[0] + parts[1]
    assert total.confusion == whole.confusion and total.sure == whole.sure
    assert np.allclose(total.bins, whole.bins)
    figures, expected = total.summary(), whole.summary()
    assert figures.pop("confusion") == expected.pop("confusion")
    assert figures == pytest.approx(expected)
    assert total.scale == 0.7 and (total + LabelCounts.of(logits, targets)).scale == 1.0


@pytest.mark.parametrize(("labels", "texts", "seed"), CASES)
def test_figures_equal_brute_force(labels: int, texts: int, seed: int) -> None:
    """Each figure from its definition, text by text."""
    logits, targets = case(labels, texts, seed)
    found = LabelCounts.of(logits, targets, 2.0)
    known = [(row, gold) for row, gold in zip(logits, targets, strict=True) if gold >= 0]
    chances = [np.exp(2 * row) / np.exp(2 * row).sum() for row, _ in known]
    right = [row.argmax() == gold for row, gold in known]
    assert found.texts == texts and found.unseen == 1 and found.tokens == texts
    assert found.accuracy == pytest.approx(sum(right) / texts)
    own = [chance[gold] for chance, (_, gold) in zip(chances, known, strict=True)]
    assert found.nats == pytest.approx(-sum(map(math.log, own)))
    gaps = 0.0
    for number in range(20):
        within = [at for at, chance in enumerate(chances) if int(chance.max() * 20) == number]
        gaps += abs(sum(right[at] for at in within) - sum(chances[at].max() for at in within))
    assert found.ece == pytest.approx(gaps / len(known))
    for least, fraction, accuracy in found.confident():
        above = [at for at, chance in enumerate(chances) if chance.max() >= least]
        assert fraction == pytest.approx(len(above) / len(known))
        if above:
            assert accuracy == pytest.approx(np.mean([right[at] for at in above]))


@pytest.mark.parametrize(("labels", "texts", "seed"), CASES)
def test_figures_equal_those_of_scikit_learn(labels: int, texts: int, seed: int) -> None:
    """Precision, recall, F1, macro-F1, balanced accuracy, log loss and confusion."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, targets = case(labels, texts, seed)
    logits, targets = logits[targets >= 0], targets[targets >= 0]
    found = LabelCounts.of(logits, targets)
    predicted, every = logits.argmax(axis=1), list(range(labels))
    assert (found.table == metrics.confusion_matrix(targets, predicted, labels=every)).all()
    assert found.macro_f1 == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    recall = metrics.recall_score(
        targets, predicted, labels=sorted(set(targets.tolist())), average="macro"
    )
    assert found.macro_recall == pytest.approx(recall)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found.nats_per_text == pytest.approx(
        metrics.log_loss(targets, np.exp(log_softmax(logits)), labels=every)
    )
    oracle = metrics.precision_recall_fscore_support(
        targets, predicted, labels=every, zero_division=np.nan
    )
    for figures, *others in zip(found.per_label(), *oracle, strict=True):
        assert figures == pytest.approx(tuple(others), nan_ok=True)


def test_sums_survive_json() -> None:
    """Checkpoints keep sums as JSON; both kinds of figures come back from them."""
    found = LabelCounts.of(*case(3, 30, 5), 1.3)
    assert figures_from(json.loads(json.dumps(found.sums()))) == found
    tally = Tally(nats=3.0, tokens=2)
    assert figures_from(json.loads(json.dumps(tally.sums()))) == tally


def test_the_factor_of_a_known_temperature_is_found() -> None:
    """Labels sampled from softmax(2 z): the factor on z is 2; and no factor is better by 1 %."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    chances = np.exp(log_softmax(2.0 * logits))
    targets = (chances.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    scale = counts.fit_label_scale(logits, targets)
    assert scale == pytest.approx(2.0, rel=0.05)
    best = LabelCounts.of(logits, targets, scale)
    assert best.nats < best.raw_nats
    assert best.nats <= LabelCounts.of(logits, targets, 1.03 * scale).nats
    assert best.ece < LabelCounts.of(logits, targets).ece
    assert counts.fit_label_scale(logits, np.full(20_000, -1)) == 1.0


@pytest.mark.parametrize("alike", [0.0, 3.0])
def test_the_factors_of_a_mixture_are_the_best_of_a_grid(alike: float) -> None:
    """Two tables that are right on different texts.

    Where they are alike, the factor on one depends on the other's. A text of no label is left out.
    """
    random = np.random.default_rng(3)
    gold = random.integers(0, 3, 400)
    right = np.eye(3)[gold]
    first, second = (right * random.normal(1, 2, (400, 1)) + random.normal(0, 1, (400, 3))
                     for _ in range(2))  # fmt: skip
    common = random.normal(0, 1, (400, 3)) * alike
    first, second = first + common, second + common
    targets = np.append(gold, -1)
    tables = [np.vstack([each, [50.0, 0.0, 0.0]]) for each in (first, 40 * second)]
    scale, factor = counts.fit_label_mixture(tables, targets)
    best = min(
        LabelCounts.of(a * first + b * second, gold).nats
        for a in np.geomspace(0.01, 2.0, 40) for b in np.geomspace(0.01, 2.0, 40)
    )  # fmt: skip
    found = LabelCounts.of(scale * first + 40 * factor * second, gold).nats
    assert found <= best + 0.05 and found < LabelCounts.of(first, gold).nats


def test_an_interval_is_that_of_the_binomial_distribution() -> None:
    """80 of 100 right: 0.8 is 1.96 standard deviations from each end, if that is the truth."""
    found = LabelCounts(confusion=((40, 10), (10, 40)))
    low, high = found.intervals()["accuracy"]
    for end in (low, high):
        distance = abs(end - 0.8) / math.sqrt(end * (1.0 - end) / 100)
        assert distance == pytest.approx(1.96, abs=1e-4)
    assert low < 0.8 < high
    assert found.intervals() == found.intervals(seed=0)
    low, high = found.intervals()["macro_f1"]
    assert low < found.macro_f1 < high
    half = replace(found, unseen=100)
    assert half.accuracy == 0.4 and 0.32 < half.intervals()["accuracy"][0] < 0.4
    alone = LabelCounts(confusion=((0, 0), (0, 1)), unseen=1)  # many samples have no known label
    low, high = alone.intervals()["macro_f1"]
    assert 0.0 < low < 0.5 and high == 1.0


@pytest.mark.parametrize("count", [1, 12, 1000])
def test_all_right_of_a_few_texts_is_not_certain(count: int) -> None:
    """The story: 12 right of 12 had the interval 1.000 to 1.000.

    The ends of Wilson's interval are the fractions p from which what was found is 1.96 standard
    deviations away; found are 1 and p, so (1 - p) / sqrt(p (1 - p) / count) is 1.96.
    """
    low, high = LabelCounts(confusion=((count, 0), (0, 0))).intervals()["accuracy"]
    assert high == 1.0 and low < 1.0
    assert (1.0 - low) / math.sqrt(low * (1.0 - low) / count) == pytest.approx(1.96, abs=1e-4)
    none = LabelCounts(confusion=((0, count), (0, 0))).intervals()["accuracy"]
    assert none == pytest.approx((0.0, 1.0 - low))


def test_macro_averages_of_right_answers_are_as_uncertain_as_their_rarest_label() -> None:
    """The story: 100 right of 100 had a macro-F1 of 1.000 to 1.000, 2 of them of the rare label."""
    even = LabelCounts(confusion=((50, 0), (0, 50))).intervals()
    rare = LabelCounts(confusion=((98, 0), (0, 2))).intervals()
    for name in ("macro_f1", "macro_recall"):
        assert even[name][1] == rare[name][1] == 1.0
        assert 0.9 < even[name][0] < 0.99
        assert 0.6 < rare[name][0] < 0.9
    none = LabelCounts(confusion=((0, 5), (5, 0))).intervals()["macro_f1"]
    assert none[0] == 0.0 < none[1] < 0.5


def test_an_interval_of_the_macro_recall_has_the_truth_in_95_of_100_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All outcomes of 12 texts of each of two labels, of which 95 % are right on the whole."""
    monkeypatch.setattr(counts, "DRAWS", 100)
    chance = [math.comb(12, k) * 0.05**k * 0.95 ** (12 - k) for k in range(13)]
    covered = 0.0
    for one, other in itertools.product(range(4), repeat=2):
        table = ((12 - one, one), (other, 12 - other))
        low, high = LabelCounts(confusion=table).intervals()["macro_recall"]
        covered += chance[one] * chance[other] * (low <= 0.95 <= high)
    assert covered > 0.94


def test_no_texts_and_no_answers_are_not_numbers() -> None:
    """No division error, no warning, no NaN in JSON, no interval."""
    empty = LabelCounts.of(np.zeros((0, 2)), np.zeros(0, int))
    assert empty.summary()["accuracy"] is None and empty.intervals() == {}
    only_unseen = LabelCounts.of(np.zeros((3, 2)), np.full(3, -1))
    assert only_unseen.accuracy == 0.0 and only_unseen.nats == 0.0
    assert only_unseen.summary()["macro_f1"] is None
    assert json.loads(json.dumps(only_unseen.summary(), allow_nan=False))
    broken = LabelCounts.of(np.full((2, 2), np.nan), np.zeros(2, int))
    assert broken.summary()["nats"] is None


def test_mcnemar_is_a_sign_test_of_the_texts_that_differ() -> None:
    """Against the sum of the binomial distribution; 3 to 0 heads: p = 2 / 8."""
    a, b = [1, 1, 1, 0, 1], [0, 0, 0, 0, 1]
    assert counts.mcnemar(a, b) == pytest.approx(0.25)
    assert counts.mcnemar(b, a) == pytest.approx(0.25)
    assert counts.mcnemar(a, a) == 1.0
    left, right = np.repeat([1, 0], [30, 14]), np.repeat([0, 1], [30, 14])
    tail = sum(math.comb(44, k) for k in range(15)) / 2**44
    assert counts.mcnemar(left, right) == pytest.approx(2 * tail)


def test_a_paired_difference_has_an_interval() -> None:
    """100 texts, of which b alone has 20 and a alone 5: +15 points, deviation 4.8 points."""
    a, b = np.repeat([1, 0, 1], [5, 20, 75]), np.repeat([0, 1, 1], [5, 20, 75])
    change, low, high = counts.paired_interval(a, b)
    assert change == pytest.approx(0.15)
    assert (low, high) == pytest.approx((0.15 - 1.96 * 0.048, 0.15 + 1.96 * 0.048), abs=0.012)
    assert counts.paired_interval(a, a) == (0.0, 0.0, 0.0)


def test_a_loss_is_found_whatever_a_target_is_called() -> None:
    """Tokens of text, or texts with labels; with and without a prefix."""
    assert loss_of(Tally(nats=3.0, tokens=2).summary()) == 1.5
    assert loss_of(LabelCounts.of([[0.0, 0.0]], [0]).summary()) == pytest.approx(math.log(2))
    assert loss_of({"valid_nats_per_text": 0.5, "nats_per_text": 1.0}, "valid_") == 0.5
    assert loss_of({"step": 3}) is None

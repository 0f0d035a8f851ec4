"""The CRF: partition, probabilities and best path against all paths; numpy against torch."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from helpers import seeded

from charlm.inference.crf import (
    Transitions,
    answers,
    fit_tag_scale,
    log_marginals,
    log_partition,
    path_scores,
    tag_nats,
    viterbi,
)
from charlm.nn.crf import crf_nats
from charlm.text.spans import legal

NAMES = ("B-x", "I-x", "O")
COUNTS = np.array([4, 1, 3, 2])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def emissions(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, 4, 3)) * 2.0  # (W, B, K)


@pytest.fixture
def steps(rng: np.random.Generator) -> Transitions:
    between, first, last = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    return Transitions.of(between, first, last, legal(NAMES))


def all_paths(emissions: np.ndarray, steps: Transitions) -> dict[tuple[int, ...], float]:
    """Return the score of every path of one sentence (W, K)."""
    scores = {}
    for path in product(range(3), repeat=len(emissions)):
        between = sum(steps.between[a, b] for a, b in pairwise(path))
        own = sum(row[tag] for row, tag in zip(emissions, path, strict=True))
        scores[path] = steps.first[path[0]] + own + between + steps.last[path[-1]]
    return scores


def test_everything_agrees_with_the_sum_over_all_paths(
    emissions: np.ndarray, steps: Transitions
) -> None:
    partition = log_partition(emissions, COUNTS, steps)
    logs, best = log_marginals(emissions, COUNTS, steps), viterbi(emissions, COUNTS, steps)
    for row, count in enumerate(COUNTS):
        scores = all_paths(emissions[:count, row], steps)
        total = np.logaddexp.reduce(list(scores.values()))
        assert partition[row] == pytest.approx(total, abs=1e-9)
        likeliest = max(scores, key=lambda path: scores[path])
        assert tuple(best[:count, row]) == likeliest
        for word in range(count):
            for tag in range(3):
                own = [score for path, score in scores.items() if path[word] == tag]
                expected = np.exp(np.logaddexp.reduce(own) - total)
                assert np.exp(logs[word, row, tag]) == pytest.approx(expected, abs=1e-9)


def test_a_word_without_a_known_tag_may_have_any(emissions: np.ndarray, steps: Transitions) -> None:
    tags = np.array([[0, 2, 2, 2], [-1, 0, 0, -1], [1, 0, -1, 0], [2, 0, 0, 0]])
    scores = path_scores(emissions, tags, COUNTS, steps)
    for row, count in enumerate(COUNTS):
        own = [
            score
            for path, score in all_paths(emissions[:count, row], steps).items()
            if all(gold in (-1, tag) for gold, tag in zip(tags[:, row], path, strict=False))
        ]
        assert scores[row] == pytest.approx(np.logaddexp.reduce(own), abs=1e-9)


def test_a_crf_that_knows_nothing_scores_each_word_with_the_number_of_tags() -> None:
    steps = Transitions.of(np.zeros((3, 3)), np.zeros(3), np.zeros(3), np.ones((4, 3), bool))
    partition = log_partition(np.zeros((4, 4, 3)), COUNTS, steps)
    assert partition == pytest.approx(COUNTS * np.log(3))


def test_predictions_are_legal_and_cost_less_than_illegal_ones(rng: np.random.Generator) -> None:
    steps = Transitions.of(np.zeros((3, 3)), np.zeros(3), np.zeros(3), legal(NAMES))
    emissions = rng.normal(size=(200, 3)) * 30.0 + np.array([0.0, 20.0, 0.0])  # mostly I-x
    ends = np.arange(5, 201, 5)
    assert (emissions.argmax(axis=1) == 1).mean() > 0.5
    for scale in (0.02, 1.0, 50.0):
        tags = answers(emissions, ends, steps, scale).tags
        before = np.concatenate([[2], tags[:-1]])
        before[ends[:-1]] = 2
        assert not ((tags == 1) & (before == 2)).any()


def test_torch_and_numpy_agree_on_nats_with_any_padding(
    emissions: np.ndarray, steps: Transitions, rng: np.random.Generator
) -> None:
    tags = viterbi(rng.normal(size=emissions.shape), COUNTS, steps)
    expected = log_partition(emissions, COUNTS, steps) - path_scores(emissions, tags, COUNTS, steps)
    padded = np.concatenate([emissions, rng.normal(size=(2, 4, 3))])
    padded_tags = np.concatenate([np.where(np.arange(4)[:, None] < COUNTS, tags, -1), -tags[:2]])
    nats = crf_nats(
        *(torch.from_numpy(array) for array in (padded, padded_tags.astype(np.int64), COUNTS)),
        *map(torch.from_numpy, steps),
    )
    assert nats.numpy() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_of_the_nats_is_their_derivative() -> None:
    made = [torch.randn(*shape, generator=seeded(), dtype=torch.float64, requires_grad=True)
            for shape in ((4, 2, 3), (3, 3), (3,), (3,))]  # fmt: skip
    tags, counts = torch.tensor([[0, 2], [1, 2], [1, -1], [2, -1]]), torch.tensor([4, 2])
    assert torch.autograd.gradcheck(
        lambda emissions, *steps: crf_nats(emissions, tags, counts, *steps), made
    )


@pytest.mark.parametrize("crf", [True, False])
def test_answers_to_all_sentences_are_those_to_each(
    crf: bool, steps: Transitions, rng: np.random.Generator
) -> None:
    ends, chosen = np.array([3, 3, 4, 9]), steps if crf else None  # one sentence without words
    emissions, gold = rng.normal(size=(9, 3)), np.array([2, 0, 1, -1, 2, 2, 0, 2, 2], np.int32)
    together = answers(emissions, ends, chosen, 0.5, gold)
    assert np.exp(together.log_probabilities).sum(axis=1) == pytest.approx(np.ones(9))
    assert tag_nats(emissions, gold, ends, chosen, 0.5) == pytest.approx(together.nats)
    for row, (begin, end) in enumerate([(0, 3), (3, 3), (3, 4), (4, 9)]):
        alone = answers(emissions[begin:end], np.array([end - begin]), chosen, 0.5, gold[begin:end])
        assert (alone.tags == together.tags[begin:end]).all()
        logs = together.log_probabilities[begin:end]
        assert alone.log_probabilities == pytest.approx(logs, abs=1e-9)
        assert alone.nats[0] == pytest.approx(together.nats[row], abs=1e-9)
    assert together.nats[1] == 0.0


def test_the_fitted_factor_makes_confident_answers_true(
    steps: Transitions, rng: np.random.Generator
) -> None:
    emissions, ends = rng.normal(size=(400, 3)), np.arange(4, 401, 4)
    logs = answers(emissions, ends, steps).log_probabilities
    gold = np.array([rng.choice(3, p=np.exp(row)) for row in logs], np.int32)
    sure = Transitions(steps.between * 4, steps.first * 4, steps.last * 4)
    scale = fit_tag_scale(emissions * 4, gold, ends, None)
    assert scale == pytest.approx(0.25, abs=0.15)
    paths = answers(emissions, ends, steps).tags
    assert fit_tag_scale(emissions * 4, paths, ends, sure) > 1.0  # the best paths came true
    assert fit_tag_scale(emissions, np.full(400, -1, np.int32), ends, steps) == 1.0

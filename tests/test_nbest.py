"""Tuned weights of n-best lists: the exact line search, the optimum of a grid, and the law."""

import itertools
import math

import numpy as np
import pytest

from charlm.api.rescoring import error_rates, tune_weights
from charlm.errors import CorpusError, UsageError
from charlm.inference import nbest
from charlm.text.nbest import Hypothesis, NBestLists, Utterance

NAMES = ("am", "charlm", "words")
START = {"am": 1.0, "charlm": 1.0, "words": 0.0}


def random_lists(
    utterances: int, longest: int, seed: int, digits: int = 9
) -> tuple[NBestLists, list[np.ndarray], dict[str, str]]:
    """Return lists of different lengths whose scores are noisy qualities, errors, references.

    A hypothesis with e errors against "a a a ..." has e other words at its end.
    """
    random = np.random.default_rng(seed)
    lists, errors = [], []
    for number in range(utterances):
        hypotheses = int(random.integers(1, longest + 1))
        quality = random.normal(size=hypotheses)
        counts = np.clip(np.round(2 - 2 * quality + random.normal(size=hypotheses)), 0, 9)
        errors.append(counts.astype(np.int64))
        items = tuple(
            Hypothesis(
                text=" ".join(["a"] * (9 - int(count)) + ["x"] * int(count)),
                features={
                    "am": round(3 * each + 4 * noise, digits),
                    "charlm": round(each + other, digits),
                },
                words=int(words),
            )
            for each, count, noise, other, words in zip(
                quality.tolist(),
                counts.tolist(),
                random.normal(size=hypotheses).tolist(),
                random.normal(size=hypotheses).tolist(),
                random.integers(5, 12, hypotheses).tolist(),
                strict=True,
            )
        )
        lists.append(Utterance(name=f"utt{number}", hypotheses=items))
    names = [each.name for each in lists]
    return NBestLists(lists, "jsonl"), errors, dict.fromkeys(names, "a a a a a a a a a")


def count(lists: NBestLists, errors: list[np.ndarray], weights: dict[str, float]) -> int:
    """Return the errors of the best hypotheses, each score written out."""
    total = 0
    for utterance, counts in zip(lists, errors, strict=True):
        scores = [
            sum(w * v for w, v in zip(weights.values(), each.values(weights), strict=True))
            for each in utterance.hypotheses
        ]
        total += int(counts[scores.index(max(scores))])
    return total


@pytest.mark.parametrize("seed", range(3))
def test_tuned_weights_reach_the_optimum_of_a_fine_grid(seed: int) -> None:
    """The scale of the weights does not matter, so the grid is over the directions of a sphere."""
    lists, errors, _ = random_lists(30, 12, seed)
    weights = nbest.tune(lists, errors, START, seed=seed)
    candidates = nbest._candidates(lists, errors, NAMES)
    assert candidates is not None
    grid = itertools.product(np.linspace(0, math.pi, 61), np.linspace(0, 2 * math.pi, 121))
    constant = count(lists, errors, weights) - candidates.count(np.array(list(weights.values())))
    best = min(
        candidates.count(
            np.array([math.cos(a), math.sin(a) * math.cos(b), math.sin(a) * math.sin(b)])
        )
        for a, b in grid
    )
    assert count(lists, errors, weights) <= best + constant


@pytest.mark.parametrize("seed", range(5))
def test_tuned_weights_are_not_worse_than_the_start_or_a_single_feature(seed: int) -> None:
    lists, errors, references = random_lists(25, 6, seed)
    tuned = tune_weights(lists, references, seed=seed)
    rate = error_rates(lists, references, tuned)["rescored"]
    assert rate.errors == count(lists, errors, tuned)
    for other in (START, *({name: 1.0} for name in NAMES)):
        assert rate.errors <= error_rates(lists, references, other)["rescored"].errors


def test_a_line_search_finds_every_interval_of_the_step_function() -> None:
    """The chosen value has as few errors as the best of 800 others, none of them 0."""
    for seed in range(20):
        lists, errors, _ = random_lists(8, 9, seed, digits=0 if seed % 2 else 9)
        candidates = nbest._candidates(lists, errors, NAMES)
        assert candidates is not None
        for place in range(3):
            weights = np.random.default_rng(seed).normal(size=3)
            weights = np.round(weights) if seed % 2 else weights  # several lines cross at a point
            value = nbest._line_search(candidates, weights, place)
            trials = np.tile(weights, (801, 1))
            trials[:, place] = [value, *np.tan(np.linspace(-1.57, 1.57, 800))]
            errors_found, *others = map(candidates.count, trials)
            assert errors_found <= min(others)


def test_single_features_are_starts_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the result is not worse than any of them, even if the search finds nothing better."""
    monkeypatch.setattr(nbest, "_descend", lambda candidates, begin: begin)
    for seed in range(5):
        lists, errors, _ = random_lists(12, 6, seed)
        away = {"am": -1.0, "charlm": -1.0, "words": -1.0}
        tuned = count(lists, errors, nbest.tune(lists, errors, away, starts=0))
        assert tuned == min(count(lists, errors, {name: 1.0}) for name in NAMES)


def test_errors_of_padded_lists_are_those_of_the_lists() -> None:
    """Lists whose hypotheses have equal errors are left out, which is a constant."""
    lists, errors, _ = random_lists(20, 6, 1)
    candidates = nbest._candidates(lists, errors, NAMES)
    assert candidates is not None
    left_out = sum(int(each[0]) for each in errors if each.min() == each.max())
    for weights in np.random.default_rng(0).normal(size=(50, 3)):
        counted = count(lists, errors, dict(zip(NAMES, weights.tolist(), strict=True)))
        assert candidates.count(weights) + left_out == counted


def test_of_equal_weights_the_smallest_is_chosen() -> None:
    """A feature that cannot help gets the weight 0."""
    good = Hypothesis(text="a", features={"am": 2.0, "noise": 5.0}, words=1)
    bad = Hypothesis(text="x", features={"am": 1.0, "noise": 5.0}, words=1)
    lists = NBestLists([Utterance(name="u", hypotheses=(bad, good))], "jsonl")
    weights = nbest.tune(lists, [np.array([1, 0])], {"am": 1.0, "noise": 1.0, "words": 1.0})
    assert weights == {"am": 1.0, "noise": 0.0, "words": 0.0}


def test_tuning_depends_on_its_seed_only() -> None:
    lists, errors, _ = random_lists(20, 8, 5)
    assert nbest.tune(lists, errors, START, seed=3) == nbest.tune(lists, errors, START, seed=3)


def test_equal_hypotheses_cannot_be_tuned() -> None:
    lists, _, references = random_lists(3, 1, 0)
    with pytest.raises(CorpusError, match="equal errors"):
        tune_weights(lists, references)


def test_the_first_of_equal_hypotheses_is_the_best() -> None:
    hypotheses = tuple(Hypothesis(text=text, features={"am": 1.0}, words=1) for text in "ab")
    lists = NBestLists([Utterance(name="u", hypotheses=hypotheses)], "jsonl")
    assert [each.text for each in lists.best({"am": 1.0})] == ["a"]
    with pytest.raises(UsageError, match="'lm'"):
        lists.best({"lm": 1.0})

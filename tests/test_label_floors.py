"""Floors of labelled texts: the most frequent label, naive Bayes, and the best single unit."""

import math
import tracemalloc
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings
from charlm.text import bag_of_words, floors
from charlm.text.bag_of_words import BagOfWords
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.floors import best_unit, majority
from charlm.text.labelled import LABELLED
from charlm.text.labels import Labelled
from charlm.text.task_text import gold_of
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training.label_floors import floors_beside

WORDS, LABELS = 9, 3


def encoded(texts: list[list[int]]) -> EncodedText:
    ids = [index for text in texts for index in (*text, EOS)]
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    return EncodedText(ids=np.array(ids, np.uint8), ends=ends, counts=TextCounts(), is_stream=False)


def random_texts(seed: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, WORDS, rng.integers(0, 7)).tolist() for _ in range(count)]


def features(text: list[int]) -> set[object]:
    return {*text, *pairwise(text)}


def test_the_majority_is_the_most_frequent_known_label():
    assert majority(np.array([-1, -1, -1, 2, 2, 0], np.int32), 3) == 2
    assert majority(np.array([1, 0], np.int32), 3) == 0


@pytest.mark.parametrize(("at_once", "features_at_once"), [(1, 1), (7, 30), (7, 1), (1000, 1000)])
def test_naive_bayes_is_that_of_the_formula(at_once, features_at_once, monkeypatch):
    """ln P(label) + the sum of ln P(feature | label), with one added to each count."""
    monkeypatch.setattr(bag_of_words, "TEXTS_AT_ONCE", at_once)
    monkeypatch.setattr(bag_of_words, "FEATURES_AT_ONCE", features_at_once)
    texts, later = random_texts(1, 40), [*random_texts(2, 15), [], [2, 2, 2]]
    targets = np.random.default_rng(3).integers(0, LABELS, 40).astype(np.int32)
    bayes = BagOfWords.naive_bayes(encoded(texts), targets, LABELS, WORDS)
    counts = [Counter[object]() for _ in range(LABELS)]
    for text, target in zip(texts, targets, strict=True):
        counts[target].update(features(text))
    known = set().union(*counts)
    expected = [
        math.log(np.mean(targets == label))
        + sum(
            math.log((counts[label][each] + 1) / (counts[label].total() + len(known)))
            for each in features(text) & known
        )
        for text, label in product(later, range(LABELS))
    ]
    assert bayes.logits(encoded(later)).ravel() == pytest.approx(expected, rel=1e-12)


def test_naive_bayes_is_that_of_scikit_learn():
    bayes = pytest.importorskip("sklearn.naive_bayes")
    count = pytest.importorskip("sklearn.feature_extraction.text").CountVectorizer
    texts, later = random_texts(4, 60), random_texts(5, 30)
    targets = np.random.default_rng(6).integers(0, LABELS, 60).astype(np.int32)
    as_words = [[" ".join(map(str, text)) for text in each] for each in (texts, later)]
    counter = count(token_pattern=r"\S+", ngram_range=(1, 2), binary=True)
    oracle = bayes.MultinomialNB().fit(counter.fit_transform(as_words[0]), targets)
    ours = BagOfWords.naive_bayes(encoded(texts), targets, LABELS, WORDS).logits(encoded(later))
    joint = oracle.predict_joint_log_proba(counter.transform(as_words[1]))
    assert ours == pytest.approx(joint, rel=1e-9)


def test_naive_bayes_of_many_texts_needs_the_memory_of_few(monkeypatch):
    """A table of 300 MB took more than 2 GB: all features of all texts were held at a time."""
    monkeypatch.setattr(bag_of_words, "TEXTS_AT_ONCE", 500)
    monkeypatch.setattr(bag_of_words, "FEATURES_AT_ONCE", 1000)

    def peak(count: int) -> int:
        text, targets = encoded(random_texts(1, count)), np.arange(count, dtype=np.int32) % LABELS
        tracemalloc.start()
        BagOfWords.naive_bayes(text, targets, LABELS, WORDS)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(10_000) < 1.5 * peak(1_000)


def test_a_label_without_a_training_text_is_never_chosen():
    bayes = BagOfWords.naive_bayes(encoded([[2], [3]]), np.array([0, 2], np.int32), LABELS, WORDS)
    assert bayes.logits(encoded([[], [2], [8]])).argmax(axis=1).tolist() == [0, 0, 0]


# ------------------------------------------------------------------ single units


def best_threshold(values: list[float], targets: list[int]) -> float:
    """Return the accuracy of the best threshold, by trying every one."""
    cuts = [-math.inf, *values]
    rules = [[(value > cut) == side for value in values] for cut in cuts for side in (True, False)]
    return max(np.mean([bool(t) == g for t, g in zip(targets, r, strict=True)]) for r in rules)


def test_rare_features_are_left_out_of_a_bag_of_words() -> None:
    """The weights of the others stay; `times` multiplies all logits."""
    text, targets = encoded([[2, 3], [2, 4], [2, 3]]), np.array([0, 1, 2], np.int32)
    whole = BagOfWords.naive_bayes(text, targets, LABELS, WORDS)
    part = BagOfWords.naive_bayes(text, targets, LABELS, WORDS, least=2)
    kept = np.isin(whole.features, part.features)
    assert part.features.tolist() == [2, 3, 3 * WORDS + 3]
    assert np.array_equal(part.weights, whole.weights[kept])
    assert np.allclose(part.times(0.5).logits(text), part.logits(text) / 2)
    none = BagOfWords.naive_bayes(text, targets, LABELS, WORDS, least=9)
    assert np.allclose(none.logits(text), none.priors)


@pytest.mark.parametrize("seed", range(5))
def test_one_threshold_is_as_good_as_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (25, 4)).astype(np.float32)
    targets = rng.integers(0, 2, 25).astype(np.int32)
    unit, accuracy = best_unit(values, targets, values, targets, 2)
    each = [best_threshold(column.tolist(), targets.tolist()) for column in values.T]
    assert (unit, accuracy) == (int(np.argmax(each)), pytest.approx(max(each)))


@pytest.mark.parametrize("labels", [2, 3])
def test_the_unit_that_knows_the_label_is_found_and_judged_on_other_texts(labels, monkeypatch):
    monkeypatch.setattr(floors, "UNITS_AT_ONCE", 2)
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(60, 5)), rng.integers(0, labels, 60).astype(np.int32)
    values[:, 3] = 9.0 * (labels - targets) + rng.normal(size=60)
    train, valid = slice(0, 40), slice(40, 60)
    other = targets[valid].copy()
    other[:5] = (other[:5] + 1) % labels
    assert best_unit(values[train], targets[train], values[valid], other, labels) == (3, 0.75)


def test_a_bag_that_is_better_than_the_network_beside_it_is_reported(tmp_path: Path) -> None:
    """The run is as good as the bag mixed into it, so it cannot show that the network is worse."""
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "a\tgood\nb\tbad\n" * 40, encoding="utf-8")
    sources = [str(tmp_path / "a.tsv")]
    dataset = LABELLED.load(Settings(corpus=CorpusSettings(sources=sources, valid=sources)))
    right = np.eye(2)[gold_of(dataset, Labelled).targets["valid"]]
    guess = np.eye(2)[np.zeros(len(right), np.int64)]

    def over_network(network: np.ndarray, bag: np.ndarray | None) -> bool:
        return floors_beside(dataset, "valid", right, network, bag)[1].over_network

    assert over_network(guess, right)
    assert not over_network(right, right)
    assert not over_network(right, guess)
    assert not over_network(guess, None)

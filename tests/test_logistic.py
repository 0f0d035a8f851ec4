"""Logistic regression on words and pairs: the least loss, by its definition."""

import numpy as np
import pytest

from charlm.backends.softmax import log_softmax
from charlm.text.bag_of_words import BagOfWords, Floats
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.labels import Targets
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training import bag as fitting
from charlm.training.bag import PENALTY, logistic_regression

WORDS, LABELS, TEXTS = 9, 3, 80


def encoded(texts: list[list[int]]) -> EncodedText:
    ids = [index for text in texts for index in (*text, EOS)]
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    return EncodedText(ids=np.array(ids, np.uint8), ends=ends, counts=TextCounts(), is_stream=False)


def examples(labels: int = LABELS) -> tuple[list[list[int]], Targets]:
    rng = np.random.default_rng(0)
    texts = [rng.integers(2, WORDS, rng.integers(0, 7)).tolist() for _ in range(TEXTS)]
    return texts, rng.integers(0, labels, TEXTS).astype(np.int32)


def fitted(texts: list[list[int]], targets: Targets, labels: int = LABELS) -> BagOfWords:
    """Return the regression on the features of two texts or more."""
    bayes = BagOfWords.naive_bayes(encoded(texts), targets, labels, WORDS, least=2)
    return logistic_regression(bayes, encoded(texts), targets)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "TOLERANCE", 1e-12)
    monkeypatch.setattr(fitting, "EVALUATIONS", 500)


@pytest.mark.parametrize("labels", [2, LABELS])
def test_no_other_weights_have_a_smaller_loss(labels: int, exact: None) -> None:
    """The loss of the definition, with the features of each text in a dense table."""
    texts, targets = examples(labels)
    bag = fitted(texts, targets, labels)
    table = np.zeros((TEXTS, len(bag.features)))
    table[bag.places(encoded(texts))] = 1.0
    rarity = np.log((1 + TEXTS) / (1 + table.sum(axis=0))) + 1.0
    penalty = PENALTY * ((table * rarity) ** 2).sum() / TEXTS

    def loss(weights: Floats, priors: Floats) -> float:
        nats = -log_softmax(table @ weights + priors)[np.arange(TEXTS), targets].sum()
        return float(nats + penalty / 2 * ((weights / rarity[:, np.newaxis]) ** 2).sum())

    least, rng = loss(bag.weights, bag.priors), np.random.default_rng(1)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(20):
            weights = bag.weights + size * rng.normal(size=bag.weights.shape)
            assert loss(weights, bag.priors + size * rng.normal(size=labels)) > least
    for factor in (0.95, 1.05):
        assert loss(bag.weights * factor, bag.priors) > least


def test_mean_probabilities_are_the_frequencies_of_labels(exact: None) -> None:
    """The gradient of priors without a penalty is 0; weights of a feature sum to 0."""
    texts, targets = examples()
    bag = fitted(texts, targets)
    means = np.exp(log_softmax(bag.logits(encoded(texts)))).mean(axis=0)
    assert means == pytest.approx(np.bincount(targets) / TEXTS, abs=1e-4)
    assert np.abs(bag.weights.sum(axis=1)).max() < 1e-9


def test_of_very_many_texts_every_nth_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, targets = examples()
    whole = BagOfWords.naive_bayes(encoded(texts), targets, LABELS, WORDS)
    entries = len(whole.places(encoded(texts))[0]) * LABELS
    part = logistic_regression(whole, encoded(texts[::3]), targets[::3])
    monkeypatch.setattr(fitting, "MAX_ENTRIES", int(entries / 2.5))
    assert np.array_equal(logistic_regression(whole, encoded(texts), targets).weights, part.weights)

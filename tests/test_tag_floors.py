"""The most frequent tag of each word, as counted by hand."""

from collections import Counter

import numpy as np

from charlm.config.corpus import VocabularySettings
from charlm.text.labels import UNSEEN
from charlm.text.sentences import Sentences, encode_sentences
from charlm.text.tag_floors import FrequentTag
from charlm.text.tokenizers.building import build_vocabulary

WORDS = build_vocabulary(
    lambda: ["a A b c"], VocabularySettings(unit="word", words="whitespace", lowercase=True)
).vocabulary


def sentences(*texts: str) -> Sentences:
    return encode_sentences([text.split() for text in texts], WORDS)


def test_words_have_their_most_frequent_tag_and_others_that_of_all():
    made = sentences("a b a A", "", "a b c")
    floor = FrequentTag.fit(made, np.array([2, 1, 2, 0, 0, 1, 1], np.int32), 4)
    assert floor.tags(sentences("new a A", "b c", "")).tolist() == [1, 2, 0, 1, 1]


def test_the_first_of_several_tags_and_no_unseen_one_is_chosen():
    made = sentences("a b b")
    floor = FrequentTag.fit(made, np.array([UNSEEN, 2, 0], np.int32), 3)
    assert floor.tags(sentences("b a x")).tolist() == [0, 0, 0]


def test_random_words_have_the_tag_that_a_count_gives():
    random = np.random.default_rng(1)
    words = random.choice(list("abcdefgh"), 400).tolist()
    targets = random.integers(0, 5, 400).astype(np.int32)
    made = encode_sentences([words[:150], words[150:]], WORDS)
    floor = FrequentTag.fit(made, targets, 5)
    for word in set(words):
        own = Counter(t for w, t in zip(words, targets.tolist(), strict=True) if w == word)
        most = max(own.values())
        assert floor.best[word] == min(tag for tag, count in own.items() if count == most)

"""Surprisals of words: the law of their sum, properness, and hand-made cases of every unit."""

import math
import unicodedata

import numpy as np
import pytest
from helpers import CORPUS, engine, tiny_model, vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.inference.scoring import Score, Scorer
from charlm.inference.words import BOUNDARIES, WORD_CHARS, WordRule
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.vocabulary import Vocabulary

TEXT = CORPUS + "a\u00a0b\u3000c \u00a0 d\n don’t “stop”, he said. ab  ab\tab\n" * 3
VOCABULARIES: dict[str, Vocabulary] = {
    "char": vocabulary_of(TEXT, "char"),
    "char nfkc": vocabulary_of(TEXT, "char", normalize="nfkc", lowercase=True),
    "byte": vocabulary_of(TEXT, "byte"),
    "byte nfc": vocabulary_of(TEXT, "byte", normalize="nfc"),
    "word": vocabulary_of(TEXT, "word"),
    "word nfkc": vocabulary_of(TEXT, "word", normalize="nfkc", lowercase=True),
    "words": vocabulary_of(TEXT, "word", words="whitespace"),
    "bpe": vocabulary_of(TEXT, "bpe", max_size=330),
    "bpe nfkc": vocabulary_of(TEXT, "bpe", max_size=330, normalize="nfkc", lowercase=True),
}
BACKENDS = {
    name: engine(tiny_model("lstm", len(vocabulary), scale=3.0))
    for name, vocabulary in VOCABULARIES.items()
}
DOCUMENTS = ("stream", "file", "line", "crlf")
LETTERS = st.one_of(
    st.sampled_from("ab \t\n\r\u00a0\u3000\u2028'’.“é\u0301\u0345İſ\u00a8猫\x1c\x85"),
    st.characters(codec="utf-8"),
)
every_name = pytest.mark.parametrize("name", VOCABULARIES)
every_boundary = pytest.mark.parametrize("boundary", BOUNDARIES)
every_cut = pytest.mark.parametrize("chars", WORD_CHARS)


def scorer(
    name: str, boundary: str = "trailing", chars: str = "blank", document: str = "stream", **options
) -> Scorer:
    vocabulary = VOCABULARIES[name]
    rules = Boundaries(
        document=document.replace("crlf", "line"),
        line_end_is_eos=vocabulary.line_ends_are_eos,
        crlf=document == "crlf",
    )
    rule = WordRule(boundary=boundary, chars=chars)
    return Scorer(BACKENDS[name], vocabulary, rules, word_rule=rule, **options)


def last_cost(over: Scorer, score: Score) -> float:
    """Return -ln B after the last word, if no token of the text follows it, else 0."""
    entries = over._words.entries
    last = score.text[-1:]
    letter = last == "_" or (last and unicodedata.category(last)[0] in "LMN")
    certain = over.word_rule.chars == "text" and not letter
    if over.end or entries is None or not score.words or certain:
        return 0.0
    ids = over.vocabulary.encode(score.text).astype(np.int64)
    if score.words[-1].end < len(score.text.rstrip("\n")) or score.text.endswith("\n"):
        return 0.0
    logits, _ = over.backend.logits(np.array([[1, *ids]]).T, over.backend.initial_state(1))
    return float(np.logaddexp.reduce(logits[0]) - np.logaddexp.reduce(logits[0][entries]))


@every_name
@every_boundary
@every_cut
@pytest.mark.parametrize("document", DOCUMENTS)
@given(text=st.text(LETTERS, max_size=12))
@example(text="the cat sat")
@example(text=" \u00a0the  cat\u3000\u00a0sat\t")
@example(text="don’t “stop”' he' said\r\nab")
@settings(max_examples=25)
def test_words_and_gaps_sum_to_the_text(
    name: str, boundary: str, chars: str, document: str, text: str
) -> None:
    """For any Unicode text: -ln P, and B after the last word where nothing follows it."""
    if name == "words" and chars == "text":
        return
    over = scorer(name, boundary, chars, document)
    (score,) = over.score([text], by="word")
    (plain,) = over.score([text])
    assert score.tally.nats == pytest.approx(plain.tally.nats, abs=1e-5, rel=1e-6)
    for word in score.words:
        assert word.word == text[word.start : word.end]
        assert word.word
        assert math.isfinite(word.nats)
        assert word.gap >= -1e-5
    if score.words:
        total = sum(word.nats + word.gap for word in score.words)
        expected = score.tally.nats + (boundary == "trailing") * last_cost(over, score)
        assert total == pytest.approx(expected, abs=1e-4)

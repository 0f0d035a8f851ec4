"""Surprisals of words: the law of their sum, properness, and hand-made cases of every unit."""

import math
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from helpers import CORPUS, engine, tiny_model, vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.backends.mixed import MixedBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.errors import UsageError
from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer
from charlm.inference.words import BOUNDARIES, WORD_CHARS, WordReader, WordRule
from charlm.ngrams.kneser_ney import fit
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
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


def in_each_document(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a text an example of a test for each kind of document."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for document in DOCUMENTS:
            test = example(text=text, document=document)(test)
        return test

    return decorate


@every_name
@every_cut
@given(text=st.text(LETTERS, max_size=12), document=st.sampled_from(DOCUMENTS))
@in_each_document("the cat sat")
@in_each_document(" \u00a0the  cat\u3000\u00a0sat\t")
@in_each_document("don’t “stop”' he' said\r\nab")
@in_each_document("a\n\u0301b")  # a combining mark at the beginning of a document
@settings(max_examples=40)
def test_words_and_gaps_sum_to_the_text(name: str, chars: str, document: str, text: str) -> None:
    """For any Unicode text: -ln P, and B after the last word where nothing follows it."""
    if name == "words" and chars == "text":
        return
    (plain,) = scorer(name, document=document).score([text])
    for boundary in BOUNDARIES:
        over = scorer(name, boundary, chars, document)
        (score,) = over.score([text], by="word")
        assert score.tally.nats == pytest.approx(plain.tally.nats, abs=1e-5, rel=1e-6), boundary
        for word in score.words:
            assert word.word == text[word.start : word.end], boundary
            assert word.word, boundary
            assert math.isfinite(word.nats), boundary
            assert word.gap >= -1e-5, boundary
        if score.words:
            total = sum(word.nats + word.gap for word in score.words)
            expected = score.tally.nats + (boundary == "trailing") * last_cost(over, score)
            assert total == pytest.approx(expected, abs=1e-4), boundary


# ------------------------------------------------------------------ probabilities


class Toy:
    """A backend whose next token depends on the last one only: rows of a table of probabilities."""

    name = "toy"

    def __init__(self, vocabulary: Vocabulary, rows: dict[str, dict[str, float]]) -> None:
        ids = {vocabulary.token_text(index): index for index in range(len(vocabulary))}
        self.vocab_size = self.logits_each = len(vocabulary)
        self.table = np.full((len(vocabulary), len(vocabulary)), -np.inf)
        for last, row in rows.items():
            for token, probability in row.items():
                self.table[ids[last], ids[token]] = math.log(probability)

    def initial_state(self, batch_size: int):
        return ((np.zeros((batch_size, 1), np.float32),),)

    def nats(self, inputs, targets, state):
        return -self.table[inputs, targets], state

    def masses(self, inputs, targets, entries, state):
        masses = np.logaddexp.reduce(self.table[inputs][..., entries], axis=-1)
        return -self.table[inputs, targets], masses, state


LETTERWISE = {
    "<eos>": {"a": 0.5, "b": 0.5},
    " ": {"a": 0.6, "b": 0.4},
    "a": {" ": 0.2, "b": 0.7, "\n": 0.1},
    "b": {" ": 0.9, "\n": 0.1},
    "\n": {"a": 0.5, "b": 0.5},
}
"""A language of the words a, ab and b."""
TOYS: dict[str, tuple[Vocabulary, dict[str, dict[str, float]]]] = {
    "char": (vocabulary_of("ab \n" * 9, "char"), LETTERWISE),
    "byte": (vocabulary_of("ab \n" * 9, "byte"), LETTERWISE),
    "word": (
        vocabulary_of("a ab b\n" * 9, "word"),
        {
            "<eos>": {"a": 0.2, "ab": 0.3, "b": 0.5},
            " ": {"a": 0.2, "ab": 0.3, "b": 0.5},
            "b": {" ": 0.8, "\n": 0.2},
            "a": {" ": 1.0},
            "ab": {" ": 1.0},
        },
    ),
    "words": (
        vocabulary_of("a ab b\n" * 9, "word", words="whitespace"),
        {"<eos>": {"b": 1.0}, "b": {"a": 0.2, "ab": 0.3, "b": 0.4, "<eos>": 0.1}},
    ),
    "bpe": (
        vocabulary_of("b a b ab b b b\n" * 9, "bpe", max_size=260),
        {
            "<eos>": {"a": 0.4, "b": 0.6},
            " a": {"b": 0.7, " a": 0.1, " b": 0.1, "\n": 0.1},
            "a": {" a": 0.3, " b": 0.2, "b": 0.5},
            "b": {" a": 0.6, " b": 0.4},
            " b": {" a": 0.5, " b": 0.5},
        },
    ),
    "spelled bpe": (
        vocabulary_of("b a a b a ab a\n" * 9, "bpe", max_size=259),
        {
            "<eos>": {"a": 1.0},
            "a": {" a": 0.3, " ": 0.2, "b": 0.5},
            " a": {"b": 0.7, " a": 0.15, " ": 0.15},
            "b": {" a": 0.5, " ": 0.5},
            " ": {"b": 1.0},
        },
    ),
}


def toy_scorer(unit: str, boundary: str = "trailing", chars: str = "blank") -> Scorer:
    vocabulary, rows = TOYS[unit]
    rules = Boundaries(line_end_is_eos=vocabulary.line_ends_are_eos)
    rule = WordRule(boundary=boundary, chars=chars)
    return Scorer(Toy(vocabulary, rows), vocabulary, rules, word_rule=rule)


@pytest.mark.parametrize("chars", WORD_CHARS)
@pytest.mark.parametrize("unit", TOYS)
def test_the_probabilities_of_all_words_after_a_context_sum_to_1(unit: str, chars: str) -> None:
    """With `trailing`; the next word is a, ab or b, or in `words` the end of the line."""
    if unit == "words" and chars == "text":
        return
    before = "b" if unit == "words" else "a"
    scores = toy_scorer(unit, chars=chars).score(
        [f"{before} {word} b" for word in ("a", "ab", "b")], by="word"
    )
    total = sum(math.exp(-score.words[1].nats) for score in scores)
    assert total == pytest.approx(0.9 if unit == "words" else 1.0)


@pytest.mark.parametrize("unit", ["char", "bpe"])
def test_leading_probabilities_do_not_sum_to_1(unit: str) -> None:
    scores = toy_scorer(unit, "leading").score(
        [f"a {word} b" for word in ("a", "ab", "b")], by="word"
    )
    assert abs(sum(math.exp(-score.words[1].nats) for score in scores) - 1.0) > 0.05


def figures(score: Score) -> list[tuple[str, float, float]]:
    """Return each word with its probability, and that of its gap."""
    return [(word.word, math.exp(-word.nats), math.exp(-word.gap)) for word in score.words]


def test_characters_by_hand() -> None:
    """P(a), P(b | a), P(word ends) = P(blank or line end), P(blank | word ends), ..."""
    (trailing,) = toy_scorer("char").score(["ab a"], by="word")
    ((_, first, gap), (_, last, rest)) = figures(trailing)
    assert (first, gap) == pytest.approx((0.5 * 0.7 * 1.0, 0.9))
    assert (last, rest) == pytest.approx((0.6 * (0.2 + 0.1), 1.0))
    (leading,) = toy_scorer("char", "leading").score(["ab a"], by="word")
    ((_, first, gap), (_, last, rest)) = figures(leading)
    assert (first, gap) == pytest.approx((0.5 * 0.7, 1.0))
    assert (last, rest) == pytest.approx((0.9 * 0.6, 1.0))
    counts = [[word.tokens for word in score.words] for score in (trailing, leading)]
    assert counts == [[2, 1], [2, 2]]


def test_byte_pairs_by_hand() -> None:
    """The mass of the entries that begin with a blank moves from a word to the one before."""
    (trailing,) = toy_scorer("bpe").score(["a ab"], by="word")
    ((_, first, gap), (_, last, rest)) = figures(trailing)
    assert (first, gap) == pytest.approx((0.4 * (0.3 + 0.2), 1.0))
    assert (last, rest) == pytest.approx((0.3 / (0.3 + 0.2) * 0.7 * 1.0, 1.0))
    (trailing,) = toy_scorer("bpe").score(["b a\n"], by="word")
    assert figures(trailing)[1][1:] == pytest.approx((0.6 * 0.3, 0.1 / 0.3))
    (leading,) = toy_scorer("bpe", "leading").score(["a ab"], by="word")
    assert [first for _, first, _ in figures(leading)] == pytest.approx([0.4, 0.3 * 0.7])


def test_a_blank_that_spells_a_rare_word_is_one_of_its_tokens() -> None:
    """No entry is " b": the blank alone says that b or another rare word follows."""
    (score,) = toy_scorer("spelled bpe").score(["a b"], by="word")
    assert figures(score)[0][2] == pytest.approx(1.0)
    assert figures(score)[1][1:] == pytest.approx((0.2 / (0.3 + 0.2) * 1.0, 1.0))
    assert score.words[1].tokens == 2
    assert score.words[1].start == 2


def test_further_blanks_before_byte_pairs_are_in_the_gap() -> None:
    """A blank alone before " ab" spells nothing; B before " ab" is in the gap too."""
    vocabulary, rows = TOYS["bpe"]
    rows = rows | {
        "a": {" a": 0.3, " b": 0.1, " ": 0.1, "b": 0.5},
        " ": {" a": 0.2, " b": 0.1, "b": 0.7},
    }
    over = Scorer(Toy(vocabulary, rows), vocabulary, Boundaries())
    spaced, joined = over.score(["a  ab", "a ab"], by="word")
    assert figures(spaced)[0][1:] == pytest.approx((0.4 * 0.5, 0.1 / 0.5 * 0.3))
    assert figures(spaced)[1][1:] == pytest.approx((0.2 / 0.3 * 0.7, 1.0))
    assert spaced.words[1].tokens == joined.words[1].tokens == 2
    (given,) = over.score([" ab"], by="word", contexts=["a"])
    assert figures(given) == [("ab", *map(pytest.approx, (0.3 / 0.5 * 0.7, 0.5)))]


def test_words_that_are_tokens_have_their_own_surprisal() -> None:
    """Both rules agree, and the end of the line is in the gap."""
    for boundary in BOUNDARIES:
        (score,) = toy_scorer("words", boundary).score(["b b"], by="word")
        expected = [
            ("b", pytest.approx(1.0), pytest.approx(1.0)),
            ("b", *map(pytest.approx, (0.4, 0.1))),
        ]
        assert figures(score) == expected


def test_a_blank_of_two_bytes_is_part_of_the_boundary_after_its_word() -> None:
    """B has the entries that begin with a whole blank, and what really followed."""
    vocabulary, rows = TOYS["byte"]
    rows = rows | {
        "a": {" ": 0.2, "b": 0.5, "<0xC2>": 0.3},
        "<0xC2>": {"<0xA0>": 0.4, "<0xA9>": 0.6},
    }
    rows |= {"<0xA0>": {"b": 1.0}}
    over = Scorer(Toy(vocabulary, rows), vocabulary, Boundaries())
    spaced, unbroken, sign = over.score(["a b ", "a\u00a0b ", "a\u00a9"], by="word")
    assert figures(spaced)[0][1:] == pytest.approx((0.5 * 0.2, 1.0))
    blank = 0.3 * 0.4
    assert figures(unbroken)[0][1:] == pytest.approx((0.5 * (0.2 + blank), blank / (0.2 + blank)))
    assert [word.word for word in sign.words] == ["a\u00a9"]


def test_the_end_of_a_line_is_in_the_gap_with_either_rule() -> None:
    for boundary in BOUNDARIES:
        (score,) = toy_scorer("words", boundary).score(["b\nb"], by="word")
        assert figures(score) == [("b", pytest.approx(1.0), pytest.approx(0.1))] * 2


def test_a_quote_at_the_end_of_a_word_counts_as_its_end() -> None:
    """With --word-chars text: an apostrophe before a blank ends a word, one before a letter not."""
    vocabulary = vocabulary_of("ab '\n" * 9, "char")
    rows = LETTERWISE | {"a": {" ": 0.2, "'": 0.3, "b": 0.5}, "'": {" ": 0.6, "b": 0.4}}
    rule = WordRule(chars="text")
    over = Scorer(Toy(vocabulary, rows), vocabulary, Boundaries(), word_rule=rule)
    quoted, joined = over.score(["a' b ", "a'b "], by="word")
    ends = 0.2 + 0.3 * 0.6
    assert figures(quoted)[0][1:] == pytest.approx((0.5 * ends, 1.0))
    assert figures(quoted)[1][1:] == pytest.approx((0.3 / ends, 0.6))
    assert figures(joined)[0][1:] == pytest.approx((0.5 * 0.3 * 0.4 * 1.0, 0.9))


@pytest.mark.parametrize("ends", [True, False])
def test_the_entries_that_end_a_word(ends: bool) -> None:
    """Blanks, tokens that begin with one, and EOS if texts end; no part of a character."""
    byte = WordReader(VOCABULARIES["byte"], WordRule(), ends=ends)
    blanks = {2 + code for code in b"\t\n\x0b\x0c\r "}
    assert set(np.flatnonzero(byte.entries)) == blanks | ({1} if ends else set())
    bpe = WordReader(VOCABULARIES["bpe"], WordRule(), ends=ends)
    tokens = [VOCABULARIES["bpe"].token_text(index) for index in np.flatnonzero(bpe.entries)]
    assert {" the", "\n", " "} <= set(tokens)
    assert all(token[0].isspace() or token[:5] in ("<eos>", "<0x20") for token in tokens)


def test_words_of_lines_with_cr_are_those_without() -> None:
    over = scorer("char", document="line")
    with_cr, without = over.score(["ab\r\nthe  cat\r\n", "ab\nthe  cat"], by="word")
    assert [word[:3] for word in with_cr.words] == [
        (word.word, pytest.approx(word.nats, abs=1e-5), pytest.approx(word.gap, abs=1e-5))
        for word in without.words
    ]
    assert [word.start for word in with_cr.words] == [0, 4, 9]


# ------------------------------------------------------------------ cut, offsets, contexts


@every_name
@given(text=st.text(LETTERS, max_size=12))
@settings(max_examples=25)
def test_words_are_what_blanks_separate(name: str, text: str) -> None:
    """Words of the text as it is given, whatever the vocabulary makes of it."""
    (score,) = scorer(name).score([text], by="word")
    blanks = "".join(
        chr(code) for code in range(0x3001) if chr(code).isspace() and code not in range(0x1C, 0x20)
    )
    words = "".join("\n" if letter in blanks else letter for letter in text).split("\n")
    assert [word.word for word in score.words] == [word for word in words if word]
    assert sum(word.oov for word in score.words) <= score.tally.oov


@pytest.mark.parametrize("name", ["char", "byte", "word", "bpe"])
def test_punctuation_is_apart_with_text(name: str) -> None:
    """Pieces as in `--words text`, also where byte pairs joined them."""
    (score,) = scorer(name, chars="text").score(["«Don't stop», he said!"], by="word")
    pieces = ["«", "Don't", "stop", "»", ",", "he", "said", "!"]
    joined = [word.word for word in score.words]
    assert joined == pieces or (name == "bpe" and "".join(joined) == "".join(pieces))


@every_name
@every_boundary
def test_many_texts_at_once_have_the_words_of_each_alone(name: str, boundary: str) -> None:
    texts = ["the cat", "", " \n", "don’t “stop”", "\u3000a  b", "zebra", "the"]
    over = scorer(name, boundary)
    for text, score in zip(texts, over.score(texts, by="word"), strict=True):
        (alone,) = over.score([text], by="word")
        assert [word[0] for word in score.words] == [word[0] for word in alone.words]
        both = [[word[1:3] for word in each.words] for each in (score, alone)]
        np.testing.assert_allclose(*both, atol=1e-4)
        assert [word[3:] for word in score.words] == [word[3:] for word in alone.words]


@every_name
@every_boundary
@every_cut
@pytest.mark.parametrize("context", ["the dog", "don’t\u3000", "a\n", "猫 ", "\n", "he said."])
def test_a_context_gives_the_words_of_the_whole_text(
    name: str, boundary: str, chars: str, context: str
) -> None:
    """ln P(text | context) = ln P(whole) - ln P(context), and the words are those of the whole."""
    if name == "words" and chars == "text":
        return
    over, text = scorer(name, boundary, chars), "cat sat on"
    blank = "" if context[-1].isspace() else " "
    space = (context + blank).endswith(" ")
    (whole,) = over.score([context + blank + text], by="word")
    for contexts in ([context, context], [context, "the"]):  # read once, or with each text
        given = over.score([text, "mat"], by="word", contexts=contexts)[0]
        words = whole.words[-3:]
        skip = int(boundary == "leading" and not space)  # the blank before the first word is read
        np.testing.assert_allclose(
            [word.nats for word in given.words[skip:]],
            [word.nats for word in words[skip:]],
            atol=1e-4,
        )
        shift = len(context + blank)
        assert [word.start for word in given.words] == [word.start - shift for word in words]
        if space and not over.end:
            (before,) = over.score([context.removesuffix(" ")])
            expected = whole.tally.nats - before.tally.nats
            assert given.tally.nats == pytest.approx(expected, abs=1e-4)
        tokens = over.score([text, "mat"], by="token", contexts=contexts)[0].tokens
        assert sum(token.nats for token in tokens) == pytest.approx(given.tally.nats, abs=1e-4)
        if boundary == "leading":
            total = sum(word.nats + word.gap for word in given.words)
            assert total == pytest.approx(given.tally.nats, abs=1e-4)


@pytest.mark.parametrize("document", ["line", "crlf"])
def test_a_context_ends_where_a_document_ends(document: str) -> None:
    """A model of lines reads a line without those before it."""
    over = scorer("char", document=document)
    (alone,) = over.score(["the cat"])
    (after,) = over.score(["the cat"], contexts=["a dog\n"])
    (same,) = over.score(["the cat"], contexts=["a dog\nthe mat"])
    (last,) = over.score(["the cat"], contexts=["the mat"])
    assert after.tally.nats == pytest.approx(alone.tally.nats, abs=1e-5)
    assert same.tally.nats == pytest.approx(last.tally.nats, abs=1e-5)
    assert same.tally.nats != pytest.approx(alone.tally.nats, abs=1e-2)


@pytest.mark.parametrize("kind", ["ngram", "mixed"])
@every_boundary
@pytest.mark.parametrize("name", ["char", "byte", "word", "words", "bpe"])
def test_other_backends_obey_the_law(name: str, boundary: str, kind: str) -> None:
    vocabulary = VOCABULARIES[name]
    model, _ = fit(vocabulary.encode(TEXT).astype(np.int64), len(vocabulary), 3)
    ngram = NgramBackend(model)
    backend = ngram if kind == "ngram" else MixedBackend([ngram, BACKENDS[name]], [0.4, 0.6])
    rules = Boundaries(document="line", line_end_is_eos=vocabulary.line_ends_are_eos)
    over = Scorer(backend, vocabulary, rules, word_rule=WordRule(boundary=boundary))
    for score in over.score(["the cat sat", " a\u00a0b\u3000 c ", "don’t  stop\nab"], by="word"):
        total = sum(word.nats + word.gap for word in score.words)
        assert total == pytest.approx(score.tally.nats, abs=1e-5)


# ------------------------------------------------------------------ misuse


def test_what_has_no_words_is_refused() -> None:
    backward = Scorer(BACKENDS["char"], BackwardVocabulary(VOCABULARIES["char"]), Boundaries())
    with pytest.raises(UsageError, match="reads backward; expected one that reads forward"):
        backward.score(["a b"], by="word")
    with pytest.raises(UsageError, match="context with a model that reads backward"):
        backward.score(["a b"], contexts=["c"])
    with pytest.raises(UsageError, match="context with carry"):
        scorer("char", carry=True).score(["a b"], contexts=["c"])
    with pytest.raises(UsageError, match="word_chars is text"):
        scorer("words", chars="text").score(["a b"], by="word")
    with pytest.raises(UsageError, match=r"boundary is 'trailng'.*did you mean 'trailing'"):
        WordRule(boundary="trailng")
    with pytest.raises(UsageError, match="by is 'words'"):
        scorer("char").score(["a b"], by="words")


def test_a_vocabulary_without_blanks_has_one_word_a_text() -> None:
    """No entry ends a word, so the end of the text costs nothing."""
    vocabulary = vocabulary_of("春眠不覺曉處處聞啼鳥" * 3, "char")
    over = Scorer(engine(tiny_model("lstm", len(vocabulary))), vocabulary, Boundaries())
    (score,) = over.score(["春眠不覺曉"], by="word")
    ((word,),) = (score.words,)
    assert (word.word, word.tokens, word.gap) == ("春眠不覺曉", 5, 0.0)
    assert word.nats == pytest.approx(score.tally.nats)


def test_impossible_words_are_infinite_and_leave_the_others_alone() -> None:
    (score,) = toy_scorer("char").score(["ab ba ab"], by="word")
    nats = [word.nats for word in score.words]
    assert nats[1] == math.inf
    assert np.isfinite([nats[0], nats[2]]).all()
    assert not any(math.isnan(word.gap) for word in score.words)


@every_name
@every_boundary
@pytest.mark.parametrize("document", ["stream", "file"])
def test_words_of_lines_of_one_text_add_up(name: str, boundary: str, document: str) -> None:
    """With --carry, the line end after each line is in the gap of its last word."""
    texts = ["the cat", "don’t stop", "a\u00a0b", "the  mat "]
    over = scorer(name, boundary, document=document, carry=True, lines=True)
    plain = scorer(name, boundary, document=document, carry=True, lines=True)
    scores = over.score(texts[:2], by="word") + over.score(texts[2:], by="word")
    for score, expected in zip(scores, plain.score(texts), strict=True):
        total = sum(word.nats + word.gap for word in score.words)
        assert total == pytest.approx(expected.tally.nats, abs=1e-4)

"""Sentences of tagged words: every word has its own tokens, in every unit, and its batch."""

from functools import cache

import numpy as np
import pytest

from charlm.config.corpus import VocabularySettings
from charlm.text.batches import PADDING, Position
from charlm.text.sentences import Sentences, encode_sentences, split_words
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.text.word_batches import MAX_LETTERS, WordBatch, WordGroups, word_batch

SENTENCES = [
    ["EU", "rejects", "German", "call", "."],
    [],
    ["👩\u200d👩\u200d👧", "e\u0301te\u0301", "n\u0303", "\u0301x", "ﬁn", "İ"],
    [],
    ["10 000", "Redondo\u00a0Beach", "it's", "日本", "http://x.de/" + "a" * 90],
    ["EU", "."],
]
UNITS = [
    VocabularySettings(unit="word", words="whitespace", lowercase=True),
    VocabularySettings(unit="word", words="text", normalize="nfkc"),
    VocabularySettings(unit="word", words="bare"),
    VocabularySettings(unit="char", normalize="nfc"),
    VocabularySettings(unit="byte"),
    VocabularySettings(unit="byte", normalize="nfkc"),
    VocabularySettings(unit="bpe", max_size=280),
]


@cache
def vocabulary(settings: VocabularySettings) -> Vocabulary:
    text = "\n".join(" ".join(words) for words in SENTENCES * 2)
    return build_vocabulary(lambda: [text], settings).vocabulary


def sentences(settings: VocabularySettings = UNITS[0]) -> Sentences:
    return encode_sentences(SENTENCES, vocabulary(settings))


@pytest.mark.parametrize("settings", UNITS, ids=repr)
def test_each_word_has_tokens_that_no_other_word_has(settings: VocabularySettings):
    made = sentences(settings)
    assert made.documents == len(SENTENCES)
    for row, words in enumerate(SENTENCES):
        assert made.words_of(row) == words
        numbers = made.numbers(np.array([row]))
        firsts, lasts = made.firsts[numbers], made.lasts[numbers]
        assert (firsts <= lasts).all() and (firsts[1:] > lasts[:-1]).all()
        assert (firsts[:1] >= 0).all() and (lasts[-1:] < made.lengths[row] - 1).all()


def joined(text: str) -> str:
    """Return a text without its blanks."""
    return "".join(text.split())


@pytest.mark.parametrize("settings", UNITS, ids=repr)
def test_the_tokens_of_a_word_spell_it(settings: VocabularySettings):
    used, made = vocabulary(settings), sentences(settings)
    begin = 0
    for row, words in enumerate(SENTENCES):
        ids = made.text.ids[begin : made.text.ends[row]]
        begin = made.text.ends[row]
        assert ids[-1] == EOS
        for number, word in zip(made.numbers(np.array([row])), words, strict=True):
            own = ids[made.firsts[number] : made.lasts[number] + 1]
            if UNK not in own and not settings.normalize.startswith("nf"):
                assert joined(used.decode(own)) == joined(used.normalized(word))


def test_words_cut_at_blanks_are_single_tokens():
    made = encode_sentences([["EU", "rejects", "."]] * 2, vocabulary(UNITS[0]))
    assert made.firsts.tolist() == made.lasts.tolist() == [0, 1, 2] * 2
    assert made.spelling.tolist() == [0, 1, 2] * 2 and made.words == ["EU", "rejects", "."]


def test_a_word_without_a_token_is_read_at_the_one_before():
    made = encode_sentences([["\u00a0", "EU", "\u00a0", "."]], vocabulary(UNITS[0]))
    assert made.firsts.tolist() == made.lasts.tolist() == [0, 0, 0, 1]


def test_sentences_are_encoded_alike_in_any_number_of_chunks(monkeypatch: pytest.MonkeyPatch):
    whole = sentences()
    monkeypatch.setattr("charlm.text.sentences.CHUNK_CHARS", 1)
    pieces = sentences()
    assert whole.text.counts == pieces.text.counts
    assert whole.text.ids.tolist() == pieces.text.ids.tolist()
    assert whole.text.ends.tolist() == pieces.text.ends.tolist()
    assert whole.firsts.tolist() == pieces.firsts.tolist()
    assert whole.ends.tolist() == pieces.ends.tolist() == [5, 5, 11, 11, 16, 18]


def test_a_line_is_cut_into_words_with_their_places():
    text = " EU\trejects  it\u00a0all\r"
    assert split_words(text) == [("EU", 1), ("rejects", 4), ("it\u00a0all", 13)]
    assert all(text[at:].startswith(word) for word, at in split_words(text))


# ------------------------------------------------------------------ batches

LETTERS = VocabularySettings(unit="char", min_count=1)
ROWS = np.array([4, 1, 0, 5])


def test_a_batch_has_the_words_of_its_sentences_and_padding_behind():
    made = sentences()
    targets = np.arange(len(made.spelling), dtype=np.int32)
    batch = word_batch(made, ROWS, targets)
    assert batch.counts.tolist() == [5, 0, 5, 2] and batch.tokens == 12
    assert batch.targets.T.tolist() == [
        [11, 12, 13, 14, 15], [PADDING] * 5, [0, 1, 2, 3, 4], [16, 17, *[PADDING] * 3]
    ]  # fmt: skip
    assert batch.firsts[:, 1].tolist() == [0] * 5 and batch.lasts[2:, 3].tolist() == [0] * 3
    assert batch.firsts[:, 0].tolist() == [1, 3, 5, 6, 7]  # two words have a blank inside
    assert batch.lasts[:, 0].tolist() == [2, 4, 5, 6, 7]
    for column, row in enumerate(ROWS):
        assert batch.lengths[column] == made.lengths[row]
    assert batch.letters.shape == (1, 0) and not batch.spelled.any()


def test_every_step_of_a_word_has_its_spelling():
    letters = vocabulary(LETTERS)
    batch = word_batch(sentences(), ROWS, letters=letters)
    spellings = []
    for number, steps in enumerate(batch.letter_lengths):
        column = batch.letters[:, number]
        assert column[0] == EOS and (column[steps:] == EOS).all()
        spellings.append(letters.decode(column[1:steps]))
    assert len(set(spellings)) == len(spellings) == 10
    for column, row in enumerate(ROWS):
        expected = [""]
        for word in SENTENCES[row]:
            expected += [word[:MAX_LETTERS]] * (2 if " " in word or "\u00a0" in word else 1)
        read = batch.spelled[: batch.lengths[column], column]
        assert [spellings[number - 1] if number else "" for number in read] == expected
        assert not batch.spelled[batch.lengths[column] :, column].any()


@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_the_parts_of_a_batch_are_batches_of_their_sentences(parts: int):
    made, letters = sentences(), vocabulary(LETTERS)
    targets = np.arange(len(made.spelling), dtype=np.int32)
    pieces = word_batch(made, ROWS, targets, letters).split(parts)
    assert len(pieces) == min(parts, len(ROWS))
    for piece in pieces:
        alone = word_batch(made, piece.rows, targets, letters)
        for name in ("inputs", "targets", "lengths", "firsts", "lasts", "counts", "spelled"):
            assert getattr(piece, name).tolist() == getattr(alone, name).tolist(), name
        assert isinstance(piece, WordBatch) and piece.letters.tolist() == alone.letters.tolist()
        assert piece.tokens == alone.tokens


def test_an_epoch_has_every_word_once_with_its_tag():
    made, letters = sentences(), vocabulary(LETTERS)
    targets = np.arange(len(made.spelling), dtype=np.int32)
    groups = WordGroups(made, targets, 4, 1, letters)
    batches = list(groups.epoch(Position()))
    assert [len(batch.rows) for batch in sorted(batches, key=lambda b: -len(b.rows))] == [4, 2]
    tags = np.concatenate([batch.targets[batch.targets != PADDING] for batch in batches])
    assert sorted(tags.tolist()) == targets.tolist()
    assert groups.total == sum(batch.tokens for batch in batches) == len(targets)
    assert all(batch.letters.size for batch in batches)
    for batch in batches:  # a short batch counts less, however long its sentences are
        assert groups.typical(batch) / batch.tokens == 4 / len(batch.rows)

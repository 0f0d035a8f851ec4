"""Batches of labelled texts: every text once an epoch, padded only at its end."""

from itertools import chain, pairwise

import numpy as np
import pytest

from charlm.text.batches import Position
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.groups import BATCHES_SORTED, LabelBatch, LabelGroups, groups_by_length, padded
from charlm.text.tokenizers.tokenizer_json import EOS

SIZE = 4


def flat(lists: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def encoded(*lengths: int) -> EncodedText:
    """Return texts of these numbers of tokens; each token is the number of its text, plus 2."""
    ids = [[2 + row] * length + [EOS] for row, length in enumerate(lengths)]
    ends = np.cumsum([length + 1 for length in lengths], dtype=np.int64)
    return EncodedText(
        ids=np.array(flat(ids), np.uint16), ends=ends, counts=TextCounts(), is_stream=False
    )


def groups(seed: int = 1, texts: int = 2 * BATCHES_SORTED * SIZE + 3) -> LabelGroups:
    lengths = np.random.default_rng(0).integers(0, 30, texts).tolist()
    return LabelGroups(encoded(*lengths), np.arange(texts, dtype=np.int32) % 7, SIZE, seed)


def rows(batches: list[LabelBatch]) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches]


def test_a_text_of_n_tokens_has_n_and_one_steps_and_pads_are_at_its_end():
    inputs, lengths = padded(encoded(3, 0, 1), np.array([2, 1, 0]))
    assert inputs.T.tolist() == [[EOS, 4, EOS, EOS], [EOS] * 4, [EOS, 2, 2, 2]]
    assert lengths.tolist() == [2, 1, 4]


def test_each_text_is_in_one_batch_of_an_epoch_with_its_target_and_its_tokens():
    made = groups()
    batches = list(made.epoch(Position()))
    assert sorted(flat(rows(batches))) == list(range(made.total))
    assert sum(batch.tokens for batch in batches) == made.total
    for batch in batches:
        assert batch.targets.tolist() == [row % 7 for row in batch.rows]
        assert batch.first and batch.tokens == len(batch.rows) <= SIZE
        for column, row in enumerate(batch.rows):
            tokens = batch.inputs[1 : batch.lengths[column], column]
            assert set(tokens.tolist()) <= {2 + row}


def test_batches_have_texts_of_like_length():
    batches = list(groups(texts=BATCHES_SORTED * SIZE).epoch(Position()))
    read = sum(int(batch.lengths.sum()) for batch in batches)
    assert read > 0.9 * sum(batch.inputs.size for batch in batches)


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    first = rows(list(groups().epoch(Position())))
    assert first == rows(list(groups().epoch(Position())))
    assert first != rows(list(groups(seed=2).epoch(Position())))
    assert first != rows(list(groups().epoch(Position(epoch=1))))


def test_from_any_position_the_rest_of_the_epoch_follows():
    whole = list(groups().epoch(Position()))
    for number, (batch, after) in enumerate(pairwise(whole), 1):
        assert batch.next == Position(group=number)
        if number % 9 == 0:
            assert next(groups().epoch(batch.next)).rows.tolist() == after.rows.tolist()
    assert whole[-1].next == Position(epoch=1)


@pytest.mark.parametrize("parts", [1, 2, 3, 9])
def test_parts_of_a_batch_are_its_texts(parts):
    batch = max(groups().epoch(Position()), key=lambda batch: np.ptp(batch.lengths))
    split = batch.split(parts)
    assert flat(rows(split)) == batch.rows.tolist()
    assert sum(part.tokens for part in split) == batch.tokens
    for part in split:
        inputs, lengths = padded(groups().text, part.rows)
        assert np.array_equal(part.inputs, inputs) and np.array_equal(part.lengths, lengths)
        assert part.targets.tolist() == [row % 7 for row in part.rows]


def test_groups_for_reading_hold_each_text_once_within_the_bound():
    lengths = np.array([5, 90, 1, 7, 7, 200, 3, 2])
    batches = groups_by_length(lengths, 3, max_steps=100)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    steps = [int(lengths[batch].max()) * len(batch) for batch in batches]
    assert steps[-1] == 200 and max(steps[:-1]) <= 100
    assert max(map(len, batches)) == 3

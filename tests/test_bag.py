"""The file of a bag of words: read as it was written; what training never writes is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charlm.errors import RunError
from charlm.runs.bag import bag_to_bytes, read_bag
from charlm.runs.layout import BAG
from charlm.text.bag_of_words import BagOfWords

WORDS = 5
LAST = (WORDS + 1) * WORDS - 1
"""Number of the last pair of words."""
MADE = BagOfWords(
    features=np.array([1, 7, LAST]),
    weights=np.arange(6.0).reshape(3, 2),
    priors=np.array([-2.0, -0.5]),
    vocab_size=WORDS,
)


def read(folder: Path, bag: BagOfWords, features: int = 3) -> BagOfWords:
    """Write a bag and read it."""
    (folder / BAG).write_bytes(bag_to_bytes(bag))
    return read_bag(folder, features, 2, WORDS)


def test_a_bag_is_read_as_it_was_written(tmp_path: Path) -> None:
    again = read(tmp_path, MADE)
    for name in ("features", "weights", "priors"):
        assert np.array_equal(getattr(again, name), getattr(MADE, name)), name
    assert again.vocab_size == WORDS


@pytest.mark.parametrize(
    "features", [[7, 1, LAST], [1, 1, LAST], [1, 7, LAST + 1], [-1, 7, LAST]], ids=str
)
def test_features_out_of_order_or_of_the_vocabulary_are_refused(
    features: list[int], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="its features are not sorted, or not of the vocabulary"):
        read(tmp_path, replace(MADE, features=np.array(features)))


def test_numbers_that_are_not_finite_and_other_sizes_are_refused(tmp_path: Path) -> None:
    for bag in (
        replace(MADE, weights=np.full((3, 2), np.nan)),
        replace(MADE, priors=np.array([0.0, -np.inf])),
    ):
        with pytest.raises(RunError, match="numbers that are not finite"):
            read(tmp_path, bag)
    with pytest.raises(RunError, match="The run's files do not match"):
        read(tmp_path, MADE, features=2)

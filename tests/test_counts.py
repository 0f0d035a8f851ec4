"""Counts that a user of the library gives: what is none is refused, whatever takes it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import charlm
from charlm.api.model import Model
from charlm.errors import UsageError, check_count
from charlm.runs.built_in import shipped


@pytest.fixture(scope="module")
def model() -> Model:
    """The model that ships with charlm."""
    return charlm.load(shipped("checkpoints", "tales"))


CALLS: dict[str, tuple[Callable[[Model, Any], Any], int]] = {
    "next top": (lambda model, value: model.next("a", top=value), 1),
    "nearest top": (lambda model, value: model.nearest("a", top=value), 1),
    "length": (lambda model, value: list(model.generate(value, seed=1)), 0),
    "seed": (lambda model, value: list(model.generate(2, seed=value)), 0),
    "samples": (lambda model, value: list(model.generate(2, seed=1, samples=value)), 1),
    "first": (lambda model, value: list(model.generate(2, seed=1, first=value)), 0),
    "reset_every": (lambda model, value: model.evaluate("abc abc", reset_every=value), 1),
    "threads": (lambda model, value: charlm.load(model.path, threads=value), 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_count_that_is_none_is_refused(name: str, model: Model) -> None:
    """The story: `next(top=-1)` gave all tokens but the last."""
    call, minimum = CALLS[name]
    call(model, minimum)
    call(model, np.int64(minimum))
    for value in (minimum - 1, -7, 1.5, "2"):
        with pytest.raises(UsageError, match=f"{name.split()[-1]} is .*{minimum} or more"):
            call(model, value)


def test_next_gives_as_many_as_there_are(model: Model) -> None:
    """The likeliest first; more than the vocabulary has is all of it."""
    assert len(model.next("a", top=3)) == 3
    found = model.next("a", top=10**6)
    assert len(found) == len(model.vocabulary)
    assert model.next("a", top=3) == found[:3]


@pytest.mark.parametrize("value", [True, 0, 5])
def test_whole_numbers_pass(value: int) -> None:
    """From the least on."""
    check_count("count", value, 0)

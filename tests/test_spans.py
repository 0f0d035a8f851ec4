"""Spans of tags: every scheme reads to the same spans, as conlleval and seqeval count them."""

import random

import numpy as np
import pytest

from charlm.text.spans import Span, iob2, is_iob2, legal, scheme_of, spans_of, stray_inner

TYPES = ("PER", "LOC", "a-b")


def random_spans(seed: int) -> tuple[list[Span], int]:
    """Return spans of a sentence, many of which touch, and its number of words."""
    random_ = random.Random(seed)
    spans, at = [], 0
    for _ in range(random_.randint(0, 6)):
        at += random_.choice((0, 0, 1, 3))
        last = at + random_.choice((0, 0, 1, 2))
        spans.append(Span(random_.choice(TYPES), at, last))
        at = last + 1
    return spans, at + random_.randint(0, 2)


def written(spans: list[Span], words: int, single: str, end: str) -> list[str]:
    """Return tags of a scheme that marks single words and last words of spans."""
    tags = iob2(spans, words)
    for name, first, last in spans:
        tags[last] = f"{single if first == last else end}-{name}"
    return tags


def iob1(spans: list[Span], words: int) -> list[str]:
    tags = iob2(spans, words)
    for name, first, _ in spans:
        touches = any(s.last == first - 1 and s.type == name for s in spans)
        tags[first] = f"{'B' if touches else 'I'}-{name}"
    return tags


@pytest.mark.parametrize("seed", range(60))
def test_every_scheme_of_the_same_spans_reads_to_them(seed: int):
    spans, words = random_spans(seed)
    for tags in (
        iob2(spans, words),
        iob1(spans, words),
        written(spans, words, "S", "E"),
        written(spans, words, "U", "L"),
    ):
        assert spans_of(tags) == spans
        assert len(tags) == words


def test_spans_of_any_tags_are_those_of_seqeval():
    labeling = pytest.importorskip("seqeval.metrics.sequence_labeling")
    random_ = random.Random(1)
    names = ["O", "O", *(f"{prefix}-{name}" for prefix in "BIES" for name in TYPES)]
    for _ in range(300):
        tags = random_.choices(names, k=random_.randint(0, 12))
        expected = [Span(*entity) for entity in labeling.get_entities(tags)]
        assert spans_of(tags) == expected, tags


def test_tags_that_are_no_spans_are_outside_all():
    assert spans_of(["B-PER", "NOUN", "I-PER", "-", "", "X-PER"]) == [
        Span("PER", 0, 0),
        Span("PER", 2, 2),
    ]


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        ("B-A I-A O B-A", "IOB2"),
        ("I-A B-A O", "IOB1"),
        ("I-A O", "IOB1"),
        ("I-A O B-A I-A", "IOB2"),  # an error in IOB2: IOB1 has no B- after O
        ("S-A O B-A E-A", "IOBES"),
        ("U-A O B-A L-A", "BILOU"),
        ("O O", ""),
        ("B-A I-A", ""),  # without O they may be anything
        ("NOUN VERB O", ""),
        ("B-A O B-", ""),
    ],
)
def test_the_scheme_is_seen_in_the_tags(tags: str, scheme: str):
    assert scheme_of([[], tags.split()]) == scheme


def test_spans_that_begin_with_i_are_counted():
    assert stray_inner(["I-A", "I-A", "O", "I-B", "B-A", "I-A", "I-B"]) == 3


def test_inner_tags_follow_their_own_type_only():
    names = ("B-A", "B-B", "I-A", "O")
    steps = legal(names)
    assert steps.shape == (5, 4)
    allowed = {names[row] if row < 4 else "start" for row in np.flatnonzero(steps[:, 2])}
    assert allowed == {"B-A", "I-A"}
    assert steps[:, [0, 1, 3]].all()
    assert legal(("NOUN", "O", "VERB")).all()


def test_iob2_tags_are_o_and_prefixes():
    assert is_iob2(["O", "B-A"]) and not is_iob2(["B-A", "I-A"]) and not is_iob2(["O"])
    assert not is_iob2(["O", "B-"])

"""Spans: tags of words as typed runs of words, and back.

words   EU      rejects  German   call
IOB1    I-ORG   O        I-MISC   O      B- only where two spans of a type touch
IOB2    B-ORG   O        B-MISC   O
IOBES   S-ORG   O        S-MISC   O      E- ends a span; BILOU says L- and U- for E- and S-
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
"""Tag of a word that is in no span."""
_TAG = re.compile(r"([BIELSU])-(.+)", re.DOTALL)
_ENDS, _SINGLE = "EL", "SU"  # the last word of a span; its only word


class Span(NamedTuple):
    """Words `first` to `last`, both included, of one type."""

    type: str
    first: int
    last: int


def spans_of(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence by the rules of the script conlleval, for every scheme.

    A span begins at B, S or U, where the type changes, and where none is open; it ends before the
    next one begins, before O, and at E, L, S or U. So `I-X` after O begins a span. Other tags than
    `PREFIX-TYPE` are read as O.
    """
    spans: list[Span] = []
    open_type = ""  # type of a span that the next word can continue
    for at, tag in enumerate(tags):
        match = _TAG.fullmatch(tag)
        if match is None:
            open_type = ""
            continue
        prefix, name = match.groups()
        if name == open_type and prefix not in f"B{_SINGLE}":
            spans[-1] = spans[-1]._replace(last=at)
        else:
            spans.append(Span(name, at, at))
        open_type = "" if prefix in _ENDS + _SINGLE else name
    return spans


def iob2(spans: Iterable[Span], words: int) -> list[str]:
    """Return the IOB2 tags of a sentence of `words` words with these spans."""
    tags = [OUTSIDE] * words
    for name, first, last in spans:
        tags[first : last + 1] = [f"B-{name}"] + [f"I-{name}"] * (last - first)
    return tags


def as_iob2(tags: Sequence[str]) -> list[str]:
    """Return the tags of a sentence, in any scheme, as IOB2; tags that are no spans are kept."""
    made = iob2(spans_of(tags), len(tags))
    return [own if is_span_tag(tag) else tag for tag, own in zip(tags, made, strict=True)]


def is_span_tag(tag: str) -> bool:
    """Return True for O, and for tags with a prefix and a type."""
    return tag == OUTSIDE or _TAG.fullmatch(tag) is not None


def scheme_of(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme of tags: IOB1, IOB2, IOBES or BILOU; "" if they are no spans.

    Tags are spans if O is one of them and each other has a prefix and a type. They are IOB1 if no
    span begins with B unless it touches one of its type.
    """
    prefixes, outside, begun_by_b = set[str](), False, False
    for tags in sentences:
        before = ""
        for tag in tags:
            match = _TAG.fullmatch(tag)
            if match is None:
                if tag != OUTSIDE:
                    return ""
                outside, before = True, ""
                continue
            prefix, name = match.groups()
            prefixes.add(prefix)
            begun_by_b |= prefix == "B" and name != before
            before = name
    if not outside or not prefixes:
        return ""
    if prefixes & set("LU"):
        return "BILOU"
    if prefixes & set("ES"):
        return "IOBES"
    return "IOB2" if begun_by_b else "IOB1"


def stray_inner(tags: Sequence[str]) -> int:
    """Return how many spans of a sentence begin with `I-`, which IOB2 does not allow."""
    return sum(tags[span.first].startswith("I-") for span in spans_of(tags))


def legal(names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which IOB2 tag may follow which, shape (K + 1, K); row K is the start of a sentence.

    `I-X` follows `B-X` and `I-X` only. If the names are no IOB2 tags, every step is legal.
    """
    steps = np.ones((len(names) + 1, len(names)), np.bool_)
    if not is_iob2(names):
        return steps
    for column, name in enumerate(names):
        if name.startswith("I-"):
            inner = {name, f"B-{name[2:]}"}
            steps[:, column] = [before in inner for before in [*names, ""]]
    return steps


def is_iob2(names: Sequence[str]) -> bool:
    """Return True if these tags are O and others with the prefix `B-` or `I-`."""
    return {OUTSIDE} < set(names) and all(
        name == OUTSIDE or re.match(r"[BI]-.", name, re.DOTALL) for name in names
    )

"""Doubts about labels: names that may be the same, several in one, missing, or amounts."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from charlm.text.sources.files import shown
from charlm.text.sources.rows import MISSING
from charlm.units import first_few

MAX_SHOWN = 3
"""Examples that a sentence names."""
MIN_AMOUNTS = 8
"""Labels that are numbers, one of them with decimals, from which they may be amounts."""
SEPARATORS = ("|", ";", ",")
"""Separators of several labels in one cell."""
# At most 99 digits: long sequences of digits are no numbers, and int() refuses those over 4,300.
_NUMBER = re.compile(r"[+-]?(\d{1,99}(\.\d{0,99})?|\.\d{1,99})", re.ASCII)
_AMOUNT = re.compile(r"[+-]?\d*\.\d*[1-9]\d*", re.ASCII)
_MISSING = MISSING | {"-"}


def doubts_of_labels(
    train: Sequence[str], others: Iterable[str] = (), noun: str = "label"
) -> Iterator[str]:
    """Yield sentences about the labels of the training texts, and about `others` beside them.

    Labels are read as they are written; a sentence says which of them may mean something else.
    """
    counts = Counter(train)
    names = [name for name in counts if name]
    yield from _missing(counts, noun)
    yield from _alike([*dict.fromkeys([*names, *(name for name in others if name)])], noun)
    yield from _joined(names, noun)
    if (
        len(names) >= MIN_AMOUNTS
        and all(map(_NUMBER.fullmatch, names))
        and (amount := next(filter(_AMOUNT.fullmatch, names), ""))
    ):
        yield (
            f"The {len(names):,} {noun}s are numbers with decimals, such as {amount}: each is a "
            f"{noun} of its own, without order. Join them into ranges if they are amounts"
        )


def _missing(counts: Counter[str], noun: str) -> Iterator[str]:
    missing = [name for name in counts if name in _MISSING]
    if missing:
        texts = sum(counts[name] for name in missing)
        yield (
            f"{texts:,} training {'text has' if texts == 1 else 'texts have'} the {noun} "
            f"{_listed(missing)}, learned like any other. Leave the cells empty if it is missing"
        )


def _alike(names: Sequence[str], noun: str) -> Iterator[str]:
    groups: dict[str | Fraction, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        shown_groups = "; ".join(_listed(group) for group in alike[:MAX_SHOWN])
        yield (
            f"Some {noun}s differ only in capitals, blanks, quotes, or how a number is written "
            f"({shown_groups}), and each is a {noun} of its own. Write them alike if they mean the "
            f"same"
        )


def _folded(name: str) -> str | Fraction:
    """Return what labels have in common that a person would write for one another."""
    plain = " ".join(unicodedata.normalize("NFKC", name).strip("\"' ").casefold().split())
    return Fraction(plain) if _NUMBER.fullmatch(plain) else plain


def _joined(names: Sequence[str], noun: str) -> Iterator[str]:
    """Yield a sentence if parts of labels, between separators, are labels or change their place.

    So "drama,war" beside "action,drama" is, but "Paris, France" beside "Lyon, France" is not, and
    neither is 1,5 beside 1.
    """
    if all(_NUMBER.fullmatch(name.replace(",", ".")) for name in names):
        return
    for separator in SEPARATORS:
        parts = {name: [part.strip() for part in name.split(separator)] for name in names}
        places: dict[str, set[int]] = {}
        for each in parts.values():
            for place, part in enumerate(each):
                places.setdefault(part, set()).add(place if len(each) > 1 else -1)
        joined = [
            name
            for name, each in parts.items()
            if len(each) > 1 and all(each) and any(len(places[part]) > 1 for part in each)
        ]
        if len(joined) > 1:
            yield (
                f"{len(joined):,} of {len(names):,} {noun}s look like several in one, such as "
                f"{_listed(joined)}; each combination is a {noun} of its own. Keep one {noun} for "
                f"each text"
            )
            return


def _listed(names: Sequence[str]) -> str:
    return first_few((f'"{shown(name[:40])}"' for name in names), MAX_SHOWN)

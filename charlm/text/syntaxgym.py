"""Test suites of SyntaxGym: items in several conditions, and formulas over their surprisals.

Gauthier et al. 2020, https://aclanthology.org/2020.acl-demos.10. A formula such as

    ((3;%that%) > (3;%what%)) & ((*;%that%) - (*;%what%) < 2.5)

compares surprisals in bits: of region 3 in the condition "that", of all its regions (*), numbers.
`=` is true within a relative tolerance of 1e-5 plus 0.001 bits, as in SyntaxGym.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from charlm.errors import CorpusError

Surprisals = Mapping[str, Mapping[int, float]]
"""Bits by condition and region number."""
Formula = Callable[[Surprisals], Any]
"""Function of the surprisals of an item; a prediction returns True or False."""
Region = tuple[int, str]
"""Number and text of a region."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A formula of a suite; `name` distinguishes it from others, "" if it is the only one."""

    text: str
    holds: Formula
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteItem:
    """Item of a suite: the regions of its sentence in each condition, and the predictions."""

    suite: str
    number: str
    conditions: Mapping[str, Sequence[Region]]
    predictions: Sequence[Prediction]

    @property
    def texts(self) -> list[str]:
        """Regions of all conditions."""
        return [text for regions in self.conditions.values() for _, text in regions]

    def with_texts(self, change: Callable[[str], str]) -> "SuiteItem":
        """Return the item with changed regions."""
        conditions = {
            name: [(number, change(text)) for number, text in regions]
            for name, regions in self.conditions.items()
        }
        return replace(self, conditions=conditions)


def is_suite(content: object) -> bool:
    """Return whether the content of a JSON file is a suite."""
    return isinstance(content, dict) and {"items", "predictions"} <= content.keys()


def suite_items(content: Mapping[str, Any], label: str, name: str) -> Iterator[SuiteItem]:
    """Yield the items of a suite; `name` is used if it has none. Raises CorpusError."""
    suite = str(_member(content, "meta", dict, label, {}).get("name") or name)
    predictions = _predictions(content, label)
    for place, item in enumerate(_member(content, "items", list, label), start=1):
        number = str(item.get("item_number", place)) if isinstance(item, dict) else str(place)
        where = f"{label}: item {number}"
        conditions = {
            str(_member(condition, "condition_name", str, where)): _regions(condition, where)
            for condition in _member(item, "conditions", list, where)
        }
        checked = {each: {region: 0.0 for region, _ in conditions[each]} for each in conditions}
        for prediction in predictions:
            try:
                prediction.holds(checked)
            except KeyError as error:
                raise CorpusError(
                    f"{where} does not have {error.args[0]} of the formula {prediction.text}; "
                    "expected every condition and region of the formulas. Correct the file"
                ) from error
        yield SuiteItem(suite=suite, number=number, conditions=conditions, predictions=predictions)


def _predictions(content: Mapping[str, Any], label: str) -> list[Prediction]:
    texts = [
        str(_member(each, "formula", str, f"{label}: prediction {place}"))
        for place, each in enumerate(_member(content, "predictions", list, label), start=1)
    ]
    several = len(texts) > 1
    return [
        Prediction(
            text=text,
            holds=parse_formula(text, label),
            name=f"prediction {place}" if several else "",
        )
        for place, text in enumerate(texts, start=1)
    ]


def _regions(condition: Mapping[str, Any], where: str) -> list[Region]:
    """Return the regions of a condition; a number that is missing is the place."""
    return [
        (
            _member(region, "region_number", int, f"{where}, region {place}", place),
            _member(region, "content", str, f"{where}, region {place}").strip(),
        )
        for place, region in enumerate(_member(condition, "regions", list, where), start=1)
    ]


def _member(value: Any, name: str, kind: type, where: str, default: Any = None) -> Any:
    """Return a member of an object. Raises CorpusError if it is missing or of another type."""
    member = value.get(name, default) if isinstance(value, dict) else None
    if not isinstance(member, kind):
        raise CorpusError(
            f'{where} has no "{name}" that is a {kind.__name__}; expected a suite of SyntaxGym. '
            "Correct the file"
        )
    return member


# ------------------------------------------------------------------ formulas

_TOKEN = re.compile(
    r"\s*(?:\(\s*(?P<region>\d+|\*)\s*;\s*%(?P<condition>[^%]*)%\s*\)"
    r"|(?P<number>\d+\.?\d*|\.\d+)|(?P<mark>[-+<>=&|()]))"
)
Binary = Callable[[Any, Any], Any]
_LEVELS: tuple[dict[str, Binary], ...] = (
    {"|": lambda left, right: bool(left or right)},
    {"&": lambda left, right: bool(left and right)},
    {
        "<": operator.lt,
        ">": operator.gt,
        "=": lambda left, right: abs(left - right) <= 1e-3 + 1e-5 * abs(right),
    },
    {"+": operator.add, "-": operator.sub},
)
"""Operators from the loosest to the tightest; those of one level are read from left to right."""
MAX_PARTS = 100
"""Maximum number of regions, operators and parentheses, since each may nest."""


def parse_formula(text: str, label: str) -> Formula:
    """Return a formula as a function. Raises CorpusError for one that is not valid."""
    tokens, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _invalid(text, label, f"{text[place:].strip()[:20]!r} is not part of a formula")
        tokens.append(match)
        place = match.end()
    if len(tokens) > MAX_PARTS:
        raise _invalid(text[:60], label, f"it has {len(tokens):,} parts, more than {MAX_PARTS}")
    formula, rest = _level(tokens, 0, partial(_invalid, text, label))
    if rest:
        raise _invalid(text, label, f"{rest[0][0].strip()!r} is not expected")
    return formula


def _invalid(text: str, label: str, problem: str) -> CorpusError:
    return CorpusError(
        f"{label}: the formula {text} is not valid ({problem}); expected one such as "
        "(3;%that%) > (3;%what%). Correct the file"
    )


Tokens = list[re.Match[str]]
Fail = Callable[[str], CorpusError]


def _level(tokens: Tokens, level: int, fail: Fail) -> tuple[Formula, Tokens]:
    """Parse the operators of a level and of tighter ones; return the formula and the rest."""
    if level == len(_LEVELS):
        return _operand(tokens, fail)
    formula, tokens = _level(tokens, level + 1, fail)
    while tokens and (function := _LEVELS[level].get(tokens[0]["mark"] or "")):
        right, tokens = _level(tokens[1:], level + 1, fail)
        formula = partial(_applied, function, formula, right)
    return formula, tokens


def _applied(function: Binary, left: Formula, right: Formula, surprisals: Surprisals) -> Any:
    return function(left(surprisals), right(surprisals))


def _operand(tokens: Tokens, fail: Fail) -> tuple[Formula, Tokens]:
    if not tokens:
        raise fail("it ends after an operator")
    first, rest = tokens[0], tokens[1:]
    if first["region"]:
        return partial(_region_bits, first["condition"], first["region"]), rest
    if first["number"]:
        value = float(first["number"])
        return lambda _: value, rest
    if first["mark"] != "(":
        raise fail(f"{first['mark']!r} is not expected")
    formula, rest = _level(rest, 0, fail)
    if not rest or rest[0]["mark"] != ")":
        raise fail("a parenthesis is not closed")
    return formula, rest[1:]


def _region_bits(condition: str, region: str, surprisals: Surprisals) -> float:
    """Return the bits of a region, or of all for "*". Raises KeyError with a description."""
    if condition not in surprisals:
        raise KeyError(f'the condition "{condition}"')
    regions = surprisals[condition]
    if region == "*":
        return math.fsum(regions.values())
    if int(region) not in regions:
        raise KeyError(f'region {region} in the condition "{condition}"')
    return regions[int(region)]

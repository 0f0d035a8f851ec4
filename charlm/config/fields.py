"""Fields of the settings: each one carries every fact about its setting.

The options of the command line, `--set`, the checks of values, messages and the table of
`charlm settings` are made from these facts, so a new setting is one field and nothing else.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from charlm.config.cells import CELLS, CellSpec
from charlm.errors import UsageError, choice_problem, named

Choices = Collection[str] | Callable[[], Collection[str]]
"""Allowed names. A table or a function is read at each use, so a new row is allowed."""
VALIDATION, DROPPED, PARENT = "validation text", "any dropout", "a run to start from"
"""Facts that follow from several settings, or from the text."""
MAX_COUNT = 2**31
"""Limit of counts; only a mistake exceeds it."""
Write = Callable[[str], str]
"""Function from a setting's name to the form in which its user writes it."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """A condition under which a setting has an effect, on another setting or on a fact."""

    fact: str
    """Setting, or a fact that follows from several or from the text (see `config.unused`)."""
    holds: Callable[[Any], bool]
    describe: Callable[[Write], str]
    """Function that returns the condition in words."""
    open_holds: bool = True
    """True if the plan may still choose a value that holds for a fact that is None."""
    values: tuple[Any, ...] = ()
    """Values of the setting that have this condition; empty for all of them."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Facts about a setting other than its name, type and default."""

    help: str
    """One line: meaning and special values."""
    flag: str | None = ""
    """Option of the command line; empty for `--` and the name, None for --set only."""
    aliases: tuple[str, ...] = ()
    """Other spellings of the flag."""
    has_no: bool = False
    """True if there is also a flag --no-... that switches the setting off."""
    panel: str = ""
    """Heading in the help; empty for the heading of the section."""
    choices: Choices = ()
    at_least: float | None = None
    above: float | None = None
    """Lower bound that is not itself allowed."""
    at_most: float | None = None
    limit: float | None = None
    """Upper bound that only a mistake exceeds; messages name it only then."""
    unit: str = ""
    default_note: str = ""
    """Meaning of the default if that is None, empty or auto, such as "by rule"."""
    source: str = ""
    """Paper that describes it."""
    parse: Callable[[str], Any] | None = None
    """Function that reads the value from text; None for TOML."""
    needs: tuple[Need, ...] = ()
    """Conditions under which it has an effect; all must hold."""
    only_training: bool = False
    """True for a setting of the model that acts in training only: dropout of any kind."""

    def names(self) -> tuple[str, ...]:
        """Return the allowed names; empty if any value of the type is allowed."""
        return tuple(self.choices() if callable(self.choices) else self.choices)

    def range_text(self, value: float | None = None) -> str:
        """Describe the range, with the limit only if the value exceeds it; "" without a range."""
        top = self.at_most
        if top is None and self.limit is not None and (value is None or value > self.limit):
            top = self.limit
        bounds = [] if self.above is None else [f"more than {_bound(self.above)}"]
        bounds += [] if self.at_least is None else [f"at least {_bound(self.at_least)}"]
        bounds += [] if top is None else [f"at most {_bound(top)}"]
        return " and ".join(bounds + (["finite"] if value == math.inf and top is None else []))

    def contains(self, value: float) -> bool:
        """Return whether a number is finite and in the range."""
        return (
            -math.inf < value < math.inf  # a huge int does not fit into math.isfinite
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.limit is None or value <= self.limit)
        )


def setting(default: Any, help_text: str, **facts: Any) -> Any:
    """Return the field of a setting; `facts` are fields of `Spec`."""
    return field(default=default, metadata={"spec": Spec(help=help_text, **facts)})


def field_problems(settings: Any) -> list[str]:
    """Return the problems of the values of a section, each taken alone."""
    problems = []
    for each in fields(settings):
        spec: Spec = each.metadata["spec"]
        value = getattr(settings, each.name)
        if value is None or isinstance(value, bool | tuple):
            continue
        if isinstance(value, Real):  # numpy's numbers too
            value = int(value) if isinstance(value, Integral) else float(value)
        if isinstance(value, int | float) and not spec.contains(value):
            expected = spec.range_text(value)
            problems.append(f"{named(each.name)} is {plain_number(value)}; expected {expected}")
        elif spec.choices and (problem := choice_problem(each.name, value, spec.names())):
            problems.append(problem)
    return problems


def check(problems: list[str]) -> None:
    """Raise UsageError with all problems, if there are any."""
    if problems:
        raise UsageError("; ".join(problems))


def plain_number(value: float) -> str:
    """Return a number without an exponent, such as 0.000001."""
    if isinstance(value, int) or not math.isfinite(value):
        return str(value)
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else plain_number(value)


def one_of(fact: str, *names: str, open_holds: bool = True) -> Need:
    """Return the condition that a fact is one of the names."""
    return Need(
        fact=fact,
        holds=lambda value: value in names,
        describe=lambda write: f"{write(fact)} {listed_names(names)}",
        open_holds=open_holds,
    )


def row_with(fact: str, rows: Mapping[str, Any], holds: Callable[[Any], bool]) -> Need:
    """Return the condition that a fact names a row of a table with some property."""

    def describe(write: Write) -> str:
        """List the rows that have it now."""
        return f"{write(fact)} {listed_names([name for name in rows if holds(rows[name])])}"

    return Need(fact=fact, holds=lambda name: name in rows and holds(rows[name]), describe=describe)


def cell_with(holds: Callable[[CellSpec], bool]) -> Need:
    """Return the condition that the cell has some property."""
    return row_with("cell", CELLS, holds)


def above(fact: str, bound: int) -> Need:
    """Return the condition that a fact is a number above the bound."""
    return Need(
        fact=fact,
        holds=lambda value: value > bound,
        describe=lambda write: f"{write(fact)} above {bound}",
    )


def without(fact: str, reason: str, *values: str) -> Need:
    """Return the condition that a setting is not given, for some values of another or all."""
    return Need(
        fact=fact,
        holds=lambda value: not value,
        describe=lambda _: f"one of them: {reason}",
        values=values,
    )


def validation_text(*values: str) -> Need:
    """Return the condition that there is validation text, for some values of a setting or all."""
    return Need(
        fact=VALIDATION,
        holds=bool,
        describe=lambda write: f"some: {write('valid')}, or {write('valid_frac')} above 0",
        values=values,
    )


def listed_names(names: Sequence[str]) -> str:
    """Return names as "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def embedding_width(text: str) -> int:
    """Return the value of --embedding as a number. Raises ValueError for anything else."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("a width such as 128, or one-hot") from None


SCALES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}


def scaled_number(text: str) -> int:
    """Return a number such as 24M or 500k. Raises ValueError for anything else."""
    digits = text.strip().lower()
    scale = SCALES.get(digits[-1:], 1)
    try:
        return round(float(digits[:-1] if scale > 1 else digits) * scale)
    except (ValueError, OverflowError):
        raise ValueError("a number such as 2000000, 2M or 500k") from None

"""Settings that only some modes listen to: one table of which listens when.

A value that a user gave and that nothing would listen to is refused, with the flag that was typed:
`--unit byte --max-size 100` would otherwise train with 258 entries in silence. Values of a preset
that an upper layer leaves without effect are put back to their defaults.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from charlm.config.cells import CELLS, CellSpec
from charlm.config.flags import flag_of, words_of
from charlm.config.settings import (
    OPTIMIZER_NAMES,
    SECTIONS,
    Settings,
    section_of,
)
from charlm.config.text_units import UNITS
from charlm.errors import UsageError

VALIDATION, DROPPED = "validation text", "any dropout"
"""Facts that follow from several settings, or from the text."""


@dataclass(frozen=True)
class Condition:
    """What a fact (a setting, VALIDATION or DROPPED) must be, as a test and in words."""

    fact: str
    holds: Callable[[Any], bool]
    expected: str
    by_rule: bool = True
    """Whether a rule may still choose a value that holds, where the fact is None."""


def _one_of(fact: str, *names: str) -> Condition:
    listed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return Condition(fact, lambda value: value in names, f"{fact} {listed}")


def _on(fact: str, expected: str) -> Condition:
    return Condition(fact, bool, expected)


def _off(fact: str, expected: str) -> Condition:
    return Condition(fact, lambda value: not value, expected)


def _above(fact: str, least: int) -> Condition:
    return Condition(fact, lambda value: value > least, f"{fact} above {least}")


def _cells(holds: Callable[[CellSpec], bool]) -> Condition:
    names = [name for name, spec in CELLS.items() if holds(spec)]
    return replace(_one_of("cell", *names), holds=lambda cell: holds(CELLS[cell]))


def _cells_with(setting: str) -> Condition:
    return _cells(lambda spec: setting in spec.settings)


def _units_with(setting: str) -> Condition:
    names = [name for name, spec in UNITS.items() if setting in spec.settings]
    return replace(_one_of("unit", *names), holds=lambda unit: setting in UNITS[unit].settings)


LEARNT_INPUT = _cells(lambda spec: spec.learns_input)
ADAMS = _one_of("optimizer", "adamw", "adam")
DECAY = replace(_one_of("schedule", "decay"), by_rule=False)
VALID = _on(VALIDATION, "some: a valid text, or valid_frac above 0")
NO_FILE = _off("valid", "one of the two, since a valid text takes the place of a held-out part")
TABLES = _one_of("input_format", "auto", "csv", "tsv")
LISTENS: dict[str, tuple[Condition, ...]] = {
    "column": (_one_of("input_format", "auto", "csv", "tsv", "jsonl", "json", "parquet"),),
    "header": (TABLES,),
    "delimiter": (TABLES,),
    "quoting": (TABLES,),
    "keep_cr": (_one_of("document", "line", "paragraph"),),
    "glue": (_one_of("document", "stream"),),
    "valid_frac": (NO_FILE,),
    "hold_out": (NO_FILE, VALID),
    **{name: (_units_with(name),) for spec in UNITS.values() for name in spec.settings},
    **{name: (_cells_with(name),) for spec in CELLS.values() for name in spec.settings},
    "mogrifier_rank": (_cells_with("mogrifier_rank"), _above("mogrifier_rounds", 0)),
    "forget_bias": (_cells(lambda spec: spec.forget_gate is not None),),
    "recurrent_init": (_cells(lambda spec: spec.learns_recurrence),),
    "input_init": (LEARNT_INPUT,),
    "learned_state": (LEARNT_INPUT,),
    "skip": (_above("num_layers", 1),),
    "variational": (_on(DROPPED, "dropout above 0"),),
    "activation_penalty": (LEARNT_INPUT,),
    "slowness_penalty": (LEARNT_INPUT,),
    "momentum": (_one_of("optimizer", *(o for o in OPTIMIZER_NAMES if "adam" not in o)),),
    "beta1": (ADAMS,),
    "beta2": (ADAMS,),
    "decay": (DECAY,),
    "decay_from": (DECAY,),
    "decay_every": (
        DECAY,
        Condition("decay_times", lambda times: times != 1, "decay_times 0 or above 1"),
    ),
    "decay_times": (DECAY,),
    "final_rate": (_one_of("schedule", "cosine", "linear", "step"),),
    "clip_norm": (
        _off("clip_value", "one of the two, since clip_value takes the place of clip_norm"),
    ),
    "average_latest": (_on("average_trigger", "average_trigger above 0"),),
    "evals": (VALID,),
    "patience": (VALID,),
}
"""Conditions under which a setting has an effect, all of which must hold. What is not named here
always has one, or is refused where the model is built. To switch off what is off is no fault."""

OFF_AT_ZERO = {"clip_norm", "valid_frac"}
"""Settings that are off at 0, which is not their default."""
DEFAULTS = {f.name: f.default for section in SECTIONS.values() for f in fields(section)}


def listened(
    settings: Settings, origins: Mapping[str, str], known: Mapping[str, Any] | None = None
) -> Settings:
    """Refuse what a user gave and nothing would listen to; put other such values to the default.

    `origins` says where the values came from, by "section.name"; those of presets, recipes and
    rules are not the user's. `known` are facts that stand for open settings, such as VALIDATION.
    Raises UsageError with all problems.
    """
    facts = facts_of(settings) | dict(known or {})
    problems, unused = [], []
    for name, value in facts.items():
        off = (value is False and name != "header") or (value == 0 and name in OFF_AT_ZERO)
        if name not in LISTENS or off or value == DEFAULTS[name]:
            continue
        broken = broken_condition(name, facts)
        if broken is None:
            continue
        origin = origins.get(f"{section_of(name)}.{name}", "rule")
        if origin in ("flag", "argument") or origin.startswith("file "):
            problems.append(_problem(name, value, broken, facts, origin))
        else:
            unused.append(name)
    if problems:
        raise UsageError("; ".join(problems))
    return _defaulted(settings, unused)


def given(settings: Settings) -> dict[str, str]:
    """Return origins that call every value that is not the default an argument."""
    return {
        f"{section_of(name)}.{name}": "argument"
        for name, value in facts_of(settings).items()
        if name in DEFAULTS and value not in (None, DEFAULTS[name])
    }


def broken_condition(name: str, facts: Mapping[str, Any]) -> Condition | None:
    """Return the first condition of a setting that does not hold; what is open may hold."""
    for condition in LISTENS.get(name, ()):
        value = facts[condition.fact]
        if value is None and condition.by_rule:
            continue
        if not condition.holds(value):
            return condition
    return None


def facts_of(settings: Settings) -> dict[str, Any]:
    """Return all settings by name, and the facts that follow from several; None is open."""
    facts: dict[str, Any] = {}
    for section in SECTIONS:
        facts |= vars(getattr(settings, section))
    if facts["document"] == "auto":
        facts["document"] = None
    facts[VALIDATION] = None if facts["valid"] or facts["valid_frac"] != 0.0 else False
    shares = [facts[name] for name in ("dropout", "input_dropout", "output_dropout")]
    whole = facts["dropout"] == 0.0 and not any(shares)
    facts[DROPPED] = True if any(shares) else False if whole else None
    return facts


def _problem(
    name: str, value: Any, broken: Condition, facts: Mapping[str, Any], origin: str
) -> str:
    """Say what was found, what was expected and what to do, with the flags as typed."""
    ours = _written(name, value, origin)
    fact, there = broken.fact, facts[broken.fact]
    if fact in (VALIDATION, DROPPED) or there is None:
        beside = f"without {fact}"
    else:
        beside = f"with {_written(fact, there, origin)}"
    return (
        f"{ours} has no effect {beside}; expected {broken.expected}. Leave out "
        f"{words_of(name, value)[0] if origin == 'flag' and flag_of(name) else name}"
    )


def _written(name: str, value: Any, origin: str) -> str:
    """Write a setting as the user did: a flag, or a name of a file or of the library."""
    if origin == "flag":
        return " ".join(words_of(name, value))
    shown = " ".join(value) if isinstance(value, tuple) else str(value)
    return f"{name} {shown.lower() if isinstance(value, bool) else shown}"


def _defaulted(settings: Settings, names: Collection[str]) -> Settings:
    """Return the settings with these at their defaults."""
    changes: dict[str, dict[str, Any]] = {}
    for name in names:
        changes.setdefault(section_of(name), {})[name] = DEFAULTS[name]
    parts = {s: replace(getattr(settings, s), **values) for s, values in changes.items()}
    return replace(settings, **parts)

"""Settings that have no effect: those of the user are refused.

`--unit byte --max-size 100` would otherwise silently train with 258 entries. Values of a preset
that the user's settings make useless return to their defaults. The conditions are in
`Setting.needs`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from charlm.config.fields import DROPPED, PARENT, VALIDATION, Need
from charlm.config.flags import words_of
from charlm.config.settings import SECTIONS, Setting, Settings, table
from charlm.errors import UsageError, named

OFF_AT_ZERO = {"clip_norm", "valid_frac", "ngram"}
"""Settings that are off at 0, which is not their default."""


def drop_unused(
    settings: Settings, origins: Mapping[str, str], known: Mapping[str, Any] | None = None
) -> Settings:
    """Refuse the user's settings that have no effect; return such values of presets to the default.

    `origins` says where the values came from, by "section.name"; those of presets, recipes and
    rules are not the user's. A choice of the user is refused even if it is the default. `known` are
    facts that are not settings, such as VALIDATION, or that decide open settings. Raises UsageError
    with all problems.
    """
    facts = facts_of(settings) | dict(known or {})
    problems = []
    changes: dict[str, dict[str, Any]] = {}
    for name, setting in table().items():
        value, origin = facts[name], origins.get(f"{setting.section}.{name}", "rule")
        is_typed = origin in ("flag", "argument") and bool(
            setting.spec.choices
        )  # also if it is the default
        is_off = (value is False and name != "header") or (value == 0 and name in OFF_AT_ZERO)
        is_usual = is_off or (value == setting.default and not is_typed)
        need = None if is_usual else missing_need(setting, facts)
        if need is None:
            continue
        if origin in ("flag", "argument") or origin.startswith("file "):
            problems.append(_problem(name, value, need, facts, origin))
        else:
            changes.setdefault(setting.section, {})[name] = setting.default
    if problems:
        raise UsageError("; ".join(problems))
    return replace(
        settings, **{s: replace(getattr(settings, s), **values) for s, values in changes.items()}
    )


def origins_of_arguments(settings: Settings) -> dict[str, str]:
    """Return origins in which each value other than the default is an argument."""
    facts = facts_of(settings)
    return {
        f"{setting.section}.{name}": "argument"
        for name, setting in table().items()
        if facts[name] not in (None, setting.default)
    }


def missing_need(setting: Setting, facts: Mapping[str, Any]) -> Need | None:
    """Return the first condition of a setting that does not hold, unless the plan decides it."""
    for need in setting.needs:
        value = facts[need.fact]
        is_open = value is None and need.open_holds
        concerns = not need.values or facts[setting.name] in need.values
        if concerns and not is_open and not need.holds(value):
            return need
    return None


def facts_of(settings: Settings) -> dict[str, Any]:
    """Return all settings by name, and facts that follow from several; None is undecided."""
    facts: dict[str, Any] = {}
    for section in SECTIONS:
        facts |= vars(getattr(settings, section))
    if facts["document"] == "auto":
        facts["document"] = None
    facts[VALIDATION] = None if facts["valid"] or facts["valid_frac"] != 0.0 else False
    facts[PARENT] = None
    dropouts = [facts[name] for name in ("dropout", "input_dropout", "output_dropout")]
    if any(dropouts):
        facts[DROPPED] = True
    else:
        facts[DROPPED] = False if facts["dropout"] == 0.0 else None
    return facts


def _problem(name: str, value: Any, need: Need, facts: Mapping[str, Any], origin: str) -> str:
    """Return the message about a setting without an effect, in the user's own spelling."""
    fact = facts[need.fact]
    if need.fact in (VALIDATION, DROPPED, PARENT) or fact is None:
        beside = f"without {_name(need.fact, origin)}"
    else:
        beside = f"with {_written(need.fact, fact, origin)}"
    expected = need.describe(lambda fact: _name(fact, origin))
    without = _words(name, value)[0] if origin == "flag" else name
    return (
        f"{_written(name, value, origin)} has no effect {beside}; expected {expected}. Leave out "
        f"{name if without == '--set' else without}"
    )


def _name(name: str, origin: str) -> str:
    """Return the flag of a setting for a user of flags, else its name."""
    if origin != "flag" or name not in table():
        return named(name) if origin == "argument" else name
    return table()[name].flag or name


def _words(name: str, value: Any) -> list[str]:
    """Return the words that give a setting this value, with its flag in the typed spelling."""
    flag, *values = words_of(name, value)
    return [named(name) if named(name) in table()[name].flags else flag, *values]


def _written(name: str, value: Any, origin: str) -> str:
    """Return a setting and its value as the user wrote them."""
    if origin == "flag":
        return " ".join(_words(name, value))
    text = " ".join(value) if isinstance(value, tuple) else str(value)
    return f"{_name(name, origin)} {text.lower() if isinstance(value, bool) else text}"

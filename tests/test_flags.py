"""Settings as words of a command line, and back."""

from typing import Any

import pytest
import typer

from charlm.cli import app
from charlm.config.flags import by_section, with_pairs, words_of
from charlm.config.settings import table

TRAIN = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
TABLE = table()


def values_of(name: str) -> list[Any]:
    """Return values of a setting other than its default."""
    setting = TABLE[name]
    if setting.type is bool:
        both = [True, False] if setting.spec.has_no else [True]
        return [value for value in both if value != setting.default]
    if setting.type is tuple:
        return [("a b", "c")]
    names = [choice for choice in setting.spec.names() if choice != setting.default]
    return names[:1] or [{int: 7, float: 0.25}.get(setting.type, "x y")]


@pytest.mark.parametrize("name", TABLE)
def test_the_words_of_a_setting_give_it_its_value(name: str) -> None:
    for value in values_of(name):
        words = words_of(name, value)
        given = TRAIN.make_context("train", list(words)).params
        flags = {key: given[key] for key in given if key in TABLE}
        nested = with_pairs(by_section(flags), given["pairs"] or [])
        ((section, values),) = nested.items()
        assert section == TABLE[name].section
        plain = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        assert plain == {name: value}
        assert (words[0] == "--set") == (TABLE[name].flag is None and name != "sources")


def test_every_alias_of_a_flag_is_accepted() -> None:
    """An alias is hidden from the help."""
    for setting in TABLE.values():
        for flag in setting.flags[1:]:
            words = [flag, str(values_of(setting.name)[0])]
            assert TRAIN.make_context("train", words).params[f"{setting.name}_alias"] is not None
    hidden = {option.name for option in TRAIN.params if getattr(option, "hidden", False)}
    assert hidden == {f"{s.name}_alias" for s in TABLE.values() if s.spec.aliases}

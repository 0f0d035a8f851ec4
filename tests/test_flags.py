"""Words of a command line and the settings that they mean: there and back."""

import typing
from dataclasses import fields
from typing import Any

import pytest
import typer

from charlm.cli import app
from charlm.config.flags import FLAGS, SET_ONLY, WITH_NO, by_section, with_pairs, words_of
from charlm.config.settings import HOMES, SECTIONS

TRAIN = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
FIELDS = {field.name: field for cls in SECTIONS.values() for field in fields(cls)}


def values_of(name: str) -> list[Any]:
    """Return values of a setting other than its default, two for yes and no where it has both."""
    kind = typing.get_type_hints(SECTIONS[HOMES[name]])[name]
    kinds, default = typing.get_args(kind) or (kind,), FIELDS[name].default
    if bool in kinds:
        both = [True, False] if name in WITH_NO else [True]
        return [value for value in both if value != default]
    if typing.get_origin(kind) is tuple:
        return [("a b", "c")]
    names = [choice for choice in FIELDS[name].metadata["choices"] if choice != default]
    return names[:1] or [7 if int in kinds else 0.25 if float in kinds else "x y"]


@pytest.mark.parametrize("name", HOMES)
def test_the_words_of_a_setting_give_it_its_value(name: str) -> None:
    """Read by the parser of `train`, as a flag or by --set; a new setting is tested unasked."""
    for value in values_of(name):
        words = words_of(name, value)
        given = TRAIN.make_context("train", list(words)).params
        flags = {key: given[key] for key in given if key in HOMES or key in FLAGS}
        found = with_pairs(by_section(flags), given["more"] or [])
        plain = {
            key: tuple(v) if isinstance(v, list) else v for key, v in found[HOMES[name]].items()
        }
        assert plain == {name: value} and len(found) == 1
        assert (words[0] == "--set") == (name in SET_ONLY)

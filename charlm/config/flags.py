"""Settings as users give them: by flags, by --set, or by keywords of the library.

The command line and the library read settings through `by_section`, so `--hidden 128`,
`hidden=128` and `hidden_size=128` are equal. `words_of` is the inverse.
"""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from charlm.config.settings import Nested, Setting, find_setting, merge, table
from charlm.errors import UsageError, named


def by_section(values: Mapping[str, Any]) -> Nested:
    """Return settings by section; names are those of flags or of settings, None means not given.

    Raises UsageError for an unknown name, with the nearest one, and for one setting given twice.
    """
    nested: Nested = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        setting = find_setting(name)
        if getattr(value, "shape", None) == ():
            value = value.item()  # a number of numpy or torch
        if value is None or (isinstance(value, list | tuple) and not value):
            continue
        setting, plain = _plain(name, setting, value)
        if setting.name in names:
            raise UsageError(
                f"{names[setting.name]} and {name} are two names of one setting; give one of them"
            )
        names[setting.name] = name
        nested.setdefault(setting.section, {})[setting.name] = plain
    return nested


def _plain(name: str, setting: Setting, value: Any) -> tuple[Setting, Any]:
    """Return a setting and its value, converted from what the user gave."""
    if isinstance(value, Path):
        return setting, str(value)
    if isinstance(value, list | tuple):
        return setting, [str(item) if isinstance(item, Path) else item for item in value]
    if not isinstance(value, str) or not setting.spec.parse:
        return setting, value
    for other in table().values():
        if other.flag == f"{setting.flag} {value}":  # such as --embedding one-hot
            return other, True
    try:
        return setting, setting.spec.parse(value)
    except ValueError as error:
        raise UsageError(f"{named(name)} is {value!r}; expected {error}") from error


def check_frozen(vocab: Path | None, given: Nested) -> None:
    """Raise UsageError for settings of the vocabulary if a file decides them."""
    names = [named(name) for name in given.get("vocabulary", {})]
    if vocab and names:
        raise UsageError(
            f"{', '.join(names)} with {named('vocab')}, whose file decides that; give one of them"
        )


def names_given(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the names under which settings were given to the library, by setting."""
    return {find_setting(name).name: name for name in values}


def words_of(name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a setting this value.

    words_of("hidden_size", 128)        --hidden 128
    words_of("valid", ("a", "b"))       --valid a --valid b
    words_of("header", False)           --no-header
    words_of("zoneout", 0.1)            --set zoneout=0.1
    """
    if name == "sources":
        return [str(source) for source in value]
    setting = table()[name]
    flag = setting.flag
    if flag and isinstance(value, bool) and (value or setting.spec.has_no):
        return flag.split() if value else [f"--no-{flag[2:]}"]
    if not flag or isinstance(value, bool):
        return ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    values = value if isinstance(value, tuple | list) else (value,)
    return [word for one in values for word in (flag, str(one))]


def with_pairs(flags: Nested, pairs: Iterable[str]) -> Nested:
    """Return settings by section with those of --set. Raises UsageError for one given twice."""
    pairs_given = settings_in(pairs)
    for section, values in pairs_given.items():
        for key in values.keys() & flags.get(section, {}).keys():
            raise UsageError(f"{named(key)} was given by --set too; give it once")
    return merge(flags, pairs_given)


def settings_in(pairs: Iterable[str]) -> Nested:
    """Return nested values from pairs such as `zoneout=0.1` or `model.zoneout=0.1`.

    Raises UsageError for what is not a pair, for an unknown name, and for a name with the wrong
    section.
    """
    nested: Nested = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: expected NAME=VALUE, such as --set zoneout=0.1")
        given, _, key = name.strip().rpartition(".")
        setting = find_setting(key)
        if given not in ("", setting.section):
            raise UsageError(
                f"--set {name.strip()}: no such setting; expected {setting.section}.{key}, or "
                f"{key} alone"
            )
        nested.setdefault(setting.section, {})[setting.name] = _value_of(text.strip(), setting)
    return nested


BOOLEANS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)


def _value_of(text: str, setting: Setting) -> Any:
    """Return the value of a text for a setting; a value of the wrong type is refused later.

    Yes and no may be written in several ways, texts without quotes; the rest is TOML, or a number
    such as .5.
    """
    if setting.type is bool:
        return BOOLEANS.get(text.lower(), text)
    if setting.type is str and not text.startswith(('"', "'")):
        return text
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        with contextlib.suppress(ValueError):
            return float(text)
        return text

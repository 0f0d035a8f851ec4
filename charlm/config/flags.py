"""Settings as users type them: by flags, by --set, or by their own names.

The command line and the library read settings through `by_section`, so `--hidden 128`,
`hidden=128` and `hidden_size=128` mean the same. `words_of` is the way back.
"""

import contextlib
import difflib
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from charlm.config.settings import HOMES, SECTIONS, merge, section_of
from charlm.errors import UsageError

Nested = dict[str, dict[str, Any]]
"""Settings by section and name."""
FLAGS = {
    "layers": "num_layers",
    "hidden": "hidden_size",
    "params": "parameters",
    "init": "recurrent_init",
    "mos": "mixture",
    "tie": "tie_weights",
    "batch": "batch_size",
    "embedding": "embedding_size",  # or one_hot
}
"""Flags whose setting has another name; every other flag is named like its setting."""
SET_ONLY = frozenset((
    "nonlinearity", "mogrifier_rounds", "mogrifier_rank", "cap_input_gate", "qrnn_window",
    "spectral_radius", "sparsity", "last_hidden_size", "adaptive_softmax", "input_init",
    "forget_bias", "state_dropout", "zoneout", "zoneout_cell", "random_bptt", "state_reset",
    "accumulate", "beta1", "beta2", "average_trigger", "average_latest", "frequency_bias",
    "freeze_vectors", "decay", "decay_from", "decay_every", "decay_times", "final_rate",
    "clip_value", "keep",
))  # fmt: skip
"""Settings without a flag of their own."""
WITH_NO = ("header", "tie_weights", "calibrate")
"""Settings whose flag also has the form --no-..., for false."""


def by_section(values: Mapping[str, Any]) -> Nested:
    """Return settings by section; names are those of flags or of settings, None means not given.

    Raises UsageError for an unknown name, with the nearest one, and for one setting given twice.
    """
    nested: Nested = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        if name not in HOMES and name not in FLAGS:
            near = difflib.get_close_matches(name, [*HOMES, *FLAGS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "expected one of the README's tables"
            raise UsageError(f"setting {name!r} is not known; {hint}")
        if getattr(value, "shape", None) == ():
            value = value.item()  # a number of numpy or torch
        if value is None or (isinstance(value, list | tuple) and not value):
            continue
        setting, plain = _plain(name, value)
        if setting in names:
            raise UsageError(
                f"{names[setting]} and {name} are two names of one setting; give one of them"
            )
        names[setting] = name
        nested.setdefault(HOMES[setting], {})[setting] = plain
    return nested


def _plain(name: str, value: Any) -> tuple[str, Any]:
    """Return the setting's own name and its value as the settings keep it."""
    setting = FLAGS.get(name, name)
    if setting == "embedding_size" and value == "one-hot":
        return "one_hot", True
    if isinstance(value, Path):
        return setting, str(value)
    if isinstance(value, list | tuple):
        return setting, [str(one) if isinstance(one, Path) else one for one in value]
    if isinstance(value, str) and setting in ("embedding_size", "parameters"):
        read = width_of if setting == "embedding_size" else count_of
        return setting, read(value)
    return setting, value


def flag_of(name: str) -> str | None:
    """Return the flag of a setting, such as --hidden; None if it has none."""
    if name in SET_ONLY or name == "sources":
        return None
    names = {setting: flag for flag, setting in FLAGS.items()} | {"one_hot": "embedding"}
    return f"--{names.get(name, name).replace('_', '-')}"


def words_of(name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a setting this value.

    words_of("hidden_size", 128)        --hidden 128
    words_of("valid", ("a", "b"))       --valid a --valid b
    words_of("header", False)           --no-header
    words_of("zoneout", 0.1)            --set zoneout=0.1
    """
    if name == "sources":
        return [str(source) for source in value]
    flag = flag_of(name)
    if flag and name == "one_hot" and value is True:
        return [flag, "one-hot"]
    if flag and isinstance(value, bool) and (value or name in WITH_NO):
        return [flag if value else f"--no-{flag[2:]}"]
    if not flag or isinstance(value, bool):
        return ["--set", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    values = value if isinstance(value, tuple | list) else (value,)
    return [word for one in values for word in (flag, str(one))]


def width_of(text: str) -> int:
    """Return the value of --embedding as a number. Raises UsageError for anything else."""
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(
            f"--embedding is {text!r}; expected a width such as 128, or one-hot"
        ) from error


def count_of(text: str) -> int:
    """Return a number such as 24M or 500k. Raises UsageError for anything else."""
    scales = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
    digits, scale = text.strip().lower(), 1
    if digits and digits[-1] in scales:
        digits, scale = digits[:-1], scales[digits[-1]]
    try:
        return round(float(digits) * scale)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--params is {text!r}; expected a number such as 2000000, 2M or 500k"
        ) from error


def with_pairs(flags: Nested, pairs: Iterable[str]) -> Nested:
    """Return settings by section with those of --set. Raises UsageError for one given twice."""
    pairs_given = settings_in(pairs)
    for section, values in pairs_given.items():
        for key in values.keys() & flags.get(section, {}).keys():
            raise UsageError(f"{key} was given by --set and by a flag of its own; give one of them")
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
        section = section_of(key)
        if given not in ("", section):
            raise UsageError(
                f"--set {name.strip()}: no such setting; expected {section}.{key}, or {key} alone"
            )
        kind = typing.get_type_hints(SECTIONS[section])[key]
        nested.setdefault(section, {})[key] = _value_of(text.strip(), kind)
    return nested


BOOLEANS = dict.fromkeys(("true", "yes", "1"), True) | dict.fromkeys(("false", "no", "0"), False)


def _value_of(text: str, kind: Any) -> Any:
    """Return the value that a text has for a setting of a kind; what fits none is refused later.

    Yes and no may be written in several ways, texts without quotes; the rest is TOML, or a number
    such as .5.
    """
    kinds = typing.get_args(kind) or (kind,)
    if bool in kinds:
        return BOOLEANS.get(text.lower(), text)
    if str in kinds and typing.get_origin(kind) is not tuple and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        with contextlib.suppress(ValueError):
            return float(text)
        return text

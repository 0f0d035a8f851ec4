"""Names of settings as users type them: a setting's own name, or the name of its flag.

The command line and the library read settings through `by_section`, so `--hidden 128`,
`hidden=128` and `hidden_size=128` mean the same.
"""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from charlm.config import SECTIONS
from charlm.errors import UsageError

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
HOMES = {f.name: section for section, cls in SECTIONS.items() for f in fields(cls)}
"""The section that each setting belongs to."""


def by_section(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings by section; names are those of flags or of settings, None means not given.

    Raises UsageError for an unknown name, with the nearest one, and for one setting given twice.
    """
    nested: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        if name not in HOMES and name not in FLAGS:
            near = difflib.get_close_matches(name, [*HOMES, *FLAGS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "expected one of the README's tables"
            raise UsageError(f"setting {name!r} is not known; {hint}")
        if value is None or value == [] or value == ():
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
    if isinstance(value, str) and setting in ("embedding_size", "parameters"):
        read = width_of if setting == "embedding_size" else count_of
        return setting, read(value)
    return setting, value


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

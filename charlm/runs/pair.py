"""Runs of both directions: two ordinary runs, one inside the folder of the other.

A run with `--direction both` reads forward. When it is complete, a second run is trained in its
folder `backward/`, which reads the same text from its end. Only this module knows about pairs.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.runs.layout import BACKWARD as BACKWARD
from charlm.runs.locate import is_run


def is_pair(model: ModelSettings | Mapping[str, Any]) -> bool:
    """Return whether a model is the forward half of a pair; takes settings or their JSON."""
    known = model.direction if isinstance(model, ModelSettings) else model.get("direction")
    return known == "both"


def backward_half(path: Path) -> Path:
    """Return the folder of the backward half of a pair."""
    return path / BACKWARD


def is_backward_half(path: Path) -> bool:
    """Return whether a run is the backward half of the run around it."""
    return path.name == BACKWARD and is_run(path.parent)


def backward_settings(settings: Settings) -> Settings:
    """Return the settings of the backward half of a pair."""
    return replace(settings, model=replace(settings.model, direction="backward"))


def length_factor(unit: str, model: ModelSettings | Mapping[str, Any]) -> int:
    """Return the length of a run as a multiple of the length of each half.

    The halves of a pair share the minutes; steps and epochs count for each half.
    """
    return 2 if unit == "minutes" and is_pair(model) else 1

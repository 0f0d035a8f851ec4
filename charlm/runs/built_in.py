"""Texts and models that ship with charlm, and how they are recognised.

`tales` is text that a grammar of known entropy made, and a model of that text. `prose` is a model
of English novels, whose text does not ship.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from charlm.config.text_units import UNITS
from charlm.errors import RunError
from charlm.files.atomic import MANIFEST
from charlm.files.safe_read import read_bytes

BUILT_IN_RUNS: dict[str, str | None] = {"prose": None, "tales": "tales.txt"}
"""Models that ship with charlm, and the file of `corpora/` that each was trained on.

None if the text of a model does not ship.
"""
DEFAULT_RUN = "prose"
"""The model that is used when there is no other run."""
BUILT_IN_TEXT = "tales.txt"
"""The text that `charlm train` reads when none is given."""


def shipped(kind: str, name: str) -> Path:
    """Return the path of a file or folder that ships: `corpora/...` or `checkpoints/...`."""
    package = Path(str(files("charlm")))
    installed = package / "_built_in" / kind / name
    return installed if installed.exists() else package.parent / kind / name


def built_in_text() -> Path:
    """Return the path of the built-in text."""
    return shipped("corpora", BUILT_IN_TEXT)


def built_in_run(name: str = DEFAULT_RUN) -> Path:
    """Return the path of a built-in model."""
    return shipped("checkpoints", name)


def is_built_in(run: Path) -> bool:
    """Return whether a run ships with charlm, or is a copy of one, as in a checkout of the source.

    A copy has the name and the checksums of the run that ships.
    """
    return _built_in_name(run) is not None


def _built_in_name(run: Path) -> str | None:
    """Return the name of a built-in run or of a copy, as in `is_built_in`; None for others."""
    path = run.resolve()
    for name in BUILT_IN_RUNS:
        if path == built_in_run(name).resolve():
            return name
    if path.name not in BUILT_IN_RUNS:
        return None
    try:
        own, shipped_one = (read_bytes(each / MANIFEST) for each in (path, built_in_run(path.name)))
    except RunError:  # neither sealed nor a run
        return None
    return path.name if own == shipped_one else None


def shipped_sources(run: Path) -> list[str] | None:
    """Return the text of a built-in model; None if that does not ship, or for any other run."""
    text = BUILT_IN_RUNS.get(_built_in_name(run) or "")
    return [str(shipped("corpora", text))] if text else None


def is_built_in_text(sources: Sequence[str]) -> bool:
    """Return whether these sources are the built-in text."""
    return len(sources) == 1 and Path(sources[0]).resolve() == built_in_text().resolve()


def source_log_loss(record: Mapping[str, Any]) -> float | None:
    """Return the bits per character of the grammar on the end of its own text, or None.

    No model can do better on average, so a model's distance from this figure is its distance from
    perfect. None unless the run of `record` was validated on exactly that end of the built-in text.
    """
    corpus, vocabulary = record["settings"]["corpus"], record["settings"]["vocabulary"]
    comparable = (
        is_built_in_text(corpus["sources"])
        and record["corpus"]["document"] == "stream"
        and corpus["valid_frac"] in (None, 0.1)
        and not corpus["valid"]
        and vocabulary["normalize"] == "none"
        and not vocabulary["lowercase"]
        and (not UNITS[vocabulary["unit"]].whole_words or vocabulary["words"] == "text")
    )
    if not comparable:
        return None
    facts = json.loads(built_in_text().with_suffix(".json").read_text(encoding="utf-8"))
    return float(facts["log_loss_bits_per_char_last_tenth"])

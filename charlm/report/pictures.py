"""Files of pictures: the formats, and matplotlib for those that need it (the extra `plot`)."""

import importlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from charlm.errors import EnvironmentFailure, UsageError

MATPLOTLIB = (".svg", ".png", ".pdf")
"""Endings of the formats that matplotlib writes."""


def check_picture(path: Path, own: Collection[str] = ()) -> None:
    """Raise an error for a picture that cannot be written, before anything is computed.

    `own` has the endings of formats that charlm writes itself. UsageError is for the name,
    EnvironmentFailure for a missing matplotlib.
    """
    endings, ending = sorted({*MATPLOTLIB, *own}), path.suffix.lower()
    if ending not in endings:
        raise UsageError(f"--out is {path}; expected a name that ends in {', '.join(endings)}")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UsageError(f"--out is {path}; expected a file in a folder that can be written to")
    if ending not in own:
        figures()


def figures() -> Any:
    """Return matplotlib.figure, which needs no screen. Raises EnvironmentFailure without it."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise EnvironmentFailure(
            "pictures need matplotlib, which is not installed; install it with: "
            "pip install 'charlm[plot]'"
        ) from error

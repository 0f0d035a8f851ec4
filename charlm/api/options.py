"""Check options that are passed on from function to function."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from charlm.errors import UsageError, near_name

GIVEN = {"backend", "vocabulary", "sampling", "boundaries", "start", "options"}
"""Arguments that the library passes itself."""


def check_options(options: Mapping[str, Any], *functions: Callable[..., Any]) -> None:
    """Raise UsageError, with the nearest name, for an option that no function takes."""
    known = {name for each in functions for name in inspect.signature(each).parameters} - GIVEN
    for name in options.keys() - known:
        near = near_name(name, known)
        hint = f"did you mean {near!r}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise UsageError(f"option {name!r} is not known; {hint}")

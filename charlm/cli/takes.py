"""Where a command takes its text and its run from, beside its options."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
"""Values of a command's parameters by name."""


@dataclass(frozen=True, kw_only=True)
class Takes:
    """Text and run of a command. It is declared where the command is registered."""

    text: tuple[str, ...] = ()
    """Parameters that give a text. If none of them was given, a default is used, so a text that
    waits on standard input is an error."""
    stdin: tuple[str, ...] = ("-",)
    """Words that make the command read standard input; none if it cannot."""
    purpose: str = "Read it"
    """What the command does with the text of `stdin`."""
    literal: str = ""
    """Parameter that is a text itself, for which `-` means standard input."""
    option: tuple[str, str] = ("", "")
    """What to do with a text that was given in place of a run, and the flag for it."""
    run_in: str = ""
    """Parameter with a list of texts, the first of which may be a run."""
    reads_run: Callable[[Values], bool] = bool
    """True if the call reads a run, so that CHARLM_RUN applies."""


NO_TEXT = Takes()
"""Declaration of a command that takes no text, or always needs one."""

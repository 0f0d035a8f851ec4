"""Messages about wrong command lines, with flags and values as they were typed."""

import inspect
import typing
from typing import Any

import typer

from charlm.config.fields import plain_number

KINDS: dict[type, str] = {int: "a whole number", float: "a number"}
"""Names of the types of values that the parser converts."""


def bad_value(error: Any, words: list[str]) -> str:
    """Return which value was typed for an option and what was expected; "" if that is not known.

    `error` is an error of the command parser, `words` are the words of the command line.
    """
    option = getattr(error, "param", None)
    flags = [name for name in getattr(option, "opts", ()) if name.startswith("-")]
    typed = _typed_value(flags, words)
    expected = _expected(getattr(error, "ctx", None), getattr(option, "name", None))
    if typed is None or not expected:
        return ""
    return f"{max(flags, key=len)} is {typed!r}; expected {expected}"


def _typed_value(flags: list[str], words: list[str]) -> str | None:
    """Return the last value that was typed for an option."""
    typed = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        flag, equals, value = word.partition("=")
        if flag in flags:
            typed = value if equals else following
    return typed


def _expected(context: Any, name: str | None) -> str:
    """Describe the numbers that a parameter of a command takes; "" if it takes other values."""
    function = getattr(getattr(context, "command", None), "callback", None)
    if function is None or name is None:
        return ""
    annotation = inspect.signature(function).parameters[name].annotation
    annotated, *hints = typing.get_args(annotation) or (annotation,)
    types = typing.get_args(annotated) or (annotated,)
    kind = next((text for known, text in KINDS.items() if known in types), "")
    option = next((hint for hint in hints if isinstance(hint, typer.models.ParameterInfo)), None)
    if not kind or option is None:
        return ""
    bounds = [f"at least {plain_number(option.min)}"] if option.min is not None else []
    bounds += [f"at most {plain_number(option.max)}"] if option.max is not None else []
    return f"{kind} of {' and '.join(bounds)}" if bounds else kind

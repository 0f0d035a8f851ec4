"""Messages about wrong command lines, with flags and values as they were typed."""

import inspect
import typing
from typing import Any

import typer

from charlm.config.fields import Spec
from charlm.config.settings import TYPE_NAMES


def bad_value(error: Any, words: list[str]) -> str:
    """Return the value that was typed for an option and what was expected; "" if unknown.

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
    kind = next((TYPE_NAMES[known] for known in (int, float) if known in types), "")
    option = next((hint for hint in hints if isinstance(hint, typer.models.ParameterInfo)), None)
    if not kind or option is None:
        return ""
    bounds = Spec(help="", at_least=option.min, at_most=option.max).range_text()
    return f"{kind} of {bounds}" if bounds else kind

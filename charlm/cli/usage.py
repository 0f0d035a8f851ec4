"""Messages about wrong command lines, with flags and values as they were typed."""

import inspect
import re
import typing
from pathlib import Path
from typing import Any

import typer

from charlm.commands import command
from charlm.config.fields import Spec
from charlm.config.settings import TYPE_NAMES
from charlm.errors import SYNONYMS, near_name


def parse_problem(error: Any, words: list[str]) -> str:
    """Return the message of a usage error of the command parser.

    `words` are the words of the command line.
    """
    text = str(error.format_message())
    if "Invalid value" in text:
        return bad_value(error, words) or text
    if option := getattr(error, "option_name", None):
        if not hasattr(error, "possibilities"):  # BadOptionUsage
            return f"{option} needs a value after it"
        return _unknown_option(option, error.ctx)
    if unknown := re.match("No such command '(.*?)'", text):
        return _unknown_command(unknown[1], error.ctx)
    if "Missing argument" in text:
        return f"{error.param.metavar or error.param.name.upper()} is missing"
    return text


def _unknown_option(option: str, context: Any) -> str:
    """Return what is wrong with an option, and the option or the place that was meant."""
    problem = f"there is no option {option}"
    verbs = getattr(context.command, "commands", {}).values()
    if any(option in p.opts for verb in verbs for p in verb.params):
        return f"{problem} before the command; put it after: charlm COMMAND {option}"
    options = [name for p in context.command.params for name in p.opts]
    if option == "--json" and "--format" in options:
        return f"{problem}; did you mean --format jsonl?"
    near = near_name(option, options)
    return f"{problem}; did you mean {near}?" if near.startswith("--") else problem


def _unknown_command(typed: str, context: Any) -> str:
    """Return what is wrong with a command, and the one that is spelled alike or does that."""
    from charlm.runs.locate import is_file

    commands = context.command.commands
    if is_file(Path(typed)):
        return f"{typed!r} is a file, not a command; did you mean '{command('train', typed)}'?"
    verb = re.compile(rf"\b{re.escape(typed)}", re.IGNORECASE)
    about = (name for name in commands if verb.search(commands[name].help or ""))
    meant = SYNONYMS.get(typed, typed)
    near = [f"{name} {meant}" for name in commands if meant in _commands_below(name, context)]
    near = near or [near_name(typed, commands) or next(about, "") or _with_text(typed, context)]
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near[0] else ""
    return f"there is no command {typed!r}{hint}"


def _with_text(typed: str, context: Any) -> str:
    """Return the only command of a group that takes a text, followed by what was typed, or ""."""
    takes = [
        name for name, verb in context.command.commands.items()
        if any(each.param_type_name == "argument" and each.required for each in verb.params)
    ]  # fmt: skip
    is_group = context.parent is not None
    return command(context.info_name, takes[0], typed) if is_group and len(takes) == 1 else ""


def _commands_below(name: str, context: Any) -> Any:
    """Return the commands of a command, such as those of `runs`; none of most."""
    return getattr(context.command.get_command(context, name), "commands", ())


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

"""Frame of every command: global flags, the run, settings, and standard input.

`framed` wraps the function of each command. It

1. accepts `-q`, `-v`, `--debug` and `--version` after the command too;
2. takes the run from the argument RUN if the command has no other argument, and from CHARLM_RUN
   if it is not given at all;
3. replaces a parameter that is marked with `SettingOptions` by the options of these settings, and
   passes those that were typed as a mapping;
4. makes messages name the flags of options and settings (see `errors.naming`);
5. gathers the options of a command whose only parameter is a dataclass: each field is one;
6. reads standard input for `-` if an argument is a text itself, and refuses to ignore a text that
   waits there (see `charlm.cli.stdin`).

A command declares its text and its run with `Takes`.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from charlm import __version__
from charlm.cli.options import SettingOptions, flag_of, hints_of
from charlm.cli.output import Verbosity, say, write
from charlm.cli.stdin import NO_TEXT, Takes, check_unread, read_text
from charlm.commands import command
from charlm.config.flags import words_of
from charlm.config.settings import table
from charlm.errors import RunError, UsageError, ended, naming

RANGE = " range"
"""End of the parser's name of a number with limits."""
PANEL = "Global options"
RUN_VARIABLE = "CHARLM_RUN"


def _version(given: bool) -> None:
    if given:
        write(f"charlm {__version__}\n")
        raise typer.Exit


QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Report errors only.", rich_help_panel=PANEL)
]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Report more.", rich_help_panel=PANEL)
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show a traceback with an error.", rich_help_panel=PANEL),
]
VersionOption = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=_version,
        is_eager=True,
        help="Show the version and exit.",
        rich_help_panel=PANEL,
    ),
]
GLOBAL_FLAGS = {
    "quiet": QuietOption,
    "verbose": VerboseOption,
    "debug": DebugOption,
    "version": VersionOption,
}
"""Flags that are accepted before and after any command."""
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="Run, as with --run."),
]


def set_verbosity(quiet: bool, verbose: bool, debug: bool) -> None:
    """Apply the global flags that were given; the others change nothing."""
    if quiet or verbose:
        Verbosity.level = 0 if quiet else 2
    Verbosity.debug = Verbosity.debug or debug


def add_commands(
    app: typer.Typer, functions: dict[str, Callable[..., None]], group: str = ""
) -> None:
    """Add framed functions as commands of these names, which messages put after their group."""
    for name, function in functions.items():
        app.command(name, cls=NarrowHelpCommand)(framed(f"{group} {name}".lstrip(), function))


class NarrowHelpCommand(TyperCommand):
    """A command whose help leaves the limits of numbers out, to have room for the descriptions."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from typer import rich_utils

        rich_utils.RANGE_STRING = ""
        for param in self.params:
            if param.type.name.endswith(RANGE):
                param.metavar = param.metavar or f"<{param.type.name.removesuffix(RANGE)}>"
        super().format_help(ctx, formatter)


class DefaultGroup(TyperGroup):
    """A group of commands of which one may be left out: the first word may be its argument."""

    default = ""
    """Name of that command; a subclass sets it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default before arguments that do not begin with a command or ask for help."""
        if args[:1] and args[0] in (*self.commands, "--help", "-h"):
            return super().parse_args(ctx, args)
        alone = [] if not args and self.no_args_is_help else [self.default]
        return super().parse_args(ctx, [*alone, *args])


def joined_lines(text: str) -> str:
    """Return a text with the lines of each paragraph joined, so help wraps at any width."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def framed(verb: str, function: Callable[..., None]) -> Callable[..., None]:
    """Return a function of a command with the steps that all commands share."""
    takes: Takes = getattr(function, "takes", NO_TEXT)
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    if form := _form(parameters):
        parameters = list(inspect.signature(form).parameters.values())
    names = {parameter.name for parameter in parameters}
    marked = {p.name: mark for p in parameters for mark in hints_of(p.annotation, SettingOptions)}
    flags = {p.name: flag for p in parameters if (flag := flag_of(p.annotation))}
    takes_run = "run" in names
    added: dict[str, tuple[Any, Any]] = {name: (o, False) for name, o in GLOBAL_FLAGS.items()}
    if takes_run and not any(hints_of(p.annotation, ArgumentInfo) for p in parameters):
        added["run_argument"] = (RunArgument, None)

    @functools.wraps(function)
    def wrapped(**values: Any) -> None:
        """Handle the common parameters, then run the command."""
        own = {name: values.pop(name) for name in added}
        set_verbosity(own["quiet"], own["verbose"], own["debug"])
        if takes_run:
            values["run"] = chosen_run(verb, takes, values, own.get("run_argument"))
        check_unread(verb, takes, values)
        typed: dict[str, Any] = {}
        offered: dict[str, str] = {}
        for name, mark in marked.items():
            offered |= mark.flags(values.get("pairs"))
            values[name] = mark.typed(values)
            typed |= values[name]
        if takes.literal and values[takes.literal] == "-":
            values[takes.literal] = read_text()
        with naming(offered | flags | typed_flags(typed)):
            function(form(**values)) if form else function(**values)

    every: list[inspect.Parameter] = []
    for parameter in parameters:
        if parameter.name in marked:
            every += [_option(*item) for item in marked[parameter.name].options().items()]
        else:
            every.append(parameter.replace(kind=parameter.KEYWORD_ONLY))
    every += [_option(name, option, default) for name, (option, default) in added.items()]
    wrapped.__doc__ = joined_lines(inspect.getdoc(function) or "")
    wrapped.__dict__["__signature__"] = inspect.Signature(every)
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return wrapped


def _form(parameters: Sequence[inspect.Parameter]) -> Callable[..., Any] | None:
    """Return the dataclass whose fields are the options of a command, if it has one."""
    kind = parameters[0].annotation if parameters else None
    return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def _option(name: str, option: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option
    )


def typed_flags(typed: dict[str, Any]) -> dict[str, str]:
    """Return the flags of settings in the spelling that was typed."""
    words = {word.partition("=")[0] for word in Verbosity.words}
    flags = {}
    for name, value in typed.items():
        spellings = [*words_of(name, value)[:1], *table()[name].flags]
        flags[name] = next((flag for flag in spellings if flag in words), spellings[0])
    if typed.get("embedding_size") == "one-hot":
        flags["one_hot"] = "--embedding one-hot"
    return flags


def chosen_run(verb: str, takes: Takes, values: dict[str, Any], argument: str | None) -> str | None:
    """Return the run that was named by --run, as an argument, or by CHARLM_RUN.

    Raises UsageError if --run and an argument name two runs, and RunError for an argument that is
    no run, with advice on how to give a text.
    """
    run: str | None = values["run"]
    if argument is None and takes.run_in and run is None and takes.reads_run(values):
        argument = _run_among_texts(takes.run_in, values)
    if argument is not None:
        if run is not None:
            raise UsageError(
                f"argument {argument!r} and --run {run!r} both name a run; expected one. "
                + (_text_advice(verb, takes, argument, run) or "Leave one out")
            )
        _check_run(argument, values, _text_advice(verb, takes, argument))
        return argument
    named = os.environ.get(RUN_VARIABLE)
    if run is not None or not named or not takes.reads_run(values):
        return run
    _check_run(named, values, f"The run is named by {RUN_VARIABLE}; set it to a run, or unset it")
    say(f"run {named} (from {RUN_VARIABLE})")
    return named


def _run_among_texts(parameter: str, values: dict[str, Any]) -> str | None:
    """Remove the run from a command's texts and return it, if the first of them is one."""
    from charlm.runs.locate import HUB_RUN, checkpoints_folder, find_run, is_run

    texts = values[parameter] or []
    if not texts or texts[0].startswith(HUB_RUN):  # a data set: the hub is not asked for a model
        return None
    path = Path(texts[0])
    with contextlib.suppress(OSError):  # a text that is too long for a name
        if path.exists() and not is_run(path):
            return None
    try:
        find_run(texts[0], checkpoints_folder(values["checkpoints"]), trained=False)
    except RunError:  # a text such as - or hf:name, or a mistake that is reported when it is read
        return None
    values[parameter] = texts[1:] or None
    return str(texts[0])


def _check_run(run: str, values: dict[str, Any], advice: str) -> None:
    from charlm.runs.locate import checkpoints_folder, find_run

    try:
        find_run(run, checkpoints_folder(values["checkpoints"]), trained=False)
    except RunError as error:
        raise RunError(f"{ended(error)} {advice}".rstrip(". ")) from error


def _text_advice(verb: str, takes: Takes, argument: str, run: str | None = None) -> str:
    """Return how to give a text to a command that got one in place of a run."""
    advice, flag = takes.option
    named = ("--run", run) if run else ()
    return f"{advice}: {command(verb, flag, argument, *named)}" if flag else ""

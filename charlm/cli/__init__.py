"""The command line: parse, make one call of the API, render; and the handling of errors."""

import functools
import importlib
import os
import re
import sys
from typing import Any

import typer

from charlm.cli.display import shown_phases
from charlm.cli.frame import (
    DebugOption,
    QuietOption,
    VerboseOption,
    VersionOption,
    add_commands,
    joined_lines,
    set_verbosity,
)
from charlm.cli.output import (
    Verbosity,
    close_streams,
    finish_output,
    prepare_streams,
    say,
)
from charlm.cli.stdin import NO_TEXT
from charlm.commands import join_words, quote
from charlm.errors import CharlmError, UsageError, ended, is_memory_full
from charlm.files.escapes import escape_controls

HELP = """Recurrent language models over characters, bytes and words.

Train a model on any text, generate new text, score sentences, evaluate models.

Example:  charlm train corpus.txt && charlm sample --len 500
"""

EPILOG = """Exit codes: 0 ok, 1 bug, 2 usage, 3 text, 4 run or model,
5 machine (disk, memory, device), 6 training diverged, 129 terminal closed, 130 interrupted,
143 terminated."""

MAX_MESSAGE = 2000


def common(
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
    version: VersionOption = False,
) -> None:
    """Accept global options before the command."""
    del version
    Verbosity.level, Verbosity.stop_reported = 1, False
    off = ("", "0", "false", "no", "off")
    Verbosity.debug = os.environ.get("CHARLM_DEBUG", "").lower() not in off
    set_verbosity(quiet, verbose, debug)


COMMANDS = (
    "train", "sample", "play", "score", "rescore", "predict", "eval", "compare", "pairs", "next",
    "inside", "fill", "vocab", "info", "diff", "verify", "push", "pull", "plot", "gradients",
    "search", "serve", "reproduce", "explain", "bench", "settings", "guide",
)  # fmt: skip
"""Commands in the order of the help; each is a function of the module of its name."""
MODULES = {"eval": "evaluate", "next": "next_token"}
"""Modules, and functions, of commands whose name is not theirs."""
GROUPS = ("ngram", "runs", "vectors")
"""Groups of commands; each is the `app` of the module of its name."""


@functools.cache
def _app(*verbs: str) -> typer.Typer:
    """Return the program with these commands and groups alone, whose modules are imported."""
    made = typer.Typer(
        name="charlm",
        help=HELP,
        epilog=joined_lines(EPILOG),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(common)
    for verb in verbs:
        name = MODULES.get(verb, verb)
        module = importlib.import_module(f"charlm.cli.{name}")
        if verb in GROUPS:
            made.add_typer(module.app)
        else:
            add_commands(made, {verb: getattr(module, name)})
    return made


def _app_for(arguments: list[str]) -> typer.Typer:
    """Return the program for some arguments: with the command that they name, or with all."""
    if arguments == ["--version"]:
        return _app()
    verb = next((word for word in arguments if not word.startswith("-")), "")
    known = verb in (*COMMANDS, *GROUPS)
    return _app(verb) if known else _app(*COMMANDS, *GROUPS)


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return _app(*COMMANDS, *GROUPS)
    raise AttributeError(f"module 'charlm.cli' has no attribute {name!r}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; errors become one line and an exit status."""
    prepare_streams()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # looking for plugins is slow
    arguments = sys.argv[1:] if arguments is None else arguments
    Verbosity.words, Verbosity.command = arguments, join_words(["charlm", *arguments])
    status = 0
    try:
        _check_arguments(arguments)
        with shown_phases():
            result = _app_for(arguments)(arguments, prog_name="charlm", standalone_mode=False)
        status = result if isinstance(result, int) else 0
        if status == 130 and not Verbosity.stop_reported:  # typer has caught Ctrl-C
            say("charlm: interrupted")
        finish_output()
    except CharlmError as error:
        status = _report(error, error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        status = 130
        say("charlm: interrupted")
    except SystemExit:  # typer exits so if the pipe of its help is closed
        status = 0
    except MemoryError as error:
        problem = "not enough memory; expected enough for the text and the model. "
        status = _report(CharlmError(problem + "Use a smaller --hidden, --batch or --n"), 5, error)
    except Exception as error:
        status = _unexpected(error)
    finally:
        close_streams()
    sys.exit(status)


def _check_arguments(arguments: list[str]) -> None:
    """Raise UsageError for arguments that are not valid UTF-8, or that are not read as UTF-8."""
    for argument in arguments:
        if argument.isascii() or not any("\ud800" <= c <= "\udfff" for c in argument):
            continue
        try:
            valid = os.fsencode(argument).decode("utf-8")
        except UnicodeError:
            shown = argument.encode("utf-8", "backslashreplace").decode("utf-8")
            raise UsageError(
                f"argument {shown!r} is not valid UTF-8; expected text in UTF-8. Convert it, or "
                "rename the file"
            ) from None
        raise UsageError(
            f"argument {valid!r} is UTF-8, but Python reads arguments as "
            f"{sys.getfilesystemencoding()}; expected a UTF-8 locale. Set PYTHONUTF8=1"
        )


def _report(error: Exception, status: int, cause: BaseException | None = None) -> int:
    Verbosity.level = max(Verbosity.level, 1)
    _traceback(cause or error)
    lines = re.sub("\n(?!  )", " ", str(error)).split("\n")  # a list is indented
    text = "\n".join(_cut(escape_controls(line)) for line in lines)
    say(f"charlm: {text}")
    return status


def _cut(line: str) -> str:
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."


def _unexpected(error: Exception) -> int:
    """Report an exception that is not a CharlmError: a usage error of the parser, or a bug."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if not error.format_message():  # `charlm` alone: its help has been shown
            return int(error.exit_code)
        from charlm.cli.usage import parse_problem

        context = getattr(error, "ctx", None)
        path = context.command_path if context else _command_path()
        text = parse_problem(error, Verbosity.words)
        if context and "unexpected extra argument" in text:
            text = f"{text.removesuffix('.')}. {_about_arguments(context.command)}".rstrip(". ")
        text += _with_dash(error)
        if context and context.info_name == "fill" and "is missing" in text:
            text += " Give a text with gaps, or - for stdin."
        return _report(Exception(f"{ended(text)} See: {path} --help"), error.exit_code)
    if isinstance(error, ImportError) and re.search("map segment|allocate memory", str(error)):
        text = f"not enough memory to load a library ({error}); expected enough for it. Free some"
        return _report(CharlmError(text), 5, error)
    if is_memory_full(error):
        text = "the device has too little memory; expected enough for the model and a batch. "
        return _report(CharlmError(text + "Use a smaller --hidden, or --device cpu"), 5, error)
    if re.match("CUDA (driver )?error: (?!device-side assert)", str(error)):  # a bug is no failure
        found, _, _ = str(error).partition("\n")
        text = f"the GPU has failed ({found}); expected it to compute to the end. Run again, "
        return _report(CharlmError(text + "resume the run, or use --device cpu"), 5, error)
    problem = f"unexpected {type(error).__name__}: {error}. This is a bug in charlm; "
    return _report(Exception(problem + "run again with --debug and report it"), 1, error)


def _about_arguments(command: Any) -> str:
    """Return a hint on the arguments of a command that reads a run, else ""."""
    names = {parameter.name for parameter in command.params}
    takes = getattr(command.callback, "takes", NO_TEXT)
    if "run_argument" in names:
        quotes = f"; put a text into quotes, after {takes.option[1]}" if takes.literal else ""
        return f"Expected one RUN{quotes}"
    if takes.literal and "run" in names:
        return "Put a text of several words into quotes"
    return "A run is named with --run" if "run" in names else ""


def _command_path() -> str:
    """Return the name of the program and of the command that was typed."""
    node: Any = typer.main.get_command(_app_for(Verbosity.words))
    path = ["charlm"]
    for word in Verbosity.words:
        inner = getattr(node, "commands", {}).get(word)
        if inner is not None:
            path, node = [*path, word], inner
    return " ".join(path)


def _with_dash(error: Any) -> str:
    """Explain how to pass an argument that begins with "-", if it was read as an option."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if not option or not context or not hasattr(error, "possibilities"):
        return ""
    if not any(parameter.param_type_name == "argument" for parameter in context.command.params):
        return ""
    for word in Verbosity.words:
        is_typo = error.possibilities and word.startswith("--") and " " not in word
        if word.startswith(option) and not is_typo:
            return (
                f'. Put an argument that begins with "-" last, after "--": {context.command_path}'
                f" -- {quote(word)}"
            )
    return ""


def _traceback(error: BaseException) -> None:
    if Verbosity.debug:
        import traceback

        say("".join(traceback.format_exception(error)).rstrip())

"""`charlm play`: write a text together with a model, at a prompt."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import on_terminal, say, write
from charlm.cli.sample import Seed, Temperature
from charlm.commands import command
from charlm.errors import CharlmError, UsageError, naming
from charlm.files.escapes import escape_controls

if TYPE_CHECKING:
    from charlm.api.play import Token
    from charlm.api.prompt import Prompt, Shown

PROMPT, MORE = "> ", ". "
"""Prompts for a line, and for a further line of a text of several lines."""
NAMES = {"unit": "/unit", "signals": "/unit", "find_units": command("inside", "--find")}
"""Names in messages for what is typed here; settings have no flags."""
MAX_HISTORY = 1000
"""Number of lines that are kept for the arrow keys."""
Length = Annotated[int, typer.Option("--len", min=0, help="Number of tokens per turn.")]
History = Annotated[
    bool,
    typer.Option(
        "--history/--no-history",
        help="Keep the typed lines for the arrow keys of the next time, in a file.",
    ),
]


def play(
    length: Length = 200,
    temperature: Temperature = 1.0,
    seed: Seed = None,
    history: History = True,
    theme: options.Theme = None,
    with_: options.With = None,
    engine: options.Engine = "auto",
    weights: options.Weights = "fp32",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Write a text together with a model, at a prompt.

    Enter continues the text, and what you type is appended. /? lists the commands, such as /undo.

    Example:  charlm play --temperature 0.7
    """
    if not _is_terminal():
        raise UsageError(
            "play is for a terminal, but stdin or stdout is a file or pipe; expected a terminal. "
            f"Generate text without one with: {command('sample', '--prime', 'TEXT', run=run)}"
        )
    shown_theme = options.checked_theme(theme)
    model = options.open_model(run, checkpoints, engine, weights, with_)
    session = api.play.Session(model, length=length, temperature=temperature, seed=seed)
    say(f"seed {session.place.seed}; Enter: the model writes, /?: help, Ctrl-D: leave")
    with _kept_history() if history else contextlib.nullcontext():
        _converse(api.prompt.Prompt(session), Screen(shown_theme, len(model.vocabulary)))


def _is_terminal() -> bool:
    return sys.stdin.isatty() and on_terminal()


class Screen:
    """Terminal that shows tokens in the colours of their surprisal, and notes between them."""

    def __init__(self, theme: str, vocab_size: int) -> None:
        from rich.console import Console
        from rich.text import Text

        from charlm.report.heat import SCALES, rich_style

        self.vocab_size = vocab_size
        self._in_line = False
        self._codes: dict[tuple[str, int], tuple[str, str]] = {}
        console = Console()
        for scale in SCALES.values():
            for level in scale.levels:
                style = rich_style(level, theme, scale, system=console.color_system)
                with console.capture() as capture:
                    console.print(Text("x", style), end="")
                before, _, after = capture.get().partition("x")
                self._codes[scale.name, level] = before, after

    def show(self, shown: "Token | str") -> None:
        """Write a token as part of the text, or a note on a line of its own."""
        if isinstance(shown, str):
            self.end_line()
            say(escape_controls(shown))
        elif shown.text:
            before, after = self._codes[self._level(shown)]
            lines = escape_controls(shown.text).split("\n")
            parts = (f"{before}{line}{after}" if line else "" for line in lines)
            write("\n".join(parts), flush=True)
            self._in_line = bool(lines[-1])

    def end_line(self) -> None:
        """Move to the beginning of a line."""
        if self._in_line:
            write("\n", flush=True)
        self._in_line = False

    def _level(self, token: "Token") -> tuple[str, int]:
        """Return the scale and the level of a token: that of its unit, or of its surprisal."""
        from charlm.report.heat import SIGNED, SURPRISAL, signed_level, surprisal_level
        from charlm.units import bits

        if token.value is not None:
            return SIGNED.name, signed_level(token.value)
        return SURPRISAL.name, surprisal_level(bits(token.nats), self.vocab_size)


def _converse(prompt: "Prompt", screen: Screen) -> None:
    """Read lines and show what they change, until the person leaves."""
    interrupts = 0
    while not prompt.ended and interrupts < 2:
        try:
            line = input(MORE if prompt.is_open else PROMPT)
            interrupts = 0
            line.encode()
            with naming(NAMES):
                _show(prompt.enter(line), screen)
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            prompt.close()
            interrupts += 1
            write("\n", flush=True)
            if interrupts == 1:
                say("Ctrl-C again, or Ctrl-D, leaves")
        except UnicodeError:
            say("the line is not valid UTF-8; it was ignored")
        except CharlmError as error:
            screen.end_line()
            say(escape_controls(str(error)))
        screen.end_line()


def _show(shown: "Shown", screen: Screen) -> None:
    """Show tokens and notes as they come; Ctrl-C stops them."""
    interrupts: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        for each in shown:
            screen.show(each)
            if interrupts:
                break
    finally:
        close: Any = getattr(shown, "close", None)
        if close is not None:
            close()
        signal.signal(signal.SIGINT, usual)


def history_file() -> Path | None:
    """Return the file with the lines that were typed, or None if the user has no home folder."""
    from charlm.text.home import state_home

    folder = state_home()
    return folder and folder / "play_history"


@contextlib.contextmanager
def _kept_history() -> Iterator[None]:
    """Read the lines of earlier sessions, and keep those of this one, if there is readline.

    Only the user may read the file.
    """
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    path = history_file()
    if path is None:
        from charlm.text.home import SET_HOME

        say(f"the history is not kept: {SET_HOME}, or leave the history out: --no-history")
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(MAX_HISTORY)
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            path.chmod(0o600)
            readline.write_history_file(path)
        except OSError as error:
            say(f"the history was not kept: {path}: {error.strerror}. Leave it out: --no-history")

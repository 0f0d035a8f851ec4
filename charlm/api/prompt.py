"""Prompt of `charlm play`: lines that a person types, and what they do to the session."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charlm.api.play import Place, Session, Token
from charlm.config.cells import SIGNALS
from charlm.errors import EnvironmentFailure, UsageError, check_count, nearest
from charlm.files.atomic import write_file
from charlm.inference.samplers import fresh_seed
from charlm.inspect.live_unit import LiveUnit
from charlm.report.inside import full_value
from charlm.report.text import number, unknown_note, visible
from charlm.text.tokenizers.tokenizer_json import UNK

ALTERNATIVES = 10
"""Number of tokens that /alt shows."""
SHOWN = 160
"""Number of tokens at the end of the text that are shown again after a change."""
QUOTES = '"""'
"""Beginning and end of typed text of several lines."""

Shown = Iterator[Token | str]
"""Tokens of the text and notes, in the order in which they are shown."""


class Prompt:
    """Reader of typed lines: text, and commands that begin with a slash.

    `ended` is true after /quit.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.ended = session, False
        self._choices: dict[str, int] = {}
        self._lines: list[str] | None = None
        self._saved: set[Path] = set()
        self._unit: LiveUnit | None = None
        self._full = 1.0

    @property
    def is_open(self) -> bool:
        """True between a line that begins with three quotes and one that ends with them."""
        return self._lines is not None

    def close(self) -> None:
        """Forget lines that were begun with three quotes."""
        self._lines = None

    def enter(self, line: str) -> Shown:
        """Handle a line and yield what to show. Closing the iterator stops the model.

        A command starts with "/"; for text that starts with a slash, type two. Text is appended;
        then, and after an empty line, the model continues. Raises a subclass of CharlmError, at
        once or during iteration, for a mistake, which changes nothing.
        """
        choices, self._choices = self._choices, {}
        if self._lines is not None or line.startswith(QUOTES):
            text = self._more_lines(line)
            return iter(()) if text is None else self._continue(self.session.typed(text))
        if line.startswith("/") and not line.startswith("//"):
            return self._command(line)
        if line.strip() in choices:
            place = self.session.picked(choices[line.strip()])
            return self._continue(place, picked=True)
        return self._continue(self.session.typed(line[line.startswith("//") :]))

    def _more_lines(self, line: str) -> str | None:
        """Collect a line; return the text when three quotes end it."""
        if self._lines is None:
            self._lines, line = [], line.removeprefix(QUOTES)
        ends = line.rstrip().endswith(QUOTES)
        self._lines.append(line.rstrip().removesuffix(QUOTES) if ends else line)
        if not ends:
            return None
        text, self._lines = "\n".join(self._lines), None
        return text

    def _continue(self, place: Place, *, picked: bool = False) -> Shown:
        """Name the unknown tokens of what was typed, or show what was picked; then continue."""
        before = self.session.place
        typed = place.tokens[len(before.tokens) :]
        if unknown := [token.text.strip(" ") or " " for token in typed if token.id == UNK]:
            yield unknown_note("text", unknown)
        if picked:
            yield from self._valued(before, typed)
        with contextlib.closing(self.session.continued(place)) as tokens:
            yield from self._valued(place, tokens)

    def _valued(self, place: Place, tokens: Iterable[Token]) -> Iterator[Token]:
        """Yield the tokens after a place, with the values of the unit that was chosen."""
        if self._unit is not None:
            self._unit.begin(place.start)
        for token in tokens:
            if self._unit is not None:
                (value,) = self._unit.read([token.id])
                token = replace(token, value=value / self._full)
            yield token

    def _tokens(self) -> Sequence[Token]:
        """Return the tokens of the text, with the values of the unit that was chosen."""
        tokens = self.session.place.tokens
        if self._unit is None:
            return tokens
        self._unit.begin(self.session.turns[0].place.start)
        values = self._unit.read([token.id for token in tokens])
        return [
            replace(token, value=value / self._full)
            for token, value in zip(tokens, values, strict=True)
        ]

    def _command(self, line: str) -> Shown:
        name, _, rest = line[1:].partition(" ")
        if name not in COMMANDS:
            hint = nearest(name, COMMANDS) or "/? lists them."
            raise UsageError(
                f"/{name} is not a command; {hint} Text that starts with / is typed with //"
            )
        command, rest = COMMANDS[name], rest.strip()
        if rest and " " not in command.usage:
            raise UsageError(
                f"/{name} {rest}: expected nothing after {command.usage}. Leave it out"
            )
        return command.run(self, rest)

    def _again(self, rest: str) -> Shown:
        seed = _whole("seed", rest, 0) if rest else fresh_seed()
        yield f"seed {seed}"
        place = self.session.turns[-1].typed
        with contextlib.closing(self.session.again(seed)) as tokens:
            yield from self._valued(place, tokens)

    def _undo(self, rest: str) -> Shown:
        self.session.undo()
        return self._end()

    def _back(self, rest: str) -> Shown:
        self.session.back(_whole("/back", rest or "1", 1))
        return self._end()

    def _end(self) -> Shown:
        """Show the end of the text again."""
        tokens = self._tokens()
        yield "the text ends:" if len(tokens) > SHOWN else "the text:" if tokens else "no text"
        yield from tokens[-SHOWN:]

    def _alternatives(self, rest: str) -> Shown:
        top = _whole("/alt", rest, 1) if rest else ALTERNATIVES
        tokens = self.session.next(top)
        self._choices = {str(place): token.id for place, token in enumerate(tokens, start=1)}
        for place, token in enumerate(tokens, start=1):
            yield f"{place:3}  {100 * token.probability:6.2f} %  {visible(token.token)}"
        yield "a number picks one"

    def _set(self, rest: str) -> Shown:
        name, _, text = rest.partition(" ")
        sampling = asdict(self.session.sampling)
        if name in ("len", "seed"):
            yield from COMMANDS[name].run(self, text.strip())
        elif not name:
            yield "  ".join(f"{key} {value:.15g}" for key, value in sampling.items())
        elif name not in sampling:
            names = [*sampling, "len", "seed"]
            hint = nearest(name, names) or f"expected one of {', '.join(names)}"
            raise UsageError(f"there is no setting {name!r}; {hint}")
        else:
            if text:
                kind = type(sampling[name])
                sampling[name] = _whole(name, text, 0) if kind is int else _number(name, text)
                self.session.sampling = replace(self.session.sampling, **sampling)
            yield f"{name} {sampling[name]:.15g}"

    def _length(self, rest: str) -> Shown:
        self.session.length = _whole("len", rest, 0) if rest else self.session.length
        yield f"len {self.session.length}"

    def _seed(self, rest: str) -> Shown:
        if rest:
            self.session.reseed(_whole("seed", rest, 0))
        yield f"seed {self.session.place.seed}"

    def _score(self, rest: str) -> Shown:
        tally = self.session.tally
        unknown = f", {tally.oov:,} unknown" if tally.oov else ""
        yield (
            f"{tally.tokens:,} tokens{unknown}, ln P {number(-tally.nats, 3)}, "
            f"{number(tally.bits_per_char)} bits per character, "
            f"perplexity {number(tally.perplexity, 2)} per token"
        )

    def _save(self, rest: str) -> Shown:
        if not rest:
            raise UsageError("/save has no name; expected a file, such as /save story.txt")
        try:
            path = Path(rest).expanduser().resolve()
            exists, is_folder = path.exists(), path.is_dir()
            if not exists or path in self._saved:
                write_file(path, self.session.text.encode())
        except (OSError, ValueError, RuntimeError, EnvironmentFailure) as error:
            reason = getattr(error.__cause__ or error, "strerror", None) or error
            problem = f"cannot write {rest}: {reason}; expected a file that can be written. "
            raise EnvironmentFailure(problem + "Choose another name") from error
        if exists and path not in self._saved:
            kind = "folder" if is_folder else "file"
            raise UsageError(f"the {kind} {rest} exists; expected a new name. Choose another one")
        self._saved.add(path)
        yield f"saved {len(self.session.text):,} characters in {rest}"

    def _show(self, rest: str) -> Shown:
        yield from self._tokens()

    def _set_unit(self, rest: str) -> Shown:
        name, _, signal = rest.partition(" ")
        run = self.session.model.run
        self._unit = LiveUnit(run, name, signal.strip() or None) if name else None
        self._full = 1.0
        if self._unit:
            values = [token.value or 0.0 for token in self._tokens()]
            self._full = full_value(values) if values else 1.0
            cell = SIGNALS[self._unit.signal]
            yield f"unit {name}, {cell}: blue to -{self._full:g}, orange to {self._full:g}"
        else:
            yield "coloured by surprisal; a unit is layer and number, such as /unit 2:8"
        yield from self._tokens()

    def _help(self, rest: str) -> Shown:
        yield from HELP.splitlines()
        usages = {command.usage: command.about for command in COMMANDS.values()}
        width = max(map(len, usages))
        yield from (f"  {usage:{width}}  {about}" for usage, about in usages.items())

    def _quit(self, rest: str) -> Shown:
        self.ended = True
        return iter(())


@dataclass(frozen=True)
class Command:
    """A command: how it is typed, what it does, and the method that runs it.

    A usage of one word takes nothing after it.
    """

    usage: str
    about: str
    run: Callable[[Prompt, str], Shown]


COMMANDS = {
    "undo": Command("/undo", "take back the last change of the text", Prompt._undo),
    "again": Command("/again [7]", "write the last turn with a new seed, or with 7", Prompt._again),
    "back": Command("/back [20]", "remove the last token, or the last 20", Prompt._back),
    "alt": Command(
        "/alt [10]", "show what may come next; a number picks one", Prompt._alternatives
    ),
    "set": Command("/set temperature 0.7", "also top_k, top_p, min_p", Prompt._set),
    "seed": Command("/seed 4", "set the seed, as in charlm sample", Prompt._seed),
    "len": Command("/len 200", "set the number of tokens per turn", Prompt._length),
    "score": Command("/score", "show the probability of the text", Prompt._score),
    "unit": Command("/unit [2:8]", "colour by a unit (/unit 2:8 h: its output)", Prompt._set_unit),
    "show": Command("/show", "show the whole text", Prompt._show),
    "save": Command("/save f.txt", "save the text", Prompt._save),
    "quit": Command("/quit", "leave", Prompt._quit),
    "?": Command("/?", "show this help", Prompt._help),
    "help": Command("/?", "show this help", Prompt._help),
}
"""Commands by the name that is typed after the slash."""
HELP = f"""Enter: the model continues.  Text: it is appended, then the model continues.
{QUOTES} begins and ends text of several lines.  // begins text that starts with /.
Ctrl-C stops the model.  Ctrl-D, or Ctrl-C twice at the prompt, leaves."""
"""Help on what is typed beside commands."""


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}; expected a number such as 0.7") from None


def _whole(name: str, text: str, minimum: int) -> int:
    """Return a whole number. Raises UsageError for anything else."""
    try:
        value: Any = int(text)
    except ValueError:
        value = text
    check_count(name, value, minimum)
    return int(value)

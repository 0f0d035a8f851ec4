"""What all commands have in common: global flags, the run, and standard input."""

import inspect
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer
from helpers import Call

from charlm.cli import _app_for, app, options, stdin
from charlm.cli.frame import framed
from charlm.runs.built_in import shipped

TEXTLESS = {"settings", "score", "fill", "compare", "info", "verify", "reproduce", "bench"}
TEXTLESS |= {"guide", "ngram", "pairs", "plot", "rescore", "vectors"}
TEXTLESS |= {"runs", "diff", "push", "pull", "play", "serve", "predict"}
"""Commands that read standard input by themselves, require their text, or take none."""
SHORT = ["--len", "5", "--seed", "1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without runs, so commands use the built-in one."""
    monkeypatch.chdir(tmp_path)
    for name in ("CHARLM_CHECKPOINTS", "CHARLM_RUN", "CHARLM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def verbs() -> list[list[str]]:
    """Return the words of every command."""
    tree: Any = typer.main.get_command(app)
    words = []
    for name, command in tree.commands.items():
        words += (
            [[name, inner] for inner in command.commands]
            if hasattr(command, "commands")
            else [[name]]
        )
    return words


def taking_text() -> dict[str, Any]:
    """Return the declarations of the commands that have a default text."""
    tree: Any = typer.main.get_command(app)
    takes = {name: getattr(one.callback, "takes", None) for name, one in tree.commands.items()}
    return {name: declared for name, declared in takes.items() if declared and declared.text}


TAKING = taking_text()

# Global flags


@pytest.mark.parametrize(
    ("words", "built"),
    [
        (["-q", "diff", "a", "b"], {"diff"}),
        (["runs"], {"runs"}),
        (["--version"], set()),
        ([], None),
        (["--help"], None),
        (["--version", "--help"], None),
        (["difff"], None),
    ],
)
def test_only_the_command_that_is_named_is_built(words: list[str], built: set[str] | None) -> None:
    """Else every start costs as much as all commands do."""
    tree: Any = typer.main.get_command(_app_for(words))
    everything: Any = typer.main.get_command(app)
    assert set(tree.commands) == (set(everything.commands) if built is None else built)


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_every_command_has_the_global_flags(words: list[str], call: Call) -> None:
    status, out, _ = call(*words, "--help")
    assert status == 0
    assert all(flag in out for flag in ("--quiet", "-q", "--verbose", "-v", "--debug", "--version"))
    assert f"Example:  charlm {words[0]}" in out
    status, out, err = call(*words, "--version")
    assert (status, err) == (0, "")
    assert (status, out) == call("--version")[:2]


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_help_has_no_column_for_the_limits_of_numbers(words: list[str], call: Call) -> None:
    """They left 20 columns of 80 for the descriptions of `charlm sample`."""
    out = call(*words, "--help")[1]
    assert "range>" not in out
    assert not re.search(r"\[[^\]]*<=?x|\[x[<>]", out)


@pytest.mark.parametrize("flag", ["-q", "-v", "--quiet", "--verbose"])
def test_a_global_flag_may_follow_the_command(flag: str, call: Call) -> None:
    arguments = ["next", "the ", "--top", "2"]
    after = call(*arguments, flag)
    assert after == call(flag, *arguments)
    assert after[2] != call(*arguments)[2]


def test_debug_after_the_command_shows_a_traceback(call: Call) -> None:
    """It does not apply to the next command."""
    assert "Traceback" in call("info", "--run", "nothing", "--debug")[2]
    assert "Traceback" not in call("info", "--run", "nothing")[2]


# The run


@pytest.mark.parametrize(
    "words",
    [["info"], ["verify"], ["sample", *SHORT], ["vectors", "export"], ["gradients", "--lags", "4"]],
    ids=lambda words: words[0],
)
def test_a_run_may_be_an_argument(words: list[str], call: Call) -> None:
    shutil.copytree(shipped("checkpoints", "tales"), Path("copy"))
    for run in ("tales", "copy"):
        expected = call(*words, "--run", run)
        assert call(*words, run) == expected
        assert expected[0] == 0 or "gradients" in words  # which may need a text


def defaults(command: Callable[..., None]) -> dict[str, Any]:
    """Return the default of each option of a command, by name."""
    return {name: each.default for name, each in inspect.signature(command).parameters.items()}


@dataclass(frozen=True, kw_only=True)
class Asked:
    count: Annotated[int, typer.Option("--n")] = 1
    reading: options.Reading
    run: options.Run = None
    checkpoints: options.Checkpoints = None


def test_options_may_be_the_fields_of_a_dataclass() -> None:
    """They are those of a function with these parameters, and the command gets one value."""
    given: list[Asked] = []

    def together(asked: Asked) -> None:
        given.append(asked)

    def apart(
        count: Annotated[int, typer.Option("--n")] = 1,
        reading: options.Reading = options.NO_FLAGS,
        run: options.Run = None,
        checkpoints: options.Checkpoints = None,
    ) -> None: ...

    command, values = framed("x", together), defaults(framed("x", apart))
    assert defaults(command) == values
    command(**values | {"count": 3, "column": "text"})
    assert given == [Asked(count=3, reading={"column": "text"})]


def test_gradients_take_a_run_before_their_texts(call: Call) -> None:
    """A file of the same name is a text."""
    Path("t.txt").write_text("the cat sat on the mat. " * 20)
    flags = ["--lags", "4"]
    default = call("gradients", "t.txt", *flags)
    expected = call("gradients", "t.txt", "--run", "tales", *flags)
    assert expected[0] == 0
    assert call("gradients", "tales", "t.txt", *flags) == expected
    Path("t.txt").rename("tales")
    assert call("gradients", "tales", *flags)[1] == default[1]


def test_a_text_in_place_of_a_run_is_explained(call: Call) -> None:
    status, _, err = call("sample", "Once upon")
    assert status == 4
    assert "charlm sample --prime 'Once upon'" in err
    Path("a b.txt").write_text("abc")
    status, _, err = call("eval", "a b.txt")
    assert status == 4
    assert "is a file" in err
    assert "charlm eval --file 'a b.txt'" in err
    assert "charlm train 'a b.txt'" in call("info", "--run", "a b.txt")[2]


def test_two_runs_are_refused(call: Call) -> None:
    status, _, err = call("info", "tales", "--run", "tales")
    assert status == 2
    assert "expected one" in err
    status, _, err = call("info", "tales", "tales")
    assert (status, "Expected one RUN." in err) == (2, True)


def test_an_environment_variable_names_the_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag or an argument wins."""
    shutil.copytree(shipped("checkpoints", "tales"), Path("copy"))
    monkeypatch.setenv("CHARLM_RUN", "copy")
    assert "run copy (from CHARLM_RUN)" in call("info")[2]
    assert call("info")[1] == call("info", "copy")[1]
    assert "CHARLM_RUN" not in call("info", "tales")[2]
    monkeypatch.setenv("CHARLM_RUN", "nothing")
    status, _, err = call("info")
    assert status == 4
    assert "CHARLM_RUN" in err


def test_a_new_training_ignores_the_variable(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable names a run to read or to resume."""
    Path("t.txt").write_text("abc abd\n" * 40)
    monkeypatch.setenv("CHARLM_RUN", "tales")
    assert call("train", "t.txt", "--plan", "--hidden", "4", "--steps", "2", "--seed", "1")[0] == 0
    assert "built-in run" in call("train", "--resume")[2]


# Standard input


def test_every_command_has_a_rule_for_standard_input() -> None:
    assert {words[0] for words in verbs()} == set(TAKING) | TEXTLESS


@pytest.mark.parametrize("verb", TAKING)
def test_a_text_on_stdin_that_would_be_ignored_is_refused(verb: str, call: Call) -> None:
    short = {"train": ["--device", "mps"], "search": ["--minutes", "0.001"]}.get(verb, [])
    status, out, err = call(verb, *short, stdin=b"to be or not\n")
    assert (status, out) == (2, "")
    assert "stdin holds 13 bytes" in err
    words = ["charlm", verb, *short, *TAKING[verb].stdin]
    assert (" ".join(words) if verb != "search" else "name the file") in err
    assert "/dev/null" in err
    assert not Path("checkpoints").exists()


def test_a_command_with_a_text_ignores_stdin(call: Call) -> None:
    """So it can run in a shell loop that reads a list."""
    assert call("sample", *SHORT, "--prime", "a", stdin=b"next line\n")[0] == 0
    assert call("next", "", stdin=b"next line\n")[0] == 0
    assert call("info", stdin=b"next line\n")[0] == 0
    Path("t.txt").write_text("abc abd\n" * 40)
    Path("c.toml").write_text('[corpus]\nsources = ["t.txt"]\n[training]\nsteps = 2\n')
    plan = ["--plan", "--hidden", "4", "--seed", "1"]
    assert call("train", "--config", "c.toml", *plan, stdin=b"next line\n")[0] == 0
    Path("c.toml").write_text("[training]\nsteps = 2\n")
    assert call("train", "--config", "c.toml", *plan, stdin=b"next line\n")[0] == 2


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("with_dash", "with_text"),
    [
        (["next", "-"], ["next", "The dog"]),
        (["sample", *SHORT, "--prime", "-"], ["sample", *SHORT, "--prime", "The dog"]),
    ],
)
def test_a_dash_reads_standard_input(
    with_dash: list[str], with_text: list[str], end: bytes, call: Call
) -> None:
    """Without the line end that echo and editors write."""
    assert call(*with_dash, stdin=b"The dog" + end) == call(*with_text)


def test_a_dash_of_other_commands_reads_standard_input(call: Call) -> None:
    assert "over the letters d o g" in call("explain", "-", "--updates", "1", stdin=b"dog\n")[1]
    assert "no gap in 'abc'" in call("fill", "-", stdin=b"abc\n")[2]
    assert "- for stdin" in call("fill", stdin=b"abc\n")[2]


def test_waiting_bytes_are_counted_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(descriptor: int) -> int:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: descriptor))
        return stdin.waiting_bytes()

    reading, writing = os.pipe()
    assert count(reading) == 0  # the writer may stay silent
    os.write(writing, b"abc")
    assert count(reading) == 3
    assert os.read(reading, 9) == b"abc"  # nothing was taken
    os.close(writing)
    assert count(reading) == 0  # the end
    os.close(reading)
    assert count(reading) == 0  # closed
    one, other = socket.socketpair()
    with one, other:
        assert count(one.fileno()) == 0
        other.sendall(b"abcd")
        assert count(one.fileno()) == 4
    Path("a").write_bytes(b"abcdef")
    for path, place, expected in ((Path("a"), 4, 2), (Path("a"), 6, 0), (Path(os.devnull), 0, 0)):
        descriptor = os.open(path, os.O_RDONLY)
        os.lseek(descriptor, place, os.SEEK_SET)
        assert count(descriptor) == expected
        os.close(descriptor)
    monkeypatch.setattr(sys, "stdin", None)
    assert stdin.waiting_bytes() == 0

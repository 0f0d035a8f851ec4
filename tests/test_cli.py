"""The command line: exit codes, stdout that is the result and nothing else, messages on stderr."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import Call
from waiting import PATIENCE, Ticking, wait_until

import charlm
from charlm.api import model as library
from charlm.cli import app, main
from charlm.cli.output import Verbosity
from charlm.config.fields import scaled_number
from charlm.config.flags import by_section
from charlm.errors import CharlmError, UsageError
from charlm.inference import likelihood
from charlm.runs import built_in
from charlm.runs.checkpoints import checkpoint_folders
from charlm.runs.layout import read_record, write_record
from charlm.runs.run import Run
from charlm.training import search as search_module
from charlm.training import start as starting

TEXT = "abc abd\nab ca\n" * 10
TINY = [
    "--hidden", "4", "--embedding", "3", "--layers", "1", "--dropout", "0.1", "--batch", "2",
    "--bptt", "4", "--threads", "1", "--seed", "1", "--precision", "fp32", "--device", "cpu",
]  # fmt: skip
VERBS = [command.name or command.callback.__name__ for command in app.registered_commands]
VERBS += [group.typer_instance.info.name for group in app.registered_groups]
READING = {
    "sample": ["--len", "9", "--seed", "1"],
    "score": ["abc", "abd"],
    "eval": [],
    "next": ["ab"],
    "info": [],
    "verify": [],
}
"""Verbs that read a run, with arguments that make them short."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny runs, made by the command line: `stream`, and `lines`, which is the newest."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "keep_freed_memory", lambda: True)
        for name, more in (("stream", []), ("lines", ["--document", "line"])):
            with pytest.raises(SystemExit) as ended:
                main(["-q", "train", str(folder / "text.txt"), "--checkpoints", str(folder / "x"),
                      "--name", name, "--steps", "12", *TINY, *more])  # fmt: skip
            assert ended.value.code == 0
    return folder / "x"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the tiny runs as the ones that are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(runs))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "CHARLM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(starting, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(Verbosity, "level", 1)
    torch.set_num_threads(1)
    return tmp_path


def process(*arguments: str, **named) -> subprocess.Popen:
    """The command in a process of its own."""
    code = "from charlm.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **(pipes | named))


# Help, version, usage


def test_help_shows_every_verb(call: Call) -> None:
    """With exit 0, on stdout, and an example first."""
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert all(verb in out for verb in VERBS)
    assert "Example:" in out
    assert call("-h")[1] == out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb: str, call: Call) -> None:
    """And the example is a command of that verb."""
    status, out, err = call(verb, "--help")
    assert (status, err) == (0, "")
    assert f"Example:  charlm {verb}" in out


def test_version(call: Call) -> None:
    """One line, for scripts."""
    assert call("--version") == (0, f"charlm {charlm.__version__}\n", "")


def test_no_command_is_the_help_and_exit_2(call: Call) -> None:
    """Nothing was asked for: the help says what could be; no empty error line follows."""
    status, out, err = call()
    assert status == 2
    assert "Usage: charlm" in out + err
    assert "charlm:  " not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "x", "--hiden", "3"], "--hidden"),
        (["sample", "--temprature", "1"], "--temperature"),
        (["score", "--log-bas", "2"], "--log-base"),
        (["trian"], "train"),
        (["sample", "--len", "many"], "--len"),
        (["sample", "--len", "-1"], "--len"),
        (["sample", "--temperature", "-1"], "temperature"),
        (["sample", "--temperature", "nan"], "temperature"),
        (["sample", "--top-p", "1.5"], "--top-p is 1.5"),
        (["sample", "--prime", "a", "--prime-file", "b"], "--prime-file"),
        (["score", "--format", "xml", "a"], "xml"),
        (["score", "--log-base", "7", "a"], "7"),
        (["score", "a", "--file", "b"], "--file"),
        (["train", "x", "--unit", "chat"], "'chat'"),
        (["train", "x", "--steps", "3", "--epochs", "2"], "one length"),
        (["train", "x", "--run", "stream"], "--resume"),
        (["train", "x", "y", "--resume"], "--resume"),
        (["train", "x", "--name", "a/b"], "--name"),
        (["train", "x", "--valid-frac", "0.95"], "--valid-frac is 0.95"),
        (["vocab", "x", "--unit", "chat"], "'chat'"),
        (["train", "x", "--set", "zoneot=1"], "'zoneout'"),
        (["train", "x", "--set", "zoneout"], "NAME=VALUE"),
        (["train", "x", "--set", "zoneout=high"], "expected a number"),
        (["train", "x", "--embedding", "wide"], "one-hot"),
        (["train", "x", "--init", "glorot"], "xavier"),
        (["train", "x", "--direction", "left"], "backward"),
        (["train", "x", "--mos", "0"], "--mos is 0"),
        (["fill", "no gap"], "no gap"),
        (["next", "The", "apple"], "into quotes"),
        (["fill", "the", "___", "sat"], "into quotes"),
        (["sample", "Once", "upon"], "--prime"),
        (["sample", "--until-eos", "--run", "stream"], "--document line"),
        (["score", "a", "--column", "text"], "--file"),
        (["gradients", "--column", "text"], "a text"),
        (["vectors", "nearest", "zebra"], "not an entry"),
        (["gradients", "--out", "x.gif"], ".svg"),
        (["gradients", "--compare", "rnn,tree"], "'tree'"),
        (["gradients", "--compare", "rnn", "-"], "stdin can be read only once"),
        (["gradients", "--out", "missing/x.svg"], "can be written to"),
        (["search", "x", "--valid", "-"], "stdin can be read only once"),
        (["search", "x", "--set", "epochs=3"], "--trial-minutes"),
        (["train", "x", "--vocab", "v.json", "--unit", "word"], "unit with --vocab"),
        (["train", "x", "--vocab", "v.json", "--set", "min_count=2"], "min_count with --vocab"),
        (["vocab", "x", "--vocab", "v.json", "--lowercase"], "--lowercase with --vocab"),
        (["train", "--resume", "--run", "lines", "--name", "b"], "give one of them"),
        (["train", "x", "--momentum", "0.9"], "has no effect with --optimizer adamw"),
        (["train", "x", "--set", "decay=0.1"], "--set decay=0.1 has no effect without --schedule"),
        (["train", "x", "--clip-norm", "0.25", "--set", "clip_value=1"], "clip_value"),
        (["score", "a", "--tokens", "--format", "scores"], "--tokens with --format scores"),
    ],
)
def test_a_mistake_in_usage_is_exit_2_with_a_hint(arguments, hint: str, call: Call) -> None:
    """One line that names what was wrong or the nearest right name; nothing on stdout."""
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("charlm: "))
    assert hint in line
    assert "Traceback" not in err


# Errors


def everything_below(cls: type) -> list[type]:
    return [cls, *(below for sub in cls.__subclasses__() for below in everything_below(sub))]


@pytest.mark.parametrize("error", everything_below(CharlmError), ids=lambda e: e.__name__)
def test_every_error_is_one_line_and_its_exit_code(
    error: type[CharlmError], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback without --debug; with it the traceback and then the line."""

    def fail(*_: object, **__: object) -> None:
        raise error("found this; expected that.\nDo so")

    monkeypatch.setattr(library, "load", fail)
    status, out, err = call("next", "a", "--run", "lines")
    assert (status, out) == (error.exit_code, "")
    assert err == "charlm: found this; expected that. Do so\n"
    status, out, err = call("--debug", "next", "a", "--run", "lines")
    assert (status, out) == (error.exit_code, "")
    assert "Traceback" in err
    assert err.endswith("charlm: found this; expected that. Do so\n")
    assert call("-q", "next", "a", "--run", "lines")[2].startswith("charlm: found")


def test_exit_codes_are_all_different() -> None:
    """1 to 6, as the help says."""
    codes = [cls.exit_code for cls in everything_below(CharlmError)]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("error", "status", "hint"),
    [
        (ZeroDivisionError("by zero"), 1, "unexpected ZeroDivisionError: by zero.*bug.*--debug"),
        (MemoryError(), 5, "not enough memory.*--hidden"),
        (torch.OutOfMemoryError("CUDA out of memory"), 5, "device has too little memory.*--hidden"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_other_exceptions(
    error: BaseException, status: int, hint: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug asks to be reported, memory names what to make smaller, Ctrl-C is 130."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(library, "load", fail)
    found, out, err = call("next", "a", "--run", "lines")
    assert (found, out) == (status, "")
    assert len(err.splitlines()) <= 1
    assert re.search(hint, err)


@pytest.mark.parametrize(("verb", "hint"), [("info", True), ("bench", False)])
def test_more_arguments_than_one_run_are_refused(verb: str, hint: bool, call: Call) -> None:
    """Commands that take a run say so; the parser alone says only that there is too much."""
    status, _, err = call(verb, "stream", "stream")
    assert status == 2
    assert ("Expected one RUN." in err) == hint


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["train", "missing.txt"], 3, "missing.txt"),
        (["eval", "--file", "missing.txt"], 3, "missing.txt"),
        (["train", "--name", "x" * 201], 2, "--name is longer than 200 bytes"),
        (["train", "--minutes", "0"], 2, "--minutes is 0; expected more than 0"),
        (["train", "--minutes", "inf"], 2, "minutes is inf; expected more than 0 and finite"),
        (["eval", "--document", "line"], 2, "--document has no effect without --file"),
        (["eval", "--encoding", "latin-1"], 2, "--encoding has no effect without --file"),
        (["eval", "--file", "t.txt", "--window", "9"], 2, "--window has no effect without --reset"),
        (["vocab", "missing.txt"], 3, "missing.txt"),
        (["score", "--file", "missing.txt"], 3, "missing.txt"),
        (["sample", "--prime-file", "missing.txt"], 3, "missing.txt"),
        (["sample", "--run", "strem"], 4, "Did you mean stream?"),
        (["train", "--resume", "--run", "strem"], 4, "Did you mean stream?"),
        (["train", "text.txt", "--name", "lines"], 4, "already exists"),
        (["train", "text.txt", "--checkpoints", "text.txt"], 5, "text.txt"),
        (["train", "text.txt", "--device", "mps"], 5, "mps"),
        (["train", "text.txt", "--vocab", "text.txt"], 4, "text.txt"),
        (["train", "--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_what_is_missing_is_named(arguments, status: int, hint: str, call: Call) -> None:
    """Text 3, run 4, machine 5: one line."""
    Path("text.txt").write_text(TEXT)
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    found, out, err = call(*arguments)
    assert (found, out) == (status, "")
    assert hint in err
    assert sum(line.startswith("charlm: ") for line in err.splitlines()) == 1
    assert "Traceback" not in err


def test_divergence_is_exit_6(call: Call, here: Path) -> None:
    """Nothing that is not finite is left behind."""
    Path("text.txt").write_text(TEXT)
    status, out, err = call(
        "train", "text.txt", "--checkpoints", "c", "--name", "d", "--steps", "20", *TINY,
        "--optimizer", "sgd", "--learning-rate", "1e38", "--clip-norm", "0", "--warmup", "0",
    )  # fmt: skip
    assert (status, out) == (6, "")
    assert "charlm: training diverged" in err
    assert "--learning-rate" in err
    assert not list(Path("c/d").rglob("*.safetensors"))


# What goes where


@pytest.mark.parametrize("verb", READING)
def test_results_are_on_stdout_and_talk_on_stderr(verb: str, call: Call) -> None:
    """The newest run is taken and reported on stderr; with -q the same result and silence."""
    status, out, err = call(verb, *READING[verb])
    assert status == 0
    assert out
    assert "run lines (the newest run)" in err
    assert "lines (the newest run)" not in out
    assert call("-q", verb, *READING[verb]) == (0, out, "")
    assert call("-v", verb, *READING[verb])[1].startswith(out[:20])
    named = call(verb, *READING[verb], "--run", "lines")
    assert named[:2] == (0, out)
    assert "newest" not in named[2]


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "1"}])
def test_no_colour_and_no_carriage_return_in_a_pipe(
    verb: str, environment: dict[str, str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says, a file gets plain text."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _, out, err = call(verb, *READING[verb])
    assert "\x1b" not in out + err
    assert "\r" not in out + err


@pytest.mark.parametrize("columns", ["20", "0", "x"])
def test_a_narrow_terminal_is_no_error(
    columns: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables shrink."""
    monkeypatch.setenv("COLUMNS", columns)
    for verb, arguments in READING.items():
        assert call(verb, *arguments)[0] == 0
    assert call("--help")[0] == 0


def test_json_is_json(call: Call, runs: Path) -> None:
    """One document on stdout for every verb that has --json."""
    wanted = {
        "eval": {"schema_version", "tokens", "nats", "perplexity"},
        "next": {"schema_version", "prompt", "next"},
        "info": {"schema_version", "path", "config", "run"},
        "verify": {"schema_version", "ok", "checks"},
    }
    for verb, keys in wanted.items():
        status, out, _ = call(verb, *READING[verb], "--json")
        assert status == 0
        assert keys <= json.loads(out).keys()
    text = str(runs.parent / "text.txt")
    content = json.loads(call("vocab", text, "--json")[1])
    assert (content["size"], content["tokens"], content["unknown"]) == (8, len(TEXT), 0)


def test_the_keys_of_an_evaluation(call: Call) -> None:
    """Exactly the figures that are promised, for a text given and for the held-out one."""
    keys = {
        *("tokens", "words", "chars", "bytes", "oov", "documents", "nats"),
        *("nats_per_token", "bits_per_token", "bits_per_char", "bits_per_byte"),
        *("perplexity", "perplexity_without_oov", "perplexity_without_eos", "word_perplexity"),
    }
    Path("t.txt").write_text("abc\nxb\n")
    for arguments in ([], ["--file", "t.txt"]):
        content = json.loads(call("eval", "--json", *arguments)[1])
        assert set(content) == {*keys, "schema_version", "run", "protocol"}
    assert (content["tokens"], content["oov"], content["documents"]) == (7, 1, 2)
    assert content["chars"] == 7


def test_the_windowed_protocol_is_named(call: Call) -> None:
    """And gives another number."""
    Path("t.txt").write_text("abc abd\nab\n")
    full, reset = (
        json.loads(call("eval", "--file", "t.txt", "--run", "stream", "--json", *more)[1])
        for more in ([], ["--window", "2", "--reset"])
    )
    assert "full pass" in full["protocol"]
    assert "windows of 2 tokens" in reset["protocol"]
    assert full["nats"] != pytest.approx(reset["nats"], abs=1e-4)


# Sampling


def test_a_sample_is_exactly_the_text_of_the_library(call: Call, runs: Path) -> None:
    """Nothing more and nothing less, however often."""
    expected = charlm.load(runs / "stream").sample(50, seed=3)
    for _ in range(2):
        status, out, _ = call("sample", "stream", "--len", "50", "--seed", "3")
        assert (status, out) == (0, expected)
    assert call("sample", "stream", "--len", "50", "--seed", "4")[1] != expected


def test_a_seed_that_was_drawn_is_reported(call: Call) -> None:
    """So that the sample can be had again."""
    _, out, err = call("sample", "--len", "40")
    (seed,) = (line.split()[1] for line in err.splitlines() if line.startswith("seed "))
    assert call("sample", "--len", "40", "--seed", seed)[1] == out


def test_length_zero_writes_nothing(call: Call) -> None:
    """Not even a line end; with --echo exactly the prompt."""
    assert call("sample", "stream", "--len", "0")[:2] == (0, "")
    assert call("sample", "stream", "--len", "0", "--prime", "ab", "--echo")[:2] == (0, "ab")


def test_several_samples(call: Call) -> None:
    """One after the other, each ended; as JSON one object a line, with its probability."""
    _, out, _ = call("sample", "--n", "3", "--len", "30", "--until-eos", "--seed", "2")
    assert out.endswith("\n")
    _, lines, _ = call("sample", "--n", "3", "--len", "30", "--until-eos", "--seed", "2", "--json")
    objects = [json.loads(line) for line in lines.splitlines()]
    assert [item["sample"] for item in objects] == [0, 1, 2]
    assert all(item["log_probability"] <= 0 for item in objects)
    assert "".join(item["text"] + "\n" for item in objects) == out


TRICKY = "[/b] [bold]x[/bold] :smile: \x1b[2J \x1b]52;c;aGk=\x07 \t|\r\0 ä猫 👩‍🚀"


def test_text_comes_through_unchanged(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markup and control sequences are text: raw in a pipe, escaped on a terminal unless --raw."""
    arguments = ["sample", "--len", "0", "--prime", TRICKY, "--echo", "--run", "stream"]
    assert call(*arguments)[:2] == (0, TRICKY)
    monkeypatch.setattr("charlm.cli.sample.on_terminal", lambda: True)
    _, shown, _ = call(*arguments)
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    assert "[/b] [bold]x[/bold] :smile:" in shown
    assert call(*arguments, "--raw")[1].startswith(TRICKY)


def test_markup_in_tables_is_text(call: Call) -> None:
    """A prompt or sentence with brackets breaks no table."""
    for arguments in (["score", TRICKY, "[/b]", "--format", "table", "--tokens"], ["next", TRICKY]):
        status, out, _ = call(*arguments)
        assert status == 0
        assert "\x1b" not in out
    assert "[/b]" in call("score", "[/b]", "--format", "table")[1]
    _, out, _ = call("score", "--format", "jsonl", TRICKY)
    assert json.loads(out)["text"] == TRICKY


def test_unseen_characters_of_a_prompt_are_named_once(call: Call) -> None:
    """Each one, however often it stands there, on stderr."""
    for verb in (["sample", "--len", "3", "--seed", "1", "--prime"], ["next"], ["score"]):
        status, _, err = call(*verb, "aXbXXcÄ")
        assert status == 0
        (line,) = (line for line in err.splitlines() if "UNK" in line)
        assert line.count("'X'") == 1
        assert line.count("'Ä'") == 1
        assert "'a'" not in line
        assert "UNK" not in call(*verb, "abc")[2]


# Scoring


def test_a_line_in_is_a_line_out(call: Call, runs: Path) -> None:
    """In order, empty lines included, with and without a last line end; = the library."""
    lines = ["abc", "", "abd ab", "x", "", "ca"]
    model = charlm.load(runs / "lines")
    expected = [score.log_probability for score in model.score(lines)]
    for text in ("\n".join(lines), "\n".join(lines) + "\n"):
        status, out, _ = call("score", "--format", "scores", stdin=text.encode())
        assert status == 0
        assert [float(line) for line in out.splitlines()] == pytest.approx(expected, abs=1e-5)
    _, out, _ = call("score", "-", "--format", "jsonl", stdin=text.encode())
    items = [json.loads(line) for line in out.splitlines()]
    assert [item["text"] for item in items] == lines
    assert [item["sentence_id"] for item in items] == list(range(1, 7))
    Path("lines.txt").write_text(text)
    assert call("score", "--file", "lines.txt", "--format", "jsonl")[1] == out


def test_a_column_of_a_table_is_scored(call: Call, here: Path) -> None:
    """The bug: the error named --column, which did not exist."""
    (here / "t.csv").write_text("id,sentence\nx,abc\ny,abd\n")
    status, _, err = call("score", "--file", "t.csv")
    assert (status, "--column" in err) == (3, True)
    out = call("score", "--file", "t.csv", "--column", "sentence", "--keep", "")[1]
    assert out == call("score", stdin=b"abc\nabd\n")[1]


def test_a_stop_text_that_cannot_come_is_reported(call: Call) -> None:
    """Such as a cat, or a backslash and an n, which the shell has left as they are."""
    hint = "the model cannot write '猫', so it will not stop"
    assert hint in call("sample", "--len", "5", "--stop", "猫")[2]
    assert "is taken literally" in call("sample", "--len", "5", "--stop", "\\n")[2]
    assert "stop text" not in call("sample", "--len", "5", "--stop", "\n", "--run", "lines")[2]


def test_no_line_is_no_score(call: Call) -> None:
    """Nothing in, nothing out; one empty line in, one score out."""
    assert call("score", "--format", "scores", stdin=b"")[:2] == (0, "")
    assert len(call("score", "--format", "scores", stdin=b"\n")[1].splitlines()) == 1


def test_an_empty_text_of_a_stream_has_probability_one(call: Call) -> None:
    """Written 0 and not -0."""
    _, out, _ = call("score", "--run", "stream", "--format", "scores", "")
    assert out == "0.000000\n"
    _, out, _ = call("score", "--run", "stream", "--format", "jsonl", "")
    assert '"log_probability": 0.0' in out


def test_bases_of_the_logarithm(call: Call) -> None:
    """The same probability in nats, bits and bans; the base is in the header."""
    found = {}
    for base in ("e", "2", "10"):
        _, out, _ = call("score", "abc abd", "--format", "tsv", "--log-base", base)
        header, row = (line.split("\t") for line in out.splitlines())
        assert header[1] == f"log_probability_base_{base}"
        found[base] = float(row[1])
    assert found["2"] == pytest.approx(found["e"] / 0.6931471805599453, abs=1e-4)
    assert found["10"] == pytest.approx(found["e"] / 2.302585092994046, abs=1e-4)


def test_fields_of_tables_for_programs_stay_in_their_cells(call: Call) -> None:
    """A text with a tab is in quotes; per token the nats add up."""
    _, out, _ = call("score", "a\tb\\", "--format", "tsv")
    assert out.splitlines()[1].endswith('\t"a\tb\\"')
    _, out, _ = call("score", "abc", "--format", "tsv", "--tokens")
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    total = sum(float(row[3]) for row in rows)
    assert [row[2] for row in rows][:3] == ["a", "b", "c"]
    whole = float(call("score", "abc", "--format", "scores")[1])
    assert total == pytest.approx(-whole, abs=1e-4)


@pytest.mark.parametrize(
    ("data", "place"), [(b"ab\xffc\n", 2), (b"abc\nab\xc3", 6), (b"\xe7\x8c\xab\xc3\n", 3)]
)
def test_bytes_of_stdin_that_are_no_text_are_named(data: bytes, place: int, call: Call) -> None:
    """Also a character that is cut off at the end; exit 3 with the place."""
    status, _, err = call("score", "--format", "scores", stdin=data)
    assert status == 3
    assert f"byte {place}:" in err


def test_a_character_may_come_in_two_parts(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the pipe cuts the bytes, the lines are the same, and so is the place of an error."""
    data = "abc ä猫\n\nab\n".encode()
    whole = call("score", "--format", "jsonl", stdin=data)
    monkeypatch.setattr("charlm.cli.stdin.READ_BYTES", 1)
    assert call("score", "--format", "jsonl", stdin=data) == whole
    assert "byte 5: 0xff" in call("score", "--format", "jsonl", stdin=b"ab\xc3\xa4\n\xff")[2]


# Vocabulary, info, verify


def test_a_vocabulary_is_written_and_used_again(call: Call, here: Path) -> None:
    """`vocab --out` and `train --vocab` go together; a second text's OOV rate is counted."""
    Path("text.txt").write_text(TEXT)
    Path("other.txt").write_text("abxy")
    status, out, err = call("vocab", "text.txt", "--out", "v.json", "--oov", "other.txt", "--json")
    assert status == 0
    assert json.loads(out)["second_text"]["oov_rate"] == 0.5
    assert "charlm train TEXT --vocab v.json" in err
    train = ["train", "text.txt", "--vocab", "v.json", "--steps", "2", "--checkpoints", "c"]
    assert call(*train, "--name", "v", *TINY)[0] == 0
    origins = json.loads(Path("c/v/run.json").read_text())["origins"]
    assert origins["vocabulary.unit"] == "file v.json"
    assert Path("c/v/tokenizer.json").read_bytes() == Path("v.json").read_bytes()


def test_ends_of_rows_are_no_part_of_a_vocabulary(call: Call, here: Path) -> None:
    """The bug: line ends that no row held led the list of what a second table left unknown."""
    (here / "a.jsonl").write_text('{"text": "ab"}\n{"text": "ba"}\n')
    (here / "b.jsonl").write_text('{"text": "abx"}\n{"text": "b"}\n{"text": null}\n')
    first = ["vocab", "a.jsonl", "--oov", "b.jsonl", "--json", "--out", "v.json"]
    status, out, err = call(*first)
    assert status == 0
    second = json.loads(out)["second_text"]
    assert (second["tokens"], second["unknown"]) == (4, 1)
    assert second["most_frequent_unknown"] == [["x", 1]]
    assert "1 row without text" in err
    words = ["--unit", "word", "--words", "whitespace", "--out", "w.json"]
    for form, name in (([], "v.json"), (words, "w.json")):
        built = json.loads(call("vocab", "a.jsonl", "--json", *form)[1])
        frozen = json.loads(call("vocab", "a.jsonl", "--vocab", name, "--json")[1])
        assert frozen["tokens"] == built["tokens"] == (2 if form else 4)


def test_info_shows_where_sizes_came_from(call: Call) -> None:
    """Flags and rules, and with -v everything."""
    _, out, _ = call("info", "--run", "stream")
    assert "model.hidden_size" in out
    assert "flag" in out
    assert "rule: half" in out
    assert "charlm -q train" in call("-v", "info", "--run", "stream")[1] or "command" in out
    assert len(call("-v", "info", "--run", "stream")[1]) > len(out)


@pytest.mark.parametrize("name", ["config.json", "run.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_run_is_exit_4(name: str, call: Call, runs: Path, here: Path) -> None:
    """Every verb that needs the file says so in a sentence; verify lists it, as JSON too."""
    shutil.copytree(runs / "lines", "copy")
    (Path("copy") / name).write_bytes(b'{"format": 1}')
    for verb, arguments in READING.items():
        status, out, err = call(verb, *arguments, "--run", "copy")
        assert status in (0, 4)
        assert "Traceback" not in err
        assert status == 0 or "charlm: copy" in err
        if status == 4 and verb != "verify":
            assert out == ""
    assert status == 4
    assert not json.loads(call("verify", "--run", "copy", "--json")[1])["ok"]


# Training


def trained(call: Call, name: str, *more: str) -> tuple[int, str, str]:
    Path("text.txt").write_text(TEXT)
    steps = [] if {"--steps", "--epochs"} & set(more) else ["--steps", "12"]
    return call("train", "text.txt", "--checkpoints", "c", "--name", name, *TINY, *steps, *more)


def test_training_reports_on_stderr_and_names_commands_that_work(call: Call) -> None:
    """The plan, validations, a summary, and what to try next: each line can be copied."""
    status, out, err = trained(call, "r")
    assert (status, out) == (0, "c/r\n")
    assert "\x1b" not in err
    assert "\r" not in err
    assert "seed 1" in err
    assert "validation" in err
    commands = [line.strip() for line in err.splitlines() if line.startswith("  charlm ")]
    assert [shlex.split(command)[1] for command in commands] == ["sample", "score", "eval", "info"]
    for command in commands:
        assert call(*shlex.split(command)[1:])[0] == 0


def test_quiet_training_is_silent(call: Call) -> None:
    """With -q nothing but the path of the run."""
    Path("text.txt").write_text(TEXT)
    arguments = ["train", "text.txt", "--checkpoints", "c", "--name", "r", "--steps", "3", *TINY]
    assert call("-q", *arguments) == (0, "c/r\n", "")
    assert Path("c/r/model.safetensors").exists()


def test_the_same_seed_trains_the_same_model(call: Call) -> None:
    """Byte by byte; a seed that was drawn is reported and stored."""
    for name in ("a", "b"):
        assert trained(call, name)[0] == 0
    models = [Path(f"c/{name}/model.safetensors").read_bytes() for name in ("a", "b")]
    assert models[0] == models[1]
    small = [argument for argument in TINY if argument not in ("--seed", "1")]
    Path("text.txt").write_text(TEXT)
    _, _, err = call("train", "text.txt", "--checkpoints", "c", "--name", "d", "--steps", "1",
                     "--layers", "1", "--threads", "1", *small[:4])  # fmt: skip
    seed = json.loads(Path("c/d/run.json").read_text())["settings"]["training"]["seed"]
    assert f"seed {seed}" in err


def test_a_complete_run_is_not_trained_again(call: Call) -> None:
    """Exit 0 and a sentence; longer with --steps; another architecture is refused."""
    trained(call, "r")
    before = Path("c/r/metrics.jsonl").read_bytes()
    status, out, err = call("train", "--resume", "--checkpoints", "c")
    assert (status, out) == (0, "c/r\n")
    assert "complete" in err
    assert Path("c/r/metrics.jsonl").read_bytes() == before
    status, _, err = call("train", "--resume", "--checkpoints", "c", "--steps", "20")
    assert status == 0
    assert "from step 12" in err
    status, _, err = call("train", "--resume", "--checkpoints", "c", "--hidden", "9")
    assert status == 4
    assert "hidden_size cannot change" in err


def test_the_built_in_run_is_not_trained(
    call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be read, and says what it is, but not resumed."""
    monkeypatch.setattr(built_in, "shipped", lambda kind, name: runs / "stream")
    assert call("next", "a", "--checkpoints", "none", "--json")[0] == 0
    assert "(the built-in model)" in call("next", "a", "--checkpoints", "none")[2]
    status, _, err = call("train", "--resume", "--run", "tales", "--checkpoints", "none")
    assert status == 4
    assert "built-in run is read-only" in err
    assert "no run in none" in call("train", "--resume", "--checkpoints", "none")[2]


def test_settings_from_a_file_and_flags_that_win(call: Call) -> None:
    """Where each came from is in run.json."""
    Path("run.toml").write_text(
        '\ufeff[model]\ncell = "gru"\n[training]\nsteps = 7\nlearning_rate = 0.5\nevals = 2\n',
        encoding="utf-8",
    )
    assert trained(call, "r", "--config", "run.toml", "--steps", "3")[0] == 0
    record = json.loads(Path("c/r/run.json").read_text())
    assert record["settings"]["model"]["cell"] == "gru"
    assert record["settings"]["training"]["learning_rate"] == 0.5
    assert record["settings"]["training"]["steps"] == 3
    assert record["origins"]["model.cell"] == "file run.toml"
    assert record["origins"]["training.steps"] == "flag"
    assert record["origins"]["training.warmup"] == "default"
    assert record["command"].startswith("charlm train ")
    assert record["command"].endswith("--config run.toml --steps 3")


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ('[model]\nhiden_size = 3\n', "hiden_size.*did you mean 'hidden_size'"),
        ('[modle]\nhidden_size = 3\n', "modle.*did you mean 'model'"),
        ('[model]\nhidden_size = "3"\n', "hidden_size is '3'.*expected a whole number"),
        ('model = 3\n', "model is 3.*expected a table"),
        ('[model\n', r"run\.toml: not valid TOML.*line 1"),
        ('[training]\nsteps = 2\nepochs = 3.0\n', "one length"),
        ('[model]\ncell = "lstn"\n', "cell is 'lstn'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_of_settings(content: str, hint: str, call: Call) -> None:
    """Exit 2, the file, the key, and the nearest name; no run is made."""
    Path("run.toml").write_text(content)
    status, out, err = trained(call, "r", "--config", "run.toml")
    assert (status, out) == (2, "")
    assert re.search(hint, err)
    assert len(err.splitlines()) == 1
    assert not Path("c").exists()


def test_two_lengths_are_refused_but_a_flag_replaces_that_of_a_file(call: Call) -> None:
    """Flags win over the file: --epochs on the line takes the place of steps in the file."""
    Path("run.toml").write_text("[training]\nsteps = 2\n")
    status, _, err = trained(call, "r", "--config", "run.toml", "--epochs", "0.1")
    assert (status, err.count("one length")) == (0, 0)


# In processes of their own: pipes, signals, death


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_reader_that_leaves_is_no_error(buffering: dict[str, str], here: Path) -> None:
    """`charlm sample | head -c 10`: ten bytes, exit 0, not a word."""
    arguments = ["-q", "sample", "stream", "--len", "1000000000", "--seed", "1"]
    with process(*arguments, env=os.environ | buffering) as child:
        assert child.stdout is not None
        assert len(child.stdout.read(10)) == 10
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_help_that_nobody_reads_to_its_end_is_no_error(here: Path) -> None:
    """`charlm --help | head -0`."""
    with process("--help", cwd=here) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(timeout=PATIENCE) == 0


def test_a_closed_stderr_sends_no_message_into_the_result(here: Path, runs: Path) -> None:
    """`2>&-`: Python then has no stderr, and what is printed to none would land on stdout."""
    code = "from charlm.cli import main; main()"
    line = shlex.join(
        [sys.executable, "-c", code, "sample", "stream", "--len", "20", "--seed", "1"]
    )
    done = subprocess.run(["sh", "-c", f"{line} 2>&-"], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == charlm.load(runs / "stream").sample(20, seed=1)


def test_a_closed_stdout_is_no_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`>&-`: nobody wants the result, exit 0."""
    monkeypatch.setattr(sys, "stdout", None)
    status, _, err = call("sample", "--len", "5", "--seed", "1")
    sys.stdout.close()  # what was opened in its place
    assert (status, err) == (0, "run lines (the newest run)\n")


def test_a_text_comes_through_a_pipe_in_any_locale(here: Path) -> None:
    """LANG=C and an ASCII terminal do not matter: UTF-8 in, UTF-8 out."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    arguments = ["-q", "sample", "stream", "--len", "0", "--echo", "--prime-file", "p.txt"]
    Path("p.txt").write_bytes(TRICKY.encode())
    with process(*arguments, env=environment) as child:
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (0, TRICKY.encode(), b"")


def test_info_loads_no_torch(here: Path) -> None:
    """What a run is, is read from its JSON alone."""
    code = """
import sys
from charlm.cli import main
try:
    main(["-q", "info", "--json"])
finally:
    sys.stderr.write(" ".join(m for m in ("torch", "numpy", "tokenizers") if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["config"]["model"]["hidden_size"] == 4
    assert "torch" not in done.stderr


def lines_of(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def in_training(name: str, *more: str) -> subprocess.Popen:
    Path("text.txt").write_text(TEXT)
    arguments = ["train", "text.txt", "--checkpoints", "c", "--name", name, *TINY, *more]
    child = process(*arguments)
    wait_until(lambda: lines_of(Path(f"c/{name}/metrics.jsonl")) > 0, child)
    return child


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on_later(
    number: int, status: int, call: Call, here: Path
) -> None:
    """The step is finished, saved, and the command to resume is reported and works."""
    with in_training("s", "--steps", "100000000") as child:
        child.send_signal(number)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (status, b"")
    assert b"stopping after this step and saving" in err
    assert b"Traceback" not in err
    (command,) = (line for line in err.decode().splitlines() if "resume with: charlm" in line)
    assert call("verify", "--run", "c/s")[0] == 0
    step = int(checkpoint_folders(Path("c/s"))[0].name.removeprefix("step-"))
    arguments = shlex.split(command.partition("resume with: ")[2])[1:]
    status, _, err = call(*arguments, "--checkpoints", "c", "--steps", str(step + 5))
    assert status == 0
    assert f"from step {step:,}" in err


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(call: Call, here: Path) -> None:
    """kill -9 after a checkpoint, then --resume to the end: byte by byte the uninterrupted run."""
    length = ["--steps", "600", "--evals", "2"]
    with in_training("k", *length, "--save-minutes", "0") as child:
        wait_until(lambda: lines_of(Path("c/k/metrics.jsonl")) > 10, child)
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert json.loads(Path("c/k/run.json").read_text())["status"] == "training"
    status, _, err = call("train", "--resume", "--checkpoints", "c", "--save-minutes", "9")
    assert status == 0
    assert "resuming k from step" in err
    assert trained(call, "u", *length)[0] == 0
    for name in ("model.safetensors", "states/step-600/state.safetensors"):
        assert Path(f"c/k/{name}").read_bytes() == Path(f"c/u/{name}").read_bytes()
    times = ("seconds", "tokens_per_second", "notes")  # notes are those of one session
    logs = [
        [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]
        for lines in (Path(f"c/{name}/metrics.jsonl").read_text().splitlines() for name in "ku")
    ]
    assert logs[0] == logs[1]


def test_a_second_trainer_is_refused(call: Call, here: Path) -> None:
    """Exit 5 and the holder's process; when it has been killed the run is free at once."""
    with in_training("l", "--steps", "100000000") as child:
        status, out, err = call("train", "--resume", "--checkpoints", "c")
        assert (status, out) == (5, "")
        assert f"process {child.pid}" in err
        child.kill()
        child.communicate()
    status, _, err = call("train", "--resume", "--checkpoints", "c", "--steps", "3")
    assert status == 0, err


@pytest.mark.parametrize(
    ("text", "value"), [("24M", 24_000_000), ("1.5k", 1500), ("7", 7), (" 2g ", 2 * 10**9)]
)
def test_numbers_of_weights_may_be_short(text: str, value: int) -> None:
    """As people write them."""
    assert scaled_number(text) == value


@pytest.mark.parametrize("text", ["", "M", "x", "2T", "inf", "nan"])
def test_numbers_of_weights_that_are_none(text: str) -> None:
    """Refused with an example."""
    with pytest.raises(UsageError, match="2M or 500k"):
        by_section({"params": text})


def test_a_number_of_weights_trains(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has no more weights than that, and says so."""
    (here / "a.txt").write_text("the cat sat on the mat. " * 40)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(here / "own"))
    arguments = ["--params", "5k", "--skip", "--steps", "2", "--seed", "1", "--name", "p"]
    status, _, err = call("train", "a.txt", *arguments)
    assert status == 0, err
    record = json.loads((here / "own" / "p" / "run.json").read_text())
    assert 3_000 < record["parameters"] <= 5_000
    assert call("sample", "--run", "p", "--len", "5")[0] == 0
    assert call("verify", "--run", "p")[0] == 0
    assert "skips" in call("sample", "--run", "p", "--engine", "native")[2]


# Directions, vectors, gradients


def test_a_run_with_both_directions_fills_gaps(call: Call, here: Path) -> None:
    """Trained, resumed, verified; each gap as a table, the filled text last."""
    (here / "a.txt").write_text(TEXT)
    arguments = ["--direction", "both", "--name", "gaps", "--checkpoints", str(here), *TINY]
    status, out, err = call("train", "a.txt", "--steps", "6", *arguments)
    assert (status, out) == (0, f"{here / 'gaps'}\n")
    assert "the backward half" in err
    assert re.search(f"charlm fill .*--run {re.escape(str(here / 'gaps'))}$", err, re.MULTILINE)
    here_too = ["--run", "gaps", "--checkpoints", str(here)]
    status, _, err = call("train", "--resume", *here_too)
    assert (status, "is complete" in err) == (0, True)
    assert call("train", "--resume", "--steps", "8", *here_too)[0] == 0
    assert call("verify", *here_too)[0] == 0
    status, out, _ = call("fill", "ab ___a", *here_too, "--top", "3")
    assert status == 0
    *table, filled = out.splitlines()
    assert len(table) == 5  # head, three tokens, a blank line
    assert (filled[:3], filled[-1]) == ("ab ", "a")
    status, out, _ = call("fill", "ab ___a", *here_too, "--json")
    found = json.loads(out)
    assert found["filled"] == filled
    assert found["gaps"][0][0]["token"] == filled[3]
    assert call("fill", "ab ___a", "--run", "stream")[0] == 4
    assert call("sample", "--run", str(here / "gaps" / "backward"), "--len", "5")[0] == 0


def test_vectors_come_out_and_go_in_again(call: Call, here: Path) -> None:
    """Exported ones begin another run, frozen: they come out as they went in."""
    assert call("vectors", "export", "--run", "lines", "--out", "v.txt")[0] == 0
    status, out, _ = call("vectors", "export", "--run", "lines")
    assert (status, out) == (0, (here / "v.txt").read_text())
    (here / "a.txt").write_text(TEXT)
    own = [value for value in TINY if value not in ("--embedding", "3")]
    arguments = ["--vectors", "v.txt", "--set", "freeze_vectors=true", "--steps", "3", *own]
    status, _, err = call("train", "a.txt", *arguments, "--checkpoints", str(here), "--name", "w")
    assert (status, "vectors: " in err) == (0, True)
    again = call("vectors", "export", "--run", "w", "--checkpoints", str(here))[1]
    names = {line.split()[0]: line for line in out.splitlines()[1:]}
    found = {line.split()[0]: line for line in again.splitlines()[1:]}
    assert found["a"] == names["a"]
    status, out, _ = call("vectors", "nearest", "a", "--run", "lines", "--top", "2", "--json")
    assert len(json.loads(out)["nearest"]) == 2
    assert call("vectors", "nearest", "a", "--run", "lines", "--top", "2")[1].count("\n") == 3


def test_gradients_of_a_run_and_of_cells_side_by_side(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table and a sentence for each; as JSON every norm; a picture where it was asked for."""
    (here / "long.txt").write_text(TEXT * 3)
    status, out, _ = call("gradients", "long.txt", "--run", "stream", "--lags", "20")
    assert status == 0
    assert "stream: " in out
    assert out.count("Clipped in") == 1
    status, _, err = call("gradients", "--run", "stream", "--lags", "500")
    assert (status, "need at least" in err) == (3, True)
    arguments = ["--compare", "rnn,gru", "--minutes", "0.001", "--lags", "5", "--json"]
    status, out, _ = call("gradients", "long.txt", *arguments, "--out", "x.svg")
    assert status == 0
    models = json.loads(out)["models"]
    assert [model["name"] for model in models] == ["rnn", "gru"]
    assert all(len(model["layers"][0]["norms"]) == 6 for model in models)
    assert (here / "x.svg").stat().st_size > 1000


def test_any_other_setting_can_be_set(call: Call, here: Path) -> None:
    """As a flag it wins over a file, and it is recorded as one."""
    (here / "a.txt").write_text(TEXT)
    (here / "c.toml").write_text("[model]\nzoneout = 0.4\nforget_bias = 3.0\n")
    arguments = ["--config", "c.toml", "--set", "zoneout=0.2", "--set", "recurrent_init=uniform:.1"]
    place = ["--checkpoints", str(here), "--name", "s", "--steps", "2"]
    assert call("train", "a.txt", *arguments, *place, *TINY)[0] == 0
    record = json.loads((here / "s" / "run.json").read_text())
    model = record["settings"]["model"]
    assert (model["zoneout"], model["forget_bias"], model["recurrent_init"]) == (
        0.2, 3.0, "uniform:.1",
    )  # fmt: skip
    assert record["origins"]["model.zoneout"] == "flag"
    assert record["origins"]["model.forget_bias"] == "file c.toml"


def test_an_echo_state_network_trains_with_the_precision_that_is_chosen(
    call: Call, here: Path
) -> None:
    """The bug: the comparison of gradients found none in a reservoir, and failed."""
    (here / "a.txt").write_text(TEXT)
    own = [value for value in TINY if value not in ("--precision", "fp32")]
    place = ["--checkpoints", str(here), "--steps", "2", "--name", "e"]
    status, _, err = call("train", "a.txt", "--cell", "esn", *own, *place)
    assert status == 0, err


def test_runs_are_compared_on_a_text(call: Call, here: Path) -> None:
    """A run against itself and another; a stream and documents pair line by line."""
    (here / "t.txt").write_text("abc abd\nab ca\n" * 20)
    status, out, _ = call("compare", "stream", "stream", "lines", "--file", "t.txt")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["run", "stream", "stream", "lines"]
    assert "no difference shown" in out.splitlines()[2]
    status, out, _ = call("compare", "stream", "lines", "--file", "t.txt", "--json")
    first, other = json.loads(out)["runs"]
    assert first["difference"] is None
    change = other["difference"]
    assert change["low"] <= change["bits_per_byte"] <= change["high"]
    difference = other["bits_per_byte"] - first["bits_per_byte"]
    assert change["bits_per_byte"] == pytest.approx(difference, abs=1e-9)
    named = ["compare", "stream", "lines", "--json", "--file"]
    with (here / "t.txt").open("rb") as text:
        child = process(*named, "-", stdin=text)
        assert child.communicate(timeout=PATIENCE)[0].decode() == out
    assert call("compare", "stream", "--file", "t.txt")[0] == 2
    assert call("compare", "stream", "lines")[0] == 2


def test_a_cache_is_shown_beside_the_plain_figures(call: Call) -> None:
    """As a column of its own; its weight was chosen on validation text."""
    status, out, err = call("eval", "--run", "stream", "--cache", "20", "--json")
    assert status == 0
    assert "chosen on the first" in err
    found = json.loads(out)
    assert list(found) == ["valid", "valid, cache"]
    assert found["valid"]["tokens"] == found["valid, cache"]["tokens"]
    plain = json.loads(call("eval", "--run", "stream", "--json")[1])
    assert found["valid"]["nats"] == pytest.approx(plain["nats"], rel=1e-5)
    for more in (["--weights", "int8"], ["--engine", "numpy"], ["--reset"]):
        status, _, err = call("eval", "--run", "stream", "--cache", "20", *more)
        assert (status, "--cache needs engine torch" in err) == (2, True)


def test_an_empty_text_is_refused_in_words(call: Call, here: Path) -> None:
    """By the commands that have nothing to divide by; the story: both called it a bug."""
    (here / "empty.txt").write_text("")
    plain = ["eval", "--run", "stream"]
    for arguments in (["compare", "stream", "lines"], plain, [*plain, "--cache", "9"]):
        status, out, err = call(*arguments, "--file", "empty.txt")
        assert (status, out) == (3, "")
        assert "the text is empty; expected" in err


def test_unknown_tokens_and_empty_texts_win_nothing(call: Call) -> None:
    """No rank without tokens; no mark where one text holds more that the model does not know."""
    status, out, err = call("score", "--run", "stream", "--format", "table", "abc", "ab\u732b", "")
    assert status == 0
    assert " *" not in out
    assert [line.split()[0] for line in out.splitlines()[1:]] in (["1", "2", "-"], ["2", "1", "-"])
    assert "1 of 3 texts contain unknown tokens" in err
    assert "-0.000" not in out
    _, out, err = call("score", "--run", "stream", "--format", "table", "abc", "abd", "")
    assert out.count(" *") == 1
    assert "unknown" not in err


def test_lines_of_windows_are_scored_without_their_ends(call: Call, here: Path) -> None:
    """Where the model does not know the carriage return; said once."""
    (here / "plain.txt").write_bytes(b"abc\nabd\n")
    (here / "windows.txt").write_bytes(b"abc\r\nabd\r\n")
    _, plain, quiet = call("score", "--run", "stream", "--file", "plain.txt")
    _, found, err = call("score", "--run", "stream", "--file", "windows.txt")
    assert found == plain
    assert err.count("CR LF") == 1
    assert "CR LF" not in quiet
    _, piped, err = call("score", "--run", "stream", stdin=b"abc\r\nabd\r\n")
    assert piped == plain
    assert err.count("carriage return") == 1


def test_a_model_that_knows_carriage_returns_reads_them(call: Call, here: Path) -> None:
    """Those of bytes do: with --keep-cr they are part of the sentence."""
    (here / "a.txt").write_text(TEXT)
    (here / "lines.txt").write_bytes(b"abc\r\nabc\n")
    where = ["--checkpoints", str(here)]
    flags = ["--unit", "byte", "--name", "b", "--steps", "2"]
    assert call("train", "a.txt", *flags, *where, *TINY)[0] == 0
    more = ["--format", "jsonl", "--keep-cr"]
    _, out, err = call("score", "--run", "b", *where, "--file", "lines.txt", *more)
    assert "carriage return" not in err
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [4, 3]


def test_sentences_in_other_encodings_are_scored(call: Call, here: Path) -> None:
    """From a file, from stdin, and by compare; what is not valid may be replaced."""
    (here / "utf.txt").write_text("abc\nabé\n", encoding="utf-8")
    (here / "latin.txt").write_text("abc\nabé\n", encoding="latin-1")
    plain = call("score", "--run", "stream", "--file", "utf.txt")[1]
    other = ["--file", "latin.txt", "--encoding", "latin-1"]
    assert call("score", "--run", "stream", *other)[1] == plain
    with (here / "latin.txt").open("rb") as text:
        child = process("score", "--run", "stream", "--encoding", "latin-1", stdin=text)
        assert child.communicate(timeout=PATIENCE)[0].decode() == plain
    with (here / "latin.txt").open("rb") as text:
        child = process("score", "--run", "stream", "--errors", "replace", stdin=text)
        assert "ab\ufffd" in child.communicate(timeout=PATIENCE)[0].decode()
    with (here / "latin.txt").open("rb") as text:
        child = process("score", "--run", "stream", "--encoding", "utf-16", stdin=text)
        err = child.communicate(timeout=PATIENCE)[1].decode()
        assert (child.returncode, "such as --encoding utf-16-le" in err) == (3, True)
    status, out, err = call("score", "--run", "stream", "--file", "latin.txt")
    assert (status, out, "--encoding cp1252" in err) == (3, "", True)
    status, _, err = call("score", "--run", "stream", "--file", "latin.txt", "--errors", "replace")
    assert (status, "replaced by U+FFFD" in err) == (0, True)
    runs = ["compare", "stream", "lines"]
    assert call(*runs, *other)[1] == call(*runs, "--file", "utf.txt")[1]
    replaced = call(*runs, "--file", "latin.txt", "--errors", "replace")[2]
    assert replaced.count("replaced by U+FFFD") == 1
    assert call("score", "ab", "--run", "stream", "--encoding", "latin-1")[0] == 2
    assert call("score", "--run", "stream", "--file", "utf.txt", "--errors", "x")[0] == 2


def test_a_complete_run_says_how_it_is_made_longer(call: Call, here: Path) -> None:
    """With its own name and unit, ready to be copied."""
    status, _, err = call("train", "--resume", "--run", "stream")
    assert status == 0
    assert re.search(r"complete after [\d.]+ \w+, so nothing was changed", err)
    assert re.search(r"charlm train --resume --more-\w+ [\d.]+ --run \S*stream", err)


def test_what_a_preset_is_not_is_reported(call: Call, here: Path) -> None:
    """Where its settings are asked for, and under the list of recipes its name."""
    (here / "a.txt").write_text(TEXT)
    status, _, err = call("train", "a.txt", "--preset", "zaremba-small", "--plan")
    assert status == 0
    assert "preset zaremba-small; not as published: embedding, output and biases" in err
    rows = call("reproduce")[1]
    assert re.search(r"^zaremba-small +Penn Treebank words, 2 x 200 +115\.0 perplexity", rows, re.M)


def test_a_run_that_lost_its_patience_says_so(call: Call, here: Path) -> None:
    """And not that it had the whole length."""
    (here / "a.txt").write_text(TEXT)
    flags = ["--patience", "1", "--evals", "12", "--learning-rate", "3", "--steps", "30"]
    where = ["--checkpoints", str(here)]
    assert call("train", "a.txt", "--name", "p", *flags, *where, *TINY)[0] == 0
    status, _, err = call("train", "--resume", "--run", "p", *where)
    assert status == 0
    assert re.search(r"is over after [\d.]+ passes, since validation no longer improved", err)
    status, _, err = call("train", "--resume", "--run", "p", "--steps", "35", *where)
    assert (status, "nothing was changed" in err) == (0, False)


def test_a_narrow_terminal_cuts_no_number(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table is wider than the terminal rather than without its figures."""
    _, wide, _ = call("eval", "--run", "stream", "--json")
    nats = f"{json.loads(wide)['nats_per_token']:.4f}"
    for columns in ("0", "12"):
        monkeypatch.setenv("COLUMNS", columns)
        assert nats in call("eval", "--run", "stream")[1]


def test_a_long_word_does_not_widen_a_table(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only numbers may: the path of a run is broken, and nothing of it is lost."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("info", "--run", "stream")[1].splitlines()
    assert max(len(line) for line in lines if not line.startswith("charlm train ")) <= 60
    assert not any("…" in line for line in lines)


def test_what_runs_say_moves_no_cursor(call: Call, runs: Path, here: Path) -> None:
    """Somebody else's run.json: its commands and reasons are shown, not obeyed."""
    shutil.copytree(runs / "lines", here / "other")
    record = read_record(here / "other")
    record["command"] = "charlm \x1b]52;c;aGk=\x1b\\"
    record["origins"]["model.hidden_size"] = "\x1b[2J"
    record["precision"]["reason"] = "\x9b2J"
    record["corpus"]["parts"]["\x1b[3J"] = record["corpus"]["parts"]["train"]
    write_record(here / "other", record)
    place = ["--run", "other", "--checkpoints", str(here)]
    shown = call("info", *place)[1]
    assert not {"\x1b", "\x9b"} & set(shown)
    assert "\\x9b2J" in shown
    del record["corpus"]["parts"]["\x1b[3J"]
    write_record(here / "other", record)
    shown = call("train", "--resume", *place, "--steps", "14")[2]
    assert not {"\x1b", "\x9b"} & set(shown)
    assert "\\x9b2J" in shown


def test_a_run_named_backward_is_no_half(call: Call, here: Path) -> None:
    """What is advised after training is for the run itself."""
    (here / "a.txt").write_text(TEXT)
    flags = ["--name", "backward", "--checkpoints", str(here / "runs"), "--steps", "2", *TINY]
    status, _, err = call("train", "a.txt", *flags)
    assert status == 0
    assert "charlm fill" not in err
    assert re.search(r"charlm sample .*--run \S*/backward$", err, re.MULTILINE)


def test_methods_at_test_time_are_rows_under_the_plain_figures(call: Call) -> None:
    """Each is reported with what was chosen for it; the plain figures stay the same."""
    plain = json.loads(call("eval", "--run", "stream", "--json")[1])
    flags = ["--dynamic", "--temperature", "--with", "stream"]
    status, out, err = call("eval", "--run", "stream", *flags, "--json")
    assert status == 0
    found = json.loads(out)
    names = list(found)
    assert names[0] == "valid"
    assert {"valid, dynamic", "valid, mean of 2", "valid, fitted mixture"} <= set(names)
    assert any(name.startswith("valid, temperature ") for name in names)
    assert found["valid"]["nats"] == pytest.approx(plain["nats"], rel=1e-5)
    same = found["valid, mean of 2"]["nats"]
    assert same == pytest.approx(plain["nats"], rel=1e-5)  # with itself
    assert {t["tokens"] for t in found.values()} == {plain["tokens"]}
    assert "dynamic evaluation: rate" in err
    status, out, _ = call("eval", "--run", "stream", *flags)
    assert "gain" in out
    assert "valid, dynamic" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_methods_refuse_what_they_cannot_do(
    call: Call, runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another vocabulary, one checkpoint, engines that cannot learn, texts that are not kept."""
    status, _, err = call("eval", "--run", "stream", "--with", "tales")
    assert (status, "tales has another vocabulary" in err) == (2, True)
    status, _, err = call("eval", "--run", "stream", "--dynamic", "--engine", "native")
    assert (status, "--dynamic needs engine torch" in err) == (2, True)
    monkeypatch.setattr(likelihood, "evaluate", None)  # they refuse it before they read anything
    monkeypatch.setattr(Run, "encode", None)
    status, _, err = call("eval", "--run", "stream", "--average")
    assert (status, "an average needs two" in err) == (2, True)
    shutil.copytree(runs / "stream", here / "bare")
    shutil.rmtree(here / "bare" / "data")
    (here / "t.txt").write_text(TEXT)
    for flags, purpose in (
        (["--cache", "9"], "choose a cache"), (["--temperature"], "fit a temperature"),
        (["--dynamic"], "choose a rate"), (["--with", "bare"], "fit weights"),
    ):  # fmt: skip
        place = ["--run", "bare", "--checkpoints", str(here), "--file", "t.txt"]
        status, _, err = call("eval", *place, *flags)
        assert (status, f"keeps no validation text to {purpose}" in err) == (2, True)


def test_kept_text_of_another_vocabulary_is_no_bug(call: Call, runs: Path, here: Path) -> None:
    """One damaged byte, or somebody else's run: reported with the folder, exit 3."""
    shutil.copytree(runs / "stream", here / "other")
    for name in ("valid", "train"):
        file = here / "other" / "data" / name / "ids.bin"
        file.write_bytes(b"\xff" * len(file.read_bytes()))
    place = ["--run", "other", "--checkpoints", str(here)]
    for command in (["eval"], ["eval", "--temperature"], ["gradients", "--lags", "5"]):
        status, _, err = call(*command, *place)
        assert (status, "ids that tokenizer.json does not have" in err) == (3, True), err


def test_a_plan_is_shown_and_nothing_is_written(call: Call, here: Path) -> None:
    """On stdout, with reasons; no run is made. With --resume it makes no sense."""
    (here / "t.txt").write_text("to be or not to be, " * 200)
    before = sorted((here / "runs").glob("*")) if (here / "runs").exists() else []
    arguments = ["train", "t.txt", "--plan", "--steps", "50", "--checkpoints", "runs"]
    status, out, _ = call(*arguments)
    assert status == 0
    assert "passes over the text" in out
    assert "GB of memory" in out
    assert "training.steps" in out
    assert "flag" in out
    after = sorted((here / "runs").glob("*")) if (here / "runs").exists() else []
    assert after == before
    status, _, err = call("train", "--resume", "--plan")
    assert (status, "--resume with --plan" in err) == (2, True)


def test_a_small_text_says_why_it_takes_less_than_its_minutes(call: Call, here: Path) -> None:
    """In the plan's lines, and as the origin of the setting, which would else be the flag."""
    (here / "t.txt").write_text("to be or not to be, " * 200)
    why = "of 30: more passes over a text of this size gain nothing"
    status, out, err = call("train", "t.txt", "--plan", "--minutes", "30", "--hidden", "8")
    assert (status, why in out + err) == (0, False)
    status, out, err = call("train", "t.txt", "--plan", "--minutes", "30")
    assert (status, f"minutes ({why})" in out + err) == (0, True)
    assert "rule: of 30:" in out


def test_a_plan_that_needs_too_much_memory_is_refused(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written, with what could be made smaller."""
    monkeypatch.setattr("charlm.training.plan.memory.free_memory", lambda: 10**8)
    (here / "t.txt").write_text("to be or not to be, " * 200)
    status, _, err = call("train", "t.txt", "--steps", "5", "--checkpoints", "runs")
    assert status == 5
    assert "GB of memory, 0.1 GB are free here. Use a smaller --batch (now " in err


def test_a_search_reports_its_trials_and_the_best(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of them, and how to train the best for longer; as JSON too."""
    counted = functools.partial(search_module.search, clock=Ticking(0.01))
    monkeypatch.setattr(search_module, "search", counted)
    (here / "t.txt").write_text("to be or not to be, " * 200)
    arguments = ["search", "t.txt", "--minutes", "0.02", "--trial-minutes", "0.004", "--knobs",
                 "dropout", "--set", "hidden_size=4", "--set", "num_layers=1", "--set",
                 "threads=1", "--checkpoints", "runs"]  # fmt: skip
    status, out, err = call(*arguments)
    assert status == 0
    assert "trial  nats/token  state" in out
    assert "trial 0: " in err
    (words,) = re.findall("train longer with: charlm train t.txt (.*) --checkpoints runs", err)
    assert words.startswith("--set hidden_size=4 --set num_layers=1 --set threads=1 --set dropout=")
    assert re.fullmatch(r"0(\.\d{1,2})?", words.rpartition("=")[2])
    found = json.loads(call(*arguments, "--json")[1])
    assert found["trials"][0]["state"] == "complete"
    (here / "b.txt").write_bytes(b"to be or not \xff to be, " * 200)
    more = ["--set", "errors=replace", "--name", "other", "--minutes", "0.05"]
    status, _, err = call("search", "b.txt", *arguments[2:], *more)
    assert (status, err.count("U+FFFD")) == (0, 1)
    assert err.count("\ntrial ") > 1

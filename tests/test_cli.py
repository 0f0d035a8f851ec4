"""The command line: exit codes, the result alone on stdout, messages on stderr."""

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
from typing import Any

import pytest
import torch
from helpers import CPU_FULL, Call
from waiting import PATIENCE, Ticking, wait_until

import charlm
from charlm.api import loading as library
from charlm.cli import app, main
from charlm.cli.stdin import stdin_blocks
from charlm.config.fields import scaled_number
from charlm.config.flags import by_section
from charlm.errors import CharlmError, EnvironmentFailure, UsageError
from charlm.inference import likelihood
from charlm.runs import built_in
from charlm.runs.checkpoints import checkpoint_folders
from charlm.runs.layout import COMPANION, read_record, write_record
from charlm.runs.run import Run
from charlm.training import search as search_module

TEXT = "abc abd\nab ca\n" * 10
TINY = [
    "--hidden", "4", "--embedding", "3", "--layers", "1", "--dropout", "0.1", "--batch", "2",
    "--bptt", "4", "--threads", "1", "--seed", "1", "--precision", "fp32", "--device", "cpu",
]  # fmt: skip
TRAIN = ["train", "text.txt", "--checkpoints", "c"]
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
    """Two tiny runs made by the command line: `stream`, and `lines`, which is newer."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    for name, more in (("stream", []), ("lines", ["--document", "line"])):
        with pytest.raises(SystemExit) as ended:
            main(["-q", "train", str(folder / "text.txt"), "--checkpoints", str(folder / "x"),
                  "--name", name, "--steps", "12", *TINY, *more])  # fmt: skip
        assert ended.value.code == 0
    return folder / "x"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text; commands find the tiny runs."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(runs))
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "CHARLM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)
    return tmp_path


def process(*arguments: str, **named) -> subprocess.Popen:
    """Start the command in a separate process."""
    code = "from charlm.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **(pipes | named))


# Help, version, usage


def test_help_shows_every_verb(call: Call) -> None:
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert all(verb in out for verb in VERBS)
    assert "Example:" in out
    assert call("-h")[1] == out


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"charlm {charlm.__version__}\n", "")


def test_without_a_command_the_help_is_shown_with_exit_2(call: Call) -> None:
    """No empty error line follows."""
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
        (["sample", "--prime", "a", "--prime-file", "b"], "--prime-file"),
        (["score", "--format", "xml", "a"], "xml"),
        (["score", "a", "--file", "b"], "--file"),
        (["train", "x", "--run", "stream"], "--resume"),
        (["train", "x", "y", "--resume"], "--resume"),
        (["train", "x", "--name", "a/b"], "--name"),
        (["train", "x", "--set", "zoneot=1"], "'zoneout'"),
        (["next", "The", "apple"], "into quotes"),
        (["fill", "the", "___", "sat"], "into quotes"),
        (["sample", "Once", "upon"], "--prime"),
        (["sample", "--until-eos", "--run", "stream"], "--document line"),
        (["score", "a", "--column", "text"], "--file"),
        (["gradients", "--column", "text"], "a text"),
        (["vectors", "nearest", "zebra"], "not an entry"),
        (["gradients", "--out", "x.gif"], ".svg"),
        (["gradients", "--compare", "rnn", "-"], "stdin can be read only once"),
        (["gradients", "--out", "missing/x.svg"], "can be written to"),
        (["search", "x", "--valid", "-"], "stdin can be read only once"),
        (["search", "x", "--set", "epochs=3"], "--trial-minutes"),
        (["train", "x", "--vocab", "v.json", "--unit", "word"], "unit with --vocab"),
        (["vocab", "x", "--vocab", "v.json", "--lowercase"], "--lowercase with --vocab"),
        (["vocab", "x", "--unit", "byte", "--max-size", "9"], "--max-size 9 has no effect"),
        (["train", "--resume", "--run", "lines", "--name", "b"], "give one of them"),
        (["train", "x", "--clip-norm", "0.25", "--set", "clip_value=1"], "clip_value"),
        (["score", "a", "--tokens", "--format", "scores"], "--tokens with --format scores"),
    ],
)
def test_a_mistake_in_usage_is_exit_2_with_a_hint(arguments, hint: str, call: Call) -> None:
    """One line names the mistake or the nearest name; stdout is empty."""
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
    """--debug adds the traceback."""

    def fail(*_: object, **__: object) -> None:
        raise error("found this; expected that.\nDo so")

    monkeypatch.setattr(library, "load_model", fail)
    status, out, err = call("next", "a", "--run", "lines")
    assert (status, out) == (error.exit_code, "")
    assert err == "charlm: found this; expected that. Do so\n"
    status, out, err = call("--debug", "next", "a", "--run", "lines")
    assert (status, out) == (error.exit_code, "")
    assert "Traceback" in err
    assert err.endswith("charlm: found this; expected that. Do so\n")
    assert call("-q", "next", "a", "--run", "lines")[2].startswith("charlm: found")


def test_exit_codes_are_all_different() -> None:
    kinds = [
        cls for cls in everything_below(CharlmError) if cls.__module__ == CharlmError.__module__
    ]
    assert sorted(cls.exit_code for cls in kinds) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("error", "status", "hint"),
    [
        (ZeroDivisionError("by zero"), 1, "unexpected ZeroDivisionError: by zero.*bug.*--debug"),
        (MemoryError(), 5, "not enough memory.*--hidden"),
        (torch.OutOfMemoryError("CUDA out of memory"), 5, "device has too little memory.*--hidden"),
        (RuntimeError(CPU_FULL), 5, "has too little memory.*--hidden"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), 5, "too little memory"),
        (
            RuntimeError("CUDA error: unspecified launch failure\nCUDA"),
            5,
            "GPU has failed.*failure\\)",
        ),
        (RuntimeError("CUDA error: device-side assert triggered\nCUDA"), 1, "bug in charlm"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_unexpected_exceptions_have_their_exit_codes(
    error: BaseException, status: int, hint: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug asks for a report, missing memory says what to reduce, Ctrl-C is 130."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(library, "load_model", fail)
    code, out, err = call("next", "a", "--run", "lines")
    assert (code, out) == (status, "")
    assert len(err.splitlines()) <= 1
    assert re.search(hint, err)


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["train", "missing.txt"], 3, "missing.txt"),
        (["eval", "--file", "missing.txt"], 3, "missing.txt"),
        (["train", "--name", "x" * 201], 2, "--name is longer than 200 bytes"),
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
def test_a_missing_file_or_run_is_named(arguments, status: int, hint: str, call: Call) -> None:
    if "mps" in arguments and torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    code, out, err = call(*arguments)
    assert (code, out) == (status, "")
    assert hint in err
    assert sum(line.startswith("charlm: ") for line in err.splitlines()) == 1
    assert "Traceback" not in err


# What goes where


@pytest.mark.parametrize("verb", READING)
def test_results_are_on_stdout_and_messages_on_stderr(verb: str, call: Call) -> None:
    """The newest run is the default and reported; -q gives the same result in silence."""
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
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    _, out, err = call(verb, *READING[verb])
    assert "\x1b" not in out + err
    assert "\r" not in out + err


def test_json_is_one_document_on_stdout(call: Call, runs: Path) -> None:
    expected = {
        "next": {"schema_version", "prompt", "next"},
        "info": {"schema_version", "path", "config", "run"},
        "verify": {"schema_version", "ok", "checks"},
    }
    for verb, keys in expected.items():
        status, out, _ = call(verb, *READING[verb], "--json")
        assert status == 0
        assert keys <= json.loads(out).keys()
    text = str(runs.parent / "text.txt")
    content = json.loads(call("vocab", text, "--json")[1])
    assert (content["size"], content["tokens"], content["unknown"]) == (8, len(TEXT), 0)


def test_an_evaluation_has_the_documented_keys(call: Call) -> None:
    """For a given text and for the held-out one."""
    keys = {
        *("tokens", "words", "chars", "bytes", "oov", "documents", "nats"),
        *("nats_per_token", "bits_per_token", "bits_per_char", "bits_per_byte"),
        *("perplexity", "perplexity_without_oov", "perplexity_without_eos", "word_perplexity"),
        *("unk_penalty", "penalized_bits_per_char", "penalized_word_perplexity"),
    }
    Path("t.txt").write_text("abc\nxb\n")
    for arguments in ([], ["--file", "t.txt"]):
        content = json.loads(call("eval", "--json", *arguments)[1])
        assert set(content) == {*keys, "schema_version", "run", "protocol"}
    assert (content["tokens"], content["oov"], content["documents"]) == (7, 1, 2)
    assert content["chars"] == 7


def test_evaluation_by_windows_is_named_and_differs(call: Call) -> None:
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
    expected = charlm.load(runs / "stream").sample(50, seed=3)
    for _ in range(2):
        status, out, _ = call("sample", "stream", "--len", "50", "--seed", "3")
        assert (status, out) == (0, expected)
    assert call("sample", "stream", "--len", "50", "--seed", "4")[1] != expected


def test_a_random_seed_is_reported_and_repeats_the_sample(call: Call) -> None:
    _, out, err = call("sample", "--len", "40")
    (seed,) = (line.split()[1] for line in err.splitlines() if line.startswith("seed "))
    assert call("sample", "--len", "40", "--seed", seed)[1] == out


def test_length_zero_writes_nothing(call: Call) -> None:
    """Not even a line end; --echo writes exactly the prompt."""
    assert call("sample", "stream", "--len", "0")[:2] == (0, "")
    assert call("sample", "stream", "--len", "0", "--prime", "ab", "--echo")[:2] == (0, "ab")


TRICKY = "[/b] [bold]x[/bold] :smile: \x1b[2J \x1b]52;c;aGk=\x07 \t|\r\0 ä猫 👩‍🚀"


def test_text_is_escaped_on_a_terminal_only(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """--raw leaves it unescaped on a terminal."""
    arguments = ["sample", "--len", "0", "--prime", TRICKY, "--echo", "--run", "stream"]
    assert call(*arguments)[:2] == (0, TRICKY)
    monkeypatch.setattr("charlm.cli.sample.on_terminal", lambda: True)
    _, shown, _ = call(*arguments)
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown
    assert "[/b] [bold]x[/bold] :smile:" in shown
    assert call(*arguments, "--raw")[1].startswith(TRICKY)


def test_markup_in_a_table_is_shown_as_text(call: Call) -> None:
    for arguments in (["score", TRICKY, "[/b]", "--format", "table", "--tokens"], ["next", TRICKY]):
        status, out, _ = call(*arguments)
        assert status == 0
        assert "\x1b" not in out
    assert "[/b]" in call("score", "[/b]", "--format", "table")[1]
    _, out, _ = call("score", "--format", "jsonl", TRICKY)
    assert json.loads(out)["text"] == TRICKY


def test_unseen_characters_of_a_prompt_are_named_once(call: Call) -> None:
    for verb in (["sample", "--len", "3", "--seed", "1", "--prime"], ["next"], ["score"]):
        status, _, err = call(*verb, "aXbXXcÄ")
        assert status == 0
        (line,) = (line for line in err.splitlines() if "UNK" in line)
        assert line.count("'X'") == 1
        assert line.count("'Ä'") == 1
        assert "'a'" not in line
        assert "UNK" not in call(*verb, "abc")[2]


# Scoring


def test_each_line_of_input_gives_one_score(call: Call, runs: Path) -> None:
    """Empty lines too; the scores are in order and equal those of the library."""
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


def test_a_stop_text_that_cannot_occur_is_reported(call: Call) -> None:
    hint = "the model cannot write '猫', so it will not stop"
    assert hint in call("sample", "--len", "5", "--stop", "猫")[2]
    assert "is taken literally" in call("sample", "--len", "5", "--stop", "\\n")[2]
    assert "stop text" not in call("sample", "--len", "5", "--stop", "\n", "--run", "lines")[2]


def test_empty_input_gives_no_score(call: Call) -> None:
    """One empty line gives one score."""
    assert call("score", "--format", "scores", stdin=b"")[:2] == (0, "")
    assert len(call("score", "--format", "scores", stdin=b"\n")[1].splitlines()) == 1


def test_an_empty_text_of_a_stream_has_probability_one(call: Call) -> None:
    """It is written as 0, not as -0."""
    _, out, _ = call("score", "--run", "stream", "--format", "scores", "")
    assert out == "0.000000\n"
    _, out, _ = call("score", "--run", "stream", "--format", "jsonl", "")
    assert '"log_probability": 0.0' in out


def test_scores_can_have_another_base_of_the_logarithm(call: Call) -> None:
    """The base is in the header."""
    values = {}
    for base in ("e", "2", "10"):
        _, out, _ = call("score", "abc abd", "--format", "tsv", "--log-base", base)
        header, row = (line.split("\t") for line in out.splitlines())
        assert header[1] == f"log_probability_base_{base}"
        values[base] = float(row[1])
    assert values["2"] == pytest.approx(values["e"] / 0.6931471805599453, abs=1e-4)
    assert values["10"] == pytest.approx(values["e"] / 2.302585092994046, abs=1e-4)


@pytest.mark.parametrize(
    ("data", "place"), [(b"ab\xffc\n", 2), (b"abc\nab\xc3", 6), (b"\xe7\x8c\xab\xc3\n", 3)]
)
def test_invalid_bytes_of_stdin_are_located(data: bytes, place: int, call: Call) -> None:
    """Also a character that is cut off at the end."""
    status, _, err = call("score", "--format", "scores", stdin=data)
    assert status == 3
    assert f"byte {place}:" in err


def _near(value: Any) -> Any:
    """Return what a value is compared with: a figure may differ in its last bits."""
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def test_a_character_may_arrive_in_two_reads(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and places of errors do not depend on the reads.

    How many texts are read side by side does, and with it the last bits of figures: NumPy may add
    the products of one row in another order than those of several.
    """
    data = "abc ä猫\n\nab\n".encode()
    status, whole, warnings = call("score", "--format", "jsonl", stdin=data)
    monkeypatch.setattr("charlm.cli.stdin.READ_BYTES", 1)
    again = call("score", "--format", "jsonl", stdin=data)
    assert (status, warnings) == (again[0], again[2])
    rows, pieces = ([json.loads(row) for row in out.splitlines()] for out in (whole, again[1]))
    near = [{key: _near(value) for key, value in row.items()} for row in rows]
    assert pieces == near
    assert "byte 5: 0xff" in call("score", "--format", "jsonl", stdin=b"ab\xc3\xa4\n\xff")[2]


def test_a_pause_does_not_end_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The story: of a pipe that did not block, only what came before the first pause was scored."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with os.fdopen(read_end, encoding="utf-8") as stdin, os.fdopen(write_end, "wb", 0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        blocks = stdin_blocks()
        assert os.get_blocking(read_end)  # so that a read waits for text
        for text in (b"one", b"two"):
            pipe.write(text)
            assert next(blocks) == text
        pipe.close()
        assert list(blocks) == []


# Vocabulary, info, verify


def test_a_written_vocabulary_can_be_trained_with(call: Call) -> None:
    """`vocab --oov` counts the unknown tokens of a second text."""
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


def test_ends_of_rows_are_not_counted_as_unknown(call: Call) -> None:
    Path("a.jsonl").write_text('{"text": "ab"}\n{"text": "ba"}\n')
    Path("b.jsonl").write_text('{"text": "abx"}\n{"text": "b"}\n{"text": null}\n')
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
    """-v shows every setting."""
    _, out, _ = call("info", "--run", "stream")
    assert "model.hidden_size" in out
    assert "flag" in out
    assert "rule: half" in out
    assert "charlm -q train" in call("-v", "info", "--run", "stream")[1] or "command" in out
    assert len(call("-v", "info", "--run", "stream")[1]) > len(out)


@pytest.mark.parametrize("name", ["config.json", "run.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_run_is_exit_4(name: str, call: Call, runs: Path) -> None:
    """Each verb that needs the file refuses in one sentence; verify lists it."""
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
    steps = [] if {"--steps", "--epochs"} & set(more) else ["--steps", "12"]
    return call(*TRAIN, "--name", name, *TINY, *steps, *more)


def test_training_writes_the_path_to_stdout_and_the_rest_to_stderr(call: Call) -> None:
    status, out, err = trained(call, "r")
    assert (status, out) == (0, "c/r\n")
    assert not {"\x1b", "\r"} & set(err)
    assert "seed 1" in err
    assert "validation" in err
    assert call("-q", *TRAIN, "--name", "q", "--steps", "3", *TINY) == (0, "c/q\n", "")
    assert Path("c/q/model.safetensors").exists()


def test_a_random_seed_of_training_is_reported_and_stored(call: Call) -> None:
    sizes = ["--steps", "1", "--layers", "1", "--hidden", "4", "--threads", "1"]
    _, _, err = call(*TRAIN, "--name", "d", *sizes)
    seed = json.loads(Path("c/d/run.json").read_text())["settings"]["training"]["seed"]
    assert f"seed {seed}" in err


def test_a_complete_run_is_not_trained_again(call: Call) -> None:
    """It can be trained longer, but not with another architecture."""
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
    assert "--hidden cannot change" in err


def test_the_built_in_run_cannot_be_resumed(
    call: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_in, "shipped", lambda kind, name: runs / "stream")
    assert call("next", "a", "--checkpoints", "none", "--json")[0] == 0
    assert "(the built-in model)" in call("next", "a", "--checkpoints", "none")[2]
    status, _, err = call("train", "--resume", "--run", "tales", "--checkpoints", "none")
    assert status == 4
    assert "built-in run is read-only" in err
    assert "no run in none" in call("train", "--resume", "--checkpoints", "none")[2]


def test_flags_win_over_a_file_of_settings(call: Call) -> None:
    """run.json says where each value came from."""
    Path("run.toml").write_text(
        '\ufeff[model]\ncell = "gru"\nzoneout = 0.4\n[training]\nsteps = 7\nevals = 2\n',
        encoding="utf-8",
    )
    flags = ["--config", "run.toml", "--set", "zoneout=0.2", "--steps", "3"]
    assert trained(call, "r", *flags)[0] == 0
    record = json.loads(Path("c/r/run.json").read_text())
    model, training = (record["settings"][name] for name in ("model", "training"))
    assert (model["cell"], model["zoneout"], training["steps"]) == ("gru", 0.2, 3)
    origins = [record["origins"][name] for name in (
        "model.cell", "model.zoneout", "training.steps", "training.warmup"
    )]  # fmt: skip
    assert origins == ["file run.toml", "flag", "flag", "default"]
    assert record["command"].startswith("charlm train ")
    assert record["command"].endswith("--config run.toml --set zoneout=0.2 --steps 3")


def test_a_length_given_as_a_flag_replaces_that_of_a_file(call: Call) -> None:
    Path("run.toml").write_text("[training]\nsteps = 2\n")
    status, _, err = trained(call, "r", "--config", "run.toml", "--epochs", "0.1")
    assert (status, err.count("one length")) == (0, 0)


# In processes of their own: pipes, signals, death


@pytest.mark.parametrize("buffering", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_closed_pipe_is_no_error(buffering: dict[str, str]) -> None:
    """`charlm sample | head -c 10`: ten bytes, exit 0, no message."""
    arguments = ["-q", "sample", "stream", "--len", "1000000000", "--seed", "1"]
    with process(*arguments, env=os.environ | buffering) as child:
        assert child.stdout is not None
        assert len(child.stdout.read(10)) == 10
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_help_into_a_closed_pipe_is_no_error(here: Path) -> None:
    """`charlm --help | head -0`."""
    with process("--help", cwd=here) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(timeout=PATIENCE) == 0


def test_a_closed_stderr_sends_no_message_to_stdout(runs: Path) -> None:
    """`2>&-`: Python then has no stderr."""
    code = "from charlm.cli import main; main()"
    line = shlex.join(
        [sys.executable, "-c", code, "sample", "stream", "--len", "20", "--seed", "1"]
    )
    done = subprocess.run(["sh", "-c", f"{line} 2>&-"], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == charlm.load(runs / "stream").sample(20, seed=1)


def test_a_closed_stdout_is_no_error(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """`>&-`: exit 0."""
    monkeypatch.setattr(sys, "stdout", None)
    status, _, err = call("sample", "--len", "5", "--seed", "1")
    sys.stdout.close()  # what was opened in its place
    assert (status, err) == (0, "run lines (the newest run)\n")


def test_text_in_a_pipe_is_utf8_in_any_locale() -> None:
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    arguments = ["-q", "sample", "stream", "--len", "0", "--echo", "--prime-file", "p.txt"]
    Path("p.txt").write_bytes(TRICKY.encode())
    with process(*arguments, env=environment) as child:
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (0, TRICKY.encode(), b"")


def test_info_loads_no_torch() -> None:
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
    child = process(*TRAIN, "--name", name, *TINY, *more)
    wait_until(lambda: lines_of(Path(f"c/{name}/metrics.jsonl")) > 0, child)
    return child


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run(number: int, status: int, call: Call) -> None:
    """The step is finished, and the reported command resumes the run."""
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_step_stops_at_once(
    number: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ignored while n-grams were fitted, which may take minutes."""
    with monkeypatch.context() as patch:
        stop = lambda *_, **__: os.kill(os.getpid(), number)  # noqa: E731
        patch.setattr("charlm.training.language.fit_companion", stop)
        status, out, err = call(*TRAIN, "--name", "s", *TINY, "--steps", "4", "--ngram", "2")
    assert (status, out) == (128 + number, "")
    _, _, words = err.partition("training is complete and saved; write its results with: ")
    assert call(*shlex.split(words)[1:], "--checkpoints", "c")[0] == 0
    assert (Path("c/s") / COMPANION).is_dir() and call("verify", "--run", "c/s")[0] == 0


def test_a_second_trainer_is_refused(call: Call) -> None:
    """The message has the process id; a killed trainer frees the run at once."""
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
def test_numbers_of_weights_may_be_abbreviated(text: str, value: int) -> None:
    assert scaled_number(text) == value


@pytest.mark.parametrize("text", ["", "M", "x", "2T", "inf", "nan"])
def test_invalid_numbers_of_weights_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="2M or 500k"):
        by_section({"params": text})


def test_a_model_is_sized_by_its_number_of_weights(call: Call) -> None:
    Path("text.txt").write_text("the cat sat on the mat. " * 40)
    sizes = ["--params", "5k", "--skip", "--steps", "2", "--seed", "1", "--name", "p"]
    status, _, err = call(*TRAIN, *sizes)
    assert status == 0, err
    assert 3_000 < json.loads(Path("c/p/run.json").read_text())["parameters"] <= 5_000
    assert "skips" in call("sample", "--run", "c/p", "--len", "5", "--engine", "native")[2]


# Directions, vectors, gradients


def test_a_run_with_both_directions_fills_gaps(call: Call) -> None:
    """A table for each gap, then the filled text; each half is a run that can be read."""
    status, out, err = trained(call, "gaps", "--direction", "both", "--steps", "6")
    assert (status, out) == (0, "c/gaps\n")
    assert "the backward half" in err
    fill = ["fill", "ab ___a", "--run", "c/gaps"]
    status, out, _ = call(*fill, "--top", "3")
    assert status == 0
    *table, filled = out.splitlines()
    assert len(table) == 5  # head, three tokens, a blank line
    assert (filled[:3], filled[-1]) == ("ab ", "a")
    content = json.loads(call(*fill, "--json")[1])
    assert content["filled"] == filled
    assert content["gaps"][0][0]["token"] == filled[3]
    assert call("fill", "ab ___a", "--run", "stream")[0] == 4
    assert call("sample", "--run", "c/gaps/backward", "--len", "5")[0] == 0


def test_vectors_are_exported_and_compared(call: Call) -> None:
    assert call("vectors", "export", "--run", "lines", "--out", "v.txt")[0] == 0
    exported = call("vectors", "export", "--run", "lines")
    assert exported[:2] == (0, Path("v.txt").read_text())
    nearest = ["vectors", "nearest", "a", "--run", "lines", "--top", "2"]
    assert len(json.loads(call(*nearest, "--json")[1])["nearest"]) == 2
    assert call(*nearest)[1].count("\n") == 3


def test_gradients_of_a_run_and_of_cells_side_by_side(call: Call) -> None:
    """A table and a sentence for each model, every norm as JSON, and a picture on request."""
    Path("long.txt").write_text(TEXT * 3)
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
    assert Path("x.svg").stat().st_size > 1000


def test_runs_are_compared_on_a_text(call: Call) -> None:
    """A run with itself and with another; a stream and documents pair line by line."""
    Path("t.txt").write_text("abc abd\nab ca\n" * 20)
    status, out, _ = call("compare", "stream", "stream", "lines", "--file", "t.txt")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["run", "stream", "stream", "lines"]
    assert "no difference shown" in out.splitlines()[2]
    named = ["compare", "stream", "lines", "--json", "--file"]
    out = call(*named, "t.txt")[1]
    first, other = json.loads(out)["runs"]
    assert first["difference"] is None
    change = other["difference"]
    assert change["low"] <= change["bits_per_byte"] <= change["high"]
    difference = other["bits_per_byte"] - first["bits_per_byte"]
    assert change["bits_per_byte"] == pytest.approx(difference, abs=1e-9)
    assert call(*named, "-", stdin=Path("t.txt").read_bytes())[1] == out
    assert call("compare", "stream", "--file", "t.txt")[0] == 2


def test_an_empty_text_is_refused(call: Call) -> None:
    """Commands once reported a division by zero as a bug."""
    Path("empty.txt").write_text("")
    plain = ["eval", "--run", "stream"]
    for arguments in (["compare", "stream", "lines"], plain, [*plain, "--cache", "9"]):
        status, out, err = call(*arguments, "--file", "empty.txt")
        assert (status, out) == (3, "")
        assert "the text is empty; expected" in err


def test_unknown_tokens_and_empty_texts_win_no_mark(call: Call) -> None:
    status, out, err = call("score", "--run", "stream", "--format", "table", "abc", "ab\u732b", "")
    assert status == 0
    assert " *" not in out
    assert [line.split()[0] for line in out.splitlines()[1:]] in (["1", "2", "-"], ["2", "1", "-"])
    assert "1 of 3 texts contain unknown tokens" in err
    assert "-0.000" not in out
    _, out, err = call("score", "--run", "stream", "--format", "table", "abc", "abd", "")
    assert out.count(" *") == 1
    assert "unknown" not in err


def test_carriage_returns_unknown_to_the_model_are_dropped(call: Call) -> None:
    Path("plain.txt").write_bytes(b"abc\nabd\n")
    Path("windows.txt").write_bytes(b"abc\r\nabd\r\n")
    _, plain, quiet = call("score", "--run", "stream", "--file", "plain.txt")
    _, scores, err = call("score", "--run", "stream", "--file", "windows.txt")
    assert scores == plain
    assert err.count("CR LF") == 1
    assert "CR LF" not in quiet
    _, piped, err = call("score", "--run", "stream", stdin=b"abc\r\nabd\r\n")
    assert piped == plain
    assert err.count("carriage return") == 1


def test_sentences_in_other_encodings_are_scored(call: Call) -> None:
    """Files and stdin are decoded, for `compare` too; invalid bytes may be replaced."""
    Path("utf.txt").write_text("abc\nabé\n", encoding="utf-8")
    Path("latin.txt").write_text("abc\nabé\n", encoding="latin-1")
    data = Path("latin.txt").read_bytes()
    score = ["score", "--run", "stream"]
    plain = call(*score, "--file", "utf.txt")[1]
    latin = ["--file", "latin.txt", "--encoding", "latin-1"]
    assert call(*score, *latin)[1] == plain
    assert call(*score, "--encoding", "latin-1", stdin=data)[1] == plain
    assert "ab\ufffd" in call(*score, "--errors", "replace", stdin=data)[1]
    status, _, err = call(*score, "--encoding", "utf-16", stdin=data)
    assert (status, "such as --encoding utf-16-le" in err) == (3, True)
    status, out, err = call(*score, "--file", "latin.txt")
    assert (status, out, "--encoding cp1252" in err) == (3, "", True)
    assert "replaced by U+FFFD" in call(*score, "--file", "latin.txt", "--errors", "replace")[2]
    compare = ["compare", "stream", "lines"]
    assert call(*compare, *latin)[1] == call(*compare, "--file", "utf.txt")[1]
    replaced = call(*compare, "--file", "latin.txt", "--errors", "replace")[2]
    assert replaced.count("replaced by U+FFFD") == 1
    assert call(*score, "ab", "--encoding", "latin-1")[0] == 2
    assert call(*score, "--file", "utf.txt", "--errors", "x")[0] == 2


def test_the_difference_of_a_preset_from_its_paper_is_reported(call: Call) -> None:
    status, _, err = call(*TRAIN, "--preset", "zaremba-small", "--plan")
    assert status == 0
    assert "preset zaremba-small; not as published: embedding, output and biases" in err


def test_a_run_that_ended_by_patience_says_so(call: Call, here: Path) -> None:
    flags = ["--patience", "1", "--evals", "12", "--learning-rate", "3", "--steps", "30"]
    where = ["--checkpoints", str(here)]
    assert call("train", "text.txt", "--name", "p", *flags, *where, *TINY)[0] == 0
    status, _, err = call("train", "--resume", "--run", "p", *where)
    assert status == 0
    assert re.search(r"is over after [\d.]+ passes, since validation no longer improved", err)
    status, _, err = call("train", "--resume", "--run", "p", "--steps", "35", *where)
    assert (status, "nothing was changed" in err) == (0, False)


@pytest.mark.parametrize("columns", ["20", "12", "0", "x"])
def test_tables_fit_a_narrow_terminal_without_losing_a_number(
    columns: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = json.loads(call("eval", "--run", "stream", "--json")[1])["nats_per_token"]
    monkeypatch.setenv("COLUMNS", columns)
    for verb, arguments in READING.items():
        assert call(verb, *arguments)[0] == 0
    assert call("--help")[0] == 0
    assert f"{nats:.4f}" in call("eval", "--run", "stream")[1]


def test_a_long_path_is_broken_to_fit_a_table(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only numbers may widen a table."""
    monkeypatch.setenv("COLUMNS", "60")
    lines = call("info", "--run", "stream")[1].splitlines()
    assert max(len(line) for line in lines if not line.startswith("charlm train ")) <= 60
    assert not any("…" in line for line in lines)


def test_a_foreign_record_cannot_move_the_cursor(call: Call, runs: Path, here: Path) -> None:
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


def test_a_run_named_backward_is_an_ordinary_run(call: Call) -> None:
    flags = ["--name", "backward", "--checkpoints", "runs", "--steps", "2", *TINY]
    status, _, err = call("train", "text.txt", *flags)
    assert status == 0
    assert "charlm fill" not in err
    assert re.search(r"charlm sample .*--run \S*/backward$", err, re.MULTILINE)


def test_test_time_methods_are_shown_beside_the_plain_figures(call: Call) -> None:
    """The plain figures stay the same; each choice is reported."""
    plain = json.loads(call("eval", "--run", "stream", "--json")[1])
    flags = ["--cache", "20", "--dynamic", "--temperature", "--with", "stream"]
    status, out, err = call("eval", "--run", "stream", *flags, "--json")
    assert status == 0
    figures = json.loads(out)
    assert next(iter(figures)) == "valid"
    named = {"valid, cache", "valid, dynamic", "2nd half of valid, mixture"}
    assert named <= set(figures)
    assert any(name.startswith("valid, temperature ") for name in figures)
    halves = [figures.pop(name)["nats"] for name in list(figures) if name.startswith("2nd")]
    assert halves == pytest.approx([halves[0]] * 3)  # the mixture is with itself
    assert figures["valid"]["nats"] == pytest.approx(plain["nats"], rel=1e-5)
    assert {tally["tokens"] for tally in figures.values()} == {plain["tokens"]}
    assert "dynamic evaluation: rate" in err
    assert "chosen on the first" in err
    status, out, _ = call("eval", "--run", "stream", *flags)
    assert "gain" in out
    assert "valid, dynamic" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_test_time_methods_refuse_what_they_cannot_do(
    call: Call, runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = call("eval", "--run", "stream", "--with", "tales")
    assert (status, "tales has another vocabulary" in err) == (2, True)
    for method, *other in (
        ["--dynamic", "--engine", "native"], ["--cache", "20", "--weights", "int8"],
        ["--cache", "20", "--engine", "numpy"], ["--cache", "20", "--reset"],
    ):  # fmt: skip
        status, _, err = call("eval", "--run", "stream", method, *other)
        assert (status, f"{method} needs engine torch" in err) == (2, True)
    monkeypatch.setattr(likelihood, "evaluate", None)  # refused before anything is read
    monkeypatch.setattr(Run, "encode", None)
    status, _, err = call("eval", "--run", "stream", "--average")
    assert (status, "an average needs two" in err) == (2, True)
    shutil.copytree(runs / "stream", here / "bare")
    shutil.rmtree(here / "bare" / "data")
    (here / "t.txt").write_text(TEXT)
    for flags, purpose in (
        (["--cache", "9"], "choose a cache"), (["--temperature"], "fit a temperature"),
        (["--dynamic"], "choose a rate"),
    ):  # fmt: skip
        place = ["--run", "bare", "--checkpoints", str(here), "--file", "t.txt"]
        status, _, err = call("eval", *place, *flags)
        assert (status, f"keeps no validation text to {purpose}" in err) == (2, True)


def test_text_with_ids_outside_of_the_vocabulary_is_refused(
    call: Call, runs: Path, here: Path
) -> None:
    """A damaged byte, or a run of someone else."""
    shutil.copytree(runs / "stream", here / "other")
    for name in ("valid", "train"):
        file = here / "other" / "data" / name / "ids.bin"
        file.write_bytes(b"\xff" * len(file.read_bytes()))
    place = ["--run", "other", "--checkpoints", str(here)]
    for command in (["eval"], ["eval", "--temperature"], ["gradients", "--lags", "5"]):
        status, _, err = call(*command, *place)
        assert (status, "ids that tokenizer.json does not have" in err) == (3, True), err


def test_a_plan_is_shown_with_reasons_and_nothing_is_written(call: Call) -> None:
    Path("text.txt").write_text("to be or not to be, " * 200)
    status, out, _ = call(*TRAIN, "--plan", "--steps", "50")
    assert status == 0
    for words in ("passes over the text", "GB of memory", "training.steps", "flag"):
        assert words in out
    assert not Path("c").exists()
    why = "of 30: more passes over a text of this size gain nothing"
    _, out, err = call(*TRAIN, "--plan", "--minutes", "30", "--hidden", "8")
    assert why not in out + err
    _, out, err = call(*TRAIN, "--plan", "--minutes", "30")
    assert f"minutes ({why})" in out + err
    assert "rule: of 30:" in out


def test_a_plan_beyond_the_memory_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to reduce."""
    monkeypatch.setattr("charlm.training.plan.memory.free_memory", lambda: 12 * 10**7)
    Path("text.txt").write_text("to be or not to be, " * 2000)
    sizes = ("--hidden", "64", "--batch", "64", "--bptt", "64")
    status, _, err = call("train", "text.txt", "--steps", "5", *sizes, "--checkpoints", "runs")
    assert status == 5
    assert "GB of memory, 0.1 GB are free here. Use a smaller --batch (now 64), --bptt" in err


def test_a_full_disk_is_reported_before_training(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to do."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=3 << 20))
    Path("text.txt").write_text("to be or not to be, " * 200)
    status, _, err = call("train", "text.txt", "--steps", "5", "--checkpoints", "runs")
    assert status == 5
    assert "runs has 3 MB free; expected at least 10 MB. Free some, or choose another folder" in err
    assert err.endswith("with --checkpoints\n")
    with pytest.raises(EnvironmentFailure, match=r"another folder with checkpoints$"):
        charlm.fit(text="to be or not to be, " * 200, steps=5, checkpoints="runs")


def test_weights_beyond_the_memory_are_never_built(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing the gradients of 20,000 units took minutes before the run was refused."""
    monkeypatch.setattr("charlm.training.plan.memory.free_memory", lambda: 10**8)
    monkeypatch.setattr("charlm.nn.devices.gradient_problem", lambda *_: pytest.fail("compared"))
    monkeypatch.setattr("charlm.nn.devices.missing_type", lambda *_, **__: None)
    Path("text.txt").write_text("to be or not to be, " * 200)
    status, _, err = call("train", "text.txt", "--hidden", "2000", "--steps", "5")
    assert status == 5
    assert err.endswith("0.1 GB are free here. Use a smaller --hidden (now 2000)\n")  # no --batch
    with pytest.raises(EnvironmentFailure, match=r"Use a smaller hidden \(now 2000\)$"):
        charlm.fit(text="to be or not to be, " * 200, hidden=2000, steps=5, checkpoints="runs")


def test_a_search_reports_its_trials(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the command that trains the best for longer. Settings that are given stay."""
    counted = functools.partial(search_module.search, clock=Ticking(0.01))
    monkeypatch.setattr(search_module, "search", counted)
    Path("text.txt").write_text("to be or not to be, " * 200)
    given = ["hidden_size=4", "num_layers=1", "learning_rate=0.01", "batch_size=4", "bptt=8"]
    arguments = ["search", "text.txt", "--minutes", "0.02", "--trial-minutes", "0.004"]
    arguments += [word for pair in (*given, "threads=1") for word in ("--set", pair)]
    arguments += ["--checkpoints", "runs"]
    status, out, err = call(*arguments)
    assert status == 0
    assert "trial  nats/token  state" in out
    assert "trial 0: " in err
    assert "train longer with: charlm train text.txt --set hidden_size=4" in err
    trials = json.loads(call(*arguments, "--json")[1])["trials"]
    assert (trials[0]["state"], trials[0]["values"].keys()) == ("complete", {"dropout"})
    Path("b.txt").write_bytes(b"to be or not \xff to be, " * 200)
    more = ["--set", "errors=replace", "--name", "other", "--minutes", "0.05"]
    status, _, err = call("search", "b.txt", *arguments[2:], *more)
    assert (status, err.count("U+FFFD")) == (0, 1)
    assert err.count("\ntrial ") > 1

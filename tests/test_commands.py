"""Commands that charlm suggests: made in one place, quoted for the shell, and they run."""

import ast
import functools
import re
import shlex
from pathlib import Path

import pytest
from helpers import Call, for_each
from hypothesis import given
from hypothesis import strategies as st
from waiting import Ticking

import charlm
from charlm.cli import app
from charlm.commands import command, resume_command
from charlm.training import search as search_module

PACKAGE = Path(charlm.__file__).parent
VERBS = [c.name or c.callback.__name__ for c in app.registered_commands] + ["vectors"]
HAND_WRITTEN = re.compile(rf"charlm ({'|'.join(VERBS)}) [^a-z]")
SUGGESTED = rf"(?:: |^  )charlm ((?:{'|'.join(VERBS)})\b.*)$"
TINY = [
    "--hidden", "4", "--embedding", "3", "--layers", "1", "--batch", "2", "--bptt", "4",
    "--threads", "1", "--seed", "1", "--precision", "fp32", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a blank in its path, and without runs."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CHARLM_CHECKPOINTS", raising=False)
    Path("a text.txt").write_text("abc abd\nab ca\n" * 10)
    return folder


@given(st.lists(st.text(st.characters(exclude_characters="\0"))))
def test_a_shell_reads_a_command_back(words: list[str]) -> None:
    """For any quotes, blanks and wildcards."""
    assert shlex.split(command(*words)) == ["charlm", *words]


def test_a_command_names_another_checkpoint_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable does not change the default."""
    assert command("info", run=Path("checkpoints/x")) == "charlm info --run x"
    assert command("info", run=Path("a b/x")) == "charlm info --run 'a b/x'"
    assert command("search", checkpoints=Path("checkpoints")) == "charlm search"
    assert command("search", checkpoints=Path("c")) == "charlm search --checkpoints c"
    monkeypatch.setenv("CHARLM_CHECKPOINTS", "elsewhere")
    assert command("info", run=Path("checkpoints/x")) == "charlm info --run checkpoints/x"
    assert command("search", checkpoints=Path("elsewhere")).endswith("--checkpoints elsewhere")


def literals(tree: ast.AST) -> list[str]:
    """Return the strings of a module except docstrings; fields of f-strings become {}."""
    texts, nodes = [], [tree]
    while nodes:
        node = nodes.pop()
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            texts.append("".join(map(str, parts)))
            children = [p for p in children if not isinstance(p, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        nodes += [
            c for c in children
            if not (isinstance(c, ast.Expr) and isinstance(c.value, ast.Constant))
        ]  # fmt: skip
    return texts


@for_each(sorted(PACKAGE.rglob("*.py")))
def test_no_message_writes_a_command_by_hand(path: Path) -> None:
    """Only `charlm.commands` does, and docstrings with examples."""
    for text in literals(ast.parse(path.read_text(encoding="utf-8"))):
        for line in text.splitlines():
            assert "Example:" in line or not HAND_WRITTEN.search(line), line


def commands_in(messages: str) -> list[list[str]]:
    """Return the arguments of suggested commands, with values for placeholders."""
    commands = [shlex.split(words) for words in re.findall(SUGGESTED, messages, re.MULTILINE)]
    fills = {"TEXT": "a text.txt", "N": "6", "FILE": "out.json"}
    return [[fills.get(word, word) for word in words] for words in commands]


def train(call: Call, *more: str) -> tuple[int, str, str]:
    """Train a tiny model into a folder whose name has a blank in it."""
    length = [] if "--resume" in more else ["a text.txt", "--steps", "4", *TINY]
    return call("train", "--checkpoints", "my runs", *length, *more)


def assert_they_run(call: Call, messages: str, verbs: list[str]) -> None:
    """Check that the suggested commands have these verbs and end with status 0."""
    commands = commands_in(messages)
    assert [words[0] for words in commands] == verbs, messages
    for words in commands:
        more = ["--steps", "2", *TINY] if words[0] == "train" and "--resume" not in words else []
        status, _, err = call(*words, *more)
        assert status == 0, (words, err)


def test_commands_suggested_after_training_run(call: Call) -> None:
    """The folder of runs needs quotes."""
    status, _, err = train(call, "--name", "x")
    assert status == 0
    assert "'my runs/x'" in err
    assert {"sample", "info"} <= {words[0] for words in commands_in(err)}
    assert_they_run(call, err, [words[0] for words in commands_in(err)])


def test_commands_suggested_by_errors_run(call: Call) -> None:
    train(call, "--name", "x")
    assert_they_run(call, train(call, "--name", "x")[2], ["train"])
    assert_they_run(call, train(call, "--resume", "--run", "x")[2], ["train"])
    assert_they_run(call, call("train", "--resume", "--checkpoints", "no runs")[2], ["train"])
    assert_they_run(call, train(call, "--resume", "--run", "tales")[2], ["train"])
    assert_they_run(call, call("fill", "a ___", "--run", "my runs/x")[2], ["train"])


def test_a_run_without_weights_names_the_command_to_resume(call: Call, here: Path) -> None:
    train(call, "--name", "x", "--steps", "9")
    (here / "my runs/x/model.safetensors").unlink()
    assert commands_in(call("sample", "--run", "my runs/x")[2]) == [
        ["train", "--resume", "--run", "my runs/x"]
    ]
    assert ["train", "--resume", "--run", "my runs/x"] in commands_in(
        call("verify", "--run", "my runs/x")[2]
    )


def test_a_written_vocabulary_names_a_command_that_runs(call: Call) -> None:
    err = call("vocab", "a text.txt", "--out", "my words.json")[2]
    assert_they_run(call, err, ["train"])


def test_commands_suggested_by_a_search_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = functools.partial(search_module.search, clock=Ticking(0.01))
    monkeypatch.setattr(search_module, "search", counted)
    err = call(
        "search", "a text.txt", "--checkpoints", "my runs", "--minutes", "0.02",
        "--trial-minutes", "0.004", "--set", "threads=1",
        "--knobs", "dropout", "--set", "hidden_size=4", "--set", "num_layers=1",
    )[2]  # fmt: skip
    commands = commands_in(err)
    assert {"sample", "train"} <= {words[0] for words in commands} <= {"search", "sample", "train"}
    for words in commands:
        assert call(*words, *(["--steps", "2"] if words[0] == "train" else []))[0] == 0


def test_a_run_is_resumed_with_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that another program has started are started by it again."""
    run = Path("checkpoints/tales")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert resume_command(run=run) == "charlm train --resume --run tales"
    four = "charlm train --resume --processes 4 --more-steps 9 --run tales"
    assert resume_command("--more-steps", 9, run=run, processes=4) == four
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert resume_command("--more-steps", 9, run=run, processes=4) == four
    monkeypatch.setenv("WORLD_SIZE", "4")
    each = "charlm train --resume --run tales (in each of 4 processes, as before)"
    assert resume_command(run=run, processes=4) == each
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # of two machines
    assert resume_command(run=run, processes=4) == each
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    torchrun = "torchrun --nproc-per-node 4 -m charlm train --resume --run tales"
    assert resume_command(run=run, processes=4) == torchrun
    assert resume_command(run=run) == "charlm train --resume --run tales"

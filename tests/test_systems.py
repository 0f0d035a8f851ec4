"""Windows and macOS: commands run without what these systems lack (see `systems.py`)."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import for_each
from hypothesis import given
from hypothesis import strategies as st
from systems import SYSTEMS, environment

from charlm import commands
from charlm.cli import output
from charlm.cli.progress import _signals
from charlm.errors import EnvironmentFailure, UsageError
from charlm.files import atomic
from charlm.runs import folders
from charlm.server import log as server_log
from charlm.server import run as server_run
from charlm.training import launch

TINY = "--steps 3 --hidden 4 --layers 1 --batch 2 --bptt 4 --seed 1 --threads 1 --device cpu"
COMMANDS = (
    f"train t.txt --name a {TINY}",
    f"train t.txt --name a {TINY} --overwrite",
    "train --resume --run a --steps 5",
    f"train t.txt --name two {TINY} --processes 2",
    "sample --run a --len 20 --seed 1",
    "score 'a cat, é' --run a",
    "score --file t.txt --run a --format jsonl",
    "eval --run a",
    "plot a --out a.svg",
    "ngram t.txt --name n",
    "ngram export n -",
    "runs rename a b",
    "runs export b b.zip",
    "runs import b.zip --name c",
    "push b me/b --dry-run",
    "verify --run b",
    "runs rm c --yes",
    "search t.txt --name s --minutes 0.02 --trial-minutes 0.01 --set hidden_size=4",
    "runs rm s --yes",
    "runs --json",
)
SESSION = """
import gc, json, os, sys
from charlm.cli import main
assert sys.modules["charlm.cli"].sys.platform == sys.argv[1], "the system is not emulated"
for words in json.loads(sys.argv[2]):
    gc.collect()  # the end of a process closes files that objects in a cycle have open
    gc.freeze()  # so that the next collection looks at what the next command leaves
    try:
        main(words)
    except SystemExit as ended:
        if ended.code:
            os._exit(f"{words}: {ended.code}" and print(words, file=sys.stderr) or 9)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_commands_work_on_another_system(system: str, tmp_path: Path) -> None:
    """`rm`, `rename` and `--overwrite` failed on Windows, since the lock of a run is a file in it;
    `search` did, since Optuna's lock was a link."""
    (tmp_path / "t.txt").write_bytes(b"the cat sat.\nthe dog sat, too.\n" * 30)
    lines = json.dumps([shlex.split(line) for line in COMMANDS])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, SYSTEMS[system][0], lines],
        cwd=tmp_path, env=environment(system, tmp_path), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert b"\n\\end\\" in done.stdout  # of the ARPA file
    listed = re.findall(r'"name": "(\w+)"', done.stdout.decode().rpartition('"runs"')[2])
    assert {"b", "n", "two"} <= set(listed) and not {"a", "c", "s"} & set(listed)
    assert (tmp_path / "checkpoints" / "b" / "config.json").read_bytes().count(b"\r") == 0


@pytest.fixture
def on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let modules that ask for the system see Windows."""
    for module in (commands, folders, output, server_log, server_run):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform="win32"))


def arguments(line: str) -> list[str]:
    """Return what a program of Windows gets, by the rules of Microsoft's C runtime."""
    words, word, quoted, place = [], "", False, 0
    while place < len(line):
        slashes = len(line) - place - len(line[place:].lstrip("\\"))
        place += slashes
        if line[place : place + 1] == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += '"'
            else:
                quoted = not quoted
        else:
            word += "\\" * slashes
            if line[place : place + 1] == " " and not quoted:
                words.append(word)
                word = ""
            else:
                word += line[place : place + 1]
        place += 1
    return [*words, word]


def test_a_command_for_windows_by_hand(on_windows: None) -> None:
    """In cmd, single quotes are letters, and backslashes in a path need no quotes."""
    line = commands.command("score", "some text", run=Path("D:\\runs\\tales"))
    assert line == 'charlm score "some text" --run D:\\runs\\tales'
    assert commands.quote('a "b"\\') == '"a \\"b\\"\\\\"'
    assert commands.quote("rnn,lstm") == '"rnn,lstm"'  # a list of two in PowerShell
    assert commands.quote("") == '""'


@given(st.lists(st.text(alphabet='a é"\\,&', max_size=6), min_size=1))
def test_a_program_of_windows_reads_a_command_back(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "sys", SimpleNamespace(platform="win32"))
        assert arguments(commands.join_words(words)) == words


@for_each(["con", "Aux.txt", "com1", "a:b", "what?", "ends.", "a|b"])
def test_a_name_that_windows_refuses(name: str) -> None:
    folders.check_plain(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "sys", SimpleNamespace(platform="win32"))
        with pytest.raises(UsageError, match="Windows"):
            folders.check_plain(name)
        folders.check_plain("console.1")


class Refusing:
    """Refuses to rename a number of times with an error of Windows, or of another system."""

    def __init__(self, times: int, winerror: int | None) -> None:
        self.times, self.winerror, self.pauses = times, winerror, 0

    def __call__(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        def rename(path: Path, target: Path) -> Any:
            self.times -= 1
            if self.times < 0:
                return usual(path, target)
            error = PermissionError(13, "in use", str(path))
            if self.winerror is not None:
                error.winerror = self.winerror  # type: ignore[attr-defined]
            raise error

        return rename

    def pause(self, seconds: float) -> None:
        self.pauses += 1


def refuse(patch: pytest.MonkeyPatch, times: int, winerror: int | None) -> Refusing:
    refusing = Refusing(times, winerror)
    patch.setattr(Path, "replace", refusing(Path.replace))
    patch.setattr(Path, "rename", refusing(Path.rename))
    patch.setattr(atomic, "time", SimpleNamespace(sleep=refusing.pause))
    return refusing


@pytest.mark.parametrize("winerror", [5, 32])
def test_a_virus_scanner_delays_a_write_on_windows(
    winerror: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a new file open for a moment, in which the file cannot be renamed."""
    refusing = refuse(monkeypatch, 3, winerror)
    atomic.write_file(tmp_path / "file", b"new")
    assert (refusing.pauses, (tmp_path / "file").read_bytes()) == (3, b"new")
    refusing.times = 2
    atomic.commit_folder(tmp_path / "folder", {"a": b"1"}, {})
    assert (tmp_path / "folder" / "a").read_bytes() == b"1"
    assert refusing.pauses == 5


def test_a_program_that_keeps_a_file_open_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 100, 32)
    with pytest.raises(EnvironmentFailure, match="Close the program that has it open"):
        atomic.write_file(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_other_systems_try_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the reason is a permission, which does not change."""
    refusing = refuse(monkeypatch, 1, None)
    with pytest.raises(EnvironmentFailure, match="Allow writing there"):
        atomic.write_file(tmp_path / "file", b"new")
    assert refusing.pauses == 0


def test_a_log_in_a_file_has_its_lines_on_windows(
    tmp_path: Path, on_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All lines were lost: Windows waits for sockets alone."""

    def refuse(*_: Any) -> None:
        raise OSError("not a socket")

    monkeypatch.setattr(server_log, "select", SimpleNamespace(select=refuse))
    with (tmp_path / "log").open("wb") as file:
        log = server_log.Log(file.fileno())
        log.request("GET", b"/health", 200, 0.1)
    assert log.lost == 0
    assert b"GET /health 200" in (tmp_path / "log").read_bytes()


def test_a_console_of_windows_reads_escapes(
    on_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a console that shows stdout, not of a stderr that is a file."""
    import ctypes

    modes = {-11: 3}

    def mode_of(handle: int, mode: Any) -> bool:
        mode._obj.value = modes.get(handle, 0)
        return handle in modes

    kernel = SimpleNamespace(
        GetStdHandle=lambda number: number, GetConsoleMode=mode_of, SetConsoleMode=modes.__setitem__
    )
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    output._read_escapes()
    assert modes == {-11: 7}


def test_a_port_of_windows_is_not_shared(on_windows: None) -> None:
    """With the option that other systems need, a second server would get its requests."""
    with server_run.Address("127.0.0.1", 0).bind() as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0


@pytest.fixture
def ctrl_break(monkeypatch: pytest.MonkeyPatch) -> int:
    """A signal of this system in place of that of Ctrl-Break, which only Windows has."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGURG, raising=False)
    return signal.SIGURG


def test_ctrl_break_stops_and_saves(ctrl_break: int) -> None:
    asked: list[str] = []
    session: Any = SimpleNamespace(waiting=False, trainer=SimpleNamespace(stop=asked.append))
    with _signals(session) as stop:
        signal.raise_signal(ctrl_break)
    assert (asked, stop.status) == (["terminated"], 128 + ctrl_break)


def test_ctrl_break_ends_a_server(ctrl_break: int) -> None:
    server: Any = SimpleNamespace(stopped_by=None, should_exit=False)
    with server_run.Server.capture_signals(server):
        signal.raise_signal(ctrl_break)
    assert (server.stopped_by, server.should_exit) == (ctrl_break, True)


def test_a_process_is_started_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of reach of Ctrl-C, and without a library that torch 2.6 for Windows lacks."""
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: options)
    options: Any = launch._start(1, 2, "127.0.0.1", 80)
    assert (options["creationflags"], options["env"]["USE_LIBUV"]) == (512, "0")


ALONE = """
import builtins, sys
usual = builtins.__import__

def find(*names, **more):
    module, core = usual(*names, **more), sys.modules.get("torch._C")
    for name in ("_c10d_init", "_rpc_init", "_dist_autograd_init"):
        if hasattr(core, name):
            delattr(core, name)
    return module

builtins.__import__ = find
import torch
assert not torch.distributed.is_available()
from charlm.cli import main
main(sys.argv[1:])
"""
"""The command line with a build of torch that has no torch.distributed, as from source on a Mac."""


@pytest.mark.parametrize("processes", [1, 2])
def test_torch_may_be_built_for_one_process(processes: int, tmp_path: Path) -> None:
    """Training was said to be a bug of charlm there."""
    (tmp_path / "t.txt").write_bytes(b"the cat sat.\n" * 30)
    words = ["train", "t.txt", "--name", "a", *TINY.split(), "--processes", str(processes)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == (0 if processes == 1 else 5), done.stderr.decode()
    assert (b"torch.distributed, which this build of torch lacks" in done.stderr) == (processes > 1)

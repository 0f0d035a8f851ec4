"""Closed terminals, full disks and signals: training is never lost."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

from charlm.runs.verify import verify_run

PROGRAM = [sys.executable, "-m", "charlm"]
TRAIN = ["train", "text.txt", "--checkpoints", "c", "--hidden", "4", "--layers", "1", "--threads",
         "1", "--seed", "1", "--precision", "fp32"]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat\n" * 30)
    return tmp_path


def call(*arguments: str, **streams) -> subprocess.CompletedProcess:
    chosen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([*PROGRAM, *arguments], timeout=PATIENCE, check=False, **chosen)


@contextlib.contextmanager
def training(name: str, command: list[str], **streams) -> Iterator[subprocess.Popen]:
    """Run an endless training from its first records on; kill it at the end."""
    process = subprocess.Popen([*command, *TRAIN, "--name", name, "--steps", "100000000"],
                               **({"stderr": subprocess.DEVNULL} | streams))  # fmt: skip
    log = Path(f"c/{name}/metrics.jsonl")
    try:
        wait_until(lambda: log.exists() and log.stat().st_size > 500, process)
        yield process
    finally:
        process.kill()
        process.wait()


def is_intact(name: str) -> bool:
    path = Path("c") / name
    return (path / "states").exists() and not any(c.problems for c in verify_run(path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_loses_messages_but_not_training() -> None:
    """Messages are dropped; a result that cannot be written is exit 5."""
    with Path("/dev/full").open("w") as full:
        done = call("sample", "--len", "20", "--seed", "1", stderr=full)
        assert (done.returncode, len(done.stdout)) == (0, 20)
        assert call("sample", "--temperature", "-1", stderr=full).returncode == 2
        assert call(*TRAIN, "--steps", "20", "--name", "f", stderr=full).returncode == 0
        unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
        for arguments, env in ((["sample", "--len", "100"], None), (["info", "--json"], None),
                               (["info"], unbuffered), (["--version"], None)):  # fmt: skip
            done = call(*arguments, stdout=full, env=env)
            assert done.returncode == 5, arguments
            assert b"No space left on device; expected room" in done.stderr
    assert is_intact("f")


def test_training_is_saved_when_the_terminal_closes() -> None:
    """It ends as SIGHUP ends a process."""
    master, slave = pty.openpty()
    with training(
        "h", PROGRAM, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as p:
        os.close(slave)
        os.close(master)
        p.send_signal(signal.SIGHUP)
        assert p.wait(timeout=PATIENCE) == 128 + signal.SIGHUP
    assert is_intact("h")


def test_nohup_ignores_a_hang_up_and_other_signals_save() -> None:
    """SIGUSR1 saves; a second SIGTERM ends at once and names the command to resume."""
    ignoring = ["nohup", *PROGRAM]
    with training("n", ignoring, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: is_intact("n"), process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
        assert b"charlm train --resume --run" in messages
    assert is_intact("n")


def test_arguments_that_are_not_utf8_are_refused() -> None:
    for arguments in (
        ["score", b"caf\xe9"],
        [*TRAIN, "--name", b"caf\xe9"],
        ["train", b"a\xff.txt"],
    ):
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, check=False)
        assert done.returncode == 2
        assert b"not valid UTF-8; expected text" in done.stderr
    assert not Path("c").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python always reads UTF-8")
def test_arguments_in_utf8_are_not_blamed_for_the_locale() -> None:
    """A locale without UTF-8, where Python's UTF-8 mode is off, reads them as ASCII."""
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*PROGRAM, "score", "café".encode()]
    environment = os.environ | ascii_only
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 2
    assert b"is UTF-8, but Python reads" in done.stderr
    assert b"Set PYTHONUTF8=1" in done.stderr
    environment |= {"PYTHONUTF8": "1"}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr

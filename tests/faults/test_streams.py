"""Terminals that close, disks that are full and signals: training is not lost to any of them."""

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
    """A training without end, from its first records on; killed in the end if it still runs."""
    process = subprocess.Popen([*command, *TRAIN, "--name", name, "--steps", "100000000"],
                               **({"stderr": subprocess.DEVNULL} | streams))  # fmt: skip
    log = Path(f"c/{name}/metrics.jsonl")
    try:
        wait_until(lambda: log.exists() and log.stat().st_size > 500, process)
        yield process
    finally:
        process.kill()
        process.wait()


def whole(name: str) -> bool:
    path = Path("c") / name
    return (path / "states").exists() and not any(c.problems for c in verify_run(path))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_behind_the_streams() -> None:
    """Verbosity that cannot be written is not missed; a result that cannot be is exit 5."""
    with Path("/dev/full").open("w") as full:
        found = call("sample", "--len", "20", "--seed", "1", stderr=full)
        assert (found.returncode, len(found.stdout)) == (0, 20)
        assert call("sample", "--temperature", "-1", stderr=full).returncode == 2
        assert call(*TRAIN, "--steps", "20", "--name", "f", stderr=full).returncode == 0
        for arguments in (["sample", "--len", "100"], ["info", "--json"], ["--version"]):
            found = call(*arguments, stdout=full)
            assert found.returncode == 5, arguments
            assert b"No space left on device; expected room" in found.stderr
    assert whole("f")


def test_a_terminal_that_is_closed() -> None:
    """The shell goes, the terminal answers with errors: saved, and ended as SIGHUP ends."""
    master, slave = pty.openpty()
    with training(
        "h", PROGRAM, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as p:
        os.close(slave)
        os.close(master)
        p.send_signal(signal.SIGHUP)
        assert p.wait(timeout=PATIENCE) == 128 + signal.SIGHUP
    assert whole("h")


def test_nohup_is_kept() -> None:
    """What is ignored stays ignored; SIGUSR1 saves; SIGTERM twice ends at once and says so."""
    ignoring = ["nohup", *PROGRAM]
    with training("n", ignoring, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: whole("n"), process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 143
        assert b"charlm train --resume --run" in said
    assert whole("n")


def test_arguments_that_are_no_text() -> None:
    """Bytes that are not UTF-8: usage, with the bytes."""
    for arguments in (
        ["score", b"caf\xe9"],
        [*TRAIN, "--name", b"caf\xe9"],
        ["train", b"a\xff.txt"],
    ):
        found = subprocess.run([*PROGRAM, *arguments], capture_output=True, check=False)
        assert found.returncode == 2
        assert b"not valid UTF-8; expected text" in found.stderr
    assert not Path("c").exists()


def test_a_mark_at_the_beginning_of_stdin_is_no_text() -> None:
    """As in a file."""
    plain, marked = (
        subprocess.run(
            [*PROGRAM, "score"], input=mark + b"the cat\n", capture_output=True, check=True
        )
        for mark in (b"", b"\xef\xbb\xbf")
    )
    assert plain.stdout == marked.stdout

"""A process that measures rows: what breaks it or takes too long is one row."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

from row_worker import Row, Worker, measured


def find(stage: str, name: str) -> Callable[[], Row]:
    """Return measurements that end in different ways."""
    return {
        "works": lambda: {"stage": stage, "process": os.getpid()},
        "fails": lambda: {}["missing"],
        "hangs": lambda: threading.Event().wait(),
        "command": lambda: run_command(stage),
        "dies": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    }[name]  # type: ignore[return-value]


def run_command(target: str) -> Row:
    """Run a command that does not end, whose number is written to a file; crash if it says so."""
    command = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
    Path(target).write_text(str(command.pid), encoding="ascii")
    if target.endswith("dies"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"exit": command.wait()}


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(find)
    yield made
    made.close()


def test_other_rows_are_measured_after_one_that_is_lost(worker: Worker) -> None:
    """A row that fails keeps its process; one that hangs or ends it gets the next row another."""
    first = worker.measured("a", "works", PATIENCE)
    assert first["stage"] == "a" and first["process"] != os.getpid()
    assert worker.measured("a", "fails", PATIENCE) == {"error": "KeyError: 'missing'"}
    assert worker.measured("a", "works", PATIENCE) == first
    assert worker.measured("a", "hangs", 0.5) == {"error": "no result within 0.5 s"}
    with pytest.raises(ProcessLookupError):
        os.kill(first["process"], 0)
    second = worker.measured("b", "works", PATIENCE)
    assert second["stage"] == "b" and second["process"] != first["process"]
    assert worker.measured("b", "dies", PATIENCE)["error"].startswith(
        "the process was lost (exit -11)"
    )


@pytest.mark.parametrize("name", ["hangs", "dies"])
def test_a_command_ends_with_its_row(
    name: str, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would use the GPU beside the next row."""
    target = tmp_path / name
    assert worker.measured("a", "works", PATIENCE)

    def no_answer(_: float) -> bool:
        """Let the time be up once the command runs."""
        wait_until(lambda: target.exists() and target.read_text(encoding="ascii") != "")
        return False

    if name == "hangs":
        monkeypatch.setattr(worker._started(), "poll", no_answer)
    assert "error" in worker.measured(str(target), "command", PATIENCE)
    wait_until(lambda: not is_running(int(target.read_text(encoding="ascii"))))


def is_running(process: int) -> bool:
    """Return whether a process of this machine computes, which a zombie does not."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_lost_its_gpu_is_replaced(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result counts, but the GPU would compute nothing more for it."""
    answers = iter([({"ms": 1.0}, False), ({"error": "CUDA error"}, False)])

    class Connection:
        def send(self, names: object) -> None: ...
        def poll(self, seconds: float) -> bool:
            return True

        def recv(self) -> object:
            return next(answers)

    closed: list[bool] = []
    monkeypatch.setattr(worker, "_started", Connection)
    monkeypatch.setattr(worker, "close", lambda **chosen: closed.append(chosen["at_once"]))
    assert worker.measured("a", "x", 1.0) == {"ms": 1.0, "error": "the GPU was lost after it"}
    assert worker.measured("a", "x", 1.0) == {"error": "CUDA error"}
    assert closed == [True, True]
    monkeypatch.undo()


def test_an_error_is_its_first_line() -> None:
    assert measured(lambda: int("x\ny"))["error"].startswith("ValueError: invalid literal")

"""Several real processes: one trains in the test, the other one is started by it."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Call
from waiting import PATIENCE

from charlm.cli.output import Verbosity
from charlm.errors import UsageError
from charlm.runs.tensors import tensors_from_file
from charlm.training import launch
from charlm.training.trainer import Trainer

TINY = (
    "--hidden", "16", "--layers", "2", "--batch", "4", "--bptt", "8", "--dropout", "0.2",
    "--seed", "1", "--steps", "12", "--schedule", "constant", "--evals", "2", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def patient(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with a text, and wait long, but not for hours, for a process."""
    (here / "t.txt").write_text("the cat sat on the mat, and the dog sat on the log. " * 40)
    monkeypatch.setattr(launch, "TIMEOUT", timedelta(seconds=PATIENCE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], Any]) -> None:
    """Do something in the test's own process after a step."""
    step = Trainer.step

    def stepped(trainer: Trainer, batches: Any) -> None:
        step(trainer, batches)
        if trainer.counters.step == number:
            action()

    monkeypatch.setattr(Trainer, "step", stepped)


def weights(run: str) -> dict[str, torch.Tensor]:
    newest = max(Path(f"checkpoints/{run}/states").iterdir(), key=lambda p: int(p.name[5:]))
    return {
        name: tensor
        for file in newest.glob("*.safetensors")
        for name, tensor in tensors_from_file(file).items()
        if tensor.is_floating_point()
    }


def test_two_processes_train_stop_and_resume_the_run_of_one(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("train", "t.txt", *TINY, "--name", "one")[0] == 0
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "two")
    assert (code, "device cpu, 2 processes, fp32" in err, "5 steps" in err) == (143, True, True)
    code, _, err = call("train", "--resume", "--processes", "2", "--run", "two")
    assert (code, "resuming two from step 5" in err) == (0, True)
    record = json.loads(Path("checkpoints/two/run.json").read_text())
    assert (record["status"], record["machine"]["processes"]) == ("finished", 2)
    one, two = weights("one"), weights("two")
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_process_that_dies_ends_all_and_the_run_resumes(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = launch._start
    monkeypatch.setattr(launch, "_start", lambda *a: started.append(start(*a)) or started[-1])
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: started[0].kill())
        code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    assert code == 5
    assert err.splitlines()[-1] == (
        "charlm: process 1 of 2 was killed by signal 9; expected all of them until training ends. "
        "The run is kept up to its newest checkpoint; resume it with: "
        "charlm train --resume --processes 2 --run run"
    )
    code, _, err = call("train", "--resume", "--run", "run")
    assert (code, "number of processes changed from 2 to 1" in err) == (0, True)


def test_a_second_signal_ends_the_wait_for_a_process_that_hangs(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has lost its network does not close connections."""
    started: list[Any] = []
    start = launch._start
    monkeypatch.setattr(launch, "_start", lambda *a: started.append(start(*a)) or started[-1])
    monkeypatch.setattr(Verbosity, "stop_reported", False)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not Verbosity.stop_reported:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGTERM)

    def hang() -> None:
        started[0].send_signal(signal.SIGSTOP)
        threading.Thread(target=interrupt).start()

    at_step(monkeypatch, 4, hang)
    code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    assert (code, "stopped at once" in err) == (143, True), err
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--processes", "0"), "--processes is 0; expected a whole number, 1 or more"),
        (("--processes", "5"), "5 processes with a batch of 4 sequences; expected at most 4. Use "),
        (("--processes", "2", "--direction", "both"), "2 processes with --direction both, which"),
        (("--processes", "2", "--task", "series"), "2 processes with --task series, whose "),
    ],
)
def test_what_processes_cannot_train_together_is_refused(
    call: Call, arguments: tuple[str, ...], problem: str
) -> None:
    code, _, err = call("train", "t.txt", *TINY, *arguments)
    assert (code, err.startswith(f"charlm: {problem}")) == (2, True), err
    assert not Path("checkpoints").exists()


def test_variables_of_torchrun_that_make_no_sense_are_a_usage_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="has RANK '1', WORLD_SIZE 'two', MASTER_ADDR 'unset'"):
        launch.processes_of(None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="all four as torchrun sets them"):
        launch.processes_of(None)
    with pytest.raises(UsageError, match="processes 3 in one of 2 processes"):
        launch.processes_of(3)


@pytest.mark.parametrize(
    ("rank", "count"), [("5", "2"), ("-1", "2"), ("0", "-2"), ("1", None), (None, "0")]
)
def test_a_rank_outside_of_its_processes_is_refused_at_once(
    rank: str | None, count: str | None, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These waited for two hours, or trained alone beside others that did so too."""
    monkeypatch.setattr(launch, "_joined", lambda _: pytest.fail("waits for others"))
    for name, value in {"RANK": rank, "WORLD_SIZE": count}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    code, _, err = call("train", "t.txt", *TINY)
    assert (code, "RANK below WORLD_SIZE. Unset them" in err) == (2, True), err


def test_one_of_several_processes_without_a_number_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    code, _, err = call("train", "t.txt", *TINY)
    assert (code, "RANK 'unset', WORLD_SIZE '2'" in err) == (2, True), err


def test_a_port_in_use_is_an_error_that_names_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        code, _, err = call("train", "t.txt", *TINY)
    assert code == 5
    assert f"process 0 of 2 cannot meet the others at 127.0.0.1:{port}: " in err


def test_a_follower_leaves_the_best_weights_to_process_0(call: Call) -> None:
    """A late follower replaced the weights that the end of the run had calibrated."""
    assert call("train", "t.txt", *TINY, "--name", "run")[0] == 0
    weights_file = Path("checkpoints/run/model.safetensors")
    before = weights_file.read_bytes()
    trainer = launch._opened(Path("checkpoints/run"))
    trainer.on_best(trainer.model)
    assert weights_file.read_bytes() == before


def test_a_follower_does_not_outlive_process_0(tmp_path: Path) -> None:
    """Its connection would be tried again for minutes after process 0 was killed."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        follower = launch._start(1, 2, silent.getsockname()[1])
        assert follower.stdin is not None
        follower.stdin.close()
        assert follower.wait(PATIENCE) == -signal.SIGKILL

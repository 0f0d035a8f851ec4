"""Several real processes: one trains in the test, the other one is started by it."""

import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Call
from waiting import PATIENCE

import charlm
from charlm.cli.output import Verbosity
from charlm.cli.progress import REPEAT_SECONDS, _Stop
from charlm.errors import CorpusError, RunError, UsageError
from charlm.runs import data
from charlm.runs.tensors import tensors_from_file
from charlm.training import follower as following
from charlm.training import launch, network, parallel
from charlm.training.parallel import Parallel
from charlm.training.plan import memory
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


def followers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which the processes are added that process 0 will start."""
    started: list[Any] = []
    start = launch._start
    monkeypatch.setattr(launch, "_start", lambda *a: started.append(start(*a)) or started[-1])
    return started


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
    again = "charlm train --resume --processes 2 --run two"
    assert err.splitlines()[-1] == f"saved; resume with: {again}"
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
    started = followers(monkeypatch)
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: started[0].kill())
        code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    assert code == 5
    assert err.splitlines()[-1] == (
        "charlm: process 1 of 2 was killed by signal 9; expected all of them until training ends. "
        "The run is kept: its newest checkpoint is of step 6. Resume it with: "
        "charlm train --resume --processes 2 --run run"
    )
    code, _, err = call("train", "--resume", "--run", "run")
    assert (code, "number of processes changed from 2 to 1" in err) == (0, True)


@pytest.mark.parametrize(
    ("step", "kept"),
    [(4, "it has no checkpoint yet"), (10, "its newest checkpoint is of step 6")],
)
def test_a_second_signal_ends_the_wait_for_a_process_that_hangs(
    step: int, kept: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has lost its network does not close connections. Ctrl-C counts at once.

    It did not count after a step with a record, whose state is collected by another call of torch.
    """
    started = followers(monkeypatch)
    monkeypatch.setattr(Verbosity, "stop_reported", False)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not Verbosity.stop_reported:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGINT)

    def hang() -> None:
        started[0].send_signal(signal.SIGSTOP)
        threading.Thread(target=interrupt).start()

    at_step(monkeypatch, step, hang)
    code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    assert (code, f"stopped at once; {kept}" in err) == (143, True), err
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", [8, 12])
def test_one_signal_ends_the_wait_for_a_process_that_hangs_after_some_seconds(
    step: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0 waited for two hours, or until it was killed, and did not say what was saved."""
    started = followers(monkeypatch)
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.0)

    def hang() -> None:
        started[0].send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        at_step(patch, step, hang)
        code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    assert code == 143, err
    assert err.splitlines()[-1] == (
        "stopped, since another process of this training did not answer within 0 seconds of the "
        "request to stop; its newest checkpoint is of step 6. Resume the run with: "
        "charlm train --resume --processes 2 --run run"
    )
    assert started[0].returncode == -signal.SIGKILL
    code, _, err = call("train", "--resume", "--run", "run")
    assert (code, "resuming run from step 6" in err) == (0, True), err


def test_a_process_of_torchrun_that_hangs_does_not_keep_process_0_from_ending(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python waited at its end for the sum of a step, since nobody had killed that process."""
    host, server = network.listening_socket()
    port = server.getsockname()[1]
    server.close()
    place = {
        "WORLD_SIZE": "2", "MASTER_ADDR": host, "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.0)
    one = [sys.executable, "-m", "charlm", "train"]
    with subprocess.Popen(one, env=os.environ | {"RANK": "1"}, stderr=subprocess.PIPE) as follower:
        monkeypatch.setenv("RANK", "0")

        def hang() -> None:
            follower.send_signal(signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGTERM)

        at_step(monkeypatch, 8, hang)
        code, _, err = call("train", "t.txt", *TINY, "--name", "run")
        assert follower.poll() is None
        follower.kill()
    assert code == 143, err
    assert err.splitlines()[-1].endswith(
        "its newest checkpoint is of step 6. Resume the run with: "
        "charlm train --resume --run run (in each of 2 processes, as before)"
    )
    assert not torch.distributed.is_initialized()


def test_a_program_trains_a_text_in_memory_with_two_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are started by the command, not from the main module of the program."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    text = Path("t.txt").read_text()
    options = {
        "hidden": 16, "layers": 2, "batch": 4, "bptt": 8, "dropout": 0.2, "seed": 1, "steps": 12,
        "schedule": "constant", "evals": 2, "device": "cpu", "threads": 1, "text": text,
    }  # fmt: skip
    charlm.fit(**options, name="one")
    Path("filelock.py").write_text("raise ImportError('not the one that charlm needs')")
    hook = sys.excepthook
    model = charlm.fit(**options, name="two", processes=2)
    before = open_files()  # torch opens some for good when it is first used
    assert sys.excepthook is hook  # torch's writes "[rank0]: " before each error of the program
    assert json.loads(Path("checkpoints/two/run.json").read_text())["machine"]["processes"] == 2
    assert model.path.name == "two" and "OMP_NUM_THREADS" not in os.environ
    one, two = weights("one"), weights("two")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    training = charlm.train(**options, name="three", processes=2)
    next(training)
    training.close()  # ends the other process
    assert open_files() <= before  # ports stayed open
    assert not torch.distributed.is_initialized()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def test_trainings_with_several_processes_take_turns() -> None:
    """The second one used the processes of the first one: both waited for two hours."""
    options = {"hidden": 8, "batch": 4, "bptt": 8, "steps": 4, "evals": 2, "device": "cpu"}
    text = Path("t.txt").read_text()
    first, second = (charlm.train(text=text, processes=2, name=n, **options) for n in "ab")
    next(first)
    with pytest.raises(UsageError, match=r"has begun another training .*; expected one at a time"):
        next(second)
    with pytest.raises(UsageError, match="expected one at a time"):
        charlm.train(text=text, processes=2, name="c", **options)
    assert list(first)[-1].complete
    assert charlm.fit(text=text, name="b", overwrite=True, processes=2, **options)  # lock released


def test_a_program_that_torchrun_has_started_several_times_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of its processes trained a run of its own, in silence."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = {"text": "abc " * 200, "hidden": 4, "steps": 1, "evals": 1, "ngram": 0}
    for processes in (None, 2):
        with pytest.raises(UsageError, match=r"is one of 2 that another .* give processes=1 if"):
            charlm.fit(**options, processes=processes)
    assert not Path("checkpoints").exists()
    assert charlm.fit(**options, processes=1)
    with pytest.raises(UsageError, match="processes is 0"):
        charlm.fit(**options, processes=0)


def test_a_program_that_uses_torch_distributed_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match=r"uses torch\.distributed, .* expected one at a"):
        charlm.train(text="abc " * 200, processes=2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--processes", "0"), "--processes is 0; expected a whole number, 1 or more"),
        (("--processes", "-1"), "--processes is -1; expected a whole number, 1 or more"),
        (("--processes", "5"), "5 processes with a batch of 4 sequences; expected one for each "),
        (("--processes", "100000"), "100000 processes with a batch of 4 sequences; expected one "),
        (("--processes", "2", "--direction", "both"), "2 processes with --direction both, which"),
        (("--processes", "2", "--task", "series"), "2 processes with --task series, whose "),
        (("--processes", "2", "--direction", "both", "--plan"), "2 processes with --direction b"),
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
    with pytest.raises(UsageError, match="MASTER_PORT 'unset'; expected all as torchrun sets the"):
        launch.processes_of(None)
    with pytest.raises(UsageError, match="processes 3 in one of 2 processes"):
        launch.processes_of(3)
    for name, value in [("LOCAL_RANK", "x"), ("LOCAL_WORLD_SIZE", "3"), ("LOCAL_WORLD_SIZE", "0")]:
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UsageError, match=f"{name} '{value}'; expected all"):
                launch.processes_of(None)


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


def offer(path: str, **changes: Any) -> dict[str, Any]:
    """What process 0 tells the others about a run, with some items of its record changed."""
    record = json.loads(Path(path, "run.json").read_text())
    return {"charlm": charlm.__version__, "path": path, "record": record | changes}


def test_the_folder_of_another_run_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an old run of that name, on a disk of its own, trained on its old text."""
    monkeypatch.setattr(following, "SHOWN_SECONDS", 0.0)
    assert call("train", "t.txt", *TINY, "--name", "run")[0] == 0
    told = offer("checkpoints/run", id="0123456789abcdef")
    with pytest.raises(RunError, match="has another run than process 0 here; expected the run"):
        following._opened(told)
    shutil.rmtree("checkpoints/run")
    with pytest.raises(RunError, match=r"has no run here; .* on a disk that all machines share"):
        following._opened(told)


def test_a_large_text_that_differs_on_another_machine_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run keeps no copy of a large text, so each process reads it again."""
    monkeypatch.setattr(data, "CACHED_FROM_BYTES", 100)
    assert call("train", "t.txt", *TINY, "--name", "run")[0] == 0
    assert following._opened(offer("checkpoints/run")).counters.step == 0
    Path("t.txt").write_text("the cow sat on the mat, and the dog sat on the log. " * 40)
    with pytest.raises(CorpusError, match=r"SHA-256 differs"):
        following._opened(offer("checkpoints/run"))


def test_a_large_text_that_cannot_be_read_again_is_kept_for_all_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A text in memory was refused after planning; one from stdin was waited for without end."""
    monkeypatch.setattr(data, "CACHED_FROM_BYTES", 100)
    options = {"hidden": 8, "batch": 4, "steps": 1, "evals": 1, "ngram": 0, "device": "cpu"}
    charlm.fit(text=Path("t.txt").read_text(), name="memory", **options)
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=[Path("t.txt").read_bytes()])
    writer.start()
    charlm.fit("pipe", name="pipe", **options)
    writer.join()
    for name in ("memory", "pipe"):
        assert following._opened(offer(f"checkpoints/{name}")).counters.step == 0


def test_a_run_that_appears_late_on_a_network_disk_is_waited_for(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("train", "t.txt", *TINY, "--name", "run")[0] == 0
    told, hidden = offer("checkpoints/run"), Path("checkpoints/run").rename("hidden")
    monkeypatch.setattr(
        "charlm.training.follower.time.sleep", lambda _: hidden.rename("checkpoints/run")
    )
    assert following._opened(told).counters.step == 0


def test_another_version_of_charlm_is_refused_by_process_0(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that cannot open the run tells process 0 why; the others were only lost."""
    monkeypatch.setattr(launch, "__version__", "9.9")
    code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--name", "run")
    where = f"charlm: process 1 on {platform.node()}: charlm {charlm.__version__}, and process 0 "
    assert (code, f"{where}has 9.9; expected one version" in err) == (5, True), err


def test_a_second_sigterm_of_another_program_does_not_end_training_at_once(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm and torchrun each send one within a millisecond; nothing was saved."""

    def terminate() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    at_step(monkeypatch, 4, terminate)
    code, _, err = call("train", "t.txt", *TINY, "--name", "run")
    assert (code, "4 steps" in err, "stopped at once" in err) == (143, True, False), err
    assert "saving; repeat after 10 seconds to stop at once" in err


def test_a_sigterm_counts_again_after_some_seconds() -> None:
    stop = _Stop(status=143, asked=50.0)
    assert stop.repeats(signal.SIGTERM, 50.0 + REPEAT_SECONDS - 1)
    assert not stop.repeats(signal.SIGTERM, 50.0 + REPEAT_SECONDS)
    assert not stop.repeats(signal.SIGINT, 50.0)
    assert not _Stop().repeats(signal.SIGTERM, 0.0)


def test_processes_that_cannot_connect_are_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first machine waited for two hours."""
    waits = []

    def refused(*_: Any, timeout: timedelta, **__: Any) -> None:
        waits.append(timeout)
        raise RuntimeError("connection refused")

    monkeypatch.setattr(torch.distributed, "init_process_group", refused)
    with pytest.raises(launch.ProcessLost, match=r"process 1 of 2 .* refused; .*IFNAME \(now eth7"):
        launch._join(Parallel(1, 2), torch.distributed.HashStore(), "eth7")
    assert waits == [launch.CONNECT_TIMEOUT] and network.VARIABLE not in os.environ


def test_a_follower_leaves_the_best_weights_to_process_0(call: Call) -> None:
    """A late follower replaced the weights that the end of the run had calibrated."""
    assert call("train", "t.txt", *TINY, "--name", "run")[0] == 0
    weights_file = Path("checkpoints/run/model.safetensors")
    before = weights_file.read_bytes()
    trainer = following._opened(offer("checkpoints/run"))
    trainer.on_best(trainer.model)
    assert weights_file.read_bytes() == before


def test_a_follower_does_not_outlive_process_0(tmp_path: Path) -> None:
    """Its connection would be tried again for minutes after process 0 was killed."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        follower = launch._start(1, 2, "127.0.0.1", silent.getsockname()[1])
        assert follower.stdin is not None
        follower.stdin.close()
        assert follower.wait(PATIENCE) == -signal.SIGKILL


def test_processes_that_cannot_be_started_are_an_error_that_counts_them(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called a bug of charlm."""

    def full(*_: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(launch, "_start", full)
    code, _, err = call("train", "t.txt", *TINY, "--processes", "3", "--name", "run")
    assert code == 5
    assert "charlm: process 1 of 3 cannot be started: Resource temporarily unavailable; " in err


def test_processes_beyond_the_memory_are_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan was that of one process, and each other one takes as much again."""
    monkeypatch.setattr(memory, "free_memory", lambda: int(3e8))
    monkeypatch.setattr(launch, "_start", lambda *_: pytest.fail("started"))
    code, _, err = call("train", "t.txt", *TINY, "--processes", "2")
    assert code == 5
    assert "with 2 processes needs about 0.4 GB of memory, 0.3 GB are free here. Use few" in err
    code, _, err = call("train", "t.txt", *TINY, "--steps", "1")
    assert (code, "0.1 GB of memory\n" in err) == (0, True), err
    monkeypatch.setattr(memory, "free_memory", lambda: int(5e8))
    code, _, err = call("train", "t.txt", *TINY, "--processes", "2", "--plan")
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("source", ["-c", "-", "-i"])
def test_a_program_without_a_file_trains_with_two_processes(source: str) -> None:
    """As given to python -c, to its stdin, or to its prompt: nothing imports a main module."""
    text = Path("t.txt").read_text()
    program = (
        f"import charlm; text = {text!r}; options = {{'hidden': 8, 'batch': 4, 'bptt': 8}}\n"
        "print(charlm.fit(text=text, name='run', processes=2, steps=4, device='cpu', **options))\n"
    )
    given = [source, program] if source == "-c" else [source]
    done = subprocess.run(
        [sys.executable, *given],
        input="" if source == "-c" else program,
        capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert "Model('checkpoints/run', 2 x 8 LSTM" in done.stdout


IPV6_ONLY = "ip link set lo up && ip addr del 127.0.0.1/8 dev lo"


@pytest.mark.slow
def test_two_processes_train_on_a_machine_without_ipv4() -> None:
    """It had no address 127.0.0.1, which charlm called a bug of its own."""
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare"):
        pytest.skip("there is no program unshare")
    if subprocess.run([*alone, "sh", "-c", IPV6_ONLY], capture_output=True, check=False).returncode:
        pytest.skip("this user cannot have a network of its own")
    train = shlex.join(
        [sys.executable, "-m", "charlm", "train", "t.txt", *TINY, "--processes", "2", "--name", "x"]
    )
    subprocess.run([*alone, "sh", "-c", f"{IPV6_ONLY} && {train}"], check=True, timeout=PATIENCE)
    assert json.loads(Path("checkpoints/x/run.json").read_text())["machine"]["processes"] == 2

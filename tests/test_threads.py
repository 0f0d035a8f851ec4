"""Number of threads: by the work for each of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import started, tiny_model

from charlm import openmp
from charlm.backends import kernel_library
from charlm.backends.kernel_library import default_threads, useful_threads
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs import networks
from charlm.training import machine as machine_module
from charlm.training.plan import speed
from charlm.training.plan.speed import set_threads, training_threads
from charlm.training.resume import resume

CPU = torch.device("cpu")
SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A machine with this many cores."""
    monkeypatch.setattr(kernel_library, "_allowed_cores", lambda: request.param)
    monkeypatch.setattr(kernel_library, "_core_quota", lambda _: kernel_library.UNLIMITED)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return int(request.param)


def sized(hidden: int, **other) -> ModelSettings:
    return ModelSettings(hidden_size=hidden, embedding_size=hidden, **{"num_layers": 1} | other)


@pytest.mark.parametrize("cores", [1, 2, 16, 64], indirect=True)
@pytest.mark.parametrize("cell", CELLS)
def test_a_tiny_model_is_trained_by_one_thread(cores: int, cell: str) -> None:
    """On 16 cores small models were slow, since 16 threads waited for each other."""
    del cores
    assert training_threads(sized(32, cell=cell), 60, 32, CPU) == 1
    assert training_threads(sized(128, cell=cell), 60, 1, CPU) == 1


@pytest.mark.parametrize("cores", [16], indirect=True)
def test_more_work_makes_more_threads_up_to_the_cores(cores: int) -> None:
    """More units or rows never make fewer; layers are computed one after the other."""
    widths = [training_threads(sized(n), 60, 32, CPU) for n in (32, 128, 256, 512, 1024, 4096)]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (1, cores)
    assert 1 < widths[2] < cores
    rows = [training_threads(sized(256), 60, n, CPU) for n in (1, 8, 32, 128)]
    assert rows == sorted(rows)
    one, four = (training_threads(sized(256, num_layers=n), 60, 32, CPU) for n in (1, 4))
    assert four <= one + 1


@pytest.mark.parametrize("cores", [2], indirect=True)
@pytest.mark.parametrize(("work", "threads"), [(0, 1), (99, 1), (199, 1), (200, 2), (10**9, 2)])
def test_each_thread_has_the_least_work(cores: int, work: float, threads: int) -> None:
    del cores
    assert useful_threads(work, 100) == threads


@pytest.mark.parametrize("cores", [16], indirect=True)
@pytest.mark.parametrize(("asked", "threads"), [("4", 4), ("99", 16), ("0", 16), ("x", 16)])
def test_the_environment_lowers_the_number(
    cores: int, asked: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del cores
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert default_threads() == threads


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, kernel_library.UNLIMITED),
        ({"cpu.max": ""}, kernel_library.UNLIMITED),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            kernel_library.UNLIMITED,
        ),
        ({}, kernel_library.UNLIMITED),
    ],
)
def test_a_container_uses_the_cores_of_its_quota(
    files: dict[str, str], quota: int, tmp_path: Path
) -> None:
    """Both versions of Linux control groups; without a limit the affinity decides alone."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert kernel_library._core_quota(tmp_path) == quota


def test_a_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(kernel_library, "_allowed_cores", lambda: 64)
    monkeypatch.setattr(kernel_library, "_core_quota", lambda _: 2)
    assert default_threads() == 2


@pytest.fixture
def torch_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers given to torch; nothing is changed."""
    given = [64]
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: given[-1])
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return given


def test_threads_are_limited_by_the_cores(torch_threads: list[int]) -> None:
    """torch reports the number that was set."""
    assert set_threads(3) == 3
    assert set_threads(99) == 64
    assert torch_threads[-1] == 64


def test_a_resumed_run_keeps_its_threads(torch_threads: list[int], tmp_path: Path) -> None:
    """Rounding depends on the number of threads, so a resumed run keeps its number by default."""
    session = started(tmp_path, threads=5)
    session.lock.release()
    set_threads(3)
    for changes, threads in (({}, 5), ({"threads": 7}, 7)):
        resumed = resume(session.path, {"training": changes})
        resumed.lock.release()
        assert (torch_threads[-1], resumed.record["machine"]["threads"]) == (threads, threads)


@pytest.mark.parametrize("cores", [16], indirect=True)
def test_torch_models_use_a_useful_number_of_threads(
    cores: int, torch_threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model gets one thread, whatever was set before; or the number that was asked for."""
    del cores
    model = tiny_model("mogrifier")
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    networks.torch_network(model.settings, 5, arrays)
    assert torch_threads[-1] == 1
    networks.torch_network(model.settings, 5, arrays, 3)
    assert torch_threads[-1] == 3
    monkeypatch.setattr(networks, "WEIGHTS_PER_THREAD", model.parameter_count() // 4)
    networks.torch_network(model.settings, 5, arrays)
    assert torch_threads[-1] == 4


def test_nominal_speeds_grow_with_threads_on_a_processor() -> None:
    """An accelerator has threads of its own."""
    for name in ("fp32", "bf16"):
        assert speed.nominal_speed(CPU, name, 4) == 4 * speed.nominal_speed(CPU, name, 1)
    cards = {speed.nominal_speed(torch.device("cuda"), "fp32", n) for n in (1, 4)}
    assert len(cards) == 1


@pytest.mark.parametrize("cores", [16], indirect=True)
def test_one_thread_feeds_an_accelerator(cores: int) -> None:
    """All cores together made a plan of 11 seconds."""
    del cores
    assert training_threads(sized(4096), 60, 128, torch.device("cuda")) == 1


def test_initial_weights_do_not_depend_on_the_threads() -> None:
    """Two threads round an orthogonal matrix differently from one, and 16 take 50 times as long."""
    before, weights = torch.get_num_threads(), []
    model = RecurrentLanguageModel(sized(128), 5)
    for number in (1, 2):
        torch.set_num_threads(number)
        model.reset_parameters(torch.Generator().manual_seed(0))
        assert torch.get_num_threads() == number
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    torch.set_num_threads(before)
    assert torch.equal(*weights)


TRAIN_UNTIL_TORCH = """
import os, sys
class AtTorch:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            raise SystemExit
sys.meta_path.insert(0, AtTorch())
import charlm
charlm.train(charlm.__file__, steps=1)
"""


@pytest.mark.parametrize(
    ("environment", "count"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_the_library_sets_short_spins_before_torch_is_imported(
    environment: dict[str, str], count: str, tmp_path: Path
) -> None:
    """Only the command line did, and the library was 8 to 15 times slower under load."""
    clean = {name: value for name, value in os.environ.items() if name not in SPIN_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_UNTIL_TORCH], env=clean | environment, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == count, done.stderr


@pytest.mark.parametrize(
    ("environment", "modules", "short"),
    [
        ({}, {}, True),
        ({}, {"torch": None}, False),
        ({"GOMP_SPINCOUNT": "9"}, {"torch": None}, True),
        ({"OMP_WAIT_POLICY": "active"}, {"torch": None}, True),
    ],
)
def test_spins_are_long_if_torch_comes_first_and_the_user_chose_nothing(
    environment, modules, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SPIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    monkeypatch.setattr(sys, "modules", modules)
    monkeypatch.setattr(sys, "platform", "linux")
    assert openmp.set_short_spins.__wrapped__() is short
    monkeypatch.undo()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_reports_threads_that_spin_long(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread does not wait for others."""
    monkeypatch.setattr(openmp, "set_short_spins", lambda: False)
    monkeypatch.setattr(machine_module, "set_threads", lambda number: number)
    session = started(tmp_path, threads=threads)
    reported = [text for text in session.warnings if "GOMP_SPINCOUNT=2000" in text]
    assert len(reported) == threads - 1


@pytest.mark.parametrize(("asked", "threads"), [(None, 7), (3, 3)])
def test_a_run_uses_as_many_threads_as_its_model_needs(
    asked: int | None, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the user asks for another number; the record has the number that was set."""
    numbers: list[int] = []
    monkeypatch.setattr(machine_module, "training_threads", lambda *_: 7)
    monkeypatch.setattr(
        machine_module, "set_threads", lambda number: numbers.append(number) or number
    )
    session = started(tmp_path, threads=asked)
    assert set(numbers) == {threads}
    assert session.record["machine"]["threads"] == threads

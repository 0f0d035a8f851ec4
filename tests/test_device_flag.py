"""--device: a model is computed by torch on the device that is asked for, or refused."""

from collections.abc import Callable

import pytest
import torch

import charlm
from charlm.config.model import ModelSettings
from charlm.errors import EnvironmentFailure, UsageError
from charlm.nn import devices
from charlm.runs import engines
from charlm.runs.engines import chosen_engine, device_of, engine_on, uses_torch

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose other device is torch's `meta` device, which keeps shapes only."""
    monkeypatch.setattr(devices, "choose_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(engines, "GPU_ENGINES", ("torch meta",))


def test_the_cpu_leaves_the_engine_as_it_is() -> None:
    for engine in ("auto", "native", "numpy", "torch"):
        assert engine_on("cpu", engine) == engine and device_of(engine) == "cpu"


@pytest.mark.usefixtures("cuda")
def test_another_device_is_for_torch() -> None:
    for engine in ("auto", "torch"):
        assert engine_on("cuda", engine) == "torch meta"
    assert uses_torch("torch meta") and device_of("torch meta") == "meta"
    for engine in ("native", "numpy"):
        with pytest.raises(UsageError, match=f"engine='{engine}' with device='cuda'; expected"):
            engine_on("cuda", engine)
    with pytest.raises(UsageError, match="weights='int8' with device='meta'; expected"):
        charlm.load("prose", device="cuda", weights="int8")


@pytest.mark.usefixtures("cuda")
def test_the_weights_are_on_the_device() -> None:
    backend = charlm.load("prose", device="cuda").run.backend
    assert backend.name == "torch meta" and backend.model.output.weight.is_meta


@pytest.mark.parametrize("verb", [("sample",), ("score", "a"), ("eval",)])
def test_a_device_that_is_not_here_is_refused(verb: tuple[str, ...], call: Call) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    status, out, err = call(*verb, "--device", "mps", "--run", "prose")
    assert (status, out) == (5, "") and "device mps is not available here" in err
    with pytest.raises(EnvironmentFailure, match="mps"):
        charlm.load("prose", device="mps")
    with pytest.raises(UsageError, match="device is 'gpu'; expected one of cpu, cuda, mps, auto"):
        charlm.load("prose", device="gpu")


@pytest.mark.parametrize(
    ("engine", "status", "message"),
    [
        ("torch gpu", 2, "engine is 'torch gpu'; expected one of auto, native, numpy, torch"),
        ("torch mps", 5, "device mps is not available here"),
    ],
)
def test_an_engine_with_a_device_that_is_wrong_or_not_here_is_refused(
    engine: str, status: int, message: str, call: Call
) -> None:
    """Either was once an error of torch, which was reported as a bug of charlm."""
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    code, out, err = call("score", "a", "--engine", engine, "--run", "prose")
    assert (code, out) == (status, "") and message in err


@pytest.mark.parametrize(
    ("cell", "engine", "given"),
    [
        ("lstm", "numpy", "engine='numpy'"),
        ("lstm", "torch cuda", "device='cuda'"),
        ("mingru", "torch", "engine='torch'"),
        ("mingru", "auto", "a model of cell mingru, which only torch computes"),
    ],
)
def test_weights_of_kernels_are_refused_with_what_was_given(
    cell: str, engine: str, given: str
) -> None:
    """No engine is named that nobody chose."""
    settings = ModelSettings(cell=cell, num_layers=1, hidden_size=4, embedding_size=4)
    with pytest.raises(UsageError) as error:
        chosen_engine(settings, engine, "int8")
    assert str(error.value) == f"weights='int8' with {given}; expected fp32 there"

"""Devices and number types: what is asked for, and bf16 only where it proves right."""

import pytest
import torch
from torch import Tensor

from charlm.config import ModelSettings
from charlm.errors import EnvironmentFailure
from charlm.nn import devices
from charlm.nn.devices import choose_device, choose_precision

CPU = torch.device("cpu")
SETTINGS = ModelSettings(num_layers=1, hidden_size=8, embedding_size=4, tie_weights=False)
ONE = torch.ones(3)


def chosen(wanted: str = "auto", cell: str = "lstm") -> str:
    """Name and reason of the precision that is chosen."""
    found = choose_precision(wanted, ModelSettings(**{**vars(SETTINGS), "cell": cell}), 7, CPU)
    return f"{found.name}: {found.reason}"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that says it has bfloat16."""
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: True)


def probed(
    monkeypatch: pytest.MonkeyPatch, exact: tuple[Tensor, float], rough: tuple[Tensor, float]
) -> None:
    """The comparison finds these gradients, in these seconds."""
    results = {"fp32": ([exact[0]], exact[1]), "bf16": ([rough[0]], rough[1])}
    monkeypatch.setattr(devices, "_probe", lambda *given: results[given[-1]])


def test_what_is_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_probe", None)
    assert chosen("fp32") == "fp32: asked for"


def test_a_processor_without_bfloat16_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says so where bf16 was asked for."""
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: False)
    assert chosen() == "fp32: this processor has no bfloat16 arithmetic"
    with pytest.raises(EnvironmentFailure, match=r"no bfloat16 arithmetic. Use --precision fp32"):
        chosen("bf16")


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("factor", "seconds", "name", "why"),
    [
        (1.01, 1.0, "bf16", "gradients agree"),
        (1.2, 1.0, "fp32", "20 % off"),
        (float("nan"), 1.0, "fp32", "% off"),
        (1.01, 75.0, "fp32", "75 times slower"),
    ],
)
def test_bf16_is_taken_where_it_is_right_and_not_slower(
    factor: float, seconds: float, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gradients at the layer's own shapes, and by the time that they take."""
    probed(monkeypatch, (ONE, 1.0), (factor * ONE, seconds))
    assert chosen().startswith(f"{name}: ")
    assert why in chosen()


@pytest.mark.usefixtures("served")
def test_layers_that_torch_computes_in_float16_are_trained_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As cuDNN's are under bfloat16: gradients have no scale there, and small ones vanish."""
    forward = torch.nn.LSTM.forward

    def halved(layer, x, state):
        cast = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            y, after = forward(layer, x.float(), tuple(part.float() for part in state))
        return (y.half() if cast else y), after

    monkeypatch.setattr(torch.nn.LSTM, "forward", halved)
    assert "computed in float16" in chosen()
    assert chosen().startswith("fp32: ")
    with pytest.raises(EnvironmentFailure, match="computed in float16"):
        chosen("bf16")


def test_a_large_output_is_probed_with_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its logits would take gigabytes before the memory is looked at."""
    rows = []
    forward = devices.RecurrentLanguageModel.forward

    def watched(model, ids, state=None):
        rows.append(ids.shape[1])
        return forward(model, ids, state)

    monkeypatch.setattr(devices.RecurrentLanguageModel, "forward", watched)
    for most, expected in ((2**26, 32), (16 * 7 * 5, 5), (1, 1)):
        monkeypatch.setattr(devices, "MOST_PROBED", most)
        devices._probe(SETTINGS, 7, CPU, "fp32")
        assert rows[-1] == expected


@pytest.mark.usefixtures("served")
def test_a_reservoir_has_nothing_to_compare() -> None:
    assert "no gradients to compare" in chosen(cell="esn")


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(EnvironmentFailure, match=r"device cuda is not available.*found cpu"):
            choose_device("cuda")

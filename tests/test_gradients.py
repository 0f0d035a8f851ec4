"""Gradient flow: norms compared with autograd on another path, and the diagnosis."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, tiny_model
from rich.console import Console
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.errors import CorpusError, EnvironmentFailure, UsageError
from charlm.inspect.gradients import (
    WARM_UP,
    GradientFlow,
    LayerFlow,
    clip_rate,
    gradient_flow,
    spectral_radii,
)
from charlm.report.gradients import flow_parts, norm_bars, save_picture
from charlm.report.pictures import check_picture

V = 5
IDS = np.random.default_rng(0).integers(0, V, 400)


@pytest.mark.parametrize("name", [*CELLS, *STRUCTURES])
def test_norms_equal_those_of_a_state_that_is_a_leaf(name: str) -> None:
    """One gradient for each lag, through the tokens after it."""
    model = tiny_model(name, V)
    lags, rows = 6, 3
    flows = gradient_flow(model, IDS, lags, rows)
    begins = np.linspace(0, len(IDS) - (WARM_UP + lags + 2), rows).astype(int)
    for lag in (1, 4, lags):
        expected = np.zeros((2, rows))
        for row, begin in enumerate(begins):
            ids = torch.tensor(IDS[begin : begin + WARM_UP + lags + 2])[:, None]
            read, rest = ids[: len(ids) - 1 - lag], ids[len(ids) - 1 - lag :]
            with torch.no_grad():
                _, state = model(read)
            state = tuple(tuple(p.clone().requires_grad_() for p in layer) for layer in state)
            logits, _ = model(rest[:-1], state)
            loss = F.cross_entropy(logits[-1], rest[-1])
            for number, layer in enumerate(state):
                gradients = torch.autograd.grad(loss, layer, retain_graph=True, allow_unused=True)
                squares = [float(g.pow(2).sum()) for g in gradients if g is not None]
                expected[number, row] = sum(squares) ** 0.5
        for number, flow in enumerate(flows):
            mean = expected[number].mean()
            assert flow.norms[lag] == pytest.approx(mean, rel=1e-3, abs=1e-8)
            assert flow.hidden_norms[lag] <= flow.norms[lag] * (1 + 1e-9)


def test_saturated_gates_are_counted() -> None:
    """Biases close every input gate and open every forget gate."""
    model = tiny_model("lstm", V, num_layers=1)
    with torch.no_grad():
        bias = model.layers[0].rnn.bias_ih_l0
        bias[:3], bias[3:6] = -20.0, 20.0
    (flow,) = gradient_flow(model, IDS, 5)
    assert flow.gates["input"] == (1.0, 0.0)
    assert flow.gates["forget"] == (0.0, 1.0)
    low, high = flow.gates["output"]
    assert 0 <= low + high < 0.5
    assert set(gradient_flow(tiny_model("gru", V), IDS, 5)[0].gates) == {"reset", "update"}


def test_spectral_radii_of_known_matrices() -> None:
    """Orthogonal blocks have 1, a scaled one its factor."""
    (layer,) = tiny_model("lstm", V, num_layers=1).recurrent_layers()
    with torch.no_grad():
        layer.rnn.weight_hh_l0[3:6] *= 0.5
    assert spectral_radii(layer) == pytest.approx([1.0, 0.5, 1.0, 1.0], abs=1e-5)
    assert spectral_radii(tiny_model("mingru", V).recurrent_layers()[0]) == []
    (radius,) = spectral_radii(tiny_model("esn", V).recurrent_layers()[0])
    assert radius == pytest.approx(0.95, abs=1e-3)


def flow_of(norms: list[float]) -> GradientFlow:
    layer = LayerFlow(norms=norms, hidden_norms=norms, gates={"forget": (0.1, 0.6)}, radii=[1.0])
    return GradientFlow(name="x", cell="rnn", layers=[layer], clipped=0.25)


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([0.5**k for k in range(101)], ["vanishing", "more than 6 tokens", "--cell lstm"]),
        ([1.05**k for k in range(101)], ["exploding", "--clip-norm"]),
        ([0.96**k for k in range(201)], ["healthy", "for 112 tokens"]),
        ([1.0] * 101, ["healthy", "100 tokens or more"]),
        ([0.7**k for k in range(6)], ["healthy", "5 tokens or more"]),  # no larger lag was measured
        ([0.3**k for k in range(6)], ["vanishing", "more than 3 tokens"]),
        ([1.0, float("nan"), 1.0], ["exploding"]),
    ],
)
def test_the_diagnosis_fits_the_curve(norms: list[float], words: list[str]) -> None:
    for word in words:
        assert word in flow_of(norms).diagnosis


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(CorpusError, match="lags up to 9 need at least 75"):
        gradient_flow(tiny_model("lstm", V), IDS[:70], 9)


def test_measuring_leaves_no_hooks() -> None:
    model = tiny_model("lstm", V)
    before = model(torch.zeros(3, 1, dtype=torch.long))[0]
    gradient_flow(model, IDS, 3)
    assert not any(layer._forward_pre_hooks for layer in model.recurrent_layers())
    assert torch.equal(before, model(torch.zeros(3, 1, dtype=torch.long))[0])


def test_the_clip_rate_is_the_mean_of_the_log(tmp_path: Path) -> None:
    """Without step records it is None."""
    assert clip_rate(tmp_path) is None
    lines = [
        '{"kind": "step", "clipped": 0.5}',
        '{"kind": "saved"}',
        '{"kind": "step", "clipped": 0.0}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert clip_rate(tmp_path) == 0.25


def test_bars_of_norms_are_logarithmic() -> None:
    """One bar less for each decade below a tenth of the largest."""
    assert norm_bars([1.0] * 5, 3) == "███"
    falling = norm_bars([10.0**-k for k in range(11)], 11)
    assert falling == "██▇▆▅▄▃▂▁  "


def test_the_report_shows_all_measurements() -> None:
    console = Console(width=120, file=io.StringIO())
    for part in flow_parts([flow_of([0.5**k for k in range(201)])]):
        console.print(part)
    shown = console.file.getvalue()
    for word in ("200", "forget 10 / 60 %", "1.00", "vanishing", "Clipped in 25 % of steps."):
        assert word in shown


def test_a_picture_needs_a_known_suffix_and_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal comes before any computation."""
    with pytest.raises(UsageError, match=r"--out is .*x\.gif; expected"):
        check_picture(tmp_path / "x.gif")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'charlm\[plot\]'"):
        check_picture(tmp_path / "x.svg")


@pytest.mark.parametrize("name", ["x.svg", "x.png"])
def test_a_picture_is_saved_in_its_format(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save_picture([flow_of([0.5**k for k in range(50)])], tmp_path / name)
    start = (tmp_path / name).read_bytes()[:400]
    assert start.startswith(b"\x89PNG") or b"<?xml" in start


def test_the_mean_is_over_places_of_the_whole_text() -> None:
    """Another second half gives other norms."""
    model = tiny_model("lstm", V, seed=3)
    other = np.concatenate([IDS[:200], np.zeros(200, np.int64)])
    assert gradient_flow(model, IDS, 5)[0].norms != gradient_flow(model, other, 5)[0].norms

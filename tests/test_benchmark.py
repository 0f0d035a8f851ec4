"""The benchmark measures every group, with ratios that follow from the figures."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from charlm import benchmark
from charlm.benchmark import Figure, alternating, run_benchmarks, temporary_run
from charlm.cli import main
from charlm.config.cells import CELLS
from charlm.runs.verify import verify_run
from charlm.training.step import Step


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure one round of little work, without other processes."""
    for name, value in {"MIN_ROUNDS": 1, "SAMPLE_TOKENS": 4, "ROWS": 2, "STEPS": 3}.items():
        monkeypatch.setattr(benchmark, name, value)
    monkeypatch.setattr(benchmark, "_process", lambda arguments: lambda: None)


def test_programs_take_turns() -> None:
    """Load slows all of them; each result is a median."""
    calls: list[str] = []
    medians = alternating({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 0.0)
    assert "".join(calls) == "ab" * (1 + benchmark.MIN_ROUNDS)
    assert set(medians) == {"a", "b"}
    assert all(value >= 0 for value in medians.values())


def test_a_process_that_fails_is_no_figure() -> None:
    benchmark._process(["--version"])()
    with pytest.raises(subprocess.CalledProcessError):
        benchmark._process(["nothing"])()


@pytest.mark.usefixtures("brief")
def test_every_group_is_measured() -> None:
    """Ratios are to the first figure of a comparison."""
    figures = list(run_benchmarks(hidden=8, seconds=0.0))
    groups = dict.fromkeys(figure.group for figure in figures)
    assert list(groups) == [
        "products", "memory", "training 2x8", "sampling", "sampling 16 at once", "scoring",
        "encoding", "start-up",
    ]  # fmt: skip
    for figure in figures:
        assert isinstance(figure, Figure)
        assert figure.value > 0
        assert math.isfinite(figure.value)
    for group in ("training 2x8", "sampling", "scoring"):
        mine = [figure for figure in figures if figure.group == group]
        assert mine[0].ratio == 1.0
        for figure in mine:
            assert figure.ratio == pytest.approx(figure.value / mine[0].value)


@pytest.mark.usefixtures("brief")
def test_every_cell_is_measured_beside_the_lstm() -> None:
    figures = [f for f in run_benchmarks(hidden=8, seconds=0.0, cells=True) if "cells" in f.group]
    assert {figure.name for figure in figures} == set(CELLS)
    assert (figures[0].name, figures[0].ratio) == ("lstm", 1.0)


@pytest.mark.usefixtures("brief")
def test_the_benchmark_has_json_output(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "--hidden", "8", "--seconds", "0.01", "--json"])
    assert end.value.code == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema_version"] == 1
    assert "threads" in content["machine"]
    assert {figure["group"] for figure in content["figures"]} > {"sampling", "scoring"}


def test_the_temporary_run_is_intact(tmp_path: Path) -> None:
    path, vocabulary = temporary_run(tmp_path / "x", 4)
    assert not [check for check in verify_run(path) if check.problems and check.name != "run.json"]
    assert len(vocabulary) > 20


def test_a_gpu_trains_plainly_and_captured() -> None:
    """The first way is that without the gains of a GPU; the last one is what `auto` chooses."""
    ways = benchmark.ways_to_train(torch.device("cuda"))
    assert list(ways) == ["plain fp32", "captured fp32", "captured fp16", "captured bf16"]
    assert [precision.name for precision, _ in ways.values()] == ["fp32", "fp32", "fp16", "bf16"]
    assert [step_class is Step for _, step_class in ways.values()] == [True, False, False, False]


def test_programs_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU only queues what it is given, so the time without waiting would be of the queue."""
    calls: list[str] = []
    monkeypatch.setattr(benchmark, "finish_queued", lambda device: calls.append(device.type))
    programs = {"a": lambda: calls.append("a")}
    benchmark.finished(programs, torch.device("cuda"), 3)["a"]()
    assert calls == ["a", "a", "a", "cuda"]

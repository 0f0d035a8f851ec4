"""scripts/pretend_gpu: without a GPU, it shows what one would refuse or compute wrongly."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forked
from waiting import PATIENCE

import pretend_gpu

SCRIPT = Path(__file__).parents[1] / "scripts" / "pretend_gpu.py"


def make_mistakes() -> None:
    """Print what a pretended GPU answers to mistakes."""
    pretend_gpu.pretend()
    here, there = torch.ones(3, device="cuda"), torch.ones(3)

    def refused(function: Callable[[], Any]) -> None:
        try:
            function()
        except (RuntimeError, TypeError) as error:
            print(str(error).split(" [")[0])

    def captured(function: Callable[[], Any]) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        return graph

    refused(lambda: here + there)
    refused(lambda: here.numpy())
    refused(lambda: captured(lambda: float(here.sum())))
    refused(lambda: captured(lambda: here[here > 0]))
    refused(lambda: captured(lambda: here.add_(there.to("cuda"))))
    total = torch.zeros(3, device="cuda")
    graph = captured(lambda: total.add_(here * 2))
    print(total.tolist(), end=" ")
    graph.replay()
    here.fill_(5.0)
    graph.replay()
    print(total.tolist())
    here = torch.zeros(3, device="cuda")  # another tensor than the captured one
    graph.replay()
    print(total.tolist())


def script_lines(*arguments: str) -> list[str]:
    """Return the lines that the script writes, in a new process that has imported nothing yet."""
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE)
    return done.stdout.splitlines()


def test_mistakes_are_noticed() -> None:
    """Two devices in one operation, what a capture does not allow, and tensors that moved."""
    status, out, err = forked(make_mistakes)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "tensors of add on cuda:0 and cpu, of the shapes",
        "can't convert cuda:0 device type tensor to numpy",
        "operation not permitted when stream is capturing: _local_scalar_dense",
        "operation not permitted when stream is capturing: index by a mask",
        "operation not permitted when stream is capturing: a copy from the host",
        "[0.0, 0.0, 0.0] [12.0, 12.0, 12.0]",
        "[22.0, 22.0, 22.0]",
    ]


def test_captured_steps_equal_uncaptured_ones() -> None:
    """With dropout and padded sizes, and for a large vocabulary; also when training resumes."""
    rows = script_lines("check", "lstm", "bf16")
    assert [row.partition(" replays")[0] for row in rows] == [
        "{'captured': 'equal', 'resumed': 'equal'}"
    ] * 2
    assert min(eval(rows[-1].partition("replays ")[2])) > 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "check CELL PRECISION"),
        (("check", "lstm"), "check CELL PRECISION"),
        (("check", "lstm", "bf17"), "of fp32, bf16, fp16"),
        (("check", "lstmm", "bf16"), "unknown cell 'lstmm'; expected one of rnn, lstm, gru"),
    ],
)
def test_wrong_arguments_are_answered_with_the_right_ones(
    arguments: tuple[str, ...], message: str
) -> None:
    """The story: no argument was a traceback, and bf17 was compared as float32."""
    with pytest.raises(SystemExit, match=re.escape(message)):
        pretend_gpu.main(arguments)
    assert torch.cuda.CUDAGraph is not pretend_gpu.Graph  # nothing was replaced


def test_a_translator_trains_on_the_gpu_of_a_mac(tmp_path: Path) -> None:
    """Its validation computed in float64 there, which that GPU does not have."""
    rows = "".join(f"a b {number}\tb a {number}\n" for number in range(40))
    (tmp_path / "pairs.tsv").write_text(f"source\ttarget\n{rows}", encoding="utf-8")
    words = "--task translate --steps 2 --hidden 4 --batch 2 --seed 1 --threads 1 --device mps"
    train = ["charlm", "train", str(tmp_path / "pairs.tsv"), *words.split()]
    lines = script_lines(*train, "--checkpoints", str(tmp_path), "--name", "run")
    assert lines == [str(tmp_path / "run")]
    assert '"device": "mps"' in (tmp_path / "run" / "run.json").read_text(encoding="utf-8")

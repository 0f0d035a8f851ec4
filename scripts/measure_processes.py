"""Measure how much faster two processes train than one, with `charlm train --processes`.

    python scripts/measure_processes.py [--hidden 128 256] [--batch 32] [--turns 3] [--steps 60]
    python scripts/measure_processes.py --agree [--hidden 128] [--batch 64] [--steps 60]

Each row is a model of two LSTM layers, with --batch sequences of 64 characters. The ways to use the
cores take turns; each turn is a training of its own, so that starting does not count: tokens and
seconds are those between the first step record and the last. Prints tokens a second (median of the
turns), and the speed relative to one process with one thread. On a busy machine, only the columns
of one row can be compared. Takes less than three minutes on two quiet cores.

With --agree, nothing is timed: for each precision, one and two processes train the same model.
Prints the validation losses, and the distance of the weights (norm of the difference) relative to
the way that training moved them from their start (a run of one step at a rate of almost nothing).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import charlm
from charlm.runs.tensors import tensors_from_file


def main() -> None:
    """Print a row for each size of the layers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--agree", action="store_true")
    options = parser.parse_args()
    if options.agree:
        agreement(options)
        return
    cores = os.cpu_count() or 1
    ways = {(1, 1): "1 process, 1 thread", (1, cores): f"1 process, {cores} threads"}
    ways[(cores, 1)] = f"{cores} processes, 1 thread each"
    print(f"charlm {charlm.__version__}, tokens/s (relative to {ways[1, 1]})\n")
    print(f"| units | {' | '.join(ways.values())} |")
    print("|---:|" + "---:|" * len(ways))
    for hidden in options.hidden:
        speeds: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
        for _ in range(options.turns):
            for way in ways:
                speeds[way].append(speed(*way, hidden, options))
        medians = {way: statistics.median(values) for way, values in speeds.items()}
        cells = [f"{value:,.0f} ({value / medians[1, 1]:.2f})" for value in medians.values()]
        print(f"| {hidden} | {' | '.join(cells)} |", flush=True)


def agreement(options: argparse.Namespace) -> None:
    """Print how far the results of two processes are from those of one, in fp32 and in bf16."""
    print("| units | precision | nats/token, 1 process | 2 processes | weights apart |")
    print("|---:|---|---:|---:|---:|")
    for hidden in options.hidden:
        for precision in ("fp32", "bf16"):
            options.precision = precision
            start, _ = trained(1, hidden, options, steps=1, **{"learning-rate": 1e-12})
            (one, loss), (two, other) = (trained(n, hidden, options) for n in (1, 2))
            moved, apart = distance(one, start), distance(one, two)
            print(f"| {hidden} | {precision} | {loss:.6f} | {other:.6f} | {apart / moved:.1e} |")


def distance(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """Return the norm of the difference of all weights."""
    return math.hypot(*(float((one[name] - two[name]).norm()) for name in one))


def trained(
    processes: int, hidden: int, options: argparse.Namespace, **more: float
) -> tuple[dict[str, torch.Tensor], float]:
    """Train with one thread in each process; return the weights and the validation loss."""
    with tempfile.TemporaryDirectory() as folder:
        flags = {"valid-fraction": 0.1, "evals": 1, **more}
        run = train(processes, 1, hidden, options, folder, flags)
        results = json.loads((run / "run.json").read_text(encoding="utf-8"))["results"]
        return tensors_from_file(run / "model.safetensors"), results["valid"]["nats_per_token"]


def speed(processes: int, threads: int, hidden: int, options: argparse.Namespace) -> float:
    """Train with some processes of some threads, and return the tokens a second of all."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(processes, threads, hidden, options, folder, {})
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    first, last = records[0], records[-1]
    return float((last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]))


def train(
    processes: int,
    threads: int,
    hidden: int,
    options: argparse.Namespace,
    folder: str,
    more: dict[str, Any],
) -> Path:
    """Train a model with `charlm train` and return the folder of its run."""
    flags = {
        "hidden": hidden, "layers": 2, "batch": options.batch, "bptt": 64, "seed": 1,
        "steps": options.steps, "precision": options.precision, "device": "cpu",
        "valid-fraction": 0, "ngram": 0, "name": "run", "dropout": 0.2, "checkpoints": folder,
        "processes": processes, "threads": threads,
    } | more  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "charlm", "--quiet", "train", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return Path(folder) / "run"


if __name__ == "__main__":
    main()

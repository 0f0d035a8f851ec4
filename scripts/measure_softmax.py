"""Compare the loss of a large softmax in chunks with the loss of all logits at once.

    python scripts/measure_softmax.py [--entries 10000 38661] [--precision auto fp32]

Makes whole training steps of language models of words in turn, one thread or two as a plan chooses,
and prints the median times and the most memory that each way takes beyond the weights. Keep the
machine idle.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from charlm.benchmark import alternating
from charlm.config.model import ModelSettings
from charlm.nn import output
from charlm.nn.devices import choose_precision
from charlm.nn.heap import keep_freed_memory
from charlm.training.plan.speed import set_threads, training_step, training_threads

CPU = torch.device("cpu")
WAYS = {"at once": sys.maxsize, "in chunks": output.MIN_CHUNKED}
"""Fewest entries for which the loss is computed in chunks, by name."""
MODELS = ((1, 64), (1, 128), (1, 256), (2, 512))
SHAPE = (35, 32)
"""Steps and sequences of a window."""


def main() -> None:
    """Print a row for each vocabulary, model and number type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 38_661])
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way")
    parser.add_argument("--peak", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    if options.peak:
        entries, layers, hidden, precision, way = options.peak
        print(peak(int(entries), int(layers), int(hidden), precision, way))
        return
    print("| entries | model | type | threads | at once | in chunks | gain | GB | GB |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    for entries in options.entries:
        for precision in options.precision:
            for layers, hidden in MODELS:
                print(row(entries, layers, hidden, precision, options.seconds), flush=True)


def row(entries: int, layers: int, hidden: int, precision: str, seconds: float) -> str:
    """Return the row of a model: milliseconds of a step in each way, and gigabytes."""
    threads = set_threads(training_threads(model_of(layers, hidden), entries, SHAPE[1], CPU))
    steps, chosen = dict[str, Callable[[], None]](), ""
    for way in WAYS:
        steps[way], chosen = step_of(entries, layers, hidden, precision, way)
        steps[way]()
    times = alternating(steps, seconds)
    at_once, in_chunks = (1e3 * times[way] for way in WAYS)
    memory = " | ".join(
        apart(str(entries), str(layers), str(hidden), precision, way) for way in WAYS
    )
    return (
        f"| {entries:,} | {layers} x {hidden} | {chosen} | {threads} | {at_once:.1f} ms "
        f"| {in_chunks:.1f} ms | {at_once / in_chunks:.2f} | {memory} |"
    )


def step_of(
    entries: int, layers: int, hidden: int, precision: str, way: str
) -> tuple[Callable[[], None], str]:
    """Return a training step that computes its loss in one of the ways, and its number type."""
    model = model_of(layers, hidden)
    chosen = choose_precision(precision, [model], entries, CPU, rows=SHAPE[1])
    step = training_step(model, entries, SHAPE, CPU, chosen)

    def train() -> None:
        """Make one step."""
        with mock.patch.object(output, "MIN_CHUNKED", WAYS[way]):
            step()

    return train, f"{chosen.name}, {chosen.kernels}" if chosen.kernels else chosen.name


def model_of(layers: int, hidden: int) -> ModelSettings:
    """Return a model of words."""
    return ModelSettings(
        num_layers=layers, hidden_size=hidden, embedding_size=hidden, tie_weights=True
    )


def apart(*arguments: str) -> str:
    """Return the memory of a way, measured in a process of its own."""
    program = [sys.executable, __file__, "--peak", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()


def peak(entries: int, layers: int, hidden: int, precision: str, way: str) -> str:
    """Return the most memory of three steps beyond what the process held before them, in GB."""
    step_of(64, 1, 8, "fp32", way)[0]()
    before = memory("VmRSS")
    step, _ = step_of(entries, layers, hidden, precision, way)
    for _step in range(3):
        step()
    return f"{(memory('VmHWM') - before) / 1e9:.2f}"


def memory(name: str) -> int:
    """Return a figure of this process in bytes, from Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()

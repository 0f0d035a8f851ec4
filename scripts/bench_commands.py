"""Measure the time of commands that read runs and texts, from their start to their end.

    python scripts/bench_commands.py [--rounds 5] [--runs 200]

Each command is a process of its own, as a user starts it, with output to a pipe. The texts are
10,000 characters of the built-in corpus; the runs are copies of a small one, which was trained for
2,000 steps so that its curve has a few hundred records. Prints the least and the median of the
seconds of each command, the least of its processor seconds (other load changes them little), and
its target if it has one.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TALES = Path(__file__).resolve().parent.parent / "corpora" / "tales.txt"
CHARLM = [sys.executable, "-m", "charlm"]
PLOTTED = 8


def main() -> None:
    """Make the runs, then run each command in turns and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_text(TALES.read_text(encoding="utf-8")[:10_000], encoding="utf-8")
        make_runs(folder, arguments.runs)
        times: dict[str, list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds + 1):
            for (label, _), command in zip(TARGETS, commands(text), strict=True):
                times.setdefault(label, []).append(seconds(command, folder))
    for label, target in TARGETS:
        measured, processor = zip(*times[label][1:], strict=True)  # the first reads files
        limit = f", target {target}" if target else ""
        print(
            f"{label:32} {min(measured):.2f} s, median {statistics.median(measured):.2f} s, "
            f"processor {min(processor):.2f} s{limit}"
        )


TARGETS = [
    ("--version", None),
    ("--help", 0.35),
    ("score, one sentence", 0.35),
    ("next", 0.35),
    ("sample --len 1", 0.35),
    ("inside, tales", 0.6),
    ("inside --unit, tales", 0.6),
    ("inside, prose", 0.6),
    ("inside --unit, prose", 0.6),
    ("runs", 0.3),
    ("plot of 8 runs", 0.5),
]
"""Commands by their names, in the order of `commands`, and the most seconds that each may take."""


def commands(text: Path) -> list[list[str]]:
    """Return the arguments of each command."""
    inside = ["inside", "--file", str(text), "--run"]
    return [
        ["--version"],
        ["--help"],
        ["score", "The king is here.", "--run", "tales"],
        ["next", "The king", "--run", "tales"],
        ["sample", "--len", "1", "--run", "tales"],
        [*inside, "tales"],
        [*inside, "tales", "--unit", "2:8"],
        [*inside, "prose"],
        [*inside, "prose", "--unit", "1:77"],
        ["runs"],
        ["plot", *(f"run{number}" for number in range(PLOTTED))],
    ]


def make_runs(folder: Path, count: int) -> None:
    """Train a small run and copy it."""
    sizes = ["--hidden", "8", "--layers", "1", "--batch", "8", "--bptt", "8", "--steps", "2000"]
    train = ["-q", "train", str(TALES), "--name", "run0", "--ngram", "0", "--seed", "1", *sizes]
    subprocess.run([*CHARLM, *train], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    runs = folder / "checkpoints"
    for number in range(1, max(count, PLOTTED)):
        shutil.copytree(runs / "run0", runs / f"run{number}", ignore=shutil.ignore_patterns("data"))


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Return seconds and processor seconds of a command, with compiled modules as users have."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start, before = time.perf_counter(), processor_seconds()
    subprocess.run(
        [*CHARLM, *command], cwd=folder, env=environment, check=True, capture_output=True
    )
    return time.perf_counter() - start, processor_seconds() - before


def processor_seconds() -> float:
    """Return the processor seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

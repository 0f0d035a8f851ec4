"""Measure how much faster several threads train than one, with short and with long spins.

    python scripts/measure_threads.py [--hidden 32 128 512] [--threads 1 2] [--rounds 3]

The rule `OPERATIONS_PER_THREAD` of `charlm/training/plan/constants.py` rests on these figures. Each
row is one LSTM layer with 32 sequences of 32 characters; numbers of threads take turns. `spins` are
those of OpenMP's threads while they wait: `short` as charlm sets them, `long` as they are if torch
is imported first. `--precision native` measures the compiled training kernels. Prints tokens a
second (median of the rounds), the speed relative to that of the first number of threads, and
processor seconds for a million tokens. On a busy machine, only rows of one call can be compared.
More threads than cores show what they cost, not what they gain.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

VOCABULARY, STEPS, SEQUENCES = 64, 32, 32
SPINS = {"short": "charlm, torch", "long": "torch, charlm"}
"""Order of imports for each kind of spins."""


def main() -> None:
    """Start a process for each kind of spins, and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 128, 256, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    parser.add_argument("--spins", nargs="+", choices=SPINS, default=list(SPINS))
    parser.add_argument("--precision", choices=["fp32", "bf16", "native"], default="fp32")
    options = parser.parse_args()
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    print(
        "| spins | units | operations of a step | threads | tokens/s | relative | CPU s/million |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for spins in options.spins:
        values = {**vars(options), "spins": spins}
        code = f"import {SPINS[spins]}, measure_threads; measure_threads.print_rows(**{values})"
        folders = {"PYTHONPATH": str(Path(__file__).resolve().parent)}
        subprocess.run([sys.executable, "-c", code], check=True, env=clean | folders)


def print_rows(
    *,
    spins: str,
    hidden: list[int],
    threads: list[int],
    rounds: int,
    seconds: float,
    precision: str,
) -> None:
    """Measure in this process, and print the rows of one kind of spins."""
    import torch

    from charlm.backends.training_library import chosen_variant
    from charlm.config.model import ModelSettings
    from charlm.nn.devices import Precision
    from charlm.nn.heap import keep_freed_memory
    from charlm.nn.model import multiplied_weights
    from charlm.training.plan.speed import measured_speed, operations_per_token

    keep_freed_memory()
    way = Precision(name="fp32" if precision == "fp32" else "bf16", reason="measured")
    if precision == "native":
        way = replace(way, kernels=chosen_variant())
    for size in hidden:
        settings = ModelSettings(num_layers=1, hidden_size=size, embedding_size=min(size, 128))
        settings = replace(settings, tie_weights=False, dropout=0.0)
        weights = multiplied_weights(settings, VOCABULARY)
        paces: dict[int, list[float]] = {number: [] for number in threads}
        spent: dict[int, list[float]] = {number: [] for number in threads}
        for _round in range(rounds):
            for number in threads:
                torch.set_num_threads(number)
                wall, processor = time.perf_counter(), time.process_time()
                speed = measured_speed(
                    settings, VOCABULARY, (STEPS, SEQUENCES), torch.device("cpu"),
                    way, seconds,
                )  # fmt: skip
                busy = (time.process_time() - processor) / (time.perf_counter() - wall)
                pace = speed / operations_per_token(settings, VOCABULARY)
                paces[number].append(pace)
                spent[number].append(1e6 * busy / pace)
        first = statistics.median(paces[threads[0]])
        for number in threads:
            pace = statistics.median(paces[number])
            print(
                f"| {spins} | {size} | {2.0 * SEQUENCES * weights / 1e6:.1f} million | {number} "
                f"| {pace:,.0f} | {pace / first:.2f} | {statistics.median(spent[number]):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

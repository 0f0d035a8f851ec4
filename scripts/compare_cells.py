"""Compare all cells with equal numbers of weights and equal training time, as a table.

    python scripts/compare_cells.py TEXT [--params 2M] [--minutes 6] [--cells lstm gru] [--seed 1]

First the speed of each cell is measured, half a minute each; keep the machine idle. Then each cell
is trained for the steps that the time allows at that speed, so results do not depend on other load.
Speeds and runs are kept under --checkpoints and are not measured again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from charlm.config.cells import CELLS

PROGRAM = [sys.executable, "-c", "from charlm.cli import main; main()", "-q", "train"]
SPEED_MINUTES = 0.4


def main() -> None:
    """Measure, train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--params", default="2M")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=CELLS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--threads", type=int, help="threads for training; speeds use all cores")
    options = parser.parse_args()
    arguments = [options.text, "--params", options.params, "--seed", str(options.seed)]
    kind = f"{Path(options.text).stem}-{options.params}-seed{options.seed}"
    folder = options.checkpoints / f"{kind}-{options.minutes:g}min"
    speeds = {cell: speed(cell, arguments, folder) for cell in options.cells}
    print("| cell | size | weights | tokens/s | passes | nats/char |")
    print("|---|---:|---:|---:|---:|---:|")
    threads = ["--threads", str(options.threads)] if options.threads else []
    for cell, tokens_per_second in speeds.items():
        tokens = tokens_per_second * 60 * options.minutes
        run = trained(cell, [*arguments, *threads], tokens, folder)
        print(row(run, tokens_per_second), flush=True)
    print(f"\n{options.params} weights, {options.minutes:g} minutes, seed {options.seed}, "
          f"{date.today().isoformat()}, {os.cpu_count()} cores.")  # fmt: skip


def speed(cell: str, arguments: list[str], checkpoints: Path) -> float:
    """Return the tokens per second of training, without validation."""
    path = checkpoints / f"speed-{cell}"
    if not finished(path):
        train(path, [*arguments, "--cell", cell, "--minutes", str(SPEED_MINUTES)])
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return float(steps[-1]["tokens_per_second"])


def trained(cell: str, arguments: list[str], tokens: float, checkpoints: Path) -> dict[str, Any]:
    """Return the record of a run over this number of tokens."""
    path = checkpoints / f"cell-{cell}"
    if not finished(path):
        plan = record(checkpoints / f"speed-{cell}")["settings"]["training"]
        steps = max(round(tokens / (plan["batch_size"] * plan["bptt"])), 1)
        train(path, [*arguments, "--cell", cell, "--steps", str(steps)])
    return record(path)


def train(path: Path, arguments: list[str]) -> None:
    """Train one run. An interrupted run of this name is removed first."""
    shutil.rmtree(path, ignore_errors=True)
    place = ["--name", path.name, "--checkpoints", str(path.parent)]
    subprocess.run([*PROGRAM, *arguments, *place], check=True)


def finished(path: Path) -> bool:
    """Return whether the run is finished."""
    return (path / "run.json").exists() and record(path)["status"] == "finished"


def record(path: Path) -> dict[str, Any]:
    """Return the content of run.json."""
    content: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
    return content


def row(run: dict[str, Any], tokens_per_second: float) -> str:
    """Return one line of the table."""
    model, results = run["settings"]["model"], run["results"]
    passes = results["tokens"] / run["corpus"]["parts"]["train"]["tokens"]
    return (
        f"| `{model['cell']}` | {model['num_layers']} x {model['hidden_size']} "
        f"| {run['parameters']:,} | {tokens_per_second:,.0f} | {passes:.1f} "
        f"| {results['valid']['nats_per_token']:.4f} |"
    )


if __name__ == "__main__":
    main()

"""Inject thousands of faults: kills, failing disks, damaged files, hostile texts, long runs,
slow and hostile clients of a server.

    scripts/torture [--quick] [--only NAME ...] [--json FILE]

Prints one table: the faults, how many were injected, how many charlm survived. Exits with 1 if
anything was lost, or accepted that should not have been. Uses the harness of tests/faults.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from charlm.api.loading import load_model
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.errors import CharlmError
from charlm.report.tables import plain_table
from charlm.text.dataset import load_dataset
from charlm.training import trainer as trainer_module
from torture_bench import QUICK, Amounts, Bench, Row, harness
from torture_inputs import damaged_runs, hostile_settings, hostile_texts, large_texts
from torture_server import server_faults
from torture_writes import (
    bit_flips,
    disk_errors,
    full_disk,
    kills_at_points,
    kills_at_random,
    system_calls,
)


def reads_while_saving(bench: Bench) -> Iterator[Row]:
    """Load and sample a run while its training saves after every record."""
    session = harness.begin(bench.folder, "saving", steps=10**8, valid_frac=0.0)
    path = session.path
    session.lock.release(force=True)
    child = harness.begin_child(lambda: list(harness.resume(path).records()))
    limit = time.monotonic() + 60.0
    while not (path / "model.safetensors").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    good, models = 0, set()
    for _ in range(bench.amounts.reads):
        try:
            run = load_model(path, engine="numpy")
            good += len(run.sample(10, seed=1)) == 10
            models.add(harness.read_weights(path))
        except CharlmError as error:
            print(f"read while saving: {error}", file=sys.stderr)
    os.kill(child, 9)
    os.waitpid(child, 0)
    good -= bool(harness.problems(path))
    yield Row("samples while training saves", bench.amounts.reads, good,
              f"{len(models)} different models seen")  # fmt: skip


def cache_builders(bench: Bench) -> Iterator[Row]:
    """Build the cache of one text in two processes at the same time."""
    from charlm.text import idcache

    path = bench.folder / "cached.txt"
    path.write_text("to be or not to be\n" * 200)
    idcache.CACHED_FROM_BYTES = 0
    options = CorpusSettings(sources=(str(path),)), VocabularySettings()
    cache = bench.folder / "cache"
    expected = load_dataset(*options, cache=bench.folder / "cache0").train.ids.tobytes()
    good = 0
    for _ in range(bench.amounts.builders):
        shutil.rmtree(cache, ignore_errors=True)

        def build() -> None:
            if load_dataset(*options, cache=cache).train.ids.tobytes() != expected:
                os._exit(9)

        other = harness.begin_child(build)
        mine = harness.in_child(build)
        _, theirs = os.waitpid(other, 0)
        good += mine == 0 == theirs and not list(cache.glob(".*"))
    idcache.CACHED_FROM_BYTES = 64 << 20
    yield Row("two builders of one cache", bench.amounts.builders, good)


def long_run(bench: Bench) -> Iterator[Row]:
    """Compare the memory of a tiny model's training early and late."""
    steps = bench.amounts.steps
    report = bench.folder / "memory.json"

    def work() -> None:
        session = harness.begin(bench.folder, "long", steps=steps, evals=5, save_minutes=0.05)
        seen = {}
        for record in session.records():
            if record.kind == "step":
                seen[record.step] = _resident()
        report.write_text(json.dumps(seen))

    status = harness.in_child(work)
    seen = {int(step): kb for step, kb in json.loads(report.read_text()).items()}
    early = max(kb for step, kb in seen.items() if step <= steps // 10)
    late = max(seen.values())
    grown = (late - early) / 1024
    yield Row(f"steps of one training ({steps:,})", 1, int(status == 0 and grown < 8),
              f"memory after a tenth of them {early / 1024:.0f} MB, highest later "
              f"{grown:+.1f} MB")  # fmt: skip


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


TORTURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "kills": kills_at_random, "points": kills_at_points, "disk": disk_errors,
    "calls": system_calls, "full": full_disk, "flips": bit_flips,
    "runs": damaged_runs, "texts": hostile_texts, "settings": hostile_settings,
    "reads": reads_while_saving, "cache": cache_builders, "long": long_run, "large": large_texts,
    "server": server_faults,
}  # fmt: skip


def main() -> None:
    """Run all faults, or some, and print the table. Exits with 1 if a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few faults of each kind: two minutes"
    )
    parser.add_argument("--only", nargs="*", choices=TORTURES, default=list(TORTURES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainer_module.LOG_EVERY = 3
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="charlm-torture-") as folder:
        bench = Bench(Path(folder), QUICK if arguments.quick else Amounts())
        for name in arguments.only:
            begun = time.monotonic()
            for row in TORTURES[name](bench):
                rows.append(row)
                seconds = time.monotonic() - begun
                counts = f"{row.survived:,} of {row.injected:,}"
                print(f"{row.kind}: {counts} ({seconds:.0f} s)", flush=True)
    table = plain_table("<fault", "injected", "survived", "<notes")
    for row in rows:
        table.add_row(row.kind, f"{row.injected:,}", f"{row.survived:,}", row.note)
    Console(width=120, highlight=False).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if any(row.survived < row.injected for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

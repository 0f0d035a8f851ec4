"""Faults while a run is written: kills, failing disks, turned bits."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from charlm.errors import CharlmError, EnvironmentFailure
from charlm.files import atomic
from charlm.files.safe_read import read_json
from charlm.runs.checkpoints import checkpoint_folders, checkpoint_problems
from torture_bench import Bench, Row, harness


def kills_at_random(bench: Bench) -> Iterator[Row]:
    """Kill training after random times, resume until it ends, and compare; repeat."""
    generator = random.Random(1)
    begun = time.monotonic()
    harness.finish(bench.folder / "timed")
    usual = 1.3 * (time.monotonic() - begun)
    kills = good = runs = 0
    while kills < bench.amounts.kills:
        runs += 1
        path = bench.folder / f"kill{runs}"
        mine, status = 0, harness.DIED
        while status == harness.DIED:
            child = harness.begin_child(lambda p=path: harness.train_on(p))
            time.sleep(generator.uniform(0.0, usual))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            status = harness.forked.end_of(child)
            mine += status == harness.DIED
        kills += mine
        if status:
            print(f"training ended with {status} after {mine} kills", file=sys.stderr)
            continue
        good += mine * bench.as_expected(path)
        shutil.rmtree(path)
    yield Row("kill -9 at random moments", kills, good, f"{runs} runs, all identical")


def _at_each_point(bench: Bench, action: Callable[[], None], name: str) -> tuple[int, int]:
    good = 0
    for number in itertools.count(1):
        path = bench.folder / f"{name}{number}"

        def work(path: Path = path, number: int = number) -> None:
            with harness.Points(number, action) as points:
                try:
                    harness.train_on(path)
                finally:
                    (bench.folder / "label").write_text(points.label)

        (bench.folder / "label").write_text("died")
        harness.in_child(work)
        if not (bench.folder / "label").read_text():
            return number - 1, good
        whole = not (path / "run.json").exists() or harness.problems(path) == []
        harness.train_on(path)
        whole = whole and harness.problems(path) == []
        weights = harness.newest_files(path)["weights"] == bench.expected["weights"]
        good += whole and weights
        shutil.rmtree(path)
    raise AssertionError


def kills_at_points(bench: Bench) -> Iterator[Row]:
    """Kill training at the n-th write of a run, for every n."""
    yield Row("kill -9 at every write", *_at_each_point(bench, harness.die, "die"))


def disk_errors(bench: Bench) -> Iterator[Row]:
    """Report a full disk at the n-th write of a run, for every n."""
    counts = _at_each_point(bench, harness.full, "full")
    yield Row("disk full at every write", *counts)


def system_calls(bench: Bench) -> Iterator[Row]:
    """Let the n-th system call of a save fail or kill it, for every n."""
    if not shutil.which("strace"):
        yield Row("system calls of a save", 0, 0, "strace is not installed")
        return
    for fault in ("error=ENOSPC", "error=EIO", "error=EROFS", "error=EDQUOT", "signal=KILL"):
        injected = good = 0
        touched = [True]
        for call, number in _until_untouched(("write", "fsync", "rename", "mkdir"), touched):
            folder = bench.folder / "calls"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "file").write_bytes(b"old")
            atomic.commit_folder(folder / "state", {"a": b"old", "b": b""}, {"format": 1})
            log = bench.folder / "strace"
            command = ["strace", "-f", "-qq", "-o", str(log), f"--trace={call}",
                       f"--inject={call}:{fault}:when={number}"]  # fmt: skip
            command += [sys.executable, "-c", harness.SAVING, str(folder)]
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
            seen = log.read_text()
            touched[0] = "INJECTED" in seen or "SIGKILL" in seen
            if not touched[0]:
                continue
            injected += 1
            files = (folder / "file").read_bytes() in (b"old", b"new" * 1000)
            states = [path for path in (folder / "state", folder / "state~") if path.exists()]
            whole = any(
                not atomic.manifest_problems(path, read_json(path / atomic.MANIFEST))
                for path in states
            )
            good += files and whole
        yield Row(f"system calls of a save, {fault}", injected, good, "write, fsync, rename, mkdir")


def _until_untouched(calls: tuple[str, ...], touched: list[bool]) -> Iterator[tuple[str, int]]:
    """Yield each call with 1, 2, ... until that number was not reached."""
    for call in calls:
        for number in itertools.count(1):
            yield call, number
            if not touched[0]:
                break


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a file system of 16 MB; None without the right to mount."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def full_disk(bench: Bench) -> Iterator[Row]:
    """Fill the file system during training, including its log, and free it later."""
    with small_disk(bench.folder) as disk:
        if disk is None:
            yield Row("file system that is full", 0, 0, "no right to mount")
            return
        injected = good = 0
        for records in range(1, 9):
            session = harness.begin(disk, f"r{records}")
            path = session.path
            filled = disk / "filler"
            with contextlib.suppress(EnvironmentFailure):
                for number, _ in enumerate(session.records(), start=1):
                    if number == records:
                        with contextlib.suppress(OSError), filled.open("wb") as file:
                            while True:
                                file.write(b"x" * 4096)
                                file.flush()
                        with contextlib.suppress(OSError), (path / "log-too").open("wb") as file:
                            file.write(b"x" * 4095)
            session.lock.release(force=True)
            injected += 1
            whole = harness.problems(path)
            filled.unlink(missing_ok=True)
            (path / "log-too").unlink(missing_ok=True)
            harness.train_on(path)
            weights = harness.newest_files(path)["weights"] == bench.expected["weights"]
            good += not whole and weights and harness.problems(path) == []
            shutil.rmtree(path)
        yield Row("file system that is full", injected, good, "tmpfs of 16 MB; freed and resumed")


def bit_flips(bench: Bench) -> Iterator[Row]:
    """Flip single bits of a checkpoint, and cut its files to every length."""
    generator = random.Random(2)
    path = bench.folder / "flips"
    shutil.copytree(bench.whole, path)
    detected = 0
    files = [file for file in harness.run_files(path) if file.name != "metrics.jsonl"]
    sizes = [file.stat().st_size for file in files]
    for _ in range(bench.amounts.flips):
        file = generator.choices(files, sizes)[0]
        data = bytearray(file.read_bytes())
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(data)
        detected += bool(_anything_wrong(path))
        file.write_bytes(whole)
    yield Row("bits flipped in a checkpoint", bench.amounts.flips, detected, "found by verify")
    state = checkpoint_folders(path)[0]
    cut = detected = 0
    for file in sorted(state.iterdir()):
        whole = file.read_bytes()
        step = max(1, len(whole) // bench.amounts.flips)
        for length in range(0, len(whole), step):
            file.write_bytes(whole[:length])
            cut += 1
            detected += bool(checkpoint_problems(state))
        file.write_bytes(whole)
    yield Row("files of a checkpoint cut short", cut, detected, "every length" if step == 1 else "")


def _anything_wrong(path: Path) -> bool:
    try:
        return bool(harness.problems(path))
    except CharlmError:
        return True

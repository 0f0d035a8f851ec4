"""Faults by the thousand: kills, failing disks, damaged files, hostile texts, long runs.

    scripts/torture [--quick] [--only NAME ...] [--json FILE]

Prints one table: what was injected, how often, how often charlm came through. Exits 1 when
anything was lost or accepted that should not have been. The harness is that of tests/faults.
"""

import argparse
import bz2
import contextlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests"), str(ROOT)]

import harness  # type: ignore[import-not-found]  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from charlm.api.model import load  # noqa: E402
from charlm.config.corpus import CorpusSettings, VocabularySettings  # noqa: E402
from charlm.config.settings import Settings, settings_from  # noqa: E402
from charlm.config.text_units import UNITS  # noqa: E402
from charlm.errors import CharlmError, EnvironmentFailure  # noqa: E402
from charlm.files import atomic  # noqa: E402
from charlm.files.safe_read import read_json  # noqa: E402
from charlm.report.tables import plain_table  # noqa: E402
from charlm.runs.checkpoints import checkpoint_folders, checkpoint_problems  # noqa: E402
from charlm.text.corpus import Corpus  # noqa: E402
from charlm.text.dataset import load_dataset  # noqa: E402
from charlm.training import trainer as trainer_module  # noqa: E402


@dataclass
class Row:
    """One kind of fault: how often it was injected, how often all was well, what was seen."""

    kind: str
    injected: int
    survived: int
    note: str = ""


@dataclass
class Amounts:
    """How much of everything."""

    kills: int = 500
    flips: int = 1000
    runs: int = 20_000
    texts: int = 40_000
    settings: int = 40_000
    reads: int = 1000
    builders: int = 100
    steps: int = 100_000
    gigabytes: float = 1.0


QUICK = Amounts(20, 100, 300, 500, 1000, 50, 5, 2000, 0.05)


class Bench:
    """A folder for everything, a run that was never disturbed, and seeds."""

    def __init__(self, folder: Path, amounts: Amounts) -> None:
        self.folder, self.amounts = folder, amounts
        self.whole = harness.finish(folder / "whole")
        self.expected = harness.newest_files(self.whole)

    def as_expected(self, path: Path) -> bool:
        """Whether a run is whole and has the bits of the one that was never disturbed."""
        same: bool = harness.newest_files(path) == self.expected
        return same and harness.problems(path) == []


def kills_at_random(bench: Bench) -> Iterator[Row]:
    """SIGKILL after a random time; resumed until it is through; compared to the bit; and again."""
    draws = random.Random(1)
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
            time.sleep(draws.uniform(0.0, usual))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            status = harness.end_of(child)
            mine += status == harness.DIED
        kills += mine
        if status:
            print(f"training ended with {status} after {mine} kills", file=sys.stderr)
            continue
        good += mine * bench.as_expected(path)
        shutil.rmtree(path)
    yield Row("kill -9 at random moments", kills, good, f"{runs} runs, each the same to the bit")


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
    """SIGKILL at the n-th point of writing of a run, for every n."""
    yield Row("kill -9 at every point of writing", *_at_each_point(bench, harness.die, "die"))


def disk_errors(bench: Bench) -> Iterator[Row]:
    """ENOSPC at the n-th point of writing of a run, for every n."""
    counts = _at_each_point(bench, harness.full, "full")
    yield Row("disk full at every point of writing", *counts)


def system_calls(bench: Bench) -> Iterator[Row]:
    """The n-th system call of a save fails, or kills, for every n until a save is untouched."""
    if not shutil.which("strace"):
        yield Row("system calls of a save", 0, 0, "strace is not here")
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
    """The first call of each kind, then the second, ... until one was not met."""
    for call in calls:
        for number in itertools.count(1):
            yield call, number
            if not touched[0]:
                break


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of sixteen megabytes, where one may be made."""
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
    """A file system that fills up while a training runs, its log included, and is cleared later."""
    with small_disk(bench.folder) as disk:
        if disk is None:
            yield Row("file system that is full", 0, 0, "no right to mount one")
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
        yield Row(
            "file system that is full", injected, good, "tmpfs of 16 MB; freed and gone on with"
        )


def bit_flips(bench: Bench) -> Iterator[Row]:
    """One bit of a checkpoint turned; every length that a file of it can be cut to."""
    draws = random.Random(2)
    path = bench.folder / "flips"
    shutil.copytree(bench.whole, path)
    found = 0
    files = [file for file in harness.run_files(path) if file.name != "metrics.jsonl"]
    sizes = [file.stat().st_size for file in files]
    for _ in range(bench.amounts.flips):
        file = draws.choices(files, sizes)[0]
        data = bytearray(file.read_bytes())
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(data)
        found += bool(_anything_wrong(path))
        file.write_bytes(whole)
    yield Row("bits turned in a checkpoint", bench.amounts.flips, found, "found by verify")
    state = checkpoint_folders(path)[0]
    cut = found = 0
    for file in sorted(state.iterdir()):
        whole = file.read_bytes()
        step = max(1, len(whole) // bench.amounts.flips)
        for length in range(0, len(whole), step):
            file.write_bytes(whole[:length])
            cut += 1
            found += bool(checkpoint_problems(state))
        file.write_bytes(whole)
    yield Row("files of a state cut short", cut, found, "every length" if step == 1 else "")


def _anything_wrong(path: Path) -> bool:
    try:
        return bool(harness.problems(path))
    except CharlmError:
        return True


def damaged_runs(bench: Bench) -> Iterator[Row]:
    """Files of a run changed at random, read in every way."""
    liar = harness.Liar(bench.whole, 3)
    good, slowest, refused = 0, 0.0, 0
    for _ in range(bench.amounts.runs):
        file, mended = liar.lie()
        try:
            verdicts, begun = [], time.monotonic()
            for name in ("load", "info", "verify"):
                verdicts.append(harness.judge(liar.path, name))
                if verdicts[-1].refused:
                    slowest = max(slowest, time.monotonic() - begun)
                begun = time.monotonic()
            if not mended and not verdicts[-1].refused:
                same = harness.read_weights(liar.path) == liar.weights
                if not same or harness.read_all(liar.path) != liar.told:
                    raise AssertionError(f"verify passes a damaged {file.name}")
            if liar.draws.random() < 0.02:
                verdicts.append(harness.judge(liar.path, "resume"))
            refused += any(verdict.refused for verdict in verdicts)
            good += 1
        except Exception as error:  # whatever is no refusal is what is looked for
            print(f"damaged run: {type(error).__name__}: {error}", file=sys.stderr)
        liar.fresh()
    liar.close()
    note = f"{refused:,} refused, the slowest in {slowest:.2f} s; the others read as before"
    yield Row("damaged runs", bench.amounts.runs, good, note)


LETTERS = "ab \n\t\r\0\x1b\u2028\ufeff猫👩‍🚀é\U0010ffff\x85"


def _some_text(draws: random.Random) -> str:
    length = draws.choice((0, 1, 2, 3, 10, 100))
    return "".join(
        draws.choice(LETTERS) if draws.random() < 0.7 else chr(draws.randrange(0x110000))
        for _ in range(length)
    )


def hostile_texts(bench: Bench) -> Iterator[Row]:
    """Random bytes and characters through reading, vocabulary, encoding and decoding."""
    draws = random.Random(4)
    path = bench.folder / "hostile.txt"
    good = refused = 0
    for _ in range(bench.amounts.texts):
        if draws.random() < 0.5:
            data = _some_text(draws).encode("utf-8", "surrogatepass")
        else:
            data = draws.randbytes(draws.choice((1, 2, 9, 99)))
        path.write_bytes(data)
        unit = draws.choices(list(UNITS), [6, 6, 1, 0.1])[0]
        document = draws.choice(("stream", "line", "paragraph"))
        try:
            corpus = Corpus([str(path)], document=document)
            found = load_dataset(CorpusSettings(valid_frac=0.0), VocabularySettings(unit=unit),
                                 corpus=corpus)  # fmt: skip
            text = found.vocabulary.decode(found.train.ids)
            unknown = unit == "word" or "\ufffd" in text  # rare words are not in the vocabulary
            whole = data.decode("utf-8").removeprefix("\ufeff")
            if document == "line":  # its end symbols show as line ends
                whole = whole.removesuffix("\n") + "\n"
            good += unknown or document == "paragraph" or text == whole
        except CharlmError as error:
            refused += 1
            good += error.exit_code == 3
        except Exception as error:
            print(f"hostile text {data!r}: {type(error).__name__}: {error}", file=sys.stderr)
    note = (
        f"{refused:,} refused with exit 3; of the others streams and lines decode to what they were"
    )
    yield Row("hostile texts", bench.amounts.texts, good, note)


def hostile_settings(bench: Bench) -> Iterator[Row]:
    """Random values for random settings."""
    draws = random.Random(5)
    plain = Settings().to_dict()
    values = [*harness.VALUES, 10**400, float("nan"), float("inf"), "lstm", 0.5, 1e-300, "auto"]
    good = refused = 0
    for _ in range(bench.amounts.settings):
        content: dict[str, Any] = {}
        for _ in range(draws.randrange(1, 4)):
            section = draws.choice(list(plain))
            name = draws.choice([*plain[section], "x"])
            content.setdefault(section, {})[name] = draws.choice(values)
        try:
            settings_from(content)
            good += 1
        except CharlmError as error:
            refused += 1
            good += error.exit_code == 2 and len(str(error)) < 2000
        except Exception as error:
            print(f"settings {content}: {type(error).__name__}: {error}", file=sys.stderr)
    yield Row("hostile settings", bench.amounts.settings, good, f"{refused:,} refused with exit 2")


def reads_while_saving(bench: Bench) -> Iterator[Row]:
    """A training that saves after every record, and a reader that loads and samples."""
    session = harness.begin(bench.folder, "saving", steps=10**8, valid_frac=0.0)
    path = session.path
    session.lock.release(force=True)
    child = harness.begin_child(lambda: list(harness.resume(path).records()))
    limit = time.monotonic() + 60.0
    while not (path / "model.safetensors").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    good, sums = 0, set()
    for _ in range(bench.amounts.reads):
        try:
            run = load(path, engine="numpy")
            good += len(run.sample(10, seed=1)) == 10
            sums.add(harness.read_weights(path))
        except CharlmError as error:
            print(f"read while saving: {error}", file=sys.stderr)
    os.kill(child, 9)
    os.waitpid(child, 0)
    good -= bool(harness.problems(path))
    yield Row("samples drawn while training saves", bench.amounts.reads, good,
              f"{len(sums)} different models seen")  # fmt: skip


def cache_builders(bench: Bench) -> Iterator[Row]:
    """Processes that build the cache of one text at the same moment."""
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
    """Memory of a tiny model's training, early and late."""
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
              f"memory after a tenth of them {early / 1024:.0f} MB, highest after it "
              f"{grown:+.1f} MB")  # fmt: skip


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def _measured(*arguments: str, limit: float = 900.0, folder: Path) -> tuple[int, int, float]:
    """Exit code, highest memory in MB and seconds of a command."""
    begun = time.monotonic()
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", "charlm", *arguments], cwd=ROOT, stdout=nowhere, stderr=nowhere,
        env=os.environ | {"CHARLM_CACHE": str(folder / "big-cache")},
    )  # fmt: skip
    highest = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peaks = [int(line.split()[1]) for line in told if line.startswith("VmHWM")]
            highest = max([highest, *peaks])
        if time.monotonic() - begun > limit:
            process.kill()
        time.sleep(0.02)
    return process.returncode, highest // 1024, time.monotonic() - begun


def large_texts(bench: Bench) -> Iterator[Row]:
    """A long line, a sparse file, a bomb: memory and time."""
    folder, size = bench.folder, bench.amounts.gigabytes
    common = ["--hidden", "8", "--layers", "1", "--checkpoints", str(folder / "ck")]
    path = folder / "small.txt"
    path.write_text("the apple and pear salad " * 4000)
    _, usual, _ = _measured("train", str(path), "--steps", "3", *common, folder=folder)
    path = folder / "line.txt"
    with path.open("wb") as file:
        for _ in range(int(1000 * size)):
            file.write(b"the apple and pear salad " * 40_000)
    status, vocabulary, seconds = _measured("vocab", str(path), folder=folder)
    yield Row(f"vocab of a line of {size:g} GB", 1, int(status == 0),
              f"{vocabulary} MB of memory, {seconds:.0f} s")  # fmt: skip
    status, highest, seconds = _measured("train", str(path), "--steps", "3", *common, folder=folder)
    extra = (highest - usual) / max(size, 0.001)
    most = 1500 if size >= 1 else 9000  # a small text is kept in memory as a whole
    yield Row(f"train on a line of {size:g} GB", 1, int(status == 0 and extra < most),
              f"{highest} MB of memory, {extra:.0f} MB for a GB above a small text, "
              f"{seconds:.0f} s")  # fmt: skip
    path.unlink()
    shutil.rmtree(folder / "big-cache", ignore_errors=True)
    with path.open("wb") as file:
        file.truncate(10 << 30)
    status, highest, seconds = _measured("train", str(path), *common, folder=folder)
    yield Row(
        "sparse file of 10 GB", 1, int(status == 3), f"{highest} MB, refused in {seconds:.1f} s"
    )
    path.unlink()
    packed = folder / "bomb.txt.bz2"
    packed.write_bytes(
        bz2.compress(b"ab \n" * (256 << 20)) if size >= 1 else bz2.compress(b"ab" * 9**7)
    )
    limit = 60.0
    status, highest, seconds = _measured("vocab", str(packed), limit=limit, folder=folder)
    yield Row("packed text that unpacks to 1 GB", 1, int(status in (0, 124) and highest < 500),
              f"{packed.stat().st_size:,} bytes packed; {highest} MB of memory")  # fmt: skip
    with Path("/dev/zero").open("rb") as zero:
        begun = time.monotonic()
        found = subprocess.run([sys.executable, "-m", "charlm", "train", "-", *common], cwd=ROOT,
                               stdin=zero, capture_output=True, check=False)  # fmt: skip
    yield Row("endless zeros on stdin", 1, int(found.returncode == 3),
              f"refused in {time.monotonic() - begun:.1f} s")  # fmt: skip


TORTURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "kills": kills_at_random, "points": kills_at_points, "disk": disk_errors,
    "calls": system_calls, "full": full_disk, "flips": bit_flips,
    "runs": damaged_runs, "texts": hostile_texts, "settings": hostile_settings,
    "reads": reads_while_saving, "cache": cache_builders, "long": long_run, "large": large_texts,
}  # fmt: skip


def main() -> None:
    """Run all, or some; print the table; exit 1 when something was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few of each, in two minutes")
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
                took = time.monotonic() - begun
                print(
                    f"{row.kind}: {row.survived:,} of {row.injected:,} ({took:.0f} s)", flush=True
                )
    table = plain_table("<fault", "injected", "survived", "<seen")
    for row in rows:
        table.add_row(row.kind, f"{row.injected:,}", f"{row.survived:,}", row.note)
    Console(width=120, highlight=False).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if any(row.survived < row.injected for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

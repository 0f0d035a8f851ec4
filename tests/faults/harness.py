"""Injected faults: processes that die at a chosen moment, full disks, damaged files.

The tests in this folder and `scripts/torture` use it. Training runs in a forked child, which can
be killed with SIGKILL; the functions below check the files that it leaves.
"""

import contextlib
import copy
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import forked
import numpy as np
from waiting import bounded

from charlm.config.settings import Settings, settings_from
from charlm.errors import CharlmError
from charlm.files import atomic
from charlm.runs.checkpoints import checkpoint_folders
from charlm.runs.layout import read_config, read_record
from charlm.runs.run import load_run
from charlm.runs.verify import verify_run
from charlm.text.corpus import Corpus
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.start import start

TEXT = "abc abd\nab ca\n" * 8
DIED = -signal.SIGKILL
REFUSALS = (3, 4, 5)
"""Exit codes of a refusal: the text, the run, the machine."""


def tiny_settings(*, valid_frac: float = 0.05, **training: Any) -> Settings:
    """Return a model of three units, twelve steps, and a save after every record."""
    values = {
        "steps": 12, "batch_size": 2, "bptt": 4, "evals": 3, "save_minutes": 0.0, "seed": 1,
        "precision": "fp32", "device": "cpu", "threads": 1, "learning_rate": 0.05,
    } | training  # fmt: skip
    model = {"hidden_size": 3, "embedding_size": 2, "num_layers": 1, "dropout": 0.2}
    return settings_from({"model": model, "training": values, "corpus": {"valid_frac": valid_frac}})


def impatient(session: Session) -> Session:
    """Return a session that does not wait for space if its end cannot be saved."""
    session.may_wait = False
    return session


def begin(folder: Path, name: str = "x", **training: Any) -> Session:
    """Start a new run."""
    corpus = Corpus.from_text(TEXT)
    return impatient(start(tiny_settings(**training), folder, name=name, corpus=corpus))


def resumed_or_begun(path: Path, **training: Any) -> Session:
    """Resume the run in a folder, or start it if there is none."""
    if (path / "run.json").exists():
        return impatient(resume(path))
    return begin(path.parent, path.name, **training)


def train_on(path: Path, **training: Any) -> None:
    """Train to the end; leave a complete run alone, as `charlm train --resume` does."""
    session = resumed_or_begun(path, **training)
    if session.complete:
        session.lock.release()
    else:
        list(session.records())


def finish(folder: Path, name: str = "x", **training: Any) -> Path:
    """Train a run without any fault, and return its folder."""
    session = begin(folder, name, **training)
    list(session.records())
    return session.path


def begin_child(work: Callable[[], object]) -> int:
    """Return the id of a forked process that does the work and exits as in `in_child`."""

    def refusable() -> None:
        try:
            work()
        except CharlmError as error:
            raise SystemExit(error.exit_code) from None

    return forked.begin(refusable)


def in_child(work: Callable[[], object]) -> int:
    """Do the work in a forked process and return its exit code, or minus the signal that killed it.

    A refusal has its own exit code; an unexpected error has 1.
    """
    return forked.end_of(begin_child(work))


def dying_at_call(number: int, work: Callable[[], object]) -> None:
    """Do the work, and die at the Python function call of this number."""
    count = 0

    def entered(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"
        if count == number:
            die()

    sys.setprofile(entered)
    try:
        work()
    finally:
        sys.setprofile(None)


@dataclass
class Points:
    """Count the labelled points of writing and run an action at one of them."""

    at: int
    action: Callable[[], None]
    label: str = ""
    count: int = 0

    def __call__(self, label: str) -> None:
        self.count += 1
        if self.count == self.at:
            self.label = label
            self.action()

    def __enter__(self) -> "Points":
        atomic.reached = self
        return self

    def __exit__(self, *_: object) -> None:
        atomic.reached = lambda label: None


def die() -> None:
    """Die as if by `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    """Fail like a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def newest_files(path: Path) -> dict[str, bytes]:
    """Return what must not differ by a bit: best weights, newest checkpoint, log without times."""
    newest = checkpoint_folders(path)[0]
    timed = ("seconds", "tokens_per_second", "notes")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text("utf-8").splitlines()]
    log = [{key: value for key, value in line.items() if key not in timed} for line in lines]
    return {
        "weights": (path / "model.safetensors").read_bytes(),
        newest.name: (newest / "state.safetensors").read_bytes(),
        "log": json.dumps(log).encode(),
    }


def problems(path: Path) -> list[str]:
    """Return what verify reports, except weights that are missing before the first validation."""
    reports = [problem for check in verify_run(path) for problem in check.problems]
    return [problem for problem in reports if "has no model.safetensors yet" not in problem]


@contextlib.contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let no file grow beyond this many bytes: writing then fails with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ------------------------------------------------------------------ damaged files

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 10**9, 10**18, "", "x", "../../x", [], {}, [1], {"a": 1},
)  # fmt: skip
SAVING = """
import sys
from pathlib import Path
from charlm.errors import EnvironmentFailure
from charlm.files.atomic import commit_folder, write_file
folder = Path(sys.argv[1])
try:
    write_file(folder / "file", b"new" * 1000)
    commit_folder(folder / "state", {"a": b"new" * 999, "b": b"n"}, {"format": 1})
except EnvironmentFailure:
    sys.exit(5)
"""
"""A save in a process of its own, for a tracer."""

UNCHECKED = (".lock", ".owner", "README.md")


def run_files(path: Path) -> list[Path]:
    """Return the files of a run that a reader opens."""
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in UNCHECKED)


def _places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield (*before, key)
            yield from _places(content[key], (*before, key))


def lie(data: bytes, draws: random.Random, *, is_json: bool) -> bytes:
    """Return damaged content: flipped, cut, added or removed bytes, or replaced JSON values."""
    if is_json and draws.random() < 0.6:
        with contextlib.suppress(ValueError):
            content = copy.deepcopy(json.loads(data))
            *way, last = draws.choice(list(_places(content)))
            inner = content
            for key in way:
                inner = inner[key]
            if draws.random() < 0.25:
                del inner[last]
            else:
                inner[last] = draws.choice(VALUES)
            return json.dumps(content).encode()
    damaged = bytearray(data)
    kind = draws.random()
    if kind < 0.6 and damaged:
        for _ in range(draws.choice((1, 1, 2, 8))):
            damaged[draws.randrange(len(damaged))] ^= 1 << draws.randrange(8)
    elif kind < 0.75 and damaged:
        del damaged[draws.randrange(len(damaged)) :]
    elif kind < 0.9:
        damaged += draws.randbytes(draws.choice((1, 8)))
    elif damaged:
        at = draws.randrange(len(damaged))
        del damaged[at : at + draws.randrange(1, 9)]
    return bytes(damaged)


def mend_manifests(path: Path) -> None:
    """Make the checksums match the damaged files, as an attacker would."""
    for folder in (path, *checkpoint_folders(path)):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            manifest = json.loads((folder / "MANIFEST.json").read_bytes())
            for name in manifest["files"]:
                data = (folder / name).read_bytes()
                sums = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                manifest["files"][name] = sums
            (folder / "MANIFEST.json").write_bytes(atomic.json_bytes(manifest))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        record = json.loads((path / "run.json").read_bytes())
        record.pop("sha256", None)  # without a sum nothing is compared
        (path / "run.json").write_bytes(atomic.json_bytes(record))


def read_weights(path: Path) -> str:
    """Return a hash of logits and vocabulary."""
    run = load_run(path)
    state = run.backend.initial_state(1)
    logits, _ = run.backend.logits(np.array([[1], [2], [3]]), state)
    content = np.asarray(logits).tobytes() + repr(run.vocabulary.tokens).encode()
    return hashlib.sha256(content).hexdigest()


def read_all(path: Path) -> str:
    """Return a hash of what `info` shows."""
    from charlm.report.runs import run_pairs, setting_rows

    config, record = read_config(path), read_record(path)
    pairs = run_pairs(Path(path.name), config, record), setting_rows(record, everything=True)
    return json.dumps([str(pair) for pair in pairs])


def train_a_little(path: Path) -> None:
    """Resume and train a few more steps."""
    session = resume(path, {"training": {"steps": 15}})
    try:
        for _ in zip(session.trainer.run(), range(2), strict=False):
            pass
    finally:
        session.lock.release()


READERS: dict[str, Callable[[Path], object]] = {
    "load": read_weights, "info": read_all, "verify": problems, "resume": train_a_little,
}  # fmt: skip


def refuses(path: Path, reader: str) -> bool:
    """Return whether a reader refuses a run. Any error that is not a refusal is raised."""
    try:
        with bounded():
            result = READERS[reader](path)
    except CharlmError as error:
        if error.exit_code not in REFUSALS:
            raise
        return True
    return reader == "verify" and bool(result)


class Liar:
    """A copy of a run with one damaged file at a time."""

    def __init__(self, run: Path, seed: int) -> None:
        self.whole, self.draws = run, random.Random(seed)
        self.folder = Path(tempfile.mkdtemp(prefix="charlm-lies-"))
        self.path = self.folder / "x"
        self.weights, self.facts = read_weights(run), read_all(run)
        self.fresh()

    def fresh(self) -> None:
        """Restore the undamaged run."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.whole, self.path)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def lie(self) -> tuple[Path, bool]:
        """Damage one file; return it, and whether the checksums were made to match."""
        path = self.draws.choice(run_files(self.path))
        data = path.read_bytes()
        path.write_bytes(lie(data, self.draws, is_json=path.suffix == ".json"))
        mended = path.name != "MANIFEST.json" and self.draws.random() < 0.3
        if mended:
            mend_manifests(self.path)
        return path, mended

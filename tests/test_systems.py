"""Windows and macOS: commands run without what these systems lack (see `systems.py`)."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from systems import SYSTEMS, environment

from charlm.errors import EnvironmentFailure
from charlm.files import atomic

TINY = "--steps 3 --hidden 4 --layers 1 --batch 2 --bptt 4 --seed 1 --threads 1 --device cpu"
COMMANDS = (
    f"train t.txt --name a {TINY}",
    f"train t.txt --name a {TINY} --overwrite",
    "train --resume --run a --steps 5",
    f"train t.txt --name two {TINY} --processes 2",
    "sample --run a --len 20 --seed 1",
    "score 'a cat, é' --run a",
    "score --file t.txt --run a --format jsonl",
    "eval --run a",
    "plot a --out a.svg",
    "ngram t.txt --name n",
    "runs rename a b",
    "runs export b b.zip",
    "runs import b.zip --name c",
    "push b me/b --dry-run",
    "verify --run b",
    "runs rm c --yes",
    "search t.txt --name s --minutes 0.02 --trial-minutes 0.01 --set hidden_size=4",
    "runs rm s --yes",
    "runs --json",
)
SESSION = """
import json, os, sys
from charlm.cli import main
assert sys.modules["charlm.cli"].sys.platform == sys.argv[1], "the system is not emulated"
for words in json.loads(sys.argv[2]):
    try:
        main(words)
    except SystemExit as ended:
        if ended.code:
            os._exit(f"{words}: {ended.code}" and print(words, file=sys.stderr) or 9)
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_commands_work_on_another_system(system: str, tmp_path: Path) -> None:
    """`rm`, `rename` and `--overwrite` failed on Windows, since the lock of a run is a file in it;
    `search` did, since Optuna's lock was a link."""
    (tmp_path / "t.txt").write_bytes(b"the cat sat.\nthe dog sat, too.\n" * 30)
    lines = json.dumps([shlex.split(line) for line in COMMANDS])
    done = subprocess.run(
        [sys.executable, "-c", SESSION, SYSTEMS[system][0], lines],
        cwd=tmp_path, env=environment(system, tmp_path), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    listed = re.findall(r'"name": "(\w+)"', done.stdout.decode().rpartition('"runs"')[2])
    assert {"b", "n", "two"} <= set(listed) and not {"a", "c", "s"} & set(listed)
    assert (tmp_path / "checkpoints" / "b" / "config.json").read_bytes().count(b"\r") == 0


class Refusing:
    """Refuses to rename a number of times with an error of Windows, or of another system."""

    def __init__(self, times: int, winerror: int | None) -> None:
        self.times, self.winerror, self.pauses = times, winerror, 0

    def __call__(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        def rename(path: Path, target: Path) -> Any:
            self.times -= 1
            if self.times < 0:
                return usual(path, target)
            error = PermissionError(13, "in use", str(path))
            if self.winerror is not None:
                error.winerror = self.winerror  # type: ignore[attr-defined]
            raise error

        return rename

    def pause(self, seconds: float) -> None:
        self.pauses += 1


def refuse(patch: pytest.MonkeyPatch, times: int, winerror: int | None) -> Refusing:
    refusing = Refusing(times, winerror)
    patch.setattr(Path, "replace", refusing(Path.replace))
    patch.setattr(Path, "rename", refusing(Path.rename))
    patch.setattr(atomic, "time", SimpleNamespace(sleep=refusing.pause))
    return refusing


@pytest.mark.parametrize("winerror", [5, 32])
def test_a_virus_scanner_delays_a_write_on_windows(
    winerror: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a new file open for a moment, in which the file cannot be renamed."""
    refusing = refuse(monkeypatch, 3, winerror)
    atomic.write_file(tmp_path / "file", b"new")
    assert (refusing.pauses, (tmp_path / "file").read_bytes()) == (3, b"new")
    refusing.times = 2
    atomic.commit_folder(tmp_path / "folder", {"a": b"1"}, {})
    assert (tmp_path / "folder" / "a").read_bytes() == b"1"
    assert refusing.pauses == 5


def test_a_program_that_keeps_a_file_open_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 100, 32)
    with pytest.raises(EnvironmentFailure, match="Close the program that has it open"):
        atomic.write_file(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_other_systems_try_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the reason is a permission, which does not change."""
    refusing = refuse(monkeypatch, 1, None)
    with pytest.raises(EnvironmentFailure, match="Allow writing there"):
        atomic.write_file(tmp_path / "file", b"new")
    assert refusing.pauses == 0

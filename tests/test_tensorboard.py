"""Event files for TensorBoard: the figures of metrics.jsonl, over stops, kills and errors."""

import errno
import importlib
import io
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import started, tiny_settings

from charlm.errors import DivergenceError, EnvironmentFailure
from charlm.files.atomic import append_whole
from charlm.runs.folders import remove_run
from charlm.runs.layout import TENSORBOARD, read_metrics
from charlm.runs.verify import verify_run
from charlm.text.corpus import Corpus
from charlm.training import tensorboard
from charlm.training.planned_run import plan_run
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.tensorboard import EventLog

pytest.importorskip("tensorboardX")
TINY = {"steps": 40, "evals": 4, "ngram": 0, "save_minutes": 0.0}


def events(run: Path) -> list[Any]:
    """Return the events of all files, checking the lengths and checksums of TFRecord."""
    event = importlib.import_module("tensorboardX.proto.event_pb2").Event
    checksum = importlib.import_module("tensorboardX.record_writer").masked_crc32c
    found = []
    for path in sorted((run / TENSORBOARD).iterdir()):
        data = path.read_bytes()
        while data:
            size, head = struct.unpack("<QI", data[:12])
            content, tail = data[12 : 12 + size], data[12 + size : 16 + size]
            assert (head, struct.unpack("<I", tail)[0]) == (checksum(data[:8]), checksum(content))
            found.append(event.FromString(content))
            data = data[16 + size :]
    return found


def shown(run: Path) -> dict[tuple[str, int], float]:
    """Return the figures that TensorBoard shows: a start at a step drops this step and later."""
    values: dict[tuple[str, int], float] = {}
    for event in events(run):
        if event.HasField("session_log"):
            values = {key: value for key, value in values.items() if key[1] < event.step}
        for value in event.summary.value:
            assert (value.tag, event.step) not in values
            values[value.tag, event.step] = value.simple_value
    return values


def logged(run: Path) -> dict[tuple[str, int], float]:
    """Return the figures of metrics.jsonl by their names in TensorBoard."""
    return {
        (tag, record["step"]): pytest.approx(record[name], rel=1e-6)
        for record in read_metrics(run)
        for tag, name in tensorboard.SCALARS.get(record["kind"], {}).items()
        if record.get(name) is not None
    }


def train(session: Session, until: int = 1000) -> None:
    """Train, and ask to stop after a step."""
    for record in session.records():
        if record.step >= until and record.kind == "step":
            session.trainer.stop("interrupted")


def test_the_figures_are_those_of_the_log_and_a_resumed_run_appends(tmp_path: Path) -> None:
    """Two sessions, two files. The run can be verified, and removed."""
    run = tmp_path / "x"
    train(started(tmp_path, log="tensorboard", **TINY), until=20)
    assert shown(run) == logged(run)
    tags = {tag for tags in tensorboard.SCALARS.values() for tag in tags}
    own = {"nats_per_token", "tokens_per_second", "learning_rate", "gradient_norm",
           "bits_per_char", "bits_per_byte", "perplexity"}  # fmt: skip
    assert {tag for tag, _ in shown(run)} == {tag for tag in tags if tag[6:] in own}
    train(resume(run))
    assert shown(run) == logged(run)
    assert {step for _, step in shown(run)} == {10, 20, 30, 40}
    assert len(list((run / TENSORBOARD).iterdir())) == 2
    times = [event.wall_time for event in events(run) if event.summary.value]
    assert times == sorted(times)
    assert not any(check.problems for check in verify_run(run))
    remove_run(run)
    assert not run.exists()


def test_steps_after_the_last_checkpoint_are_dropped_when_a_killed_run_resumes(
    tmp_path: Path,
) -> None:
    """A kill loses what came after the checkpoint of step 20, in both logs."""
    run = tmp_path / "x"
    session = started(tmp_path, log="tensorboard", **TINY | {"evals": 2, "save_minutes": 1e9})
    records = session.records()
    while session.trainer.counters.step < 39:
        next(records)
    records.close()
    assert ("train/nats_per_token", 30) in shown(run)
    session = resume(run)
    assert session.trainer.counters.step == 20
    train(session)
    assert shown(run) == logged(run)


def test_steps_before_a_rewind_are_dropped(tmp_path: Path) -> None:
    """The loss is not finite at step 35, once; training rewinds to the checkpoint of step 20."""
    changes = {"evals": 2, "save_minutes": 1e9, "on_nonfinite": "rewind", "log": "tensorboard"}
    session = started(tmp_path, **TINY | changes)
    real, diverged = session.trainer.step, []

    def step(*arguments: Any) -> None:
        if session.trainer.counters.step == 34 and not diverged:
            diverged.append(shown(tmp_path / "x"))
            raise DivergenceError("diverged", "the loss is nan")
        real(*arguments)

    session.trainer.step = step  # type: ignore[method-assign]
    train(session)
    assert ("train/nats_per_token", 30) in diverged[0]
    assert shown(tmp_path / "x") == logged(tmp_path / "x")
    assert len(list((tmp_path / "x" / TENSORBOARD).iterdir())) == 2


def test_a_log_that_begins_later_has_the_earlier_records_too(tmp_path: Path) -> None:
    """`--log` may change from session to session."""
    run = tmp_path / "x"
    train(started(tmp_path, **TINY), until=20)
    assert not (run / TENSORBOARD).exists()
    train(resume(run, {"training": {"log": "tensorboard"}}))
    assert shown(run) == logged(run)


def test_a_full_disk_leaves_no_half_of_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training goes on, and the file can be read; the record is lost."""
    real, failed = tensorboard.append_whole, []

    def append(path: Path, data: bytes) -> None:
        if b"valid/" in data and not failed:
            failed.append(data)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(tensorboard, "append_whole", append)
    train(started(tmp_path, log="tensorboard", **TINY))
    missing = logged(tmp_path / "x").keys() - shown(tmp_path / "x").keys()
    assert {step for _, step in missing} == {10} and failed


def test_an_append_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "log"
    path.write_bytes(b"abc")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "open", lambda file, mode: Full(file, mode))
        append_whole(path, b"xyz")
    assert path.read_bytes() == b"abc"


def test_a_file_that_cannot_be_created_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a file that does not exist, which is what undoing the append found."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        append_whole(tmp_path / "log", b"xyz")


def test_a_value_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    """As it is null in the log; a record without any value is no event."""
    log = EventLog(tmp_path, {"created": "2024-01-01T00:00:00+00:00"}, 0)
    names = tensorboard.SCALARS["step"].values()
    place = {"kind": "step", "seconds": 60.0} | dict.fromkeys(names)
    log.add({**place, "step": 10, "learning_rate": 0.5})
    log.add({**place, "step": 20})
    log.add({"kind": "saved"})
    assert shown(tmp_path) == {("train/learning_rate", 10): 0.5}
    assert events(tmp_path)[-1].wall_time == 1704067260.0


def test_a_missing_library_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(started(tmp_path, "y", **TINY), until=20)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'charlm\[tensorboard\]'"):
        plan_run(tiny_settings(log="tensorboard"), corpus=Corpus.from_text("ab" * 99, "stream"))
    with pytest.raises(EnvironmentFailure, match=r"pip install 'charlm\[tensorboard\]'"):
        resume(tmp_path / "y", {"training": {"log": "tensorboard"}})
    train(resume(tmp_path / "y"))  # it is not locked

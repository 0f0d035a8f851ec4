"""A training session and its run directory: killed, stopped, resumed, always the same."""

import contextlib
import errno
import gc
import itertools
import json
import os
import re
import shutil
import signal
import threading
import weakref
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import typer
from helpers import SHORT_TEXT as TEXT
from helpers import started, tiny_settings
from safetensors.torch import save_file
from waiting import PATIENCE, Ticking

from charlm.api.loading import load
from charlm.api.training import fit
from charlm.cli.progress import follow
from charlm.config.settings import Settings
from charlm.errors import CorpusError, DivergenceError, EnvironmentFailure, RunError, UsageError
from charlm.files import atomic
from charlm.files.atomic import MANIFEST, file_fingerprint, json_bytes
from charlm.files.safe_read import read_json
from charlm.inference.adapt.calibration import text_logits
from charlm.inference.likelihood import evaluate
from charlm.nn import heap
from charlm.runs import data as data_module
from charlm.runs.checkpoints import checkpoint_folders, drop_older
from charlm.runs.layout import CONFIG, LOGIT_SCALE, read_record, write_record
from charlm.runs.networks import load_backend
from charlm.runs.tensors import tensors_from_file, tensors_to_bytes
from charlm.runs.verify import verify_run
from charlm.runs.weights import OLD_SCALE, load_arrays
from charlm.tasks import language_model
from charlm.text import batches
from charlm.text.corpus import Corpus
from charlm.text.encoded import encode_text
from charlm.training import calibrating
from charlm.training import machine as machine_module
from charlm.training import resume as resuming
from charlm.training import session as session_module
from charlm.training import start as starting
from charlm.training import trainer as trainer_module
from charlm.training.planned_run import plan_run
from charlm.training.records import (
    EvaluationRecord,
    FinishedRecord,
    Record,
    SavedRecord,
    WarningRecord,
)
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.start import start

WEIGHTS, STATE, METRICS = "model.safetensors", "state.safetensors", "metrics.jsonl"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a record every three steps, and keep threads and memory rules as they are."""
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 3)
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


RUN = {
    "steps": 12, "evals": 3, "save_minutes": 0.0, "device": "cpu", "learning_rate": 0.05,
    "dropout": 0.2, "valid_frac": 0.05,
}  # fmt: skip


def settings(**changes) -> Settings:
    """Return the settings of a short run with validation, with changes by name."""
    return tiny_settings(**RUN | changes)


def begun(folder: Path, name: str | None = "x", **changes) -> Session:
    """Start a short run with validation on a text in memory."""
    return started(folder, name, **RUN | changes)


def finished(folder: Path, **chosen) -> Path:
    session = begun(folder, **chosen)
    list(session.records())
    return session.path


def events(session: Session) -> Generator[Record]:
    """Yield the records of a session except warnings, which are not in the log."""
    for record in session.records():
        if not isinstance(record, WarningRecord):
            yield record


def abandoned(session: Session, count: int) -> list[Record]:
    """Return the first records and then stop without writing anything, like a killed process."""
    with contextlib.closing(events(session)) as records:
        return list(itertools.islice(records, count))


TIMES = ("seconds", "tokens_per_second", "notes")


def log_of(path: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without times and warnings of the session."""
    lines = [json.loads(line) for line in (path / METRICS).read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def same(a: Path, b: Path) -> bool:
    """Return whether two runs have the same model, newest checkpoint and log, except for times."""
    newest = [checkpoint_folders(path)[0] for path in (a, b)]
    assert newest[0].name == newest[1].name
    pairs = [(a / WEIGHTS, b / WEIGHTS), (newest[0] / STATE, newest[1] / STATE)]
    return all(x.read_bytes() == y.read_bytes() for x, y in pairs) and log_of(a) == log_of(b)


def with_flipped_bit(data: bytes) -> bytes:
    """Return data with one bit changed near its end."""
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def whole(path: Path) -> bool:
    """Return whether `charlm verify` finds nothing wrong."""
    return not any(check.problems for check in verify_run(path))


def test_a_run_directory_holds_what_it_promises(tmp_path: Path) -> None:
    """Plain files that pass verification, a README, and every setting with its origin."""
    session = begun(tmp_path, keep=1)
    records = list(events(session))
    path = session.path
    names = {f.name for f in path.iterdir()} - {".lock", ".owner"}
    assert names == {
        "config.json", "tokenizer.json", WEIGHTS, "run.json", METRICS, "README.md",
        "MANIFEST.json", "data", "ngram", "states",
    }  # fmt: skip
    assert {f.name for f in (path / "states" / "step-12").iterdir()} == {
        "MANIFEST.json", "state.json", STATE,
    }  # fmt: skip
    assert whole(path)
    record = read_json(path / "run.json")
    assert record["status"] == "finished"
    assert record["settings"]["training"]["seed"] == 1
    assert record["origins"].keys() >= {"model.hidden_size", "training.seed", "corpus.valid_frac"}
    assert record["results"]["valid"]["tokens"] == record["corpus"]["parts"]["valid"]["tokens"]
    card = (path / "README.md").read_text("utf-8")
    assert "# x" in card
    assert re.search(r"\| length \| 12 steps; took [\d.]+ \w+ \|", card)
    assert "charlm sample --run x" in card
    last = records[-1]
    assert isinstance(last, FinishedRecord)
    assert (last.reason, last.complete, last.step) == ("complete", True, 12)
    logged = [r.to_dict() for r in records if not isinstance(r, SavedRecord)]
    assert [json.dumps(line, sort_keys=True) for line in logged] == (
        (path / METRICS).read_text("utf-8").splitlines()
    )


@pytest.mark.parametrize("document", ["stream", "line"])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_a_run_killed_after_any_record_resumes_to_the_same_end(
    document: str, schedule: str, tmp_path: Path
) -> None:
    """Model, optimiser, hidden state, counters and log are as if nothing had happened."""
    chosen = {"document": document, "schedule": schedule}
    complete = finished(tmp_path, name="whole", **chosen)
    count = len(list(events(begun(tmp_path, name="count", **chosen))))
    for killed_after in range(1, count, 2):
        session = begun(tmp_path, name=f"k{killed_after}", **chosen)
        abandoned(session, killed_after)
        list(resume(session.path).records())
        assert same(session.path, complete)
        assert whole(session.path)


def test_planning_returns_the_memory_of_models_it_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 50,000 words, 1.2 GB stayed with a training that needed 0.3 GB."""
    calls: list[object] = []
    choose = machine_module.choose_precision
    monkeypatch.setattr(
        machine_module, "choose_precision", lambda *given: calls.append("compare") or choose(*given)
    )
    monkeypatch.setattr(heap, "return_freed_memory", calls.append)
    plan_run(settings(), corpus=Corpus.from_text(TEXT))
    assert calls[-2:] == ["compare", 0]


def test_the_same_seed_gives_byte_identical_files(tmp_path: Path) -> None:
    """Another seed gives another model, and another log is not the same."""
    a, b, other = (finished(tmp_path, name=f"{n}", seed=seed) for n, seed in enumerate((7, 7, 8)))
    assert same(a, b)
    for name in ("tokenizer.json", "config.json", "MANIFEST.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / WEIGHTS).read_bytes() != (other / WEIGHTS).read_bytes()
    assert not same(a, other)
    log = (a / METRICS).read_text("utf-8")
    (a / METRICS).write_text(log.replace('"step": 6', '"step": 7'))
    assert not same(a, b)


def test_resuming_cuts_the_log_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Lines of steps that will be repeated, and a half-written last line, are removed."""
    session = begun(tmp_path, save_minutes=1e9)
    abandoned(session, 2)
    assert len(log_of(session.path)) == 2
    resume(session.path).lock.release()
    assert (session.path / METRICS).read_text("utf-8") == ""
    other = begun(tmp_path, "y")
    saved = [r for r in abandoned(other, 5) if isinstance(r, SavedRecord)][-1]
    with (other.path / METRICS).open("a") as file:
        file.write('{"kind": "step", "step": 99}\n{"kind": "st')
    resume(other.path).lock.release()
    assert max(line["step"] for line in log_of(other.path)) == saved.step


@pytest.mark.parametrize("lost", ["newest", "all"])
def test_a_lost_checkpoint_costs_time_only(lost: str, tmp_path: Path) -> None:
    """The checkpoint before a damaged one is used; without any, training starts again."""
    complete = finished(tmp_path, name="whole")
    session = begun(tmp_path)
    abandoned(session, 9)
    newest = checkpoint_folders(session.path)[0]
    if lost == "newest":
        (newest / STATE).write_bytes(b"rubbish")
    else:
        shutil.rmtree(session.path / "states")
    again = resume(session.path)
    warned = any("skipped" in warning and newest.name in warning for warning in again.warnings)
    assert warned == (lost == "newest")
    assert (again.trainer.counters.step == 0) == (lost == "all")
    list(again.records())
    assert same(session.path, complete)


def test_a_run_resumes_samples_and_scores_without_its_corpus(tmp_path: Path) -> None:
    """The encoded text is kept with the run."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    corpus = [Corpus([str(file)], document="stream") for _ in range(2)]
    complete = start(settings(), tmp_path / "a", name="x", corpus=corpus[0])
    list(complete.records())
    session = start(settings(), tmp_path / "b", name="x", corpus=corpus[1])
    abandoned(session, 4)
    file.unlink()
    list(resume(session.path).records())
    assert same(session.path, complete.path)
    model = load(session.path)
    assert model.score("abc")[0].tally.tokens == 3
    assert len(model.sample(20, seed=1)) == 20


def kept_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Path]:
    """Return a run whose text is too large to be kept with it, and the text."""
    monkeypatch.setattr(data_module, "CACHED_FROM_BYTES", 10)
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT)
    session = start(settings(sources=[str(corpus)]), tmp_path / "b", name="x")
    abandoned(session, 4)
    return session, corpus


def test_a_large_text_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the sources in run.json, to the same result."""
    complete = finished(tmp_path, name="whole")
    session, _ = kept_outside(tmp_path, monkeypatch)
    list(resume(session.path).records())
    assert same(session.path, complete)


def test_a_large_text_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its validation text and patterns too."""
    monkeypatch.setattr(data_module, "CACHED_FROM_BYTES", 10)
    tmp_path = tmp_path / "[old]"
    (tmp_path / "books").mkdir(parents=True)
    for name in ("books/text.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    texts = {"sources": ["books/*.txt"], "valid": ["valid.txt"], "test": ["test.txt"]}
    session = start(settings(**texts), tmp_path / "b", name="x")
    abandoned(session, 4)
    monkeypatch.chdir(tmp_path / "books")
    list(resume(session.path).records())
    assert read_json(session.path / "run.json")["results"]["test"]


def test_a_changed_vocabulary_is_refused_if_the_text_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would encode the text differently."""
    session, _ = kept_outside(tmp_path, monkeypatch)
    file = session.path / "tokenizer.json"
    file.write_text(file.read_text().replace('"d"', '"x"'))
    with pytest.raises(RunError, match=r"tokenizer\.json: not as written"):
        resume(session.path)


def test_a_text_from_a_terminal_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came through a pipe, and must come again to resume."""
    session, _ = kept_outside(tmp_path, monkeypatch)
    record = read_record(session.path)
    record["corpus"]["sources"] = ["-"]
    write_record(session.path, record)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(CorpusError, match="came from stdin; expected it there again"):
        resume(session.path)


def test_a_folder_name_that_is_not_unicode_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old name in Latin-1; the record then names the text as it was given."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / "text.txt").write_text(TEXT)
    monkeypatch.chdir(folder)
    session = start(settings(sources=["text.txt"]), tmp_path / "runs", name="x")
    list(session.records())
    assert read_json(session.path / "run.json")["corpus"]["sources"] == ["text.txt"]


def test_a_changed_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte more, or one replaced, would train another model."""
    session, corpus = kept_outside(tmp_path, monkeypatch)
    for text in (TEXT + "a", "b" + TEXT[1:]):
        corpus.write_text(text)
        with pytest.raises(CorpusError, match=r"changed since the run began.*SHA-256"):
            resume(session.path)
    corpus.unlink()
    with pytest.raises(CorpusError, match=r"text\.txt is not there.*or a link to it"):
        resume(session.path)


def test_changed_data_in_the_run_is_refused(tmp_path: Path) -> None:
    """A byte changed in the kept text, or in the vocabulary."""
    session = begun(tmp_path)
    abandoned(session, 4)
    for name in ("data/train/ids.bin", "data/train/counts.json", "tokenizer.json"):
        data = (session.path / name).read_bytes()
        (session.path / name).write_bytes(with_flipped_bit(data))
        with pytest.raises((RunError, CorpusError)):
            resume(session.path)
        (session.path / name).write_bytes(data)
    list(resume(session.path).records())


def test_two_trainers_on_one_run_are_refused(tmp_path: Path) -> None:
    """The error names the other process, which is not disturbed; then the run is free."""
    session = begun(tmp_path)
    records = events(session)
    next(records)
    before = (session.path / METRICS).read_bytes()
    with pytest.raises(EnvironmentFailure, match=r"is being trained by process \d+ on "):
        resume(session.path)
    assert (session.path / METRICS).read_bytes() == before
    list(records)
    resume(session.path).lock.release()


def test_a_refused_resume_leaves_the_run_free(tmp_path: Path) -> None:
    """An error releases the lock."""
    session = begun(tmp_path)
    abandoned(session, 3)
    for _ in range(2):
        with pytest.raises(RunError, match="hidden_size"):
            resume(session.path, {"model": {"hidden_size": 4}})
    list(resume(session.path).records())


def test_a_run_whose_folder_is_moved_away_ends_with_the_reason(tmp_path: Path) -> None:
    """Its message was that a file does not exist. Moved back, the run resumes."""
    session = begun(tmp_path)
    records = events(session)
    next(records)
    moved = session.path.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="removed or renamed while the run was using it"):
        list(records)
    session.lock.release()
    shutil.rmtree(session.path, ignore_errors=True)
    moved.rename(session.path)
    list(resume(session.path).records())


def fails(times: int, function):
    """Return the function so that its first calls fail as on a full disk."""
    left = [times]

    def call(*arguments, **named):
        if left[0]:
            left[0] -= 1
            raise EnvironmentFailure("cannot write: No space left on device")
        return function(*arguments, **named)

    return call


@pytest.mark.parametrize(
    ("module", "what"),
    [(session_module.checkpoints, "save_checkpoint"), (session_module, "write_weights")],
)
def test_a_failed_save_is_reported_and_tried_again(
    module: ModuleType, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training continues, and everything is written as soon as there is space."""
    complete = finished(tmp_path, name="whole")
    function = getattr(module, what)
    session = begun(tmp_path)
    before = len(session.warnings)
    monkeypatch.setattr(module, what, fails(2, function))
    records = list(session.records())
    warnings = [r.text for r in records if isinstance(r, WarningRecord)]
    assert warnings == session.warnings == records[-1].warnings
    failures = session.warnings[before:]
    assert len(failures) == 2
    assert all("No space left" in warning and "try again" in warning for warning in failures)
    assert (session.path / WEIGHTS).read_bytes() == (complete / WEIGHTS).read_bytes()
    assert whole(session.path)
    assert checkpoint_folders(session.path)[0].name == "step-12"


def test_a_disk_that_stays_full_is_reported_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty failures in a row five are; the next one after a save is reported again."""
    session = begun(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(session_module.checkpoints, "save_checkpoint", fails(20, None))
        before = len(session.warnings)
        for _ in range(20):
            assert session._try_to_save() is None
    failures = session.warnings[before:]
    assert len(failures) == 5
    assert "failures" not in failures[0]
    assert "(16 failures in a row)" in failures[-1]
    assert session._try_to_save()
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", fails(1, None))
    session._try_to_save()
    assert session.warnings[before + 5 :] == failures[:1]
    session.lock.release()


@pytest.mark.parametrize(
    "chosen", [{"optimizer": "adamw"}, {"optimizer": "sgd"}, {"average": 0.5}], ids=str
)
def test_a_run_that_will_not_fit_on_the_disk_says_so_at_the_start(
    chosen: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs two checkpoints, while one replaces the other, and the weights twice."""
    path = finished(tmp_path, **chosen)
    assert len(checkpoint_folders(path)) == 2
    tensors = tensors_from_file(checkpoint_folders(path)[0] / STATE)
    needed = 2 * tensor_bytes(tensors_from_file(path / WEIGHTS)) + 2 * sum(
        tensor_bytes({name: tensor})
        for name, tensor in tensors.items()
        if tensor.dim() and not name.startswith(("hidden.", "generator"))
    )
    full = {}

    def usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=full["free"])

    disk = SimpleNamespace(disk_usage=usage, rmtree=shutil.rmtree)
    monkeypatch.setattr(starting, "shutil", disk)
    for name, full["free"] in (("small", needed - 1), ("large", needed)):
        session = begun(tmp_path, name, **chosen)
        session.lock.release()
        warned = [text for text in session.warnings if "MB for the weights" in text]
        assert len(warned) == (name == "small")


def tensor_bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def test_the_end_of_training_waits_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was full at the end of training lost all of it since the last checkpoint."""
    complete, save = finished(tmp_path, name="whole"), session_module.checkpoints.save_checkpoint
    session, slept = begun(tmp_path), []
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", fails(10**9, save))

    def sleep(seconds: float) -> None:
        assert session.waiting
        slept.append(seconds)
        if len(slept) == 3:  # somebody frees space
            monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", save)

    session.wait = sleep
    texts = [r.text for r in session.records() if isinstance(r, WarningRecord)]
    assert slept == [session_module.POLL_SECONDS] * 3
    assert re.search(r"in memory only.*needs \d+\.\d MB.*every 10 s for 60 minutes$", texts[-1])
    assert not session.waiting
    assert session.complete
    assert (session.path / WEIGHTS).read_bytes() == (complete / WEIGHTS).read_bytes()
    assert whole(session.path)


def room_for(checkpoints: int, run: Path):
    """Return what makes a disk full while this many checkpoints of a run are complete."""

    def reached(label: str) -> None:
        if label == "state.safetensors opened" and len(checkpoint_folders(run)) >= checkpoints:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return reached


def test_older_checkpoints_make_room_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are kept. If the third has no room, the oldest goes first, not last."""
    complete = finished(tmp_path, name="whole")
    session = begun(tmp_path)
    session.may_wait, before = False, list(session.warnings)
    monkeypatch.setattr(atomic, "reached", room_for(2, session.path))
    list(session.records())
    assert session.warnings == before
    assert (session.path / WEIGHTS).read_bytes() == (complete / WEIGHTS).read_bytes()
    assert whole(session.path)


def test_checkpoints_that_should_be_kept_are_deleted_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the newest went without a word, also of a run that keeps more than two."""
    session = begun(tmp_path, keep=9)
    session.may_wait, before = False, list(session.warnings)
    monkeypatch.setattr(atomic, "reached", room_for(3, session.path))
    texts = [r.text for r in session.records() if isinstance(r, WarningRecord)]
    new = [text for text in texts if text not in before]
    assert len(new) == 1 and "2 older checkpoints deleted" in new[0]
    assert len(checkpoint_folders(session.path)) <= 3


def test_a_checkpoint_makes_no_room_if_the_newer_one_is_damaged(tmp_path: Path) -> None:
    path = finished(tmp_path)
    newest, older = checkpoint_folders(path)
    data = (newest / STATE).read_bytes()
    (newest / STATE).write_bytes(with_flipped_bit(data))
    assert not drop_older(path)
    assert older.exists()
    (newest / STATE).write_bytes(data)
    assert drop_older(path)
    assert checkpoint_folders(path) == [newest]
    assert not drop_older(path)


@pytest.mark.parametrize("may_wait", [True, False])
def test_a_training_that_cannot_be_saved_in_time_says_where_it_resumes(
    may_wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, save = finished(tmp_path, name="whole"), session_module.checkpoints.save_checkpoint
    session, clock, slept = begun(tmp_path), Ticking(step=0.0), []
    session.clock, session.may_wait = clock, may_wait

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    session.wait = sleep
    records = events(session)
    for record in records:
        if isinstance(record, SavedRecord):
            break
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", fails(10**9, save))
    with pytest.raises(EnvironmentFailure, match=r"newest checkpoint is of step 3\..*--resume"):
        list(records)
    assert len(slept) == (360 if may_wait else 0)
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", save)
    list(resume(session.path).records())
    assert (session.path / WEIGHTS).read_bytes() == (complete / WEIGHTS).read_bytes()


def test_a_signal_ends_the_wait_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one is enough, since nothing else can be done."""
    session = begun(tmp_path)
    session.wait = lambda _: signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", fails(10**9, None))
    with pytest.raises(typer.Exit) as ended:
        follow(session)
    assert ended.value.exit_code == 143
    assert "stopped at once; it has no checkpoint yet. Resume" in capsys.readouterr().err


def test_fit_warns_while_it_waits_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program or a notebook shows no records."""
    save = session_module.checkpoints.save_checkpoint
    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", fails(4, save))
    monkeypatch.setattr(session_module, "POLL_SECONDS", 0.0)
    with pytest.warns(RuntimeWarning, match="in memory only"):
        fit(text=TEXT, checkpoints=tmp_path, name="x", steps=3, batch_size=2, bptt=4, hidden=3)


def test_an_interrupt_ends_the_wait_of_fit_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is enough; a program waited on for an hour without a word."""
    tried: list[int] = []

    def save(*_: object, **__: object) -> None:
        tried.append(1)
        if len(tried) == 2:  # in the wait
            signal.raise_signal(signal.SIGINT)
        if len(tried) > 4:
            pytest.fail("the wait goes on")
        raise EnvironmentFailure("no space")

    monkeypatch.setattr(session_module.checkpoints, "save_checkpoint", save)
    monkeypatch.setattr(session_module, "POLL_SECONDS", 0.0)
    with (
        pytest.warns(RuntimeWarning, match="in memory only"),
        pytest.raises(KeyboardInterrupt),
    ):
        fit(text=TEXT, checkpoints=tmp_path, name="x", steps=3, batch_size=2, bptt=4, hidden=3)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("stopped", "text"),
    [
        (False, "has ended and is saved. Once that is possible, write its results"),
        (True, "was stopped and is saved. Once that is possible, resume the run"),
    ],
)
def test_results_that_cannot_be_written_say_that_training_is_saved(
    stopped: bool, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run that was stopped trains to its end, and does not only write results."""
    session = begun(tmp_path)
    if stopped:
        for record in (records := session.records()):
            if isinstance(record, SavedRecord):
                break
        session.trainer.stop("interrupted")
    else:
        records = session.records()
    with monkeypatch.context() as full:
        full.setattr(session_module, "write_record", fails(1, None))
        with pytest.raises(EnvironmentFailure, match=f"No space left.*Training {text} .*--resume"):
            list(records)
    list(resume(session.path).records())
    assert whole(session.path)


def files_with_times(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(f.relative_to(path)): (f.read_bytes(), f.stat().st_mtime_ns)
        for f in path.rglob("*")
        if f.is_file() and f.name not in (".lock", ".owner")
    }


@pytest.mark.parametrize("chosen", [{}, {"patience": 1, "evals": 12, "learning_rate": 3.0}])
def test_a_complete_run_is_left_alone(chosen, tmp_path: Path) -> None:
    """Resuming it changes no file, and the log keeps its last line."""
    path = finished(tmp_path, **chosen)
    before = files_with_times(path)
    session = resume(path)
    assert session.complete
    session.lock.release()
    assert files_with_times(path) == before
    assert log_of(path)[-1]["kind"] == "finished"
    assert log_of(path)[-1]["reason"] == ("patience" if chosen else "complete")


def test_lost_weights_are_replaced_by_the_newest_with_their_own_figures(tmp_path: Path) -> None:
    """By resuming the run, which is complete except for its weights; this is reported."""
    path = finished(tmp_path, learning_rate=3.0, evals=6, patience=0)
    before = read_json(path / "run.json")["results"]
    assert before["best_step"] < before["step"]
    (path / WEIGHTS).unlink()
    session = resume(path)
    assert not session.complete
    last = list(session.records())[-1]
    assert last.best_step == last.step
    assert last.valid.nats > before["valid"]["nats"]
    assert "the newest weights replace it" in last.warnings[-1]
    assert whole(path)
    assert resume(path).complete


def test_lost_weights_are_replaced_without_validation_text(tmp_path: Path) -> None:
    """The story: they matched the manifest, so nothing was written, however often one tried."""
    path = finished(tmp_path, valid_frac=0.0)
    before = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).unlink()
    list(resume(path).records())
    assert (path / WEIGHTS).read_bytes() == before
    assert whole(path)


@pytest.mark.parametrize("harm", ["a bit", "the end"])
@pytest.mark.parametrize("more", [None, {"training": {"steps": 24}}])
def test_damaged_weights_are_written_again(harm: str, more, tmp_path: Path) -> None:
    """The story: removing a calibration wrote the damage into the manifest."""
    path = finished(tmp_path)
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(with_flipped_bit(data) if harm == "a bit" else data[:-9])
    assert not whole(path)
    session = resume(path, more)
    assert any("it will be written again" in warning for warning in session.warnings)
    list(session.records())
    assert whole(path)
    assert load(path).score("abc")


def test_a_kill_while_a_run_is_made_longer_leaves_it_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its figures would be those of a calibration that its weights no longer have."""
    path = finished(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(resuming, "write_logit_scale", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume(path, {"training": {"steps": 24}})
    assert read_json(path / "run.json")["status"] == "training"
    list(resume(path).records())
    assert whole(path)


@pytest.mark.parametrize("more", [None, {"training": {"steps": 24}}])
def test_a_finished_run_without_checkpoints_is_not_started_again(more, tmp_path: Path) -> None:
    """The story: shared without them to save space, it was trained again over its weights."""
    path = finished(tmp_path)
    shutil.rmtree(path / "states")
    before = {f.name: f.read_bytes() for f in path.iterdir() if f.is_file() and f.name[0] != "."}
    with pytest.raises(RunError, match="would start again and overwrite its weights"):
        resume(path, more)
    assert {name: (path / name).read_bytes() for name in before} == before
    (path / WEIGHTS).unlink()
    list(resume(path).records())
    assert whole(path)


@pytest.mark.parametrize("inside", [False, True])
def test_a_renamed_run_has_its_new_name(
    inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in its card, and if it is resumed as the current folder."""
    path = finished(tmp_path).rename(tmp_path / "new")
    monkeypatch.chdir(path)
    list(resume(Path() if inside else path, {"training": {"steps": 24}}).records())
    assert read_record(path)["name"] == "new"
    assert "charlm sample --run new" in (path / "README.md").read_text()


@pytest.mark.parametrize(
    ("begin", "change", "problem"),
    [
        ({"valid_frac": 0.0}, {"patience": 2}, "--patience 2 has no effect without validation"),
        ({"clip_value": 1.0}, {"clip_norm": 0.5},
         r"--clip-norm 0\.5 has no effect with .*clip_value=1"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused_on_resume(
    begin, change, problem: str, tmp_path: Path
) -> None:
    path = finished(tmp_path, **begin)
    with pytest.raises(UsageError, match=problem):
        resume(path, {"training": {"steps": 24} | change})
    list(resume(path, {"training": {"steps": 24}}).records())


def test_a_session_may_run_in_another_thread(tmp_path: Path) -> None:
    """The story: its lock was never released, since another thread had taken it."""
    session = begun(tmp_path)
    thread = threading.Thread(target=lambda: list(session.records()))
    thread.start()
    thread.join(timeout=PATIENCE)
    resume(session.path, {"training": {"steps": 15}}).lock.release()


def test_a_longer_run_is_accepted(tmp_path: Path) -> None:
    """Steps raised again and again equal one run of that length, if the rate is constant."""
    constant = {"schedule": "constant", "warmup": 0.0, "evals": 1}
    complete = finished(tmp_path, name="whole", **constant, steps=12)
    path = finished(tmp_path, **constant, steps=3)
    for steps in (4, 5, 8, 11, 12):
        session = resume(path, {"training": {"steps": steps}})
        assert not session.complete
        assert list(session.records())[-1].step == steps
    pairs = [checkpoint_folders(run)[0] / STATE for run in (path, complete)]
    assert pairs[0].read_bytes() == pairs[1].read_bytes()


def test_a_longer_run_is_validated_on_the_way(tmp_path: Path) -> None:
    """The same number of times as a run of that length from the start."""
    path = finished(tmp_path, steps=12, evals=3)
    session = resume(path, {"training": {"steps": 60, "evals": 5}})
    steps = [r.step for r in session.records() if isinstance(r, EvaluationRecord)]
    assert steps == [24, 36, 48, 60]


@pytest.mark.parametrize("length", [{"epochs": 4.0}, {"steps": 20}, {"minutes": 1e-3}])
def test_another_length_replaces_the_old_one(length, tmp_path: Path) -> None:
    """Epochs instead of steps, and the reverse; run.json has the new one."""
    path = finished(tmp_path)
    if "minutes" in length:  # in addition to what was trained
        length = {"minutes": 1e-3 + read_json(path / "run.json")["results"]["seconds"] / 60.0}
    list(resume(path, {"training": length}).records())
    training = read_json(path / "run.json")["settings"]["training"]
    assert {key: training[key] for key in ("epochs", "steps", "minutes") if training[key]} == length


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"hidden_size": 4}},
        {"model": {"cell": "gru"}},
        {"vocabulary": {"unit": "byte"}},
        {"corpus": {"valid_frac": 0.3}},
        {"training": {"batch_size": 9}},
        {"training": {"bptt": 9}},
        {"training": {"optimizer": "sgd"}},
        {"training": {"seed": 3}},
        {"training": {"stateless": True}},
    ],
)
def test_what_the_run_is_cannot_change(changes, tmp_path: Path) -> None:
    """Architecture, text, order of reading: named, and nothing in the run is touched."""
    path = finished(tmp_path)
    before = files_with_times(path)
    (key,) = next(iter(changes.values()))
    with pytest.raises(RunError, match=f"^{key} cannot change"):
        resume(path, changes)
    assert files_with_times(path) == before


def test_a_change_that_contradicts_itself_is_a_usage_error(tmp_path: Path) -> None:
    """Both steps and epochs."""
    path = finished(tmp_path)
    with pytest.raises(UsageError, match="one length"):
        resume(path, {"training": {"steps": 20, "epochs": 3.0}})


def test_a_stopped_run_is_saved_and_resumes_to_the_same_end(tmp_path: Path) -> None:
    """It stops after the current step; the record has the reason."""
    complete = finished(tmp_path, name="whole", save_minutes=1e9)
    session = begun(tmp_path, save_minutes=1e9)
    records = []
    for record in events(session):
        records.append(record)
        if record.kind == "step":
            session.trainer.stop("interrupted")
    assert [r.kind for r in records] == ["step", "saved", "finished"]
    assert records[-1].reason == "interrupted"
    assert not records[-1].complete
    assert read_json(session.path / "run.json")["status"] == "stopped"
    assert whole(session.path)
    load(session.path).score("ab")
    list(resume(session.path).records())
    assert same(session.path, complete)


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_the_results_of_a_resumed_run_have_the_warnings_of_all_sessions(
    end: str, tmp_path: Path
) -> None:
    """They are yielded in their own session only."""
    session = begun(tmp_path)
    first = session.warnings[:]
    for index, record in enumerate(events(session)):
        if record.kind == "saved" and end == "killed":
            break
        if index == 0:
            session.trainer.stop("interrupted")
    session.lock.release(force=True)
    for _ in range(2):  # killed at once, and resumed again
        session = resume(
            session.path, {"training": {"threads": 1 + session.trainer.settings.threads}}
        )
        session.lock.release(force=True)
    *records, last = resume(session.path).records()
    assert first
    assert isinstance(last, FinishedRecord)
    assert last.warnings == [
        *first,
        "the number of threads changed; results may differ in rounding",
    ]
    assert not any(isinstance(r, WarningRecord) for r in records)
    record = read_record(session.path)
    assert record["results"]["notes"] == last.warnings
    assert "notes" not in record


@pytest.mark.parametrize("steps", [3, 9, 13])
def test_a_run_of_a_version_that_cut_documents_elsewhere_resumes(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: such a run could not be resumed, since its state had other sequences."""
    text = "".join("ab" * length + "\n" for length in [*range(60), 400, 800])
    options = {"text": text, "document": "line", "batch_size": 4, "bptt": 4, "valid_frac": 0.0}
    with monkeypatch.context() as patch:
        patch.setattr(batches, "longest_segment", lambda lengths, spec: int(lengths.sum()) // 4)
        path = finished(tmp_path, steps=steps, **options)
    *records, last = resume(path, more={"steps": 6}).records()
    warnings = "".join(record.text for record in records if isinstance(record, WarningRecord))
    assert (last.reason, last.step) == ("complete", steps + 6)
    assert ("cut documents in other places" in warnings) == (steps > 3)
    assert whole(path)


def has_newest_weights(session: Session) -> bool:
    """Return whether the run on disk has the weights of its trainer."""
    weights = load(session.path, engine="torch").run.backend.model.state_dict()
    return all(torch.equal(weights[n], w) for n, w in session.trainer.model.state_dict().items())


def test_before_the_first_validation_the_newest_weights_are_kept(tmp_path: Path) -> None:
    """At every save, not only at the first one."""
    session = begun(tmp_path, evals=1)
    kept = []
    for record in session.records():
        if record.kind == "saved":
            kept.append((session.path / WEIGHTS).read_bytes())
            if record.step == 9:
                session.trainer.stop("interrupted")
    assert len(set(kept[:3])) == 3
    assert has_newest_weights(session)


def test_a_run_without_validation_keeps_its_newest_weights(tmp_path: Path) -> None:
    """There is no best; the card and the record say that nothing was measured."""
    session = begun(tmp_path, valid_frac=0.0)
    last = list(session.records())[-1]
    assert last.valid is None
    assert has_newest_weights(session)
    assert "quality was not measured" in (session.path / "README.md").read_text("utf-8")


def test_the_test_text_is_evaluated_when_the_run_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a stop, as its figures would guide the training; a stop meanwhile changes nothing.

    The story: Ctrl-C while the finished run was calibrated lost the figures of the test text.
    """
    (tmp_path / "test.txt").write_text("abc abd\n")
    session = begun(tmp_path, test=[str(tmp_path / "test.txt")])
    session.trainer.stop("interrupted")
    *_, stopped = session.records()
    assert (stopped.complete, stopped.test) == (False, None)
    session = resume(session.path)

    def interrupted(backend, text):
        session.trainer.stop("interrupted")
        return text_logits(backend, text)

    monkeypatch.setattr(calibrating, "text_logits", interrupted)
    *_, last = session.records()
    assert last.complete
    assert last.test == load(session.path).evaluate("abc abd\n")


def break_weights(session: Session, value: float = float("nan")) -> None:
    with torch.no_grad():
        session.trainer.model.output.bias.fill_(value)


@pytest.mark.parametrize(
    ("kind", "step", "kept"), [("saved", 6, 6), ("evaluation", 12, 9)], ids=["loss", "last step"]
)
def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    kind: str, step: int, kept: int, tmp_path: Path
) -> None:
    """Found by the next loss or, after the last step, by the check before a save."""
    session = begun(tmp_path)
    with pytest.raises(DivergenceError, match="not finite after step 12" if step == 12 else "step"):
        for record in session.records():
            if (record.kind, record.step) == (kind, step):
                break_weights(session)
    assert whole(session.path)
    assert checkpoint_folders(session.path)[0].name == f"step-{kept}"
    assert np.isfinite(load(session.path, engine="numpy").run.backend.weights.output).all()
    session = resume(session.path)
    assert session.trainer.counters.step == kept
    list(session.records())
    assert whole(session.path)


def spoil_step_8(session: Session, times: int) -> None:
    """Make the loss of step 8 not finite, as often as this."""

    def spoilt(_module, _inputs, out):
        counters = session.trainer.counters
        broken = counters.step == 7 and counters.rewinds < times
        return out * (float("nan") if broken else 1.0)

    session.trainer.model.output.register_forward_hook(spoilt)


def test_a_run_rewinds_if_a_number_is_not_finite(tmp_path: Path) -> None:
    """To the newest checkpoint, at half the rate; the log has each step once, and the reason."""
    session = begun(tmp_path, on_nonfinite="rewind", schedule="constant", warmup=0.0)
    spoil_step_8(session, times=1)
    *_, last = session.records()
    assert (last.reason, last.step, session.trainer.counters.rewinds) == ("complete", 12, 1)
    assert whole(session.path)
    lines = [line for line in log_of(session.path) if line["kind"] == "step"]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert [line["learning_rate"] for line in lines] == [0.05, 0.05, 0.025, 0.025]
    (warning,) = [line["text"] for line in log_of(session.path) if line["kind"] == "warning"]
    assert warning.startswith("step 8: the loss is nan")
    assert "Rewound to step 6, now at 0.5 times the rate; 1 of at most 10 times" in warning


def test_rewinding_removes_later_steps_from_the_log(tmp_path: Path) -> None:
    """The checkpoint is of step 3, the log reaches step 6; both of two rewinds are in the log."""
    session = begun(tmp_path, on_nonfinite="rewind", save_minutes=1e9, evals=1)
    spoil_step_8(session, times=2)
    records = session.records()
    session.save_now = True
    list(records)
    kinds = [(line["kind"], line["step"]) for line in log_of(session.path)]
    assert [step for kind, step in kinds if kind == "step"] == [3, 6, 9, 12]
    assert [step for kind, step in kinds if kind == "warning"] == [3, 3]
    assert whole(session.path)


def test_the_last_checkpoint_is_saved_once(tmp_path: Path) -> None:
    """The last validation asks for one, and the end of training makes one.

    A run that is killed between them trains on from the one before.
    """
    whole_run = begun(tmp_path, name="whole")
    records = list(events(whole_run))
    saved = [r.step for r in records if isinstance(r, SavedRecord)]
    assert saved == sorted(set(saved)) and saved[-1] == 12 and len(saved) > 1
    assert [type(r) for r in records[-3:]] == [EvaluationRecord, SavedRecord, FinishedRecord]
    session = begun(tmp_path)
    abandoned(session, len(records) - 2)  # its best weights are newer than its checkpoint
    again = resume(session.path)
    assert again.trainer.counters.step < 12
    list(again.records())
    assert same(session.path, whole_run.path) and whole(session.path)


@pytest.mark.parametrize("step", [6, 12])
def test_weights_that_break_between_saves_rewind_the_run(step: int, tmp_path: Path) -> None:
    """Found by the next loss or, after the last step, by the check before the save."""
    session = begun(tmp_path, on_nonfinite="rewind")
    broken = False
    for record in session.records():
        if isinstance(record, EvaluationRecord) and record.step >= step and not broken:
            broken = True
            break_weights(session)
    assert session.trainer.counters.rewinds == 1
    assert session.complete
    assert whole(session.path)


def test_a_validation_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long stream may overflow when the short ones of training do not; or the run rewinds."""
    evaluate = language_model.evaluate

    def overflows(model, text):
        tally = evaluate(model, text)
        broken = session.trainer.counters.step >= 8 and not session.trainer.counters.rewinds
        return replace(tally, nats=float("nan")) if broken else tally

    monkeypatch.setattr(language_model, "evaluate", overflows)
    session = begun(tmp_path)
    with pytest.raises(DivergenceError, match="step 8: the validation loss is nan"):
        list(session.records())
    assert whole(session.path)
    assert session.trainer.counters.best_step == 4
    session = begun(tmp_path, "y", on_nonfinite="rewind")
    list(session.records())
    assert session.complete
    assert session.trainer.counters.rewinds == 1


def test_new_best_weights_come_with_a_checkpoint(tmp_path: Path) -> None:
    """Whatever the time between saves, the weights are not newer than their figures."""
    session = begun(tmp_path, save_minutes=1e9)
    records = list(session.records())
    best = [r.step for r in records if isinstance(r, EvaluationRecord) and r.best]
    saved = [record.step for record in records if isinstance(record, SavedRecord)]
    assert best
    assert set(best) <= set(saved)


@pytest.mark.parametrize("size", [16, 44])
def test_a_run_resumes_on_another_kind_of_device(size: int, tmp_path: Path) -> None:
    """The generator's state has another size there, so it starts again, with a warning.

    16 bytes are CUDA's, 44 those of MPS.
    """
    session = begun(tmp_path)
    abandoned(session, 4)
    trainer = session.trainer
    saved = trainer.checkpoint()
    saved.tensors["generator"] = torch.zeros(size, dtype=torch.uint8)
    trainer.restore(saved)
    first = torch.rand(3, generator=trainer.state.generator)
    trainer.restore(saved)
    assert torch.equal(first, torch.rand(3, generator=trainer.state.generator))
    assert "another kind of device" in trainer._records()[0].text
    saved.tensors["generator"] = torch.zeros(17, dtype=torch.uint8)
    with pytest.raises(RunError, match="does not fit"):
        trainer.restore(saved)


def test_a_run_that_patience_ended_can_be_made_longer(tmp_path: Path) -> None:
    """A new length waits again; without one the run stays complete."""
    session = begun(tmp_path, patience=1, evals=12, learning_rate=3.0)
    list(session.records())
    stopped = session.trainer.counters.step
    assert session.trainer.counters.finished == "patience"
    again = resume(session.path)
    again.lock.release()
    assert again.complete
    longer = resume(session.path, {"training": {"steps": 40}})
    assert not longer.complete
    list(longer.records())
    assert longer.trainer.counters.step > stopped


def test_a_run_rewinds_ten_times_at_most(tmp_path: Path) -> None:
    """Then the last error is raised, and the run has the finite weights of its beginning."""
    explodes = {"optimizer": "sgd", "clip_norm": 0.0, "learning_rate": 1e38, "warmup": 0.0}
    session = begun(tmp_path, on_nonfinite="rewind", **explodes)
    with pytest.raises(DivergenceError, match="diverged"):
        list(session.records())
    assert session.trainer.counters.rewinds == 10
    assert whole(session.path)
    assert np.isfinite(load(session.path, engine="numpy").run.backend.weights.output).all()


def test_names_are_taken_once(tmp_path: Path) -> None:
    """A given name that exists is refused; without one, runs of the same second differ."""
    finished(tmp_path)
    with pytest.raises(RunError, match=r"'x' already exists.*--resume"):
        begun(tmp_path)
    paths = [begun(tmp_path, None, steps=1).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.name.startswith("text-") for path in paths)


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", ".x", "", "/nowhere/x"])
def test_a_name_is_not_a_path(name: str, tmp_path: Path) -> None:
    """A run never lands outside its folder."""
    folder = tmp_path / "checkpoints"
    with pytest.raises(UsageError, match="--name"):
        begun(folder, name)
    assert {f.name for f in tmp_path.iterdir()} <= {"checkpoints"}


def test_a_folder_that_cannot_be_written_is_reported_first(tmp_path: Path) -> None:
    """A file is where the folder should be; the missing text comes second."""
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(EnvironmentFailure, match="checkpoints"):
        start(settings(sources=["missing.txt"]), tmp_path / "checkpoints")


def test_a_foreign_state_is_a_run_error(tmp_path: Path) -> None:
    """A state of another model, with a manifest that is right."""
    from charlm.runs.checkpoints import Checkpoint, save_checkpoint

    session = begun(tmp_path)
    abandoned(session, 4)
    state = Checkpoint(step=99, tensors={"model.x": torch.zeros(2)}, counters={"step": 99})
    save_checkpoint(session.path, state, keep=5)
    with pytest.raises(RunError, match="state of step 99 does not fit"):
        resume(session.path)
    save_file({"a": torch.zeros(1)}, session.path / WEIGHTS)
    with pytest.raises(RunError):
        load(session.path)


def with_scale_in_weights(path: Path, copy: Path) -> Path:
    """Return a copy of a run with its calibration factor where older commits wrote it."""
    shutil.copytree(path, copy)
    config, manifest = read_json(copy / CONFIG), read_json(copy / MANIFEST)
    scale = torch.tensor(config.pop(LOGIT_SCALE))
    (copy / WEIGHTS).write_bytes(
        tensors_to_bytes(tensors_from_file(copy / WEIGHTS) | {OLD_SCALE: scale})
    )
    (copy / CONFIG).write_bytes(json_bytes(config))
    manifest["files"] |= {name: file_fingerprint(copy / name) for name in (CONFIG, WEIGHTS)}
    (copy / MANIFEST).write_bytes(json_bytes(manifest))
    return copy


def same_files(path: Path, other: Path) -> bool:
    """Return whether two runs have the same configuration, weights and manifest."""
    names = (CONFIG, WEIGHTS, MANIFEST)
    return all((path / name).read_bytes() == (other / name).read_bytes() for name in names)


MEMORISED = "abc abd abc abd abc abc abd\n"
LARGER = {"batch_size": 4, "bptt": 8, "save_minutes": 60.0}
"""Settings of runs that read a text often, whose checkpoints are not what is tested."""


def test_an_overconfident_run_is_calibrated(tmp_path: Path) -> None:
    """Memorised text and other validation text: a factor below 1 is recorded in config.json.

    The recorded figures are those of an evaluation, with every engine; a longer run resumes
    without the factor. Older runs keep it among the weights, and work in the same way.
    """
    held = tmp_path / "valid.txt"
    held.write_text("bca cab dab bad acb\n" * 3)
    values = {"epochs": 30.0, "evals": 1, "valid": [str(held)]} | LARGER
    for name, calibrate in (("plain", False), ("fitted", True)):
        session = begun(tmp_path, name, text=MEMORISED * 8, calibrate=calibrate, **values)
        *_, last = session.records()
        assert whole(session.path)
        if not calibrate:
            before = last.valid
            assert (last.logit_scale, last.valid_uncalibrated) == (1.0, None)
    assert 0.2 < last.logit_scale < 0.9
    assert last.valid_uncalibrated == before
    assert last.valid.nats < 0.95 * before.nats
    card = (session.path / "README.md").read_text("utf-8")
    assert f"All logits are multiplied by {last.logit_scale:.3f}" in card
    for engine in ("torch", "numpy", "auto"):
        tally = load(session.path, engine=engine).evaluate(held.read_text())
        assert tally.nats == pytest.approx(last.valid.nats, rel=1e-5)
    older = with_scale_in_weights(tmp_path / "fitted", tmp_path / "older")
    assert load(older).evaluate(held.read_text()) == tally
    for path in (tmp_path / "fitted", older):
        assert whole(path)
        again = resume(path, {"training": {"epochs": 31.0}})
        assert whole(path)
        resumed = load(path).evaluate(held.read_text())
        assert resumed.nats == pytest.approx(before.nats, rel=1e-5)  # without the factor
        *_, last = again.records()
        assert last.logit_scale < 0.9
        assert whole(path)
    assert same_files(tmp_path / "fitted", older)


def test_missing_kernels_are_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than after an hour, when the finished run is measured."""
    monkeypatch.setenv("CHARLM_KERNELS", "mmx")
    with pytest.raises(EnvironmentFailure, match="mmx"):
        begun(tmp_path)


def averaging(folder: Path) -> tuple[Session, str]:
    """Return a run whose calibrated last average beats the best, and its validation text."""
    held = folder / "valid.txt"
    held.write_text("abc abd cab abc abd\n" * 3)
    values = {"epochs": 12.0, "average": 0.5, "valid": [str(held)], "save_minutes": 60.0}
    return begun(folder, text=MEMORISED * 8, **values), held.read_text()


def test_the_calibrated_last_average_may_replace_the_best_weights(tmp_path: Path) -> None:
    """Once calibrated, the model that has read more may be better; its step is recorded."""
    session, held = averaging(tmp_path)
    *_, last = session.records()
    tally = load(session.path).evaluate(held)
    assert tally.nats == pytest.approx(last.valid.nats, rel=1e-5)
    assert last.best_step == last.step > first_best(session.path)
    assert whole(session.path)
    again = resume(session.path, {"training": {"epochs": 13.0}}).trainer
    assert again.counters.best_step == last.step  # of the saved weights, without a factor
    assert again.counters.best == last.valid_uncalibrated
    tally = load(session.path).evaluate(held)
    assert tally.nats == pytest.approx(again.counters.best_nats, rel=1e-5)


def test_the_last_average_must_gain_enough_over_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the best weights stay, with their own figures."""
    (tmp_path / "first").mkdir()
    session, _ = averaging(tmp_path / "first")
    *records, last = session.records()
    best = min(record.tally.nats for record in records if isinstance(record, EvaluationRecord))
    over_best = 1.0 - last.valid.nats / best
    over_itself = 1.0 - last.valid.nats / last.valid_uncalibrated.nats
    assert over_best < over_itself
    monkeypatch.setattr(calibrating, "MIN_GAIN", (over_best + over_itself) / 2.0)
    session, held = averaging(tmp_path)
    *_, last = session.records()
    assert (last.logit_scale, last.valid.nats) == (1.0, best)
    assert last.best_step == first_best(session.path)
    assert load(session.path).evaluate(held).nats == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "qrnn"])
def test_the_end_of_a_run_reads_its_best_weights_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    """With a calibration and n-grams, which need several factors, in any backend.

    The weights of training differ from the best ones here, so reading those would show.
    """
    reads = list[Path]()

    def load(path: Path, *rest: Any) -> dict[str, Any]:
        reads.append(path)
        return load_arrays(path, *rest)

    for module in ("charlm.training.calibrating", "charlm.runs.networks"):
        monkeypatch.setattr(f"{module}.load_arrays", load)
    text = MEMORISED * 9
    session = begun(tmp_path, text=text, epochs=20.0, evals=2, cell=cell, ngram=2, **LARGER)
    *_, last = session.records()
    assert last.companion is not None
    assert reads == [session.path / WEIGHTS]
    stored = load_backend(
        reads[0], session.trainer.model.settings, len(session.dataset.vocabulary),
        logit_scale=last.logit_scale,
    )  # fmt: skip
    assert evaluate(stored, session.dataset.valid).nats == pytest.approx(last.valid.nats, rel=1e-6)


def test_a_factor_that_helps_only_the_sample_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fitted on a sample of the validation text, and judged by all of it."""
    text = MEMORISED * 9
    (tmp_path / "valid.txt").write_text(text)
    valid = [str(tmp_path / "valid.txt")]
    session = begun(tmp_path, text=text, epochs=30.0, evals=1, valid=valid, **LARGER)
    unlike = encode_text(
        lambda: iter(["bca cab dab bad acb\n" * 3]), session.dataset.vocabulary, "stream"
    )
    monkeypatch.setattr(calibrating, "sample_to_fit", lambda *_: unlike)
    *_, last = session.records()
    assert (last.logit_scale, last.valid_uncalibrated) == (1.0, None)
    best = calibrating.BestWeights(session.path, session.trainer)
    nats = [evaluate(best.backend(scale), unlike).nats for scale in (1.0, 0.5)]
    assert nats[1] < 0.9 * nats[0]  # the sample alone would have kept a factor


def test_a_kill_after_the_last_average_replaced_the_best_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint with its figures is saved first."""
    session, held = averaging(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(calibrating, "write_logit_scale", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(session.records())
    session.lock.release()
    last = resume(session.path).trainer.counters
    assert last.best_step == last.step
    assert load(session.path).evaluate(held).nats == pytest.approx(last.best_nats, rel=1e-5)


def test_the_last_checkpoint_has_the_trained_weights_not_their_average(tmp_path: Path) -> None:
    """Though the average replaces the best: a longer run resumes from the weights."""
    session, _ = averaging(tmp_path)
    trained = {}
    for record in session.records():
        if not isinstance(record, FinishedRecord):
            weights = session.trainer.model.named_parameters()
            trained = {name: weight.detach().clone() for name, weight in weights}
    assert record.best_step == record.step > first_best(session.path)
    weights = dict(resume(session.path).trainer.model.named_parameters())
    assert all(torch.equal(weights[name], weight) for name, weight in trained.items())


def test_an_old_run_with_settings_without_effect_can_be_read(tmp_path: Path) -> None:
    """Such settings are refused for new runs only."""
    path = finished(tmp_path)
    record = read_record(path)
    record["settings"]["training"] |= {"momentum": 0.9, "decay": 0.97}
    write_record(path, record)
    assert read_record(path)["settings"]["training"]["momentum"] == 0.9
    list(resume(path, {"training": {"steps": 15}}).records())
    with pytest.raises(UsageError, match=r"momentum 0\.9 has no effect with optimizer adamw"):
        start(settings(momentum=0.9), tmp_path, origins={"training.momentum": "argument"})


def test_damaged_weights_without_a_checkpoint_are_trained_again(tmp_path: Path) -> None:
    """The error advises this: delete the damaged checkpoints, and resume."""
    path = finished(tmp_path)
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(with_flipped_bit(data))
    shutil.rmtree(path / "states")
    list(resume(path).records())
    assert whole(path)
    assert (path / WEIGHTS).read_bytes() == data


def first_best(path: Path) -> int:
    """Return the step of the best validation in the log."""
    lines = (json.loads(line) for line in (path / METRICS).read_text("utf-8").splitlines())
    return max(line["step"] for line in lines if line.get("best"))


def test_the_output_bias_starts_at_the_log_frequencies(tmp_path: Path) -> None:
    """Before the first step; without `frequency_bias` it is zero."""
    for frequency_bias in (True, False):
        session = begun(
            tmp_path, None, text="abacabad" * 50, steps=1, valid_frac=0.0,
            frequency_bias=frequency_bias,
        )  # fmt: skip
        bias = session.trainer.model.output.bias.detach()
        session.lock.release()
        if not frequency_bias:
            assert not bias.any()
            continue
        ids = session.dataset.vocabulary.encode("abc").tolist()
        fractions = bias.exp()
        assert float(fractions.sum()) == pytest.approx(1.0, abs=0.01)
        assert fractions[ids].tolist() == pytest.approx([0.5, 0.25, 0.125], abs=0.01)


def test_a_trained_model_is_freed_with_its_session(tmp_path: Path) -> None:
    """Without the collector: the memory of a GPU would wait for it, and Windows removes no run of
    which an encoded text is still mapped."""
    session = started(tmp_path)
    gc.collect()
    gc.disable()
    try:
        list(session.records())
        model = weakref.ref(session.trainer.model)
        del session
        assert model() is None
    finally:
        gc.enable()

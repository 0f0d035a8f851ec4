"""How sessions begin: with a new run, with one that goes on, with the other half of one."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings, merge, settings_from
from charlm.config.training import LENGTHS, TrainingSettings
from charlm.config.unused import drop_unused
from charlm.errors import EnvironmentFailure, RunError, UsageError
from charlm.files.atomic import explained, json_bytes, remove_leftovers
from charlm.nn.devices import Precision, choose_precision, unserved_bf16
from charlm.nn.model import RecurrentLanguageModel
from charlm.phases import phase
from charlm.runs.checkpoints import Checkpoint, load_newest_checkpoint
from charlm.runs.data import check_unchanged, read_data, weights_problem, write_data
from charlm.runs.folders import (
    check_name,
    check_own,
    check_writable,
    lock_run,
    new_folder,
    remove_run,
)
from charlm.runs.layout import (
    CONFIG,
    FORMAT,
    RECORD,
    SEARCH,
    TOKENIZER,
    WEIGHTS,
    read_config,
    read_record,
    write_record,
)
from charlm.runs.pair import (
    backward_half,
    backward_settings,
    is_backward_half,
    is_pair,
    length_factor,
)
from charlm.runs.run import model_config, model_settings, write_model_files, write_scale
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset
from charlm.text.direction import mirrored_dataset
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.lengths import (
    check_not_shorter,
    is_shorter,
    last_progress,
    rate_note,
    trained_so_far,
    with_more,
)
from charlm.training.plan.constants import SHORT_TEXT, SHORTER_TEXT
from charlm.training.plan.memory import memory_problem
from charlm.training.plan.planner import Plan, check_unused_settings
from charlm.training.preparing import Prepared, prepare, prepare_machine
from charlm.training.pretrained import (
    begin_with,
    begin_with_frequencies,
    keep_vectors,
    kept_vectors,
)
from charlm.training.session import Session, cut_log, log_size
from charlm.training.snapshots import counters_of
from charlm.training.trainer import Trainer


def start(
    settings: Settings,
    folder: Path,
    *,
    name: str | None = None,
    origins: Mapping[str, str] | None = None,
    corpus: Corpus | None = None,
    vocabulary: Path | None = None,
    command: str = "",
    overwrite: bool = False,
) -> Session:
    """A new run: read the corpus, plan, write everything that does not change.

    `corpus` stands for the sources that the settings name; `vocabulary` is a frozen
    tokenizer.json. With `overwrite` the run takes the place of one of this name, which is removed
    when all else is ready. Raises CharlmError of the kind that fits.
    """
    check_writable(folder)
    check_name(folder, name, overwrite=overwrite)
    ready = prepare(settings, origins=origins, corpus=corpus, vocabulary=vocabulary)
    if problem := memory_problem(ready.plan.memory, ready.plan.settings, ready.device):
        raise EnvironmentFailure(problem)
    if name and overwrite:
        remove_run(folder / name)
    path, lock = new_folder(folder, name, ready.dataset.name)
    try:
        session = _new_run(path, ready, lock, command=command)
    except BaseException:
        lock.release()
        shutil.rmtree(path, ignore_errors=True)  # nothing could go on with it
        raise
    session.notes += ready.dataset.notes + _shrinking(ready.plan.reasons)
    return session


def _new_run(path: Path, ready: Prepared, lock: FileLock, *, command: str) -> Session:
    """Write what does not change of a run into its new, empty folder."""
    settings, dataset = ready.plan.settings, ready.dataset
    record = {
        "format": FORMAT,
        "name": _name_of(path),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "status": "training",
        "origins": ready.origins,
        **ready.record,
    }
    with explained(path), phase("writing the encoded text"):
        write_data(path, dataset)
        if ready.vectors:
            keep_vectors(path, ready.vectors)
    vocabulary = dataset.vocabulary
    config = model_config(settings.model, vocabulary, dataset.boundaries, dataset.unk_types)
    write_model_files(path, config, vocabulary)
    record["id"] = run_id(path, ready.record)
    session = _session(path, settings, dataset, record, lock, ready.device, ready.precision)
    write_record(path, session.record)
    return session


def _name_of(path: Path) -> str:
    """What a run is called: a half of one, and a trial of a search, with the folder around it."""
    path = path.absolute()
    if path.name in ("", ".."):
        path = path.resolve()
    inner = is_backward_half(path) or (path.parent / SEARCH).exists()
    return f"{path.parent.name}/{path.name}" if inner else path.name


def run_id(path: Path, record: Mapping[str, Any]) -> str:
    """What tells the states of a run from those of others: of its text, vocabulary and settings."""
    parts = [(path / name).read_bytes() for name in (CONFIG, TOKENIZER)]
    parts.append(json_bytes([record["settings"], record["corpus"]]))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def halves(session: Session) -> Iterator[Session]:
    """The session, and after it that of the backward half, where the run has both directions.

    A half that is complete already is passed over; one that was interrupted is the last.
    """
    if not session.complete:
        yield session
    if not is_pair(session.trainer.model.settings) or not session.complete:
        return
    session.lock.acquire(timeout=0)  # nobody else trains the first half meanwhile
    try:
        backward = _backward_half(session)
        if not backward.complete:
            yield backward
        backward.lock.release()
    finally:
        session.lock.release(force=True)


def _backward_half(forward: Session) -> Session:
    """The backward half of a run whose forward half is complete: begun, or gone on with."""
    path, record = forward.path, forward.record
    backward = backward_half(path)
    if (backward / RECORD).exists():
        wanted = record["settings"]["training"]
        there = read_record(backward)["settings"]["training"]
        changes = {key: wanted[key] for key in RESUMABLE if wanted[key] != there[key]}
        return resume(backward, {"training": changes}, dataset=forward.trainer.dataset, half=True)
    settings = backward_settings(settings_from(record["settings"], str(path / RECORD)))
    dataset = forward.trainer.dataset  # in the order of the text; stdin is not there twice
    device, threads = prepare_machine(settings.training, record["machine"].get("threads"))
    with explained(path):
        backward.mkdir(exist_ok=True)
    known = ("corpus", "machine", "precision", "parameters", "planned")
    ready = Prepared(
        plan=Plan(settings=settings, reasons={}),
        dataset=dataset,
        device=device,
        threads=threads,
        origins=record["origins"],
        vectors=kept_vectors(path),
        precision=None,
        record={"settings": settings.to_dict()} | {k: record[k] for k in known if k in record},
    )
    return _new_run(backward, ready, lock_run(backward), command=record["command"])


def resume(
    path: Path,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    more: Mapping[str, float] | None = None,
    dataset: Dataset | None = None,
    half: bool = False,
) -> Session:
    """Go on with a run from its newest whole state, or from its beginning where there is none.

    `changes` may change lengths, intervals and rates, not what the model or the text is. `more`
    makes the run longer by epochs, steps or minutes, counted from its newest state. `dataset`
    is its text, where that has been read. A `half` that was trained longer than its changes say
    keeps its length. Raises UsageError where a length is less than what was
    trained already. Best weights that are damaged are written again.
    Raises RunError when the run is damaged, CorpusError when its text is gone.
    """
    config = read_config(path)
    check_own(path)
    lock = lock_run(path)
    try:
        for folder in (path, path / "states"):
            remove_leftovers(folder)  # of a writer that died
        record = read_record(path)
        _check_recorded(path, config, record)
        changes = {key: dict(values) for key, values in (changes or {}).items()}
        settings = _resumed_settings(record, changes)
        vocabulary = load_vocabulary(path / TOKENIZER)
        if dataset is None:
            with phase("reading the text of the run"):
                dataset = read_data(path, settings, vocabulary, record)
        else:
            check_unchanged(path, (CONFIG, TOKENIZER))
        check_unused_settings(settings.training, dataset)
        saved, skipped, problem = _newest_state(path, record)
        before = settings_from(record["settings"]).training
        size = log_size(saved) if saved else 0
        counters = asdict(counters_of(saved)) if saved else {}
        settings = _with_length(settings, record, changes, more or {}, counters, half=half)
        device, threads = prepare_machine(settings.training, record["machine"].get("threads"))
        if more or changes.get("training", {}).keys() - {"save_minutes", "keep"}:
            record.pop("planned", None)  # it was another plan
        record |= {"settings": settings.to_dict()}
        with contextlib.suppress(UnicodeEncodeError):  # of a folder that is no UTF-8
            name = _name_of(path)
            name.encode("utf-8")
            record["name"] = name
        precision = record.get("precision", {}).get("name")
        session = _session(path, settings, dataset, record, lock, device)
        session.notes += [f"{one}; passed over" for one in skipped]
        _note_machine(session, precision, threads)
        if saved:
            session.trainer.restore(saved)
        if problem:
            (path / WEIGHTS).unlink()
            session.notes.append(f"{problem}; it is written again")
        if saved:
            changed = (more or {}).keys() | changes.get("training", {}).keys()
            _apply_length(session, before, changed)
        if not session.complete:
            _reopen(session, size)
    except BaseException:
        lock.release()
        raise
    return session


def _newest_state(
    path: Path, record: Mapping[str, Any]
) -> tuple[Checkpoint | None, list[str], str | None]:
    """Return the newest whole state, why others are not, and what is wrong with the weights.

    Raises RunError if no state is left and to begin again would write over the best weights.
    """
    with phase("reading the checkpoint"):
        saved, skipped = load_newest_checkpoint(path, record.get("id"))
    if skipped and not saved:
        raise RunError(
            f"{skipped[0]}, and no other state is whole; expected one to go on from. Restore "
            f"the run from a copy, or delete {path / 'states'} and {WEIGHTS} to begin it again"
        )
    problem = weights_problem(path)
    there = (path / WEIGHTS).exists() and not problem
    if not saved and there and record["status"] != "training":
        raise RunError(
            f"{path} has no states any more; to go on would begin again over its weights. Use "
            f"it as it is, start a new run, or delete {WEIGHTS} to begin it again"
        )
    return saved, skipped, problem


def _note_machine(session: Session, precision: str | None, threads: int) -> None:
    """Report and record a precision or a number of threads that is not that of the run before."""
    record = session.record
    now = record["precision"]
    if precision not in (None, now["name"]):
        session.notes.append(
            f"the precision changed from {precision} to {now['name']} ({now['reason']}); the "
            "weights will differ from those of an uninterrupted run"
        )
    if threads != record["machine"].get("threads"):
        session.notes.append("the number of threads changed; results may differ in rounding")
        record["machine"]["threads"] = threads


def _apply_length(session: Session, before: TrainingSettings, changed: Set[str]) -> None:
    """Fit a restored session to its changed settings: its patience, schedule and learning rate."""
    counters = session.trainer.counters
    if REOPENING & changed:
        counters.without_gain = 0
    if not set(LENGTHS) & changed:
        return
    counters.last_progress = last_progress(before, session.trainer)
    if "learning_rate" not in changed:
        note = rate_note(before, session.trainer)
        session.notes += [note] if note and not session.complete else []


def _check_recorded(path: Path, config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise RunError unless run.json tells of the model of config.json, and of a whole plan."""
    settings = settings_from(record["settings"], str(path / RECORD))
    if settings.model != model_settings(config, path):
        raise RunError(
            f"{path / RECORD}: tells of another model than {CONFIG}; expected the same one. "
            "Restore the run from a copy"
        )
    training = settings.training
    planned = ("batch_size", "bptt", "learning_rate", "schedule", "seed")
    missing = [name for name in planned if getattr(training, name) is None]
    missing += [] if training.epochs or training.steps or training.minutes else ["epochs"]
    if missing:
        raise RunError(
            f"{path / RECORD}: training.{missing[0]} is missing; expected a whole plan. Restore "
            "the run from a copy"
        )


def _reopen(session: Session, log_bytes: int) -> None:
    """Put the log where the saved state stands, and take back the calibration.

    First of all the run is no longer finished: a kill between these is then mended by the next.
    """
    session.record["status"] = "training"
    write_record(session.path, session.record)
    if (session.path / WEIGHTS).exists():
        write_scale(session.path, None)
    cut_log(session.path, log_bytes)


REOPENING = {*LENGTHS, "patience"}
"""Training settings with which a run that had lost its patience begins to wait again."""
RESUMABLE = (
    *LENGTHS, "evals", "patience", "save_minutes", "keep", "learning_rate",
    "weight_decay", "clip_norm", "on_nonfinite", "device", "precision", "threads",
)  # fmt: skip
"""Training settings that may change when a run goes on."""


def _resumed_settings(
    record: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]
) -> Settings:
    for section, values in changes.items():
        fixed = [key for key in values if section != "training" or key not in RESUMABLE]
        if fixed:
            raise RunError(
                f"{section}.{fixed[0]} cannot change when a run is resumed; expected one of "
                f"{', '.join(RESUMABLE)}. Start a new run to change it"
            )
    base = {section: dict(values) for section, values in record["settings"].items()}
    training = dict(changes.get("training", {}))
    if training.get("minutes"):
        training["minutes"] /= length_factor("minutes", base["model"])
    if set(LENGTHS) & training.keys():
        base["training"] |= dict.fromkeys(LENGTHS)
    settings = settings_from(merge(base, {"training": training}), str(RECORD))
    drop_unused(settings, {f"training.{name}": "flag" for name in training})
    return settings


def _with_length(
    settings: Settings,
    record: Mapping[str, Any],
    changes: Mapping[str, Mapping[str, Any]],
    more: Mapping[str, float],
    counters: Mapping[str, Any],
    *,
    half: bool = False,
) -> Settings:
    """Return the settings with the length that is asked for. Raises UsageError for a wrong one."""
    training = record["settings"]["training"]
    trained = trained_so_far(counters, record["corpus"]["parts"]["train"]["tokens"])
    given = set(LENGTHS) & changes.get("training", {}).keys()
    if more and given:
        raise UsageError(
            f"--{min(given)} with --more-{min(more)}; expected one of them: the length of the "
            "whole run, or what is added to it"
        )
    if more:
        total = with_more(more, training, trained, settings.model)
        return _resumed_settings(record, {"training": {**changes.get("training", {}), **total}})
    if given and half and is_shorter(asdict(settings.training), training, trained):
        others = {k: v for k, v in changes["training"].items() if k not in LENGTHS}
        return _resumed_settings(record, {"training": others})
    if given:
        check_not_shorter(asdict(settings.training), training, trained, settings.model)
    return settings


def _session(
    path: Path,
    settings: Settings,
    dataset: Dataset,
    record: dict[str, Any],
    lock: FileLock,
    device: torch.device,
    precision: Precision | None = None,
) -> Session:
    training = settings.training
    model = RecurrentLanguageModel(settings.model, len(dataset.vocabulary))
    model.reset_parameters(torch.Generator().manual_seed(training.seed or 0))
    if training.frequency_bias:
        begin_with_frequencies(model, dataset.train)
    if vectors := kept_vectors(path):
        begin_with(model, vectors)
    if training.freeze_vectors:
        model.embedding.requires_grad_(False)
    precision = precision or _precision(
        training, settings.model, len(dataset.vocabulary), device, record
    )
    record["precision"] = {"name": precision.name, "reason": precision.reason}
    record["parameters"] = model.parameter_count()
    if settings.model.direction == "backward":
        dataset = mirrored_dataset(dataset)
    trainer = Trainer(model, dataset, training, device=device, precision=precision)
    session = Session(path=path, trainer=trainer, record=record, lock=lock)
    trainer.on_best = session.keep_best
    return session


def _precision(
    training: TrainingSettings,
    model: ModelSettings,
    vocab_size: int,
    device: torch.device,
    record: Mapping[str, Any],
) -> Precision:
    """Return the recorded choice of a run that resumes, unless another one was asked for.

    Only if this processor or device has no bfloat16 a run that `auto` began in it goes to fp32.
    """
    before = record.get("precision")
    if before and training.precision in ("auto", before["name"]):
        kept = Precision(name=before["name"], reason=before["reason"])
        if kept.name == "fp32" or unserved_bf16(device) is None:
            return kept
    return choose_precision(training.precision, model, vocab_size, device)


def _shrinking(reasons: Mapping[str, str]) -> list[str]:
    return [
        f"{name.removeprefix('training.')} was made smaller: {reason}"
        for name, reason in reasons.items()
        if reason in (SHORT_TEXT, SHORTER_TEXT)
    ]

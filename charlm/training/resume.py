"""Resume a run from its newest checkpoint, and train the backward half after the forward one."""

import contextlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from charlm.config.settings import Settings, merge, settings_from
from charlm.config.tasks import LANGUAGE_MODEL
from charlm.config.training import LENGTHS, TrainingSettings
from charlm.config.unused import drop_unused
from charlm.errors import RunError, UsageError, named
from charlm.files.atomic import explained, remove_folder, remove_leftovers
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.checkpoints import Checkpoint, load_newest_checkpoint
from charlm.runs.data import check_unchanged, read_data, weights_problem
from charlm.runs.folders import check_own, lock_run
from charlm.runs.locate import run_name
from charlm.runs.model_files import write_logit_scale
from charlm.runs.pair import backward_half, backward_settings, is_pair, length_factor
from charlm.runs.run import model_settings
from charlm.text.dataset import Dataset
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training import lengths
from charlm.training.checkpoint import counters_of
from charlm.training.opening import open_session
from charlm.training.plan.planner import check_unused_settings
from charlm.training.pretrained import kept_vectors
from charlm.training.session import Session, cut_log, log_size
from charlm.training.start import write_run

RESUMABLE = (
    *LENGTHS, "evals", "patience", "save_minutes", "keep", "learning_rate",
    "weight_decay", "clip_norm", "on_nonfinite", "device", "precision", "engine",
    "threads", "log",
)  # fmt: skip
"""Training settings that may change when a run is resumed."""
RESTARTS_PATIENCE = {*LENGTHS, "patience"}
"""Settings whose change lets a run continue that had run out of patience."""


def resume(
    path: Path,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    more: Mapping[str, float] | None = None,
    dataset: Dataset | None = None,
    keep_longer: bool = False,
) -> Session:
    """Open a session that resumes a run from its newest intact checkpoint, or from its start.

    `changes` holds new values of `RESUMABLE` settings; `more` adds epochs, steps or minutes to
    what was trained already. A length below that raises UsageError, or is ignored with
    `keep_longer`. `dataset` is the text of the run, if it was read before. Damaged best weights are
    written again. Raises RunError if the run is damaged, CorpusError if its text is gone.
    """
    more, changed = more or {}, _resumable(changes or {})
    config = layout.read_config(path)
    check_own(path)
    with contextlib.ExitStack() as on_error:
        lock = lock_run(path)
        on_error.callback(lock.release)
        for folder in (path, path / "states"):
            remove_leftovers(folder)  # of a writer that died
        record = layout.read_record(path)
        before = _recorded_settings(path, config, record)
        settings = _changed_settings(record, changed)
        vocabulary = load_vocabulary(path / layout.TOKENIZER)
        if dataset is None:
            with phase("reading the text of the run"):
                dataset = read_data(path, settings, vocabulary, record)
        else:
            check_unchanged(path, (layout.CONFIG, *layout.TOKENIZERS))
        check_unused_settings(settings.training, dataset)
        checkpoint, skipped, damage = _newest_checkpoint(path, record)
        log_bytes = log_size(checkpoint) if checkpoint else 0
        counters = asdict(counters_of(checkpoint)) if checkpoint else {}
        settings = _with_length(settings, record, changed, more, counters, keep_longer)
        if more or changed.keys() - {"save_minutes", "keep", "log"}:
            record["planned"] = {}  # the plan was made for other settings
        record["settings"] = settings.to_dict()
        with contextlib.suppress(UnicodeEncodeError):  # a folder whose name is not UTF-8
            run_name(path).encode("utf-8")
            record["name"] = run_name(path)
        session = open_session(path, settings, dataset, record, lock)
        session.warnings[:0] = [f"{problem}; skipped" for problem in skipped]
        if checkpoint:
            session.trainer.restore(checkpoint)
        if damage:
            (path / layout.WEIGHTS).unlink()
            session.warnings.append(f"{damage}; it will be written again")
        if checkpoint:
            _apply_length(session, before.training, more.keys() | changed.keys())
        if not session.complete:
            _reopen(session, log_bytes)
        on_error.pop_all()
    return session


def _resumable(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the training settings to change. Raises RunError for others."""
    for section, values in changes.items():
        for key in values:
            if section != "training" or key not in RESUMABLE:
                raise RunError(
                    f"{named(key)} cannot change when a run is resumed; expected one of "
                    f"{', '.join(RESUMABLE)}. Start a new run to change it"
                )
    return dict(changes.get("training", {}))


def _same_task(settings: Settings, config: Mapping[str, Any]) -> bool:
    """Return whether settings have the task in config.json and its settings there."""
    table = config.get(layout.TASK, {"name": LANGUAGE_MODEL})
    own = asdict(settings.task)
    if own["condition"] != config.get(layout.CONDITIONS, {}).get("column"):
        return False
    return own["task"] == table["name"] and all(
        own[key] == value for key, value in table.items() if key in own
    )


def _recorded_settings(
    path: Path, config: Mapping[str, Any], record: Mapping[str, Any]
) -> Settings:
    """Return the settings in run.json. Raises RunError if they lack a value or do not fit."""
    settings = settings_from(record["settings"], str(path / layout.RECORD))
    if settings.model != model_settings(config, path) or not _same_task(settings, config):
        raise RunError(
            f"{path / layout.RECORD}: describes another model than {layout.CONFIG}; expected the "
            "same. Restore the run from a copy"
        )
    training = settings.training
    planned = ("batch_size", "bptt", "learning_rate", "schedule", "seed")
    missing = [name for name in planned if getattr(training, name) is None]
    missing += [] if training.epochs or training.steps or training.minutes else ["epochs"]
    if missing:
        raise RunError(
            f"{path / layout.RECORD}: training.{missing[0]} is missing; expected a complete plan. "
            "Restore the run from a copy"
        )
    return settings


def _changed_settings(record: Mapping[str, Any], changed: Mapping[str, Any]) -> Settings:
    """Return the recorded settings with some training settings changed."""
    base = {section: dict(values) for section, values in record["settings"].items()}
    training = dict(changed)
    if training.get("minutes"):
        training["minutes"] /= length_factor("minutes", base["model"])
    if set(LENGTHS) & training.keys():
        base["training"] |= dict.fromkeys(LENGTHS)
    settings = settings_from(merge(base, {"training": training}), str(layout.RECORD))
    drop_unused(settings, {f"training.{name}": "flag" for name in training})
    return settings


def _with_length(
    settings: Settings,
    record: Mapping[str, Any],
    changed: Mapping[str, Any],
    more: Mapping[str, float],
    counters: Mapping[str, Any],
    keep_longer: bool,
) -> Settings:
    """Return the settings with the requested length. Raises UsageError for a wrong one."""
    training = record["settings"]["training"]
    trained = lengths.trained_so_far(counters, layout.train_targets(record))
    given = set(LENGTHS) & changed.keys()
    if more and given:
        raise UsageError(
            f"--{min(given)} with --more-{min(more)}; expected one of them: the length of the "
            "whole run, or what is added to it"
        )
    if more:
        total = lengths.with_more(more, training, trained, settings.model)
        return _changed_settings(record, {**changed, **total})
    if given and keep_longer and lengths.is_shorter(asdict(settings.training), training, trained):
        others = {name: value for name, value in changed.items() if name not in LENGTHS}
        return _changed_settings(record, others)
    if given:
        lengths.check_not_shorter(asdict(settings.training), training, trained, settings.model)
    return settings


def _newest_checkpoint(
    path: Path, record: Mapping[str, Any]
) -> tuple[Checkpoint | None, list[str], str | None]:
    """Return the newest intact checkpoint, problems of newer ones, and of the best weights.

    Raises RunError if no checkpoint is left and starting again would overwrite the best weights.
    """
    with phase("reading the checkpoint"):
        checkpoint, skipped = load_newest_checkpoint(path, record.get("id"))
    tuned = "from" in record
    if skipped and not checkpoint:
        again = f", or delete {path / 'states'} and {layout.WEIGHTS} to start it again"
        raise RunError(
            f"{skipped[0]}, and no other checkpoint is intact; expected one to resume from. "
            f"Restore the run from a copy{'' if tuned else again}"
        )
    if tuned and not checkpoint:
        raise RunError(
            f"{path} has no checkpoints, which hold the weights that it started from; expected one "
            "to resume from. Restore the run from a copy, or start a new one"
        )
    damage = weights_problem(path)
    intact = (path / layout.WEIGHTS).exists() and not damage
    if not checkpoint and intact and record["status"] not in ("training", "diverged"):
        raise RunError(
            f"{path} has no checkpoints; resuming would start again and overwrite its weights. Use "
            f"it as it is, start a new run, or delete {layout.WEIGHTS} to start it again"
        )
    return checkpoint, skipped, damage


def _apply_length(session: Session, before: TrainingSettings, changed: Set[str]) -> None:
    """Fit patience and schedule of a restored session to its changed settings."""
    counters = session.trainer.counters
    if RESTARTS_PATIENCE & changed:
        counters.without_gain = 0
    if not set(LENGTHS) & changed:
        return
    counters.last_progress = lengths.last_progress(before, session.trainer)
    if "learning_rate" not in changed and not session.complete:
        warning = lengths.rate_warning(before, session.trainer)
        session.warnings += [warning] if warning else []


def _reopen(session: Session, log_bytes: int) -> None:
    """Put a finished run back into training: remove calibration, companion, and end of the log.

    The status changes first, so that a kill in between is repaired by the next resume. Warnings of
    earlier sessions are kept for the results, but not yielded again.
    """
    record = session.record
    notes = record.get("notes") or (record.get("results") or {}).get("notes", [])
    earlier = [note for note in notes if note not in session.warnings]
    session.warnings[:0] = earlier
    session.warned = len(earlier)
    record |= {"status": "training", "notes": list(session.warnings)}
    layout.write_record(session.path, session.record)
    write_logit_scale(session.path, None)
    remove_folder(session.path / layout.COMPANION)
    cut_log(session.path, log_bytes)


def halves(session: Session) -> Iterator[Session]:
    """Yield a session, and after it the session of the backward half if the run has one.

    A half that is complete already is left out; a half that is interrupted is the last.
    """
    if not session.complete:
        yield session
    if not is_pair(session.trainer.model.settings) or not session.complete:
        return
    session.lock.acquire(timeout=0)  # no other process may train the first half now
    try:
        backward = _backward_session(session)
        if not backward.complete:
            yield backward
        backward.lock.release()
    finally:
        session.lock.release(force=True)


def _backward_session(forward: Session) -> Session:
    """Start or resume the backward half of a run whose forward half is complete."""
    path, record = backward_half(forward.path), forward.record
    dataset = forward.dataset  # in the order of the text; stdin cannot be read twice
    if (path / layout.RECORD).exists():
        forward_training = record["settings"]["training"]
        recorded = layout.read_record(path)["settings"]["training"]
        changes = {
            name: forward_training[name]
            for name in RESUMABLE
            if forward_training[name] != recorded.get(name)
        }
        return resume(path, {"training": changes}, dataset=dataset, keep_longer=True)
    with explained(path):
        path.mkdir(exist_ok=True)
    names = ("origins", "corpus", "machine", "precision", "parameters", "planned", "command")
    settings = backward_settings(
        settings_from(record["settings"], str(forward.path / layout.RECORD))
    )
    planned = {"settings": settings.to_dict()} | {k: record[k] for k in names if k in record}
    return write_run(path, lock_run(path), dataset, planned, kept_vectors(forward.path))

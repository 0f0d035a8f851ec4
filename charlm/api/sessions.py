"""Training sessions from requests: plan, start or resume a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.commands import command
from charlm.config.presets import combined
from charlm.config.settings import Nested, Settings, settings_from
from charlm.config.task import TaskSettings
from charlm.config.tasks import TASKS, is_of_task
from charlm.config.training import LENGTHS
from charlm.config.unused import drop_unused
from charlm.errors import RunError, UsageError, named
from charlm.phases import phase
from charlm.runs.built_in import is_built_in
from charlm.runs.data import absolute, text_changed
from charlm.runs.folders import check_name, check_writable
from charlm.runs.layout import RECORD, TOKENIZER, read_record
from charlm.runs.locate import checkpoints_folder, find_run, is_ngram_run, own_runs
from charlm.runs.model_files import vocabulary_bytes
from charlm.runs.pair import length_factor
from charlm.runs.parent import KEEP, Parent, check_vocabulary_mode, find_parent, yielding
from charlm.text.corpus import Corpus
from charlm.text.tokenizers.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from charlm.training.planned_run import PlannedRun
    from charlm.training.session import Session

LOADING = "loading PyTorch"
PLANNED = {"batch_size", "bptt", "epochs", "steps", "minutes", "evals", "parameters"}
"""Settings that a plan may replace by values other than those given."""
MACHINE = {"device", "threads", "save_minutes", "keep", "log"}
"""Settings of the machine and of checkpoints, which may change from session to session."""
PATHS = ("sources", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Request to train: settings by section, their origin, and the run.

    `flags` are settings that were given one by one; `source` names them in origins ("flag" or
    "argument"). `more` has lengths to add to a resumed run. `start_from` names the run whose
    weights a new run starts with; `vocabulary` says if its vocabulary is to `keep` or to `grow`.
    """

    flags: Nested
    config: Path | None = None
    preset: str | None = None
    vocab: Path | None = None
    name: str | None = None
    run: str | None = None
    checkpoints: Path | None = None
    more: dict[str, float] = field(default_factory=dict)
    source: str = "flag"
    start_from: str | None = None
    vocabulary: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of runs."""
        return checkpoints_folder(self.checkpoints)

    def combined(self) -> tuple[Nested, dict[str, str]]:
        """Return preset, file and flags as settings by section, and the origin of each."""
        if self.run:
            raise UsageError(
                "--run names a run to resume, so it needs --resume. Name a new run with --name"
            )
        return combined(
            self.flags, self.source, preset=self.preset, config=self.config, vocab=self.vocab
        )

    @cached_property
    def parent(self) -> Parent | None:
        """The run that `start_from` names. Raises UsageError or RunError if it cannot be used."""
        if self.start_from is None:
            return None
        if self.vocab:
            raise UsageError(
                f"{named('vocab')} with {named('start_from')}, whose run has a vocabulary; give "
                "one of them"
            )
        return find_parent(self.start_from, self.folder)

    def of_new_run(self) -> tuple[Nested, dict[str, str]]:
        """Return the settings of a new run and their origins, with those of the parent."""
        nested, origins = self.combined()
        if self.parent:
            nested, origins = yielding(nested, origins, self.parent, self.vocabulary)
        check_vocabulary_mode(self.vocabulary, self.parent, nested)
        return self.parent.complete(nested, origins) if self.parent else (nested, origins)

    def vocabulary_mode(self, settings: Settings) -> str | None:
        """Return the treatment of new types; a labelled run keeps the vocabulary by default."""
        labelled = self.parent and TASKS[settings.task.task].labelled
        return self.vocabulary or (KEEP if labelled else None)


def plan_run(request: Request) -> "PlannedRun":
    """Return the plan of a new run; nothing is written and nothing is trained."""
    nested, origins = request.of_new_run()
    settings = settings_from(nested)
    _check_inputs(settings, origins, request.vocab)
    with phase(LOADING):
        from charlm.training import planned_run

    return planned_run.plan_run(
        settings,
        origins=origins,
        vocabulary=request.vocab,
        parent=request.parent,
        mode=request.vocabulary_mode(settings),
    )


def start_run(
    request: Request,
    *,
    corpus: Corpus | None = None,
    examples: Sequence[tuple[str, str]] | None = None,
    command: str = "",
    overwrite: bool = False,
) -> "Session":
    """Start a new run on its text, or on a `corpus` or labelled `examples` in memory.

    `command` is kept in the record; with `overwrite` a run of the same name is replaced.
    """
    nested, origins = request.of_new_run()
    settings = settings_from(nested)
    check_writable(request.folder)
    check_name(request.folder, request.name, overwrite=overwrite)
    _check_inputs(settings, origins, request.vocab)
    with phase(LOADING):
        from charlm.training import start as starting

    return starting.start(
        settings,
        request.folder,
        name=request.name,
        origins=origins,
        corpus=corpus,
        examples=examples,
        vocabulary=request.vocab,
        parent=request.parent,
        mode=request.vocabulary_mode(settings),
        command=command,
        overwrite=overwrite,
    )


def _check_inputs(settings: Settings, origins: Mapping[str, str], vocab: Path | None) -> None:
    """Raise CharlmError for settings without effect and missing files, before PyTorch is loaded."""
    drop_unused(settings, origins)
    corpus = settings.corpus
    for names in (corpus.sources, corpus.valid, corpus.test):
        if names:
            Corpus(names, reading=corpus)
    if vocab:
        load_vocabulary(vocab)


def start_or_resume(request: Request, *, command: str = "") -> "Session":
    """Start the run of this name, or resume it if it exists.

    A length greater than that of the run makes it longer; a smaller one changes nothing. Raises
    UsageError if the run was made with other settings or another text.
    """
    path = request.folder / str(request.name)
    if not (path / RECORD).exists():
        try:
            return start_run(request, command=command)
        except RunError:  # another process may have started it meanwhile
            if not (path / RECORD).exists():
                raise
    _check_network(path, request.folder)
    nested, origins = request.combined()
    nested = {
        section: {
            key: value
            for key, value in values.items()
            if not is_of_task(origins[f"{section}.{key}"])
        }
        for section, values in nested.items()
    }
    record = read_record(path)
    changes = _changes(nested, record, path.name)
    _check_text(nested, record, path, request.vocab)
    _check_parent(request, record, path.name)
    return _resumed(path, changes, {})


def _changes(nested: Nested, record: Mapping[str, Any], name: str) -> Nested:
    """Return the settings to change in a run: a greater length, and those of the machine.

    Raises UsageError if the run was made with other settings.
    """
    unnamed = {"task": vars(TaskSettings())}  # a language model names none
    given, recorded = unnamed | settings_from(nested).to_dict(), unnamed | record["settings"]
    changes: dict[str, Any] = {}
    results = record.get("results") or {}
    for section, key in ((section, key) for section, values in nested.items() for key in values):
        before, now = recorded[section].get(key), given[section][key]
        origin = record.get("origins", {}).get(f"{section}.{key}", "")
        factor = length_factor(key, recorded["model"])
        replaced = key in PLANNED and origin not in ("flag", "default") and factor == 1
        if before == now or replaced or key == "parameters":
            continue
        if key in PATHS and absolute(now) == record["corpus"].get(key):
            continue
        if key in MACHINE:
            changes[key] = now
        elif key in LENGTHS and before is not None:
            before *= factor
            changes |= {key: now} if now > before * (1.0 + 1e-9) else {}
        elif not (key == "steps" and results.get("step", 0) >= now):
            raise _differing_run(f"with {key} {before}, not {now}", "the settings", name)
    return {"training": changes} if changes else {}


def _check_text(nested: Nested, record: dict[str, Any], path: Path, vocab: Path | None) -> None:
    """Raise UsageError if the given text or vocabulary differs from that of the run."""
    if vocab:
        own, other = (vocabulary_bytes(load_vocabulary(p)) for p in (path / TOKENIZER, vocab))
        if own != other:
            raise _differing_run(f"with another vocabulary than {vocab}", "the same", path.name)
    given = settings_from(nested).corpus
    if given.sources:
        before = settings_from(record["settings"]).corpus
        if text_changed(replace(before, **{key: getattr(given, key) for key in PATHS}), record):
            raise _differing_run("from another text: it has changed", "the text", path.name)


def _check_parent(request: Request, record: Mapping[str, Any], name: str) -> None:
    """Raise UsageError if a run was made from another run than the request names."""
    about, parent, mode = record.get("from") or {}, request.parent, request.vocabulary
    if mode and not parent:
        check_vocabulary_mode(mode, parent, {})
    now = parent.about(mode) if parent else {}
    if about.get("sha256") != now.get("sha256"):
        made = f"from weights of run {about['run']}" if about else f"without {named('start_from')}"
        raise _differing_run(made, "the weights" if about else "the settings", name)
    if mode and about["vocabulary"] != now["vocabulary"]:
        made = f"with {named('vocabulary')} {about['vocabulary']}, not {mode}"
        raise _differing_run(made, "the settings", name)


def _differing_run(how: str, expected: str, name: str) -> UsageError:
    return UsageError(
        f"run {name} was made {how}; expected {expected} that it was made with. Use --overwrite "
        "to train it again, or another --name"
    )


def resume_run(request: Request) -> "Session":
    """Resume the named run, or the newest one; it may be complete already.

    Raises UsageError for a text or settings that only a new run takes, RunError if there is no run
    to resume.
    """
    flags, folder = request.flags, request.folder
    if request.start_from or request.vocabulary:
        given = "start_from" if request.start_from else "vocabulary"
        raise UsageError(
            f"{named(given)} with --resume, which continues with the run's own weights; give one "
            "of them"
        )
    if request.config or request.preset or request.vocab or flags.get("corpus", {}).get("sources"):
        raise UsageError(
            "--resume uses the text and the settings of the run; leave out the text, --config, "
            "--preset and --vocab"
        )
    if request.run and request.name:
        raise UsageError("--run and --name with --resume; both name the run, give one of them")
    name = request.run or request.name
    start = command("train", "TEXT", checkpoints=folder)
    if name is not None:
        path = find_run(name, folder, trained=False)
    else:
        runs = [path for path in own_runs(folder) if not is_ngram_run(path)]
        if not runs:
            raise RunError(f"no run in {folder} to resume; start one with: {start}")
        path = runs[0]
    _check_network(path, folder)
    if is_built_in(path):
        raise RunError(f"the built-in run is read-only; train your own: {start}")
    changes = {section: values for section, values in flags.items() if values}
    return _resumed(path, changes, request.more)


def _check_network(path: Path, folder: Path) -> None:
    """Raise UsageError for an n-gram run, which cannot be trained."""
    if is_ngram_run(path):
        raise UsageError(
            f"{path.name} is an n-gram run, which is complete; expected the run of a network to "
            f"resume. Train one with: {command('train', 'TEXT', checkpoints=folder)}"
        )


def _resumed(path: Path, changes: Nested, more: dict[str, float]) -> "Session":
    with phase(LOADING):
        from charlm.training import resume as resuming

    return resuming.resume(path, changes, more=more)

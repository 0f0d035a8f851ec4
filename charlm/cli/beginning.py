"""Start, plan or resume a training session from the flags of `charlm train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.output import Verbosity, render, say, say_notes, write, write_json
from charlm.commands import command
from charlm.phases import phase

if TYPE_CHECKING:
    from charlm.training.session import Session

LOADING = "loading PyTorch"
PLANNED = {"batch_size", "bptt", "epochs", "steps", "minutes", "evals", "parameters"}
"""Settings that a plan may replace by others than those that were given."""
MACHINE = {"device", "threads", "save_minutes", "keep"}
"""Settings of the machine and of checkpoints, which may change from one session to the next."""
PATHS = ("sources", "valid", "test")
Nested = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of a training: settings by section, where they come from, and which run."""

    flags: Nested
    config: Path | None = None
    preset: str | None = None
    vocab: Path | None = None
    name: str | None = None
    run: str | None = None
    checkpoints: Path | None = None
    more: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of runs."""
        from charlm.runs.locate import checkpoints_folder

        return checkpoints_folder(self.checkpoints)

    def layered(self) -> tuple[Nested, dict[str, str]]:
        """Return preset, file and flags as settings by section, and where each came from."""
        from charlm.config.presets import PRESETS, combined
        from charlm.errors import UsageError

        if self.run:
            raise UsageError(
                "--run names a run to resume, so it needs --resume. Name a new run with --name"
            )
        found = combined(self.flags, "flag", preset=self.preset, config=self.config)
        if self.preset:
            say(f"preset {self.preset}; not as published: {PRESETS[self.preset].differs}")
        return found


def show_plan(request: Request, *, as_json: bool) -> None:
    """Write the plan and the reasons for it to stdout."""
    from charlm.config.settings import settings_from

    nested, origins = request.layered()
    settings = settings_from(nested, "flags")
    with phase(LOADING):
        from charlm.training.plan.memory import memory_problem
        from charlm.training.preparing import prepare

    ready = prepare(settings, origins=origins, vocabulary=request.vocab)
    problem = memory_problem(ready.plan.memory, ready.plan.settings, ready.device)
    say_notes([*ready.dataset.notes, *([problem] if problem else [])])
    record = {**ready.record, "origins": ready.origins}
    if as_json:
        write_json({"schema_version": 1, **record})
        return
    from charlm.report.progress import describe_plan
    from charlm.report.runs import setting_rows, setting_table

    write("\n".join(describe_plan(record)) + "\n\n")
    render(setting_table(setting_rows(record, everything=False)))


def start(request: Request, *, overwrite: bool = False) -> "Session":
    """Start a new run, with `overwrite` in the place of the run of this name."""
    from charlm.config.settings import settings_from

    nested, origins = request.layered()
    settings = settings_from(nested, "flags")
    with phase(LOADING):
        from charlm.training import opening

    return opening.start(
        settings,
        request.folder,
        name=request.name,
        origins=origins,
        vocabulary=request.vocab,
        command=Verbosity.command,
        overwrite=overwrite,
    )


def start_or_continue(request: Request) -> "Session":
    """Start the run of this name, or resume it. Raises UsageError for settings that differ.

    A length that is greater than that of the run makes it longer; a smaller one changes nothing.
    """
    from charlm.errors import RunError
    from charlm.runs.layout import RECORD, read_record

    path = request.folder / str(request.name)
    if not (path / RECORD).exists():
        try:
            return start(request)
        except RunError:  # another process may have started it meanwhile
            if not (path / RECORD).exists():
                raise
    nested, _ = request.layered()
    record = read_record(path)
    changes = _changes(nested, record, path.name)
    _check_text(nested, record, path, request.vocab)
    return _resumed(path, changes, {})


def _changes(nested: Nested, record: dict[str, Any], name: str) -> Nested:
    """Return what changes in a run: a length that is greater than its own, and how it is run.

    Raises UsageError where the run was made with other settings than are given now.
    """
    from charlm.config.settings import LENGTHS, settings_from
    from charlm.runs.data import absolute
    from charlm.runs.pair import length_factor

    given, recorded, changes = settings_from(nested, "flags").to_dict(), record["settings"], {}
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
            raise _made_otherwise(f"with {key} {before}, not {now}", "the settings", name)
    return {"training": changes} if changes else {}


def _check_text(nested: Nested, record: dict[str, Any], path: Path, vocab: Path | None) -> None:
    """Raise UsageError where the text or vocabulary that is given is not that of the run."""
    from dataclasses import replace

    from charlm.config.settings import settings_from
    from charlm.runs.data import text_changed
    from charlm.runs.layout import TOKENIZER
    from charlm.runs.run import vocabulary_bytes
    from charlm.text.tokenizers.vocabulary import load_vocabulary

    if vocab:
        own, other = (vocabulary_bytes(load_vocabulary(p)) for p in (path / TOKENIZER, vocab))
        if own != other:
            raise _made_otherwise(f"with another vocabulary than {vocab}", "the same", path.name)
    given = settings_from(nested, "flags").corpus
    if given.sources:
        before = settings_from(record["settings"]).corpus
        if text_changed(replace(before, **{key: getattr(given, key) for key in PATHS}), record):
            raise _made_otherwise("from another text: it has changed", "the text", path.name)


def _made_otherwise(how: str, expected: str, name: str) -> Exception:
    from charlm.errors import UsageError

    return UsageError(
        f"run {name} was made {how}; expected {expected} that it was made with. Use --overwrite "
        "to train it again, or another --name"
    )


def resume(request: Request) -> "Session":
    """Resume the run that is named, or the newest one; it may be complete already."""
    from charlm.errors import RunError, UsageError
    from charlm.runs.built_in import is_built_in
    from charlm.runs.locate import find_run, own_runs

    flags, folder = request.flags, request.folder
    if request.config or request.preset or request.vocab or flags.get("corpus", {}).get("sources"):
        raise UsageError(
            "--resume uses the text and the settings of the run; leave out the text, --config, "
            "--preset and --vocab"
        )
    if request.run and request.name:
        raise UsageError("--run and --name with --resume; both name the run, give one of them")
    wanted = request.run or request.name
    if wanted is None:
        runs = own_runs(folder)
        if not runs:
            words = command("train", "TEXT", checkpoints=folder)
            raise RunError(f"no run in {folder} to resume; start one with: {words}")
        path = runs[0]
    else:
        path = find_run(wanted, folder, trained=False)
    if is_built_in(path):
        words = command("train", "TEXT", checkpoints=folder)
        raise RunError(f"the built-in run is read-only; train your own: {words}")
    changes = {section: values for section, values in flags.items() if values}
    return _resumed(path, changes, request.more)


def _resumed(path: Path, changes: Nested, more: dict[str, float]) -> "Session":
    with phase(LOADING):
        from charlm.training import opening

    session = opening.resume(path, changes, more=more)
    if not session.complete:
        say(f"going on with {path.name} from step {session.trainer.counters.step:,}")
    return session


def completed(session: "Session") -> str:
    """Return a sentence about a run that is complete: how long it was, and how to train it more."""
    from dataclasses import asdict

    from charlm.runs.pair import length_factor
    from charlm.training.lengths import counted_length, length_of

    trainer = session.trainer
    unit, value = length_of(asdict(trainer.settings))
    value *= length_factor(unit, trainer.model.settings)
    length = f"complete after {counted_length(value, unit)}"
    if trainer.completion == "patience":
        length = f"over after {trainer.passes:.1f} passes, since validation no longer improved"
    words = command("train", "--resume", f"--more-{unit}", f"{value:g}", run=session.path)
    return (
        f"run {session.path.name} is {length}, so nothing was changed. To train it for "
        f"{counted_length(value, unit, 'more ')}: {words}"
    )

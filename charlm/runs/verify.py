"""Verify a run: check every file against its manifest, header and format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from charlm.config.settings import settings_from
from charlm.errors import CharlmError
from charlm.files.atomic import MANIFEST, manifest_problems
from charlm.runs import layout
from charlm.runs.checkpoints import checkpoint_folders, checkpoint_problems
from charlm.runs.locate import exists
from charlm.runs.pair import BACKWARD
from charlm.runs.run import load_run
from charlm.runs.task_run import load_task_run
from charlm.runs.weights import read_header
from charlm.text.dataset import SPLITS
from charlm.text.encoded import read_encoded
from charlm.text.task_text import text_for
from charlm.text.tokenizers.vocabulary import load_vocabulary


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked, and its problems, if any."""

    name: str
    problems: tuple[str, ...] = ()


def verify_run(path: Path) -> list[Check]:
    """Check that every file of a run is readable, unchanged, of one model and can be resumed.

    A run without the folder data/, in which its text is kept, is whole: it was shared without it.
    """
    config: dict[str, Any] = {}
    checks = [_check(layout.CONFIG, lambda: config.update(layout.read_config(path)))]
    checks.append(
        _check(layout.TOKENIZER, lambda: load_vocabulary(layout.home(path) / layout.TOKENIZER))
    )
    for name in layout.TOKENIZERS[1:]:
        if exists(path / name):
            checks.append(_check(name, partial(load_vocabulary, path / name)))
    checks.append(_check_manifest(path))
    record: dict[str, Any] = {}
    if exists(path / layout.RECORD):
        checks.append(_check(layout.RECORD, lambda: record.update(layout.read_record(path))))
    if exists(path / layout.METRICS):
        checks.append(_check(layout.METRICS, lambda: layout.read_metrics(path)))
    labelled = layout.is_label_run(path)
    load: Callable[[Path], Any] = load_task_run if labelled else load_run
    checks.append(_check(layout.model_file(path).name, lambda: load(path)))
    for name in SPLITS:
        folder = path / "data" / name
        if folder.exists():
            checks.append(_check(f"data/{name}", partial(_read_text, folder, config)))
    if exists(path / layout.KEPT_VECTORS):
        checks.append(
            _check(str(layout.KEPT_VECTORS), lambda: read_header(path / layout.KEPT_VECTORS))
        )
    for folder in checkpoint_folders(path):
        problems = tuple(checkpoint_problems(folder, record.get("id")))
        checks.append(Check(name=f"states/{folder.name}", problems=problems))
    for name in (BACKWARD, layout.COMPANION):
        if (path / name).exists():
            inner = verify_run(path / name)
            checks += [replace(check, name=f"{name}/{check.name}") for check in inner]
    return checks


def run_problems(path: Path) -> list[str]:
    """Return all problems that `verify_run` finds, with files named from the run's own folder."""
    problems = (problem for check in verify_run(path) for problem in check.problems)
    return [layout.named_inside(path, problem) for problem in problems]


def _read_text(folder: Path, config: Mapping[str, Any]) -> None:
    """Read a text and what lies beside it. Raises CharlmError for damage.

    `config` is the content of config.json, empty if that is damaged.
    """
    text = read_encoded(folder)
    condition = config.get(layout.CONDITIONS, {}).get("column")
    task = {"task": layout.task_of(config), "condition": condition}
    if beside := text_for(settings_from({layout.TASK: task})):
        beside.read(folder.parent.parent, config, {folder.name: text})


def _check(name: str, read: Callable[[], Any]) -> Check:
    try:
        read()
    except CharlmError as error:
        return Check(name=name, problems=(str(error),))
    return Check(name=name)


def _check_manifest(path: Path) -> Check:
    """Check that fixed files and weights are listed in the manifest and as written."""
    try:
        manifest = layout.read_manifest(path)
    except CharlmError as error:
        return Check(name=MANIFEST, problems=(str(error),))
    entries = manifest.get("files")
    if isinstance(entries, dict) and not exists(path / "data"):
        kept = {name: entry for name, entry in entries.items() if not name.startswith("data/")}
        manifest = {**manifest, "files": kept}
    required = [
        name
        for name in (
            layout.CONFIG,
            *layout.TOKENIZERS,
            layout.WEIGHTS,
            layout.NGRAMS,
            layout.BAG,
        )
        if (path / name).exists()
    ]
    required += [file.relative_to(path).as_posix() for file in sorted(path.glob("data/*/*"))]
    return Check(name=MANIFEST, problems=tuple(manifest_problems(path, manifest, required)))

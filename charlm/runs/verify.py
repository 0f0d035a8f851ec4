"""Checking a run: every file against its manifest, its header, its format."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.errors import CharlmError
from charlm.runs.commit import MANIFEST, manifest_problems, read_json
from charlm.runs.layout import (
    BACKWARD,
    CONFIG,
    RECORD,
    TOKENIZER,
    WEIGHTS,
    read_config,
    read_record,
)
from charlm.runs.states import state_folders, state_problems
from charlm.text.dataset import SPLITS, read_encoded
from charlm.text.vocabulary import load_vocabulary


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was checked and what is wrong with it; no problem: it is fine."""

    name: str
    problems: tuple[str, ...] = ()


def verify_run(path: Path) -> list[Check]:
    """Check every file of a run: readable, as written, of one model, usable for resuming."""
    checks = [_check(CONFIG, lambda: read_config(path))]
    checks.append(_check(TOKENIZER, lambda: load_vocabulary(path / TOKENIZER)))
    checks.append(_check(MANIFEST, lambda: read_json(path / MANIFEST), path))
    if (path / RECORD).exists():
        checks.append(_check(RECORD, lambda: read_record(path)))
    checks.append(_check(WEIGHTS, lambda: _load(path)))
    for name in SPLITS:
        folder = path / "data" / name
        if folder.exists():
            checks.append(_check(f"data/{name}", lambda folder=folder: read_encoded(folder)))
    for folder in state_folders(path):
        problems = tuple(state_problems(folder))
        checks.append(Check(name=f"states/{folder.name}", problems=problems))
    if (path / BACKWARD).exists():
        halves = verify_run(path / BACKWARD)
        checks += [replace(check, name=f"{BACKWARD}/{check.name}") for check in halves]
    return checks


def _check(name: str, read: Any, manifest_of: Path | None = None) -> Check:
    try:
        content = read()
    except CharlmError as error:
        return Check(name=name, problems=(str(error),))
    if manifest_of is None:
        return Check(name=name)
    return Check(name=name, problems=tuple(manifest_problems(manifest_of, content)))


def _load(path: Path) -> Any:
    from charlm.runs.run import load_run

    return load_run(path)

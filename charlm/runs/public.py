"""The public files of a run: what goes into an exported file, and to a model hub.

Only this module decides it, and by lists of what is allowed: a value that is not named here stays
private. The training text (`data/`, and the n-grams beside a network, from which most of the text
can be reconstructed) and the checkpoints go along only on request. Of run.json, metrics.jsonl
and the card there are public versions: without the command, folders, the names of devices, pieces
of the text, and warnings, which may quote any of these. The vocabulary is a part of the model.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from charlm.config.settings import table
from charlm.errors import RunError, UsageError
from charlm.files.archives import files_below
from charlm.files.atomic import MANIFEST, explained, json_bytes
from charlm.files.safe_read import parse_json, read_bytes
from charlm.runs import layout
from charlm.runs.card import model_card
from charlm.runs.overview import disk_space
from charlm.runs.verify import run_problems
from charlm.text.sources.hub import HUB_PREFIX

TAKEN_OUT = (
    f"{layout.RECORD}: command, folders, device name, warnings, pieces of the text",
    f"{layout.METRICS}: folders, warnings, pieces of the text",
)
"""Sentences about what the public versions of files lack."""
WORDS = ("kind", "reason")
"""Strings of results and of records in the log that are public; of the rest only numbers are."""
PART_FILES = ("data", "states", layout.COMPANION)
"""Folders of a run that go along on request; the files of TensorBoard, which name the host, never
do."""


@dataclass(frozen=True, kw_only=True)
class Public:
    """Choice of the parts of a run that are made public.

    `license_` is an identifier such as "mit", `target` what commands on the card name the run.
    """

    with_data: bool = False
    with_states: bool = False
    license_: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        text = self.license_
        if text is not None and not (
            text.isascii() and text.replace("-", "").replace(".", "").isalnum()
        ):
            raise UsageError(
                f"license is {text!r}; expected an identifier such as mit or cc-by-4.0"
            )

    def includes(self, part: str) -> bool:
        """Return whether a folder of a run goes along."""
        return part in PART_FILES and (self.with_states if part == "states" else self.with_data)


@dataclass(kw_only=True)
class Staged:
    """Public files of a run in a folder.

    `sizes` are the files with their bytes, by name; `left_out` folders that stay private.
    """

    folder: Path
    sizes: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def staged(path: Path, public: Public) -> Iterator[Staged]:
    """Put the public files of a run into a temporary folder; unchanged ones are links.

    Raises RunError if the run is damaged or not trained yet.
    """
    with tempfile.TemporaryDirectory() as name:
        stage = Staged(folder=Path(name))
        _fill(path, stage.folder, public)
        stage.sizes = {n: file.stat().st_size for n, file in files_below(stage.folder).items()}
        for half in (path, path / layout.BACKWARD):
            for part in (*PART_FILES, layout.TENSORBOARD):
                if (half / part).exists() and not public.includes(part):
                    stage.left_out[(half / part).relative_to(path).as_posix()] = disk_space(
                        half / part
                    )
        if problems := run_problems(stage.folder):
            raise RunError(f"{path}: {problems[0]}. Expected a whole run; restore it from a copy")
        yield stage


def _fill(path: Path, folder: Path, public: Public) -> None:
    """Write the public files of a run into an empty folder."""
    if layout.home(path) != path:
        raise UsageError(f"{path} is a part of a run; expected the whole run {path.parent}")
    record = layout.read_record(path)
    if not layout.model_file(path).exists():
        raise RunError(f"{path} has no weights yet; expected a run that was trained for a while")
    names = [layout.CONFIG, layout.TOKENIZER, layout.model_file(path).name]
    others = (*layout.TOKENIZERS[1:], layout.BAG)
    names += [name for name in others if (path / name).exists()]
    names += _names_below(path, "data") if public.with_data else []
    about = public_record(record)
    if not (public.with_data and (path / layout.COMPANION).exists()):
        about.get("results", {}).pop("companion", None)
    listed = layout.read_manifest(path).get("files")
    entries = {name: listed[name] for name in names if name in listed} if listed else {}
    card = model_card(path.name, about, run=public.target, license_=public.license_)
    written = {
        layout.RECORD: layout.sealed_record(about),
        layout.CARD: card.encode("utf-8"),
        MANIFEST: json_bytes({"format": layout.FORMAT, "files": entries}),
    }
    if (path / layout.METRICS).exists():
        written[layout.METRICS] = public_log(path / layout.METRICS, same_places=public.with_states)
    for part in ("states", layout.COMPANION):
        names += _names_below(path, part) if public.includes(part) else []
    with explained(folder):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link((path / name).resolve(), folder / name)
        for name, data in written.items():
            (folder / name).write_bytes(data)
    half = path / layout.BACKWARD
    if half.exists():
        (folder / layout.BACKWARD).mkdir()
        _fill(half, folder / layout.BACKWARD, public)


def _link(file: Path, link: Path) -> None:
    """Make a link to a file, or a copy where the system allows no links."""
    try:
        link.symlink_to(file)
    except (OSError, NotImplementedError):
        shutil.copyfile(file, link)


def _names_below(path: Path, part: str) -> list[str]:
    """Return the files below a folder of a run that charlm writes there."""
    files = (file.relative_to(path).as_posix() for file in sorted((path / part).rglob("*")))
    return [name for name in files if layout.is_run_file(name)]


RECORD_KEYS = (
    "format", "id", "name", "created", "status", "whole", "parameters", "precision", "ngrams",
    "pulled", "floors",
)  # fmt: skip
"""Keys of run.json that are public as they are."""
CORPUS_KEYS = ("name", "document", "fingerprint", "coverage", "vocabulary", "parts", "labels")
PARENT_KEYS = ("id", "sha256", "vocabulary")
MACHINE_KEYS = ("device", "threads", "python", "torch", "charlm")
"""Keys of `corpus`, `from` and `machine` in run.json that are public as they are."""


def public_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public version of the content of run.json."""
    corpus, machine = record["corpus"], record["machine"]
    settings = {
        section: {name: _public_setting(name, value) for name, value in values.items()}
        for section, values in record["settings"].items()
    }
    sources = {
        key: [public_name(name) for name in corpus[key]]
        for key in ("sources", "valid", "test")
        if key in corpus
    }
    about = {key: record[key] for key in RECORD_KEYS if key in record}
    if results := record.get("results"):
        about["results"] = _public_results(results) | {"notes": []}
    if parent := record.get("from"):
        named = {key: parent.get(key) for key in PARENT_KEYS}
        about["from"] = _public_results(parent) | named | {"run": public_name(parent["run"])}
    return about | {
        "command": "",
        "settings": settings,
        "origins": {name: _public_origin(text) for name, text in record["origins"].items()},
        "corpus": {key: corpus[key] for key in CORPUS_KEYS if key in corpus} | sources,
        "machine": {key: machine[key] for key in MACHINE_KEYS if key in machine}
        | {"device_name": machine.get("device", "cpu")},
    }


def public_name(name: str) -> str:
    """Return the name of a text without its folders; names of the hub stay."""
    if name.startswith(HUB_PREFIX):
        return name
    return PureWindowsPath(PurePosixPath(name).name).name or "text"


def _public_setting(name: str, value: Any) -> Any:
    """Return the value of a setting, with names of files without their folders."""
    setting = table().get(name)
    is_path = setting is not None and (setting.type is tuple or setting.spec.unit == "file")
    if is_path and isinstance(value, list | tuple):
        return [public_name(str(each)) for each in value]
    return public_name(value) if is_path and isinstance(value, str) else value


def _public_origin(text: str) -> str:
    """Return the origin of a setting; a file or a run is named without its folders."""
    kind, _, name = text.partition(" ")
    return f"{kind} {public_name(name)}" if kind in ("file", "run") else text


def _public_results(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers in results or in a record of the log, at any depth, and WORDS.

    Lists are public if they hold numbers, or lists of numbers.
    """
    public: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            public[key] = _public_results(value)
        elif value is None or _is_numeric(value) or key in WORDS:
            public[key] = value
    return public


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_numeric, value))
    return isinstance(value, int | float)


def public_log(path: Path, *, same_places: bool = False) -> bytes:
    """Return the public version of metrics.jsonl.

    With `same_places` each line is as long as it was, since checkpoints refer to places in the log.
    Raises RunError for a line that charlm did not write.
    """
    lines = []
    for line in read_bytes(path, layout.MAX_LOG).split(b"\n")[:-1]:
        record = parse_json(line, path)
        if not isinstance(record, dict):
            raise RunError(
                f"{path}: holds a line that is not a record; expected a log by charlm train"
            )
        public = json.dumps(_public_results(record), sort_keys=True).encode("ascii")
        lines.append(public.ljust(len(line) if same_places else 0) + b"\n")
    return b"".join(lines)

"""Exchange of runs: exported files, and repositories of the Hugging Face hub."""

from dataclasses import dataclass
from pathlib import Path

from charlm.config.text_units import UNITS
from charlm.errors import UsageError, named
from charlm.files.archives import archive_kind, write_archive
from charlm.phases import phase
from charlm.runs import hub, onnx
from charlm.runs.arrivals import import_archive, import_folder
from charlm.runs.hub import Commit, check_is_run, parse_address
from charlm.runs.layout import (
    BACKWARD,
    BAG,
    COMPANION,
    NGRAM,
    TOKENIZER,
    kind_of,
    read_config,
    read_record,
)
from charlm.runs.locate import checkpoints_folder, find_run, is_run
from charlm.runs.overview import disk_space
from charlm.runs.public import TAKEN_OUT, Public, Staged, staged

NGRAMS_OF_TEXT = (
    "the n-grams of this model are pieces of its training text, from which much of it can be "
    "reconstructed"
)
WORDS_OF_TEXT = (
    f"{TOKENIZER} lists words of the training text, or pieces of them, which may be names of people"
)
PAIRS_OF_TEXT = f"{BAG} lists pairs of words that two or more of the training texts have"
"""Warnings about a run of n-grams, a vocabulary of more than letters, and a bag of words."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Report on a run that was exported or pushed.

    `files` has the size of each file in bytes, `left_out` that of folders that stay private.
    `notes` say what is taken out of the public versions of files, `warnings` what these reveal of
    the training text. `commit` is None for an exported file and for a dry run.
    """

    path: Path
    files: dict[str, int]
    left_out: dict[str, int]
    notes: list[str]
    warnings: list[str]
    commit: Commit | None = None


def _shared(path: Path, stage: Staged, commit: Commit | None = None) -> Shared:
    """Return the report on the public files of a run."""
    warnings = [NGRAMS_OF_TEXT] if kind_of(read_config(path)) == NGRAM else []
    warnings += _words_of(path)
    if BAG in stage.sizes:
        warnings.append(PAIRS_OF_TEXT)
    return Shared(
        path=path, files=stage.sizes, left_out=stage.left_out, notes=list(TAKEN_OUT),
        warnings=warnings, commit=commit,
    )  # fmt: skip


def export_run(
    run: str | Path,
    file: str | Path,
    *,
    with_data: bool = False,
    with_states: bool = False,
    checkpoints: str | Path | None = None,
) -> Shared:
    """Write a run into one .zip or .tar.zst file; the same run gives the same file.

    The training text (with the n-grams beside a network) and the checkpoints are left out unless
    they are asked for. An .onnx file has the model alone, for other programs (`runs.onnx`). Raises
    RunError for a damaged run, UsageError, EnvironmentFailure.
    """
    target = Path(file)
    kind = archive_kind(target, [onnx.ENDING])
    path = find_run(str(run), checkpoints_folder(checkpoints))
    if kind == onnx.ENDING:
        for name, asked in (("with_data", with_data), ("with_states", with_states)):
            if asked:
                raise UsageError(
                    f"{named(name)} with {target.name}, which holds the model alone; expected .zip "
                    f"or .tar.zst. Leave out {named(name)}, or name another file"
                )
        return _as_onnx(path, target)
    public = Public(with_data=with_data, with_states=with_states)
    with phase("exporting the run"), staged(path, public) as stage:
        write_archive(stage.folder, read_record(path)["name"], target)
        return _shared(path, stage)


def _as_onnx(path: Path, target: Path) -> Shared:
    """Write the model of a run as an .onnx file, and report on it."""
    with phase("exporting the model"):
        size = onnx.write_onnx(path, target)
    parts = [path / name for name in (COMPANION, BACKWARD)]
    return Shared(
        path=path,
        files={target.name: size},
        left_out={part.name: disk_space(part) for part in parts if is_run(part)},
        notes=[],
        warnings=_words_of(path),
    )


def _words_of(path: Path) -> list[str]:
    """Return a warning about a vocabulary of more than letters."""
    unit = read_config(path)["vocabulary"]["unit"]
    return [] if UNITS[unit].letter else [WORDS_OF_TEXT]


def import_run(
    file: str | Path, name: str | None = None, checkpoints: str | Path | None = None
) -> Path:
    """Keep an exported run under its own or another name, and return its path.

    The file is checked as untrusted data. Raises RunError if it is damaged, or if the name is
    taken.
    """
    with phase("importing the run"):
        return import_archive(Path(file), checkpoints_folder(checkpoints), name)


def push(
    run: str | Path,
    repository: str,
    *,
    private: bool = False,
    with_data: bool = False,
    with_states: bool = False,
    revision: str | None = None,
    license: str | None = None,
    dry_run: bool = False,
    checkpoints: str | Path | None = None,
) -> Shared:
    """Push a run to the repository `org/name` of the hub, as one commit.

    Only public files are uploaded: see `charlm.runs.public`. `revision` is a branch, which is
    created if it is missing. With `dry_run` nothing is uploaded. Raises RunError for a damaged run,
    UsageError for an invalid name, EnvironmentFailure without network or token.
    """
    if revision and "@" in repository:
        raise UsageError(
            f"{named('revision')} {revision} with {repository}, which names a revision; expected "
            "one of the two. Leave one of them out"
        )
    address = parse_address(f"{repository}@{revision}" if revision else repository)
    path = find_run(str(run), checkpoints_folder(checkpoints))
    public = Public(
        with_data=with_data, with_states=with_states, license_=license, target=f"hf:{address}"
    )
    with staged(path, public) as stage:
        commit = None
        if not dry_run:
            with phase("uploading the run"):
                message = f"Push {read_record(path)['name']}"
                commit = hub.open_hub().upload(
                    stage.folder, address, private=private, message=message
                )
        return _shared(path, stage, commit)


def pull(repository: str, name: str | None = None, checkpoints: str | Path | None = None) -> Path:
    """Copy the run in `org/name[@revision]` of the hub to the user's runs, and return its path.

    It is checked as untrusted data; run.json records the repository and the commit. The name is
    that of the repository unless another is given. Raises RunError for a missing or damaged run and
    for a name that is taken, EnvironmentFailure without network or token.
    """
    address = parse_address(repository)
    with phase("downloading the run"):
        source, commit = hub.open_hub().download(address)
        check_is_run(source, address)
    about = {"pulled": {"repository": address.repository, "revision": commit}}
    chosen = name or address.repository.rpartition("/")[2]
    return import_folder(source, checkpoints_folder(checkpoints), chosen, str(address), about)

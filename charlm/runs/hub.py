"""Model repositories of the Hugging Face hub, through `huggingface_hub`.

`Hub` is the only place that talks to it; `open_hub` is what tests replace by a folder. A push is
one commit, so a repository always holds one whole run. No token is read or stored here: the library
takes it from `hf auth login` or HF_TOKEN, and HF_HUB_OFFLINE and HF_ENDPOINT are its own variables.
"""

import contextlib
import functools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import Any, Protocol

from charlm import __version__
from charlm.errors import CharlmError, EnvironmentFailure, RunError, UsageError
from charlm.files.archives import files_below
from charlm.runs import layout
from charlm.text.home import SET_HOME, is_homeless
from charlm.text.sources.hub import HUB_PREFIX

MAIN = "main"
PATTERNS = [
    *sorted(layout.FILES),
    "data/*",
    "states/*",
    f"{layout.COMPANION}/*",
    f"{layout.BACKWARD}/*",
]
"""Files of a repository that are downloaded; of these only files of a run are used."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A model repository `org/name` and a branch, tag or commit; None for the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


def parse_address(text: str) -> Address:
    """Return the address in `org/name[@revision]`, with or without `hf:`. Raises UsageError."""
    repository, sign, revision = text.removeprefix(HUB_PREFIX).partition("@")
    strange = any(
        part.strip() in ("", ".", "..")
        for part in (*repository.split("/"), *(revision.split("/") if sign else ()))
    )
    if not _REPOSITORY.fullmatch(repository) or strange:
        raise UsageError(
            f"{text!r} names no model repository; expected org/name or org/name@revision"
        )
    return Address(repository=repository, revision=revision or None)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A commit of a repository: its hash, and the address of its page."""

    hash: str
    url: str


class Hub(Protocol):
    """Model repositories."""

    def upload(self, folder: Path, address: Address, *, private: bool, message: str) -> Commit:
        """Make a repository, if it is missing, whose files of a run are exactly those of a folder.

        Raises EnvironmentFailure.
        """

    def download(self, address: Address) -> tuple[Path, str]:
        """Return a folder with the files of a revision, and its commit hash.

        Raises RunError for a missing repository or revision, EnvironmentFailure.
        """


class HuggingFaceHub:
    """The Hugging Face hub, or another server with its interface (HF_ENDPOINT)."""

    def upload(self, folder: Path, address: Address, *, private: bool, message: str) -> Commit:
        """Push a folder as one commit; see `Hub.upload`."""
        with _explained(address):
            from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

            api = HfApi(library_name="charlm", library_version=__version__)
            revision = address.revision
            api.create_repo(address.repository, private=private or None, exist_ok=True)
            if private and not api.model_info(address.repository).private:
                raise UsageError(
                    f"{address.repository} exists and is public; expected a private one. Choose "
                    "another name, or make it private on its page"
                )
            if revision and revision != MAIN:
                api.create_branch(address.repository, branch=revision, exist_ok=True)
            files = files_below(folder)
            older = api.list_repo_files(address.repository, revision=revision)
            operations: list[Any] = [
                CommitOperationDelete(path_in_repo=name)
                for name in older
                if layout.is_run_file(name) and name not in files
            ]
            operations += [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file.resolve()))
                for name, file in files.items()
            ]
            made = api.create_commit(
                address.repository, operations, commit_message=message, revision=revision
            )
            return Commit(hash=str(made.oid), url=str(made.commit_url))

    def download(self, address: Address) -> tuple[Path, str]:
        """Return the cached snapshot of a revision, after fetching what is missing of it."""
        with _explained(address):
            from huggingface_hub import snapshot_download

            path = snapshot_download(
                address.repository,
                revision=address.revision,
                allow_patterns=PATTERNS,
                library_name="charlm",
                library_version=__version__,
            )
        return Path(path), Path(path).name  # the cache names snapshots by their commit


def open_hub() -> Hub:
    """Return the hub that `push`, `pull` and `--run hf:` use."""
    return HuggingFaceHub()


@functools.lru_cache(maxsize=64)
def snapshot(text: str) -> Path:
    """Return the cached folder of the run in a repository; looked up once per process.

    Raises UsageError for a wrong address, RunError if there is no run, EnvironmentFailure.
    """
    address = parse_address(text)
    path, _ = open_hub().download(address)
    check_is_run(path, address)
    return path


def check_is_run(path: Path, address: Address) -> None:
    """Raise RunError unless a downloaded folder has the configuration of a run."""
    if not (path / layout.CONFIG).is_file() or not (path / layout.TOKENIZER).is_file():
        raise RunError(
            f"{address} is a repository without a run; expected one that charlm push made"
        )


@contextlib.contextmanager
def _explained(address: Address) -> Iterator[None]:
    """Turn every failure of the library into a CharlmError of one line."""
    try:
        with _quiet():
            yield
    except CharlmError:
        raise
    except Exception as error:  # of huggingface_hub and of either HTTP library below it
        raise failure(address, error) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from drawing bars, and from logging an error that is about to be raised."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    level, had_bars = logging.get_verbosity(), not are_progress_bars_disabled()
    with warnings.catch_warnings():  # that HF_HUB_DISABLE_PROGRESS_BARS decides about the bars
        warnings.simplefilter("ignore", UserWarning)
        try:
            logging.set_verbosity(CRITICAL)
            disable_progress_bars()
            yield
        finally:
            logging.set_verbosity(level)
            if had_bars:
                enable_progress_bars()


def failure(address: Address, error: Exception) -> CharlmError:
    """Return the error to report for an exception of the library."""
    from huggingface_hub import errors

    login = "log in with: hf auth login, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return EnvironmentFailure(
            f"{address} is gated; expected access to it. Ask for it on its page, and {login}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RunError(
            f"{address.repository} has no revision {address.revision}; expected a branch, a tag or "
            "a commit. See its page"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return RunError(
            f"no repository {address.repository} that you may read on the hub; expected org/name. "
            f"Check the name; for a private one, {login}"
        )
    if isinstance(error, errors.LocalTokenNotFoundError) or status in (401, 403):
        return EnvironmentFailure(
            f"the hub denied access to {address.repository}; expected a token that grants it. To "
            f"use one, {login}"
        )
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{address}: {reason}. Expected org/name")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return EnvironmentFailure(
            f"{address} cannot be reached, since HF_HUB_OFFLINE is set; expected a network. "
            "Unset it"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return EnvironmentFailure(
            f"{address} is not in the cache, and the hub cannot be reached; expected a network. "
            "Check it and HF_HUB_OFFLINE"
        )
    if is_homeless(error):
        return EnvironmentFailure(f"{address} cannot be reached: {SET_HOME}")
    return EnvironmentFailure(
        f"the hub failed for {address}: {reason}. Check the network, and try again later"
    )

"""A follower: one of several processes that train a run with process 0, which has opened it."""

import os
import platform
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from charlm import __version__
from charlm.config.settings import settings_from
from charlm.errors import CharlmError, DivergenceError, EnvironmentFailure, RunError, named
from charlm.runs import layout
from charlm.runs.data import read_data
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.opening import open_session
from charlm.training.parallel import ProcessLost
from charlm.training.processes import Processes
from charlm.training.trainer import Trainer

FOLLOWER = "CHARLM_FOLLOWER"
"""Environment variable of a process that process 0 has started, and that must not outlive it."""
SHOWN_SECONDS = 70.0
"""Longest wait until the folder of the run appears on the disk that machines share: NFS repeats
what it knows of a folder for up to 60 seconds."""
POLL_SECONDS = 0.02


def follow(processes: Processes) -> int:
    """Train with process 0 until it ends, and return the exit status.

    Process 0 reports what happens to all; only errors of this process alone are raised.
    """
    try:
        offer: dict[str, Any] = processes.from_first(dict)
    except ProcessLost:  # it has nothing to train
        return 0
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK"):  # process 0 decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        trainer = _agreed(processes, offer)
        while True:
            try:
                for _ in trainer.run():
                    pass
                return 0
            except DivergenceError:
                if trainer.settings.on_nonfinite != "rewind":
                    raise
    except (ProcessLost, DivergenceError) as error:
        return error.exit_code
    except CharlmError as error:
        raise _placed(processes, error) from error


def _placed(processes: Processes, error: CharlmError) -> CharlmError:
    """Return an error that names this process and its machine."""
    return type(error)(f"process {processes.rank} on {platform.node()}: {error}")


def _agreed(processes: Processes, offer: Mapping[str, Any]) -> Trainer:
    """Return the trainer of the run that process 0 offers, once all processes have opened it.

    If this process cannot open it, process 0 gets the error and raises it. It is raised here too,
    unless process 0 has started this process and writes to the same terminal: then ProcessLost is.
    """
    try:
        trainer = _opened(offer)
    except CharlmError as error:
        raise_problems(processes, _placed(processes, error))
        if FOLLOWER in os.environ:
            raise ProcessLost(str(error)) from error
        raise
    raise_problems(processes, None)
    return trainer


def _opened(offer: Mapping[str, Any]) -> Trainer:
    """Return the trainer of a run that process 0 has opened; nothing is written.

    Raises EnvironmentFailure if process 0 has another version of charlm, and RunError if its run is
    not in the same folder here.
    """
    path, record = Path(offer["path"]), dict(offer["record"])
    if offer["charlm"] != __version__:
        raise EnvironmentFailure(
            f"charlm {__version__}, and process 0 has {offer['charlm']}; expected one version on "
            "all machines. Install the same one"
        )
    _check_run(path, str(record.get("id", "")))
    settings = settings_from(record["settings"], str(path / layout.RECORD))
    vocabulary = load_vocabulary(path / layout.TOKENIZER)
    dataset = read_data(path, settings, vocabulary, record)
    trainer = open_session(path, settings, dataset, record, FileLock(path / ".lock")).trainer
    trainer.on_best = lambda _: None  # process 0 keeps the best weights
    return trainer


def _check_run(path: Path, identity: str) -> None:
    """Raise RunError unless the folder holds the run of process 0, by its id.

    A network disk may show a new folder, or a replaced one, some seconds late.
    """
    ends = time.monotonic() + SHOWN_SECONDS
    while (found := _identity(path)) != identity:
        if time.monotonic() > ends:
            what = "another run than process 0" if found else "no run"
            raise RunError(
                f"{path.absolute()} has {what} here; expected the run of process 0, on a disk that "
                f"all machines share. Name such a folder with {named('checkpoints')}"
            )
        time.sleep(POLL_SECONDS)


def _identity(path: Path) -> str:
    """Return the id of the run in a folder, or "" if there is none."""
    try:
        return str(layout.read_record(path)["id"])
    except (CharlmError, KeyError):
        return ""


def raise_problems(processes: Processes, own: CharlmError | None) -> None:
    """Raise the first error with which a process could not open the run, in process 0.

    `own` is the error of this process.
    """
    for problem in processes.gathered(own) or ():
        if problem:
            raise problem

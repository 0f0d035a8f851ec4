"""The trials of a search in Optuna (the extra `search`): which is next, and how each ended."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charlm.errors import EnvironmentFailure, named
from charlm.files.atomic import write_json
from charlm.runs.folders import is_training
from charlm.runs.layout import BEST, STUDY

HALVING = 2
"""Number of trials that reach a validation, of which one continues."""
STARTS, MAX_STARTS = "begun", 3
"""Attribute of a trial: kills in a row, and their number after which it is given up."""


class Study:
    """An Optuna study: in a folder, or in a storage that several machines share.

    Raises EnvironmentFailure without Optuna, and for a storage that cannot be opened.
    """

    def __init__(self, folder: Path, seed: int, shared: str | None = None) -> None:
        self.optuna = optuna = load_optuna()
        self.folder, self.shared = folder, shared is not None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        name = folder.name if shared else "charlm"
        with _explained_storage() if shared else contextlib.nullcontext():
            storage = _storage(optuna, shared or str(folder / STUDY))
            names = [study.study_name for study in storage.get_all_studies()]
        trials = 0
        if name in names:
            trials = len(storage.get_all_trials(storage.get_study_id_from_name(name)))
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(  # new values after a resume, and on each machine
                seed=None if shared else seed + trials
            ),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=HALVING),
        )

    def _trials(self, state: str) -> list[Any]:
        states = (self.optuna.trial.TrialState[state],)
        return list(self.study.get_trials(deepcopy=False, states=states))

    def next_trial(self) -> Any:
        """Return a trial that was interrupted, else a new one.

        Of a shared search, those in this folder that no process trains are interrupted.
        """
        for frozen in self._trials("RUNNING"):
            path = self.folder / trial_name(frozen.number)
            if self.shared and (not path.exists() or is_training(path)):
                continue
            trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
            if self.starts(trial) < MAX_STARTS:
                return trial
            self.end(trial, "failed", None)
        return self.study.ask()

    def starts(self, trial: Any) -> int:
        """Return how many times in a row a trial was started and its process killed."""
        return int(trial.user_attrs.get(STARTS, 0))

    def set_starts(self, trial: Any, number: int) -> None:
        """Store the number of starts; 0 when a trial ends in a way that it can resume from."""
        trial.set_user_attr(STARTS, number)

    def end(self, trial: Any, state: str, nats: float | None) -> None:
        """Report a result to Optuna; a paused trial stays open."""
        if state == "paused":
            self.set_starts(trial, 0)
        elif state == "complete" and nats is not None:
            self.study.tell(trial, nats)
        else:
            pruned = state == "pruned" and nats is not None
            self.study.tell(
                trial, state=self.optuna.trial.TrialState["PRUNED" if pruned else "FAIL"]
            )

    def write_best(self) -> None:
        """Write the name of the best complete trial, which stands for the search.

        Nothing is written if there is none, or if it is in the folder of another machine.
        """
        best = min(self._trials("COMPLETE"), key=lambda trial: trial.value, default=None)
        if best is not None and (self.folder / trial_name(best.number)).exists():
            content = {"trial": trial_name(best.number), "nats_per_token": best.value}
            write_json(self.folder / BEST, {"format": 1, **content})


def _storage(optuna: Any, place: str) -> Any:
    """Return Optuna's storage in a database, by its URL, or in a journal file."""
    if "://" in place:
        return optuna.storages.RDBStorage(place)
    journal = optuna.storages.journal
    lock = journal.JournalFileOpenLock(place)  # the usual one is a link, which Windows may refuse
    return optuna.storages.JournalStorage(journal.JournalFileBackend(place, lock_obj=lock))


@contextlib.contextmanager
def _explained_storage() -> Iterator[None]:
    """Raise EnvironmentFailure for whatever a database or its driver raises.

    The URL is not shown, since it may hold a password.
    """
    try:
        yield
    except Exception as error:
        raise EnvironmentFailure(
            f"{named('storage')} cannot be opened ({type(error).__name__}); expected a file in a "
            "folder that exists, or the URL of a database with its driver installed, such as "
            "sqlite:///search.db or postgresql://USER@HOST/NAME"
        ) from error


def load_optuna() -> Any:
    """Return the module optuna. Raises EnvironmentFailure if it is missing."""
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise EnvironmentFailure(
            "a search needs optuna, which is not installed; install it with: "
            "pip install 'charlm[search]'"
        ) from error


def trial_name(number: int) -> str:
    """Return the name of a trial's folder in the folder of its search."""
    return f"trial-{number:03d}"

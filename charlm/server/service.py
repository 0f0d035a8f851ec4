"""The models that a server serves, by name."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

from charlm.api.model import Model
from charlm.api.task_api import TaskModel
from charlm.config.fields import listed_names
from charlm.config.tasks import TASKS
from charlm.errors import UsageError
from charlm.inference.rows import Counts, Rows
from charlm.runs.layout import run_task
from charlm.runs.locate import run_name
from charlm.server.errors import Refused
from charlm.server.prompts import token_names

ANSWERS = listed_names([row.gives for row in TASKS.values() if row.verb == "predict"])
"""Kinds of answers of the runs of `charlm predict`."""


@dataclass(frozen=True)
class Served:
    """A model with what a server needs beside it.

    Only `rows` may use the backend of the model: it has a thread of its own.
    """

    model: Model
    rows: Rows

    @cached_property
    def name(self) -> str:
        """Name by which a request chooses the model."""
        return run_name(self.model.path)

    @cached_property
    def names(self) -> list[str]:
        """Distinct names of the tokens, by id."""
        return token_names(self.model.vocabulary)


class Service:
    """Models by name; the first is the one that a request gets if it names none.

    `models` have runs that give text, and runs that answer texts. `checkpoints` is the folder of
    the runs whose curves the page shows.
    """

    def __init__(
        self,
        models: Sequence[Model | TaskModel],
        rows: int = 64,
        checkpoints: Path | None = None,
    ) -> None:
        names = [run_name(model.path) for model in models]
        if len(set(names)) < len(names):
            raise UsageError(
                f"two runs have one name ({', '.join(names)}); expected a name for each. Rename one"
            )
        served = [
            Served(model, Rows(model.run.backend, model.vocabulary, model.run.boundaries, rows))
            for model in models
            if isinstance(model, Model)
        ]
        self.models = {each.name: each for each in served}
        self.labellers: dict[str, TaskModel] = {
            run_name(model.path): model for model in models if not isinstance(model, Model)
        }
        self.checkpoints = checkpoints
        self.created = int(time.time())
        self.stopping = False

    @property
    def default(self) -> Served:
        """The first language model; there must be one."""
        return next(iter(self.models.values()))

    def find(self, name: str | None = None) -> Served:
        """Return the language model of this name, by default the first. Raises Refused (404)."""
        if name in self.labellers or not self.models:
            labeller = name if name in self.labellers else next(iter(self.labellers))
            raise Refused(
                404,
                f"run {labeller!r:.80} gives {self.gives(labeller)}, not text; expected a language "
                "model. Use POST /api/predict",
                "model",
                "model_not_found",
            )
        if name is None:
            return self.default
        if name not in self.models:
            raise Refused(
                404,
                f"model is {name[:80]!r}; expected one of {', '.join(self.models)}. Leave it out "
                "to use the first",
                "model",
                "model_not_found",
            )
        return self.models[name]

    def gives(self, name: str) -> str:
        """Return what a model gives: text, labels and so on."""
        labeller = self.labellers.get(name)
        return TASKS[run_task(labeller.path)].gives if labeller else "text"

    def find_labels(self, name: str | None = None) -> TaskModel:
        """Return the model of this name that answers texts, by default the first.

        Raises Refused (404).
        """
        chosen = next(iter(self.labellers), None) if name is None else name
        if chosen in self.labellers:
            return self.labellers[chosen]
        names = ", ".join(self.labellers)
        found = (
            f"no run that is served gives {ANSWERS}" if chosen is None else f"run is {chosen!r:.80}"
        )
        raise Refused(
            404,
            f"{found}; expected one of {names}. Leave it out to use the first"
            if names
            else f"{found}; expected one that gives {ANSWERS}. Serve one with --also RUN",
            "run",
            "model_not_found",
        )

    def counts(self) -> dict[str, int]:
        """Return the figures of GET /health, for all models together."""
        counts = [asdict(served.rows.counts) for served in self.models.values()]
        return {each.name: sum(own[each.name] for own in counts) for each in fields(Counts)}

    def stop(self, grace: float = 0.0) -> None:
        """Refuse new work, and end what is sampled after `grace` seconds."""
        self.stopping = True
        for served in self.models.values():
            served.rows.stop(grace)

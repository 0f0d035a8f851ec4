"""The interface between a training run and its task, used by start, session and resume.

Each row of `charlm.config.tasks.TASKS` names an object of the protocol `TaskTraining`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from torch import Tensor

from charlm.config.class_path import resolve
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.tasks import TASKS
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.runs.parent import Parent
from charlm.tasks.task import Task
from charlm.text.dataset import Dataset
from charlm.text.task_text import Given

if TYPE_CHECKING:
    from charlm.training.plan.planner import Plan
    from charlm.training.plan.speed import PlanInputs
    from charlm.training.records import FinishedRecord
    from charlm.training.session import Session

Tensors = dict[str, Tensor]
Examples = Sequence[tuple[str, str]]
"""Texts in memory, each with its label."""


class Start(NamedTuple):
    """Weights of a parent for a new text.

    `foreign` is true if they know nothing of the text.
    """

    weights: Tensors
    foreign: bool = False
    warnings: tuple[str, ...] = ()


class TaskTraining(Protocol):
    """Everything that differs between the training runs of two tasks."""

    static: bool
    """True if a step on a GPU can be computed on static tensors; see `StaticStep`."""

    def dataset(self, settings: Settings, given: Given) -> Dataset:
        """Read and encode the text of the settings, or the given one."""

    def start(self, parent: Parent, settings: Settings, dataset: Dataset) -> Start:
        """Return the weights of a parent to start with."""

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of entries that the output layer chooses from."""

    def networks(self, settings: Settings, dataset: Dataset) -> list[ModelSettings]:
        """Return the settings of every encoder in the model that has layers of other shapes.

        Those of the model itself come first.
        """

    def plan(self, settings: Settings, dataset: Dataset, inputs: "PlanInputs") -> "Plan":
        """Decide every setting that is open."""

    def parameters(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of weights of the model, without building it."""

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return what run.json gets at the start beside the keys of every run."""

    def config(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return what config.json gets beside the keys of every run."""

    def model(self, settings: Settings, dataset: Dataset) -> Encoder:
        """Return the model with its initial weights, which follow from the seed."""

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return what the trainer needs: batches, loss and validation."""

    def begin(self, session: "Session") -> None:
        """Save the weights of a parent before the first step."""

    def finish(self, session: "Session") -> "FinishedRecord":
        """Evaluate the best weights at the end of a session, and return its last record."""


def training_of(settings: Settings) -> TaskTraining:
    """Return the object of the task that the settings name."""
    return cast(TaskTraining, resolve(TASKS[settings.task.task].training))

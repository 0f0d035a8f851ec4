"""Base of the training of all tasks that learn what lies beside the text."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.backends.weights import BACKWARD, CONDITIONS, HEAD
from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings, settings_from
from charlm.config.tasks import TASKS
from charlm.inference.figures import Figures
from charlm.nn.encoder import Encoder
from charlm.nn.model import multiplied_weights
from charlm.nn.task_models import build_model
from charlm.phases import phase
from charlm.runs.conditions import conditions_of
from charlm.runs.layout import RECORD, TASK, WEIGHTS
from charlm.runs.model_files import write_logit_scale
from charlm.runs.pair import backward_half
from charlm.runs.parent import Parent
from charlm.runs.tensors import put_weights, tensors_from_file
from charlm.runs.weights import load_arrays
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.groups import text_lengths
from charlm.text.labels import Targets
from charlm.text.task_text import Given, text_for
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.training.calibrating import MIN_GAIN
from charlm.training.fit import Course, Fit, judged
from charlm.training.plan.labelled import Costs, plan_labelled
from charlm.training.plan.memory import memory_of
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.records import FinishedRecord, Review
from charlm.training.task_training import Start, Tensors

if TYPE_CHECKING:
    from charlm.training.session import Session

HELD_OUT = tuple(HELD_OUT_NAMES)
"""Splits that are evaluated at the end."""
REVIEWED, REVIEWED_TOKENS = 1000, 100_000
"""Training examples, and their tokens, on which the best weights are reviewed, at most."""


class LabelledTraining:
    """Base of the objects of tasks that learn what lies beside the text; see `TaskTraining`.

    A subclass has `table`, `record`, `task`, `answers`, and `figures` if these are not the answers.
    """

    static = False

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the table `task` of config.json, without the name of the task."""
        raise NotImplementedError

    def answers(self, session: "Session", model: Encoder, split: str) -> Any:
        """Return what the best weights say of a split, from which `figures` follow."""
        raise NotImplementedError

    def figures(self, session: "Session", answers: Any, split: str, scale: float) -> Figures:
        """Return the figures of a split, with all logits multiplied by a factor.

        By default those are the answers, which no factor changes.
        """
        return cast(Figures, answers)

    def calibrate(self, session: "Session", answers: dict[str, Any]) -> float:
        """Write the factor on all logits into config.json, and return it; 1 if none helps.

        A subclass may change the answers.
        """
        best = session.trainer.counters.best
        scale = useful_factor(best) if best else 1.0
        if scale != 1.0:
            write_logit_scale(session.path, scale)
        return scale

    def compared(self, session: "Session", answers: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return how the answers to some splits compare with the floors, or None."""
        return None

    def fit(
        self, session: "Session", model: Encoder, answers: Mapping[str, Any], course: Course
    ) -> Fit:
        """Return the facts for the review of the best weights, given the `course` of training."""
        raise NotImplementedError

    def begin_head(self, settings: Settings, dataset: Dataset, model: Encoder) -> None:
        """Set the initial weights of the output layer that follow from the targets, if any do."""

    def dataset(self, settings: Settings, given: Given) -> Dataset:
        """Read texts with what lies beside them; a given vocabulary is kept."""
        text = text_for(settings)
        assert text is not None, "a task with a row `text`"
        return text.load(settings, given)

    def start(self, parent: Parent, settings: Settings, dataset: Dataset) -> Start:
        """Return the weights of a parent's embedding and layers, and of its backward half.

        Entries that the parent lacks begin as UNK, which stood for them so far.
        """
        halves = {"": parent.path}
        if settings.task.both_ways:
            halves[BACKWARD] = backward_half(parent.path)
        own, size = parent.settings.model, int(parent.config["vocab_size"])
        conditions = len(conditions_of(parent.config))
        rows = np.arange(len(dataset.vocabulary))
        rows[size:] = UNK
        weights: Tensors = {}
        for prefix, path in halves.items():
            arrays = load_arrays(path / WEIGHTS, own, size, None, conditions)
            if "embedding.weight" in arrays:
                arrays["embedding.weight"] = arrays["embedding.weight"][rows]
            weights |= {
                f"{prefix}{name}": torch.from_numpy(array)
                for name, array in arrays.items()
                if not name.startswith("output.") and name != CONDITIONS
            }
        return Start(weights)

    def networks(self, settings: Settings, dataset: Dataset) -> list[ModelSettings]:
        """Return the settings of the model, which both its halves have."""
        return [settings.model]

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open."""
        costs = self.costs(settings, dataset)
        return plan_labelled(settings, dataset, inputs, costs)

    def costs(self, settings: Settings, dataset: Dataset) -> Costs:
        """Return what training costs, for the plan."""
        lengths, ways = text_lengths(dataset.train), 1 + settings.task.both_ways
        tokens = float(lengths.sum())
        return Costs(
            weights=lambda model: self.parameters(replace(settings, model=model), dataset),
            work=lambda model: tokens * ways * multiplied_weights(model, 2),
            memory=lambda planned: memory_of(
                planned.model, planned.training, self.parameters(planned, dataset), ways=ways
            ),
            longest=int(lengths.max()),
        )

    def parameters(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of weights."""
        with torch.device("meta"):
            return self.built(settings, dataset).parameter_count()

    def config(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the format and the table `task`."""
        name = settings.task.task
        table = {"name": name, **self.table(settings, dataset)}
        return {"format": TASKS[name].format, TASK: table}

    def built(self, settings: Settings, dataset: Dataset) -> Encoder:
        """Return the model; its weights are not initialised."""
        table = self.config(settings, dataset)[TASK]
        return build_model(settings.model, len(dataset.vocabulary), table)

    def model(self, settings: Settings, dataset: Dataset) -> Encoder:
        """Return the model with its initial weights."""
        model = self.built(settings, dataset)
        model.reset_parameters(torch.Generator().manual_seed(settings.training.seed or 0))
        self.begin_head(settings, dataset, model)
        return model

    def begin(self, session: "Session") -> None:
        """Save the weights of the parent, which cannot be made again; they give no answers yet."""
        session.record["from"] |= {"valid": None, "old_valid": None}
        session.save()

    def finish(self, session: "Session") -> FinishedRecord:
        """Calibrate and evaluate the best weights; of a stopped run on the validation text only.

        Figures are those under the factor in config.json, which a stopped run does not have.
        """
        trainer = session.trainer
        stopped, best = trainer.stop_reason, trainer.counters.best
        scale = 1.0
        names = HELD_OUT if not stopped else ("valid",) if best else ()
        with phase("evaluating the best weights"):
            model = self._best_model(session)
            there = [name for name in names if session.dataset.split(name) is not None]
            answers = {name: self.answers(session, model, name) for name in there}
            if not stopped and best and trainer.settings.calibrate:
                scale = self.calibrate(session, answers)
            figures = {
                name: self.figures(session, own, name, scale) for name, own in answers.items()
            }
            raw = self.figures(session, answers["valid"], "valid", 1.0) if scale != 1.0 else None
            results = None if stopped else self.compared(session, answers)
            reviewed = None if stopped else self._review(session, model, answers)
        return session.end_record(
            stopped,
            valid=figures.get("valid"),
            test=figures.get("test"),
            valid_uncalibrated=raw,
            logit_scale=scale,
            floors=results,
            review=reviewed,
        )

    def _review(
        self, session: "Session", model: Encoder, answers: Mapping[str, Any]
    ) -> Review | None:
        """Return the review of a run, None if nothing was held out."""
        if "valid" not in answers:
            return None
        with phase("reviewing the run"):
            course = Course.of(session.trainer, can_start="from" not in session.record)
            fit = self.fit(session, model, answers, course)
        return Review(train={fit.key: fit.train}, advice=judged(fit))

    def _best_model(self, session: "Session") -> Encoder:
        """Return a model with the best weights, on the device of training."""
        settings = settings_from(session.record["settings"], str(session.path / RECORD))
        model = self.built(settings, session.dataset)
        put_weights(model, tensors_from_file(session.path / WEIGHTS))
        return model.to(session.trainer.state.generator.device)


def last_split(answers: Mapping[str, Any]) -> str:
    """Return the last held-out split that has answers: the test text, if there is one."""
    return max(answers, key=HELD_OUT.index)


def reviewed_rows(text: EncodedText) -> NDArray[np.int64]:
    """Return the numbers of the training examples that are reviewed, spread over the text."""
    fitting = REVIEWED_TOKENS * text.documents // max(len(text.ids), 1)
    count = max(1, min(REVIEWED, text.documents, fitting))
    return np.linspace(0, text.documents - 1, count).astype(np.int64)


def useful_factor(best: Figures) -> float:
    """Return the factor on all logits under which figures are counted, 1 if it helps too little."""
    known = cast(Any, best)
    gains = hasattr(best, "scale") and best.nats <= (1.0 - MIN_GAIN) * known.raw_nats
    return float(known.scale) if gains else 1.0


def begin_biases(model: Encoder, targets: Targets, labels: int) -> None:
    """Let the output biases of a model follow the frequencies of its labels."""
    logs = np.log(np.bincount(targets, minlength=labels) + 0.5)
    with torch.no_grad():
        model.get_parameter(f"{HEAD}bias").copy_(torch.from_numpy(logs - logs.mean()))

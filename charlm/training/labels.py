"""Training of classifiers: the object of the task `classify`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.backends.weights import BACKWARD
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings, settings_from
from charlm.config.tasks import TASKS
from charlm.inference.counts import LabelCounts
from charlm.nn.classifier import Classifier, TorchReader
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.phases import phase
from charlm.runs.layout import RECORD, WEIGHTS
from charlm.runs.pair import backward_half
from charlm.runs.parent import Parent
from charlm.runs.run import write_logit_scale
from charlm.runs.tensors import put_weights, tensors_from_file
from charlm.runs.weights import load_arrays
from charlm.tasks.classify import classify_task
from charlm.tasks.task import Task
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset
from charlm.text.labelled import labelled_of, load_labelled
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.training.calibrating import MIN_GAIN
from charlm.training.label_floors import HELD_OUT, compared, floors
from charlm.training.plan.labelled import classifier_of, count_weights, plan_labelled
from charlm.training.plan.planner import Plan
from charlm.training.records import FinishedRecord
from charlm.training.task_training import Examples, Start, TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session


Logits = NDArray[np.float64]


class LabelTraining:
    """Training of a model that gives each text a label; see `TaskTraining`."""

    def dataset(
        self,
        settings: Settings,
        *,
        corpus: Corpus | None,  # noqa: ARG002
        examples: Examples | None,
        vocabulary: Vocabulary | None,
        grow: bool,  # noqa: ARG002
    ) -> Dataset:
        """Read texts with labels; a given vocabulary is kept."""
        return load_labelled(
            settings.corpus, settings.vocabulary, settings.task,
            examples=examples, vocabulary=vocabulary,
        )  # fmt: skip

    def start(self, parent: Parent, settings: Settings, dataset: Dataset) -> Start:  # noqa: ARG002
        """Return the weights of a parent's embedding and layers, and of its backward half."""
        halves = {"": parent.path}
        if settings.task.both_ways:
            halves[BACKWARD] = backward_half(parent.path)
        own, size = parent.settings.model, int(parent.config["vocab_size"])
        return Start(
            {
                f"{prefix}{name}": torch.from_numpy(array)
                for prefix, path in halves.items()
                for name, array in load_arrays(path / WEIGHTS, own, size).items()
                if not name.startswith("output.")
            }
        )

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of labels, or of entries if the input is one-hot."""
        return (
            len(dataset.vocabulary) if settings.model.one_hot else len(labelled_of(dataset).labels)
        )

    def plan(
        self,
        settings: Settings,
        dataset: Dataset,
        device: torch.device,
        choose_precision: Callable[[ModelSettings], Precision],
        *,
        parent: Parent | None,  # noqa: ARG002
        foreign: bool,  # noqa: ARG002
    ) -> Plan:
        """Decide every setting that is open."""
        return plan_labelled(settings, dataset, device, choose_precision)

    def parameters(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of weights."""
        return count_weights(settings, settings.model, dataset)

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG002
        """Return the floors."""
        return {"floors": floors(dataset)}

    def config(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the labels, and how texts are read."""
        task = asdict(settings.task)
        kept = ("pooling", "both_ways", "max_tokens", "kept_part")
        table = {"name": task["task"], "labels": list(labelled_of(dataset).labels.names)}
        return {
            "format": TASKS[settings.task.task].format,
            "task": table | {name: task[name] for name in kept},
        }

    def model(self, settings: Settings, dataset: Dataset) -> Encoder:
        """Return the model with its initial weights; output biases follow label frequencies."""
        model = classifier_of(settings, settings.model, dataset)
        model.reset_parameters(torch.Generator().manual_seed(settings.training.seed or 0))
        if not settings.task.balance:
            labelled = labelled_of(dataset)
            counts = np.bincount(labelled.targets["train"], minlength=len(labelled.labels)) + 0.5
            logs = np.log(counts)
            with torch.no_grad():
                model.head.bias.copy_(torch.from_numpy(logs - logs.mean()))
        return model

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of like length, the loss of the label, and the figures."""
        return classify_task(dataset, cast(Classifier, model), settings, precision)

    def begin(self, session: "Session") -> None:
        """Save the weights of the parent, which cannot be made again; they give no labels yet."""
        session.record["from"] |= {"valid": None, "old_valid": None}
        session.save()

    def finish(self, session: "Session") -> FinishedRecord:
        """Calibrate and evaluate the best weights; of a stopped run on the validation text only.

        Figures are those under the factor in config.json, which a stopped run does not have.
        """
        trainer, counters = session.trainer, session.trainer.counters
        stopped, best = trainer.stop_reason, cast("LabelCounts | None", counters.best)
        scale = 1.0
        if not stopped and best and trainer.settings.calibrate and _gains(best):
            scale = best.scale
            write_logit_scale(session.path, scale)
        names = HELD_OUT if not stopped else ("valid",) if best else ()
        with phase("evaluating the best weights"):
            logits = _best_logits(session, names)
            figures = {name: _figures(session, logits, name, scale) for name in logits}
            raw = _figures(session, logits, "valid") if scale != 1.0 else None
            results = None if stopped else compared(session.dataset, logits, trainer)
        return FinishedRecord(
            **trainer.state.record_fields(),
            reason=stopped or counters.finished,
            best_step=counters.best_step if best else counters.step,
            path=str(session.path),
            valid=figures.get("valid"),
            test=figures.get("test"),
            valid_uncalibrated=raw,
            logit_scale=scale,
            warnings=session.warnings,
            floors=results,
        )


def _gains(best: LabelCounts) -> bool:
    """Return whether the factor on all logits helps enough to be kept."""
    return best.nats <= (1.0 - MIN_GAIN) * best.raw_nats


def _best_logits(session: "Session", names: Iterable[str]) -> dict[str, Logits]:
    """Return the logits of splits that are there, (N, K) each, by the best weights."""
    settings = settings_from(session.record["settings"], str(session.path / RECORD))
    model = classifier_of(settings, settings.model, session.dataset)
    put_weights(model, tensors_from_file(session.path / WEIGHTS))
    reader = TorchReader(model.to(session.trainer.state.generator.device))
    texts = {name: session.dataset.split(name) for name in names}
    return {name: reader.logits(text) for name, text in texts.items() if text is not None}


def _figures(
    session: "Session", logits: Mapping[str, Logits], name: str, scale: float = 1.0
) -> LabelCounts:
    """Return the figures of a split, with all logits multiplied by a factor."""
    return LabelCounts.of(logits[name], labelled_of(session.dataset).targets[name], scale)


LABELS: TaskTraining = LabelTraining()

"""The parent of a fine-tuned run: the run whose weights and vocabulary training starts with."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from charlm.commands import run_word
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.settings import Nested, Settings, settings_from
from charlm.config.tasks import (
    LANGUAGE_MODEL,
    SERIES,
    TASKS,
    is_labelled,
    is_of_task,
    task_name,
)
from charlm.config.training import TrainingSettings
from charlm.errors import RunError, UsageError, check_choice, named
from charlm.files.atomic import file_fingerprint
from charlm.runs import layout
from charlm.runs.built_in import is_built_in
from charlm.runs.locate import find_run, is_ngram_run, run_name
from charlm.runs.pair import BACKWARD, is_pair
from charlm.runs.run import check_weights, checked_vocabulary, no_network
from charlm.runs.weights import old_logit_scale
from charlm.text.sources.hub import HUB_PREFIX
from charlm.text.tokenizers.vocabulary import Vocabulary

KEEP, GROW = "keep", "grow"
VOCABULARY_MODES = (KEEP, GROW)
"""Treatments of new types in the new text: keep them unknown, or add entries for them."""
LIMITS = frozenset({"min_count", "max_size"})
"""Settings of a vocabulary that limit its entries; where it grows, those that are added."""
VOCABULARY = {"unit", "words", "lowercase", "normalize"}
"""Settings of the vocabulary that the parent decides; the others are about its growth."""
SEPARATE = ("dropout", "input_dropout", "output_dropout")
"""Settings of the model that are planned for the new text."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A trained run, with the content of its config.json and run.json."""

    path: Path
    name: str
    config: dict[str, Any]
    record: dict[str, Any]

    @cached_property
    def settings(self) -> Settings:
        """Settings of the parent."""
        return settings_from(self.record["settings"], str(self.path / layout.RECORD))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the parent, in the order of the text."""
        return checked_vocabulary(self.path, self.config)

    @property
    def learned_unk(self) -> bool:
        """True if UNK occurred in the parent's training text."""
        return float(self.record["corpus"]["coverage"]) < 1.0

    @property
    def fine_tuned(self) -> bool:
        """True if the parent began with the weights of a run itself."""
        return "from" in self.record

    @property
    def logit_scale(self) -> float:
        """Factor on all logits that calibration found, or 1."""
        scale = self.config.get(layout.LOGIT_SCALE)
        return old_logit_scale(self.path / layout.WEIGHTS) if scale is None else float(scale)

    @property
    def lost_calibration(self) -> str:
        """Warning that the calibration has no place in the weights, or ""."""
        model, scale = self.settings.model, self.logit_scale
        if scale == 1.0 or not (model.adaptive_softmax or model.mixture > 1):
            return ""
        return (
            f"the calibration of run {self.name} (logits times {scale:.3f}) is left out, since its "
            "output layer has no place for it; calibration at the end makes up for it"
        )

    def obstacle(self, *, labelled: bool = False) -> str:
        """Return why the vocabulary cannot grow, or "".

        A run that is `labelled` takes no output layer from its parent.
        """
        model, spec = self.settings.model, self.vocabulary.spec
        if spec.byte_level:
            return f"{self.vocabulary.unit} units, which spell every text"
        if model.adaptive_softmax and not labelled:
            return "an adaptive softmax, whose clusters go by frequency"
        if model.mixture > 1 and not labelled:
            return "a mixture of softmaxes"
        if model.one_hot or not CELLS[model.cell].learns_input:
            return "an input that is not learned"
        return ""

    def grows(self, mode: str | None) -> bool:
        """Return whether the vocabulary grows by the new text's types, if there are any.

        Without a mode it does if it can.
        """
        return mode == GROW or (mode is None and not self.obstacle())

    def about(self, mode: str | None) -> dict[str, Any]:
        """Return the description of the parent in the run.json of a run that starts with it."""
        elsewhere = not is_built_in(self.path) and self.name != (word := run_word(self.path))
        return {
            "run": self.name,
            **({"path": word} if elsewhere and not self.name.startswith(HUB_PREFIX) else {}),
            "id": self.record.get("id"),
            "sha256": file_fingerprint(self.path / layout.WEIGHTS)["sha256"],
            "vocabulary": GROW if self.grows(mode) else KEEP,
            "entries": self.config["vocab_size"],
        }

    def check_outlives(self, replaced: Path) -> None:
        """Raise UsageError if the parent is the run that is to be replaced, or a half of it."""
        if self.path.resolve().is_relative_to(replaced.resolve()):
            raise UsageError(
                f"{named('overwrite')} would remove run {self.name}, which training starts from; "
                f"expected another {named('name')}"
            )

    def complete(self, given: Nested, origins: Mapping[str, str]) -> tuple[Nested, dict[str, str]]:
        """Return settings by section with those that the parent decides, and all origins.

        Raises UsageError for a given setting that differs from the parent's, and for a series.
        """
        if task_name(given) == SERIES:
            raise UsageError(
                f"{named('start_from')} {self.name} for a series of numbers, which has no "
                f"vocabulary; expected a text. Leave out {named('start_from')}"
            )
        decided = self._decided(given)
        if is_labelled(given):
            decided = self._decided_for_labels(decided)
        self._check_same(given, decided, origins)
        nested = {section: dict(values) for section, values in given.items()}
        names = {}
        for section, values in decided.items():
            for key, value in values.items():
                if key not in nested.setdefault(section, {}):
                    nested[section][key] = value
                    names[f"{section}.{key}"] = f"run {self.name}"
        return nested, {**origins, **names}

    def _decided(self, given: Nested) -> Nested:
        """Return the settings that the parent decides, by section."""
        recorded = self.settings.to_dict()
        model = {key: value for key, value in recorded["model"].items() if key not in SEPARATE}
        if is_labelled(given):
            pass  # both halves are read
        elif is_pair(model) and given.get("model", {}).get("direction") == "forward":
            model["direction"] = "forward"  # the weights of its forward half
        elif is_pair(model):
            raise UsageError(
                f"{named('start_from')} {self.name}, which reads in both directions; expected a "
                f"run of one. Add --direction forward, or start from {self.path / BACKWARD}"
            )
        document = self.record["corpus"]["document"]
        if given.get("task", {}).get("condition"):
            document = "auto"  # texts with conditions are documents, whatever those before were
        return {
            "model": model,
            "vocabulary": {key: recorded["vocabulary"][key] for key in VOCABULARY},
            "corpus": {"document": document},
        }

    def _decided_for_labels(self, decided: Nested) -> Nested:
        """Return the settings that the parent decides for a run that gives labels.

        Raises UsageError for a parent that reads backward only.
        """
        direction = decided["model"]["direction"]
        if direction == "backward":
            raise UsageError(
                f"{named('start_from')} {self.name}, which reads backward; expected a run that "
                f"reads forward or both ways. Start from another run, or train without "
                f"{named('start_from')}"
            )
        others = TASKS[LANGUAGE_MODEL].settings
        model = {key: value for key, value in decided["model"].items() if key not in others}
        one_way = {} if direction == "both" else {"task": {"both_ways": False}}
        return {"model": model, "vocabulary": decided["vocabulary"], **one_way}

    def _check_same(self, given: Nested, decided: Nested, origins: Mapping[str, str]) -> None:
        """Raise UsageError for each given setting that would change what the weights mean."""
        free = {each.name for each in fields(ModelSettings) if each.metadata["spec"].only_training}
        changed = [
            (section, key, value)
            for section in ("model", "vocabulary", "task")
            for key, value in given.get(section, {}).items()
            if key not in free and value != decided.get(section, {}).get(key, value)
        ]
        useless = [
            ("training", key, value)
            for key in ("vectors", "freeze_vectors", "frequency_bias")
            if (value := given.get("training", {}).get(key)) != getattr(TrainingSettings(), key)
            and value is not None
        ]
        if not changed and not useless:
            return
        problems = [self._difference(key, value, decided[s][key]) for s, key, value in changed]
        problems += [
            f"{named(key)} has no effect, since the weights are those of run {self.name}"
            for _, key, _ in useless
        ]
        layers = {origins.get(f"{section}.{key}", "") for section, key, _ in changed + useless}
        files = sorted(name for name in layers if name.startswith(("file ", "preset ")))
        what = (
            f"Leave out {files[0]}"
            if files
            else f"Leave {'it' if len(problems) == 1 else 'them'} out"
        )
        raise UsageError(f"{'; '.join(problems)}. {what}, or train without {named('start_from')}")

    def _difference(self, key: str, value: Any, own: Any) -> str:
        """Return the sentence about a given setting whose value is not that of the parent."""
        if isinstance(value, bool):
            return f"{named(key)} is {'on' if value else 'off'}, unlike in run {self.name}"
        if own is None:
            return f"{named(key)} {value} has no place in run {self.name}, which was made without"
        return f"{named(key)} {value} differs from {own} of run {self.name}"


def find_parent(run: str, folder: Path) -> Parent:
    """Return the run of this name or path as a parent.

    Raises UsageError for an n-gram run, RunError if there is no such run or it lacks files.
    """
    path = find_run(run, folder)
    if is_ngram_run(path):
        raise no_network(path, named("start_from"))
    config = layout.read_config(path)
    if layout.TASK in config:
        raise layout.no_text(path)
    check_weights(path)
    if not (path / layout.RECORD).exists():
        raise RunError(
            f"{path} has no {layout.RECORD}, the settings that {named('start_from')} needs; "
            f"expected a folder as charlm train writes it. Start from another run, or leave out "
            f"{named('start_from')}"
        )
    name = run if run.startswith(HUB_PREFIX) else run_name(path)
    return Parent(path=path, name=name, config=config, record=layout.read_record(path))


def yielding(
    given: Nested, origins: Mapping[str, str], parent: Parent, mode: str | None
) -> tuple[Nested, dict[str, str]]:
    """Return settings and origins without the sizes and the vocabulary of a task's defaults.

    The parent decides them. Other defaults get their values for fine-tuning; the limits of a
    vocabulary that grows are those of its new entries.
    """
    others = TASKS[task_name(given)].fine_tuning
    limits = LIMITS if mode == GROW else frozenset()
    left_out = {
        f"{section}.{key}"
        for section, values in given.items()
        for key in values
        if section in ("model", "vocabulary") and key not in {*SEPARATE, *limits}
        and is_of_task(origins.get(f"{section}.{key}", ""))
    }  # fmt: skip
    kept = {
        section: {key: v for key, v in values.items() if f"{section}.{key}" not in left_out}
        for section, values in given.items()
    }
    for section, values in others.items():
        for key, value in values.items():
            if is_of_task(origins.get(f"{section}.{key}", "")):
                kept[section][key] = value
    if limits and is_of_task(origins.get("vocabulary.max_size", "")):
        kept["vocabulary"]["max_size"] += parent.config["vocab_size"]
    return kept, {name: origin for name, origin in origins.items() if name not in left_out}


def check_vocabulary_mode(mode: str | None, parent: Parent | None, given: Nested) -> None:
    """Raise UsageError for a treatment of new types that does not fit the parent."""
    if mode is not None:
        check_choice("vocabulary", mode, VOCABULARY_MODES)
    labelled = is_labelled(given)
    more = ""
    if labelled and parent and mode is None:
        more = "" if parent.obstacle(labelled=True) else f", or add {named('vocabulary')} {GROW}"
        mode = KEEP
    if parent is None and mode is None:
        return
    if parent is None:
        raise UsageError(
            f"{named('vocabulary')} {mode} has no effect without {named('start_from')}; expected "
            f"a run to start from. Leave out {named('vocabulary')}"
        )
    for name in () if parent.grows(mode) else given.get("vocabulary", {}).keys() - VOCABULARY:
        raise UsageError(
            f"{named(name)} has no effect, since the vocabulary of run {parent.name} is kept; "
            f"leave out {named(name)}{more}"
        )
    most, entries = given.get("vocabulary", {}).get("max_size"), parent.config["vocab_size"]
    if most and most < entries:
        raise UsageError(
            f"{named('max_size')} is {most}; expected at least {entries}, the entries of run "
            f"{parent.name}. Leave out {named('max_size')}"
        )
    if mode == GROW and (obstacle := parent.obstacle(labelled=labelled)):
        raise UsageError(
            f"{named('vocabulary')} {GROW} with {obstacle}; expected {KEEP} for run "
            f"{parent.name}. Leave out {named('vocabulary')}"
        )
    if mode == GROW and _frozen(given):
        raise UsageError(
            f"{named('vocabulary')} {GROW} with {named('freeze')}, which leaves new entries as "
            f"the unknown one; expected {KEEP}. Leave one of them out"
        )


def _frozen(given: Nested) -> bool:
    """Return whether no weight of a new entry would be trained, nor a bag of words read it."""
    task, used = given.get("task", {}), TASKS[task_name(given)].settings
    bag = "bag_of_words" in used and task.get("bag_of_words", True)
    return bool(task.get("freeze")) and not bag

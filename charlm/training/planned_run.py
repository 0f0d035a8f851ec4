"""Plan a run: read its text, and decide every setting that the user left open."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from charlm.backends.kernel_library import chosen_variant
from charlm.config.corpus import VocabularySettings
from charlm.config.fields import PARENT, VALIDATION
from charlm.config.settings import Settings
from charlm.config.tasks import SERIES, TASKS, is_of_task
from charlm.config.text_units import UNITS
from charlm.config.unused import drop_unused
from charlm.errors import UsageError, named
from charlm.nn import devices, heap
from charlm.phases import phase
from charlm.runs.built_in import built_in_text
from charlm.runs.data import corpus_record
from charlm.runs.pair import length_factor
from charlm.runs.parent import Parent
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset
from charlm.text.task_text import Given
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training import pretrained
from charlm.training.fine_tuning import check_frozen_layers
from charlm.training.machine import Machine, as_used, machine_record
from charlm.training.parallel import check_processes
from charlm.training.plan.constants import SHORT_TEXT, SHORTER_TEXT
from charlm.training.plan.memory import memory_problem
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.task_training import Examples, Start, Tensors, training_of
from charlm.training.tensorboard import check_log


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run that is planned but not written yet.

    `record` holds what run.json will contain; `problem` says why the run will not fit in memory.
    `weights` are those of a parent, for this text.
    """

    dataset: Dataset
    record: dict[str, Any]
    vectors: pretrained.Pretrained | None
    weights: Tensors | None
    problem: str | None
    warnings: list[str]


def plan_run(
    settings: Settings,
    *,
    origins: Mapping[str, str] | None = None,
    corpus: Corpus | None = None,
    examples: Examples | None = None,
    vocabulary: Path | None = None,
    parent: Parent | None = None,
    mode: str | None = None,
) -> PlannedRun:
    """Read the text and decide every setting that the user left open.

    `corpus` or `examples` replace the sources in the settings; `vocabulary` is a tokenizer.json to
    use as it is. `parent` is the run to start from, which decided some settings
    (`Parent.complete`); `mode` is one of `VOCABULARY_MODES`. `origins` says where each setting came
    from; without it, settings that have no effect are accepted. Raises a subclass of CharlmError.
    """
    facts: dict[str, Any] = {PARENT: parent is not None}
    checked = partial(_used_settings, origins=origins, facts=facts)
    settings = checked(settings)
    _check_early(settings, parent)
    settings = _with_text(settings, corpus, examples)
    own = load_vocabulary(vocabulary) if vocabulary else None
    task = training_of(settings)
    texts = Given(
        corpus=corpus, examples=examples,
        vocabulary=parent.vocabulary if parent else own, grow=bool(parent and parent.grows(mode)),
        open_settings=[name for name, origin in (origins or {}).items() if is_of_task(origin)],
    )  # fmt: skip
    dataset = task.dataset(settings, texts)
    facts |= {VALIDATION: dataset.valid is not None, "document": dataset.boundaries.document}
    checked(settings)
    settings = replace(settings, vocabulary=dataset.vocabulary.settings)
    start = _parent_start(parent, settings, dataset)
    warnings = [*dataset.warnings, *(start.warnings if start else ())]
    settings, vectors = _with_vectors(settings, dataset, warnings)
    settings, given = _given(settings, origins or {}, vocabulary)
    machine = Machine(settings, dataset)
    with phase("planning"):
        inputs = PlanInputs(
            device=machine.device, choose_precision=machine.precision, parent=parent,
            foreign=start is not None and start.foreign, given=given,
        )  # fmt: skip
        planned = task.plan(settings, dataset, inputs)
    checked(planned.settings)
    check_processes(planned.settings, machine.device)
    record = _record(planned, dataset, machine, given)
    record |= {"from": parent.about(mode)} if parent else {}
    heap.return_freed_memory(0)  # of models that were compared or measured, and are too large
    return PlannedRun(
        dataset=dataset,
        record=record,
        vectors=vectors,
        weights=start.weights if start else None,
        problem=_memory_problem(planned, machine),
        warnings=warnings + _shrunk(planned.reasons),
    )


def _parent_start(parent: Parent | None, settings: Settings, dataset: Dataset) -> Start | None:
    """Return the weights of a parent to start with, or None without one."""
    if parent is None:
        return None
    with phase("evaluating the weights to start from"):
        return training_of(settings).start(parent, settings, dataset)


def _memory_problem(planned: Plan, machine: Machine) -> str | None:
    """Return why the run will not fit in memory, or None."""
    settings = planned.settings
    least = machine.least_memory(settings.model)
    return memory_problem(planned.memory, settings, machine.device, least)


def _used_settings(
    settings: Settings, origins: Mapping[str, str] | None, facts: Mapping[str, Any]
) -> Settings:
    """Return the settings without those that have no effect, if their origins are known."""
    return settings if origins is None else drop_unused(settings, origins, facts)


def _check_early(settings: Settings, parent: Parent | None) -> None:
    """Raise errors that can be found before the text is read."""
    check_processes(settings, devices.choose_device(settings.training.device))
    if parent:
        check_frozen_layers(settings)
    chosen_variant()  # raise now, not at the end, if the chosen kernels are missing
    check_log(settings.training)
    _check_unit(settings)


def _with_text(settings: Settings, corpus: Corpus | None, examples: Examples | None) -> Settings:
    """Return settings that name the built-in text if no other was given.

    Raises UsageError if the task needs more than a text.
    """
    if settings.corpus.sources or examples is not None:
        return settings
    row = TASKS[settings.task.task]
    if row.needs_example:
        problem = "without a text" if corpus is None else f"with a text that has no {row.gives}"
        raise UsageError(
            f"{named('task')} {settings.task.task} {problem}; expected texts with {row.gives}, "
            f"such as {row.needs_example}. Name its file"
            + ("" if UNITS[settings.vocabulary.unit].numeric else ", or give examples in Python")
        )
    if corpus is not None:
        return settings
    return replace(settings, corpus=replace(settings.corpus, sources=(str(built_in_text()),)))


def _with_vectors(
    settings: Settings, dataset: Dataset, warnings: list[str]
) -> tuple[Settings, pretrained.Pretrained | None]:
    """Return settings for the vectors that they name, and these vectors; add warnings."""
    if not settings.training.vectors:
        return settings, None
    with phase("reading the vectors"):
        vectors = pretrained.find_vectors(Path(settings.training.vectors), dataset.vocabulary)
    warnings += [*vectors.warnings, pretrained.coverage(vectors, dataset)]
    return pretrained.with_width(settings, vectors), vectors


def _check_unit(settings: Settings) -> None:
    """Raise UsageError unless the task reads the unit: numbers are for series alone."""
    task, unit = settings.task.task, settings.vocabulary.unit
    if UNITS[unit].numeric == (task == SERIES):
        return
    units = [name for name, spec in UNITS.items() if spec.numeric == (task == SERIES)]
    raise UsageError(
        f"{named('task')} {task} with {named('unit')} {unit}; expected {' or '.join(units)}. "
        f"Leave out {named('unit')}, or {named('task')}"
    )


def _given(
    settings: Settings, origins: Mapping[str, str], vocabulary: Path | None
) -> tuple[Settings, dict[str, str]]:
    """Return settings with the minutes of one direction, and where the given ones came from."""
    given = dict(origins)
    factor = length_factor("minutes", settings.model)
    if factor > 1 and settings.training.minutes:
        minutes = settings.training.minutes / factor
        settings = replace(settings, training=replace(settings.training, minutes=minutes))
        given["training.minutes"] = "half of the given time for each direction"
    if vocabulary:
        names = (f.name for f in fields(VocabularySettings))
        given |= {f"vocabulary.{name}": f"file {vocabulary}" for name in names}
    return settings, given


def _record(
    planned: Plan,
    dataset: Dataset,
    machine: Machine,
    given: Mapping[str, str],
) -> dict[str, Any]:
    """Return the planned content of run.json. `given` holds the origins of given settings."""
    settings = planned.settings
    rows = settings.training.batch_size or 1
    precision = as_used(machine.precision(settings.model, rows), settings)
    threads = machine.set_threads(settings.model, rows)
    task = training_of(settings)
    return {
        "settings": settings.to_dict(),
        "origins": _origins(settings, given, planned.reasons),
        "corpus": corpus_record(dataset, settings),
        "machine": machine_record(machine.device, threads),
        "precision": precision.record(),
        "parameters": task.parameters(settings, dataset),
        "planned": {
            "passes": planned.passes,
            "length": planned.reasons.get("training.minutes"),
            "memory_bytes": planned.memory,
            "speed": planned.speed,
            "speed_measured": planned.measured,
            "expected": planned.expected,
        },
    } | task.record(settings, dataset)


def _origins(
    settings: Settings, given: Mapping[str, str], reasons: Mapping[str, str]
) -> dict[str, str]:
    """Return where each setting came from: a flag, a file, a rule with its reason, the default."""
    names = [f"{section}.{key}" for section, keys in settings.to_dict().items() for key in keys]
    rules = {name: f"rule: {reason}" for name, reason in reasons.items()}
    return {name: rules.get(name) or given.get(name) or "default" for name in names}


def _shrunk(reasons: Mapping[str, str]) -> list[str]:
    """Return a warning for each size that was reduced because the text is short."""
    return [
        f"{named(name.removeprefix('training.'))} was made smaller: {reason}"
        for name, reason in reasons.items()
        if reason in (SHORT_TEXT, SHORTER_TEXT)
    ]

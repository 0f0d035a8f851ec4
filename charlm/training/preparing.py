"""Before a run begins: its corpus is read, the whole of it is planned, and nothing is written."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from charlm import __version__
from charlm.backends.kernel_library import chosen_variant
from charlm.config.corpus import VocabularySettings
from charlm.config.fields import VALIDATION
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.config.unused import drop_unused
from charlm.nn.devices import (
    PROBE_SHAPE,
    Precision,
    choose_device,
    choose_precision,
    keep_freed_memory,
    processor_name,
)
from charlm.nn.model import count_parameters
from charlm.phases import phase
from charlm.runs.built_in import built_in_text
from charlm.runs.data import corpus_record
from charlm.runs.pair import length_factor
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.plan.expectation import expected
from charlm.training.plan.planner import Plan, plan
from charlm.training.plan.speed import set_threads, training_threads
from charlm.training.pretrained import Pretrained, coverage, find_vectors, with_width

Origins = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that is planned and not begun: nothing is written yet.

    `record` holds what `run.json` will say of settings, text, machine and expectations.
    """

    plan: Plan
    dataset: Dataset
    device: torch.device
    threads: int
    origins: Origins
    vectors: Pretrained | None
    precision: Precision | None
    record: dict[str, Any]


def prepare(
    settings: Settings,
    *,
    origins: Mapping[str, str] | None = None,
    corpus: Corpus | None = None,
    vocabulary: Path | None = None,
) -> Prepared:
    """Read the corpus and plan a run. Arguments and errors as in `start`."""
    settings = _listened(settings, origins)
    chosen_variant()  # a variant that is forced and cannot be had is refused now, not at the end
    made_up = not settings.corpus.sources and corpus is None
    if made_up:  # the built-in text, whose own entropy says more than texts by people do
        source = str(built_in_text())
        settings = replace(settings, corpus=replace(settings.corpus, sources=(source,)))
    frozen = load_vocabulary(vocabulary) if vocabulary else None
    names = (f.name for f in fields(VocabularySettings))
    of_file = {f"vocabulary.{name}": f"file {vocabulary}" for name in names} if vocabulary else {}
    dataset = load_dataset(settings.corpus, settings.vocabulary, corpus=corpus, vocabulary=frozen)
    facts = {VALIDATION: dataset.valid is not None, "document": dataset.boundaries.document}
    _listened(settings, origins, facts)
    settings = replace(settings, vocabulary=dataset.vocabulary.settings)
    vectors = None
    if settings.training.vectors:
        with phase("reading the vectors"):
            vectors = find_vectors(Path(settings.training.vectors), dataset.vocabulary)
        settings = with_width(settings, vectors)
        dataset.notes.extend([*vectors.notes, coverage(vectors, dataset)])
    factor = length_factor("minutes", settings.model)
    if factor > 1 and settings.training.minutes:
        each = replace(settings.training, minutes=settings.training.minutes / factor)
        settings = replace(settings, training=each)
        origins = {**(origins or {}), "training.minutes": "half of what was given, a direction"}
    keep_freed_memory()
    device = choose_device(settings.training.device)
    vocab_size, wanted = len(dataset.vocabulary), settings.training.precision
    found: dict[ModelSettings, Precision] = {}

    def threads_of(model: ModelSettings, rows: int) -> int:
        """Return what was asked for, or what the work of the model is worth."""
        asked = settings.training.threads
        return asked or training_threads(model, vocab_size, rows, device)

    def precision_of(model: ModelSettings) -> Precision:
        """Compare gradients once for each model."""
        if model not in found:
            set_threads(threads_of(model, PROBE_SHAPE[1]))
            with phase("comparing bf16 with fp32"):
                found[model] = choose_precision(wanted, model, vocab_size, device)
        return found[model]

    with phase("planning"):
        planned = plan(settings, dataset, device, precision_of)
        expectation = None if made_up else expected(dataset, planned)
    settings = planned.settings
    _listened(settings, origins, facts)
    precision = precision_of(settings.model)
    threads = set_threads(threads_of(settings.model, settings.training.batch_size or 1))
    record = {
        "settings": settings.to_dict(),
        "corpus": corpus_record(dataset, settings),
        "machine": machine_record(device, threads),
        "precision": {"name": precision.name, "reason": precision.reason},
        "parameters": count_parameters(settings.model, vocab_size),
        "planned": {
            "passes": planned.passes,
            "length": planned.reasons.get("training.minutes"),
            "memory_bytes": planned.memory,
            "speed": planned.speed,
            "speed_measured": planned.measured,
            "expected": expectation,
        },
    }
    return Prepared(
        plan=planned,
        dataset=dataset,
        device=device,
        threads=threads,
        origins=_origins(settings, {**(origins or {}), **of_file}, planned.reasons),
        vectors=vectors,
        precision=precision,
        record=record,
    )


def _listened(
    settings: Settings, origins: Mapping[str, str] | None, known: Mapping[str, Any] | None = None
) -> Settings:
    """Check what the user gave; without origins, as for trials of a search, the caller has."""
    return settings if origins is None else drop_unused(settings, origins, known)


def prepare_machine(
    training: TrainingSettings, threads: int | None = None
) -> tuple[torch.device, int]:
    """Return the device and the threads of a run that resumes with its own number of threads."""
    keep_freed_memory()
    wanted = training.threads or threads or torch.get_num_threads()
    return choose_device(training.device), set_threads(wanted)


def machine_record(device: torch.device, threads: int) -> dict[str, Any]:
    """What the run was trained on, for run.json."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else processor_name(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "charlm": __version__,
    }


def _origins(settings: Settings, given: Mapping[str, str], reasons: Mapping[str, str]) -> Origins:
    """Where each setting came from: a flag, a file, a rule with its reason, or the default."""
    origins = {}
    for section, values in settings.to_dict().items():
        for key in values:
            name = f"{section}.{key}"
            rule = f"rule: {reasons[name]}" if name in reasons else ""
            origins[name] = rule or given.get(name) or "default"
    return origins

"""Layout of a run folder, and its JSON files; readable without torch.

checkpoints/<name>/
    config.json         format, architecture, vocabulary, versions, calibration factor
    tokenizer.json      the vocabulary, readable by the tokenizers library
    letters.json        the vocabulary of the letters of words, of a tagger that reads them
    target.json         the vocabulary of translations
    model.safetensors   best weights
    ngrams.safetensors  n-grams, instead of weights, of a run that charlm ngram made
    run.json            settings and their origins, corpus, machine, results
    metrics.jsonl       every record of training
    README.md           a model card
    MANIFEST.json       sizes and SHA-256 of the files above that must not change
    data/               the encoded text, from which the run can resume without the corpus
    tensorboard/        the log again for TensorBoard, with --log tensorboard
    states/step-N/      a checkpoint: everything needed to resume from step N
    ngram/              the n-gram companion of a network, itself a run without a vocabulary
    backward/           the backward half of a run with --direction both, itself a run
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from charlm import __version__
from charlm.commands import command, run_word
from charlm.config.corpus import DOCUMENT_NAMES
from charlm.config.fields import listed_names
from charlm.config.settings import settings_from
from charlm.config.task import TaskSettings
from charlm.config.tasks import LANGUAGE_MODEL, TASKS, is_labelled
from charlm.errors import RunError, UsageError
from charlm.files.atomic import MANIFEST, json_bytes, read_written, write_file
from charlm.files.safe_read import parse_json, read_bytes, read_json
from charlm.runs.built_in import is_built_in
from charlm.runs.shapes import (
    CONFIG_SHAPE,
    NGRAM_CONFIG_SHAPE,
    TASK_SHAPES,
    check_shape,
    record_shape,
    shown,
)
from charlm.units import flat_figures

FORMAT, NEWEST = 1, 2
"""Format of every file; in runs with a table `task` or `conditions`, config.json and run.json have
NEWEST."""
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
LETTERS, TARGET = "letters.json", "target.json"
"""Files of further vocabularies: of the letters of words, and of translations."""
TOKENIZERS = (TOKENIZER, LETTERS, TARGET)
NGRAMS = "ngrams.safetensors"
RECORD, METRICS, CARD = "run.json", "metrics.jsonl", "README.md"
SEARCH = "search.json"
"""File in the folder of a search: its settings."""
BEST = "best.json"
"""File in the folder of a search: its best trial."""
STUDY = "study.log"
"""File in the folder of a search: Optuna's journal of the trials."""
KEPT_VECTORS = Path("data", "vectors", "vectors.safetensors")
"""File with the vectors that a run starts with."""
OLD_TEXT = Path("data", "from")
"""Folder with a part of the validation text of the run that a fine-tuned run started from."""
COMPANION = "ngram"
"""Folder of the n-gram companion in the folder of a run, and its name in a mixture."""
TENSORBOARD = "tensorboard"
"""Folder of the event files of `--log tensorboard`, a copy of the log."""
MAX_LOG = 1 << 30
BACKWARD = "backward"
"""Folder of the backward half of a run with --direction both."""
BAG = "bag.safetensors"
"""Bag of words that is mixed into the answers of a run that gives labels."""
BAG_FEATURES = "bag"
"""Key in config.json: the number of features of the bag of words, if one is mixed in."""
LOGIT_SCALE = "logit_scale"
"""Key in config.json: the factor on all logits, if calibration found one."""
MAX_LOGIT_SCALE = 1e15
CONDITIONS = "conditions"
"""Table in config.json of a language model with conditions: the column, the conditions, the number
of training documents of each, and of documents `without` one."""
TASK = "task"
"""Table in config.json of every run but language models: the labels, how texts are read."""
NETWORK, NGRAM = "network", "ngram"
"""Kinds of models, in `model.kind` of config.json; a network does not record it."""
SEAL = "sha256"
"""Key in run.json: hash of all other content."""


FILES = {CONFIG, *TOKENIZERS, WEIGHTS, NGRAMS, BAG, RECORD, METRICS, CARD, MANIFEST}
"""Files that charlm writes into the folder of a run."""
_INNER = re.compile(
    rf"data/((train|valid|test)(-target)?|vectors|{OLD_TEXT.name})/[\w-]+\.(json|bin|safetensors)|"
    rf"states/step-\d{{1,16}}/(state\.(json|safetensors)|{re.escape(MANIFEST)})|"
    rf"{COMPANION}/({re.escape(CONFIG)}|{re.escape(NGRAMS)}|{re.escape(MANIFEST)})",
    re.ASCII,
)


def is_run_file(name: str) -> bool:
    """Return whether a path in the folder of a run, with `/`, is one that charlm writes."""
    inner = name.removeprefix(f"{BACKWARD}/")
    return inner in FILES or _INNER.fullmatch(inner) is not None


def named_inside(path: Path, problem: str) -> str:
    """Return the problem of a run with its files named from its own folder."""
    return problem.replace(f"{path}{os.sep}", "").replace(f"{path}: ", "")


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json and check its format and types. Raises RunError."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run; expected a folder that charlm train wrote")
    where = path / CONFIG
    config = read_json(where)
    check_format(config, where)
    kind = kind_of(config)
    if kind not in (NETWORK, NGRAM):
        raise RunError(f"{where}: model.kind is {shown(kind)}; expected {NETWORK} or {NGRAM}")
    check_shape(config, CONFIG_SHAPE if kind == NETWORK else NGRAM_CONFIG_SHAPE, str(where))
    if kind == NGRAM and config["model"]["order"] < 1:
        raise RunError(f"{where}: order is {config['model']['order']}; expected 1 or more")
    size, document = config["vocab_size"], config["document"]
    if not 2 <= size <= 2**31:
        raise RunError(f"{where}: vocab_size is {size!r}; expected a number from 2 on")
    if document not in DOCUMENT_NAMES:
        raise RunError(
            f"{where}: document is {shown(document)}; expected one of {', '.join(DOCUMENT_NAMES)}"
        )
    scale = config.get(LOGIT_SCALE, 1.0)
    if not 0.0 < scale <= MAX_LOGIT_SCALE:
        raise RunError(
            f"{where}: {LOGIT_SCALE} is {scale}; expected a number above 0. Restore the run from "
            "a copy"
        )
    _check_tables(config, where)
    return config


def _check_tables(config: dict[str, Any], where: Path) -> None:
    """Raise RunError for a table `task` or `conditions` that charlm does not write or know."""
    task, conditions = config.get(TASK), config.get(CONDITIONS)
    table = TASK if task is not None else CONDITIONS if conditions is not None else None
    if (table is None) != (config["format"] == FORMAT):
        found = "no table task" if table is None else f"a table {table}"
        expected = FORMAT if table is None else NEWEST
        raise RunError(
            f"{where}: format {config['format']} with {found}; expected format {expected} there. "
            "Restore the run from a copy"
        )
    if conditions is not None:
        _check_conditions(conditions, where, with_task=task is not None)
    if task is not None:
        _check_task(task, where)


def _check_conditions(conditions: dict[str, Any], where: Path, *, with_task: bool) -> None:
    """Raise RunError for conditions that are not different, or without a number of documents."""
    names, documents = conditions["labels"], conditions["documents"]
    fits = 0 < len(set(names)) == len(names) == len(documents) and min(documents) > 0
    if with_task or not fits:
        raise RunError(
            f"{where}: {len(names)} conditions, {len(set(names))} of them different, with the "
            f"numbers of documents {shown(documents)}; expected one above 0 for each "
            "condition, and no table task. Restore the run from a copy"
        )


def _check_task(task: dict[str, Any], where: Path) -> None:
    """Raise RunError for a task that is not known, or settings of it that are not valid."""
    name = task["name"]
    row = TASKS.get(name)
    if row is None or not row.labelled:
        others = ", ".join(other for other, each in TASKS.items() if each.labelled)
        raise RunError(
            f"{where}: task is {shown(name)}; expected one of {others}. Upgrade charlm, or restore "
            "the run from a copy"
        )
    check_shape(task, TASK_SHAPES[name], f"{where}.{TASK}")
    own = {each.name for each in fields(TaskSettings)}  # keys that are settings
    values = {key: value for key, value in task.items() if key in own}
    try:
        settings_from({TASK: {"task": name, **values}}, str(where))
    except UsageError as error:
        raise RunError(f"{error}. Upgrade charlm, or restore the run from a copy") from error
    labels = task.get("labels")
    if labels is not None and (len(labels) < 2 or len(set(labels)) < len(labels)):
        raise RunError(
            f"{where}: task {name} with {len(labels)} labels, {len(set(labels))} of them "
            "different; expected at least 2, all different. Restore the run from a copy"
        )


def is_label_run(path: Path) -> bool:
    """Return whether a run is no language model, by its config.json; False without one to read."""
    return run_task(path) != LANGUAGE_MODEL


def task_of(config: Mapping[str, Any]) -> str:
    """Return the task in the content of config.json; without one it is that of language models."""
    return str(config.get(TASK, {}).get("name", LANGUAGE_MODEL))


def run_task(path: Path) -> str:
    """Return the task of a run, by its config.json.

    It is that of language models if there is nothing to read, or no table of a known task.
    """
    try:
        table = read_json(path / CONFIG).get(TASK)
    except RunError:
        return LANGUAGE_MODEL
    name = table.get("name") if isinstance(table, dict) else None
    return name if name in TASKS else LANGUAGE_MODEL


def verb_of(path: Path) -> str:
    """Return the command that uses a run, by its config.json."""
    return TASKS[run_task(path)].verb


def no_text(path: Path) -> UsageError:
    """Return the error for a run of another task where a language model is needed."""
    row = TASKS[run_task(path)]
    return UsageError(
        f"run {path.name} gives {row.gives}, not text; expected a language model. Use: "
        + command(row.verb, run=path)
    )


def no_labels(path: Path) -> UsageError:
    """Return the error for a run that answers no texts where one that does is needed."""
    task = run_task(path)
    verb = "score" if task == LANGUAGE_MODEL else TASKS[task].verb
    answers = listed_names([row.gives for row in TASKS.values() if row.verb == "predict"])
    return UsageError(
        f"run {path.name} gives {TASKS[task].gives}; expected a run that gives {answers}. Use: "
        + command(verb, "--run", path.name if is_built_in(path) else run_word(path))
    )


def kind_of(config: dict[str, Any]) -> Any:
    """Return the kind of the model in the content of config.json, as it is there."""
    model = config.get("model")
    return model.get("kind", NETWORK) if isinstance(model, dict) else NETWORK


def home(path: Path) -> Path:
    """Return the folder with the vocabulary, text and record of a run.

    It is that of the run itself, or for a companion that of the run around it.
    """
    is_companion = path.name == COMPANION and not (path / TOKENIZER).exists()
    return path.parent if is_companion else path


def model_file(path: Path) -> Path:
    """Return the file with the model of a run: its n-grams if it has some, else its weights."""
    return path / (NGRAMS if (path / NGRAMS).exists() else WEIGHTS)


def check_format(content: dict[str, Any], where: Path, newest: int = NEWEST) -> None:
    """Raise RunError if this charlm does not read the format of a file."""
    version = content.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RunError(f"{where}: format is {shown(version)}; expected {FORMAT}")
    if version > newest:
        maker = f"; made by charlm {str(content['charlm'])[:40]}" if "charlm" in content else ""
        raise RunError(
            f"{where}: format {version} is newer than {newest}, which this charlm "
            f"({__version__}) reads{maker}. Upgrade charlm"
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a run and check its format. Raises RunError."""
    manifest = read_written(path / MANIFEST)
    check_format(manifest, path / MANIFEST, FORMAT)
    return manifest


OLD_READING = {"keep_cr": True, "glue": True}
"""Settings under which runs of older versions read their text."""


def read_record(path: Path) -> dict[str, Any]:
    """Read run.json and check its settings.

    Settings that older versions did not have are added with their meaning then. Raises RunError.
    """
    where = path / RECORD
    record = read_written(where)
    check_format(record, where)
    check_shape(record, record_shape(record), str(where))
    seal = record.pop(SEAL, None)
    if seal is not None and seal != _seal(record):
        raise RunError(f"{where}: not as written (its SHA-256 differs). Restore it from a copy")
    corpus = record["settings"].get("corpus")
    if isinstance(corpus, dict):
        record["settings"]["corpus"] = OLD_READING | corpus
    try:
        settings_from(record["settings"], str(where))
    except UsageError as error:
        raise RunError(f"{error}. Restore the run from a copy") from error
    return record


def train_targets(record: Mapping[str, Any]) -> int:
    """Return the number of targets in one pass over the training text of a run.

    A target is a token, or what the task says: a text, a tag.
    """
    part = record["corpus"]["parts"]["train"]
    usual = "documents" if is_labelled(record["settings"]) else "tokens"
    return int(part.get("targets", part[usual]))  # older labelled runs count no targets


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the records of metrics.jsonl, without a last line that was cut off by a crash.

    Records of older versions are converted: figures at the top level. Raises RunError for a line
    that charlm did not write.
    """
    where = path / METRICS
    records = []
    lines = read_bytes(where, MAX_LOG).split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        record = parse_json(line, Path(f"{where}, line {number}"))
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
            raise RunError(f"{where}, line {number}: not a record; expected one by charlm train")
        records.append(flat_figures(record))
    return records


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace run.json, with its SHA-256 inside. Raises EnvironmentFailure."""
    write_file(path / RECORD, sealed_record(record))


def sealed_record(record: dict[str, Any]) -> bytes:
    """Return the content of run.json, with its SHA-256 inside."""
    return json_bytes(record | {SEAL: _seal(record)})


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json_bytes(record)).hexdigest()

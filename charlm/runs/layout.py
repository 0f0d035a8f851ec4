"""What a run directory holds, and its config.json; readable without torch.

checkpoints/<name>/
    config.json         what the model is: format, architecture, vocabulary, versions
    tokenizer.json      the vocabulary, readable by the tokenizers library
    model.safetensors   best weights
    run.json            how it was made: settings, where each came from, corpus, results
    metrics.jsonl       every record of training
    README.md           a model card
    MANIFEST.json       sizes and SHA-256 of the files above that must not change
    data/               the encoded text, so that the run can go on without the corpus
    states/step-N/      everything needed to go on from step N
    backward/           the backward half of a run with --direction both: a run of its own
"""

import hashlib
from pathlib import Path
from typing import Any

from charlm import __version__
from charlm.config.corpus import DOCUMENT_NAMES
from charlm.config.settings import settings_from
from charlm.errors import RunError, UsageError
from charlm.files.atomic import MANIFEST, json_bytes, read_written, write_json
from charlm.files.safe_read import parse_json, read_bytes, read_json
from charlm.runs.shapes import CONFIG_SHAPE, RECORD_SHAPE, check_shape, shown
from charlm.units import flat_figures

FORMAT = 1
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
RECORD, METRICS, CARD = "run.json", "metrics.jsonl", "README.md"
SEARCH = "search.json"
"""In a folder of trials: what they are searched over."""
BEST = "best.json"
"""In a folder of trials: which of them is the best."""
KEPT_VECTORS = Path("data", "vectors", "vectors.safetensors")
"""Where the vectors that a run begins with are kept in its folder."""
MAX_LOG = 1 << 30
LOGIT_SCALE = "logit_scale"
"""In config.json: the factor on all logits, if calibration found one."""
MAX_LOGIT_SCALE = 1e15
SEAL = "sha256"
"""In run.json: of all the rest of it."""


def read_config(path: Path) -> dict[str, Any]:
    """config.json, its format and types checked. Raises RunError."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run; expected a folder that charlm train wrote")
    where = path / CONFIG
    config = read_json(where)
    check_format(config, where)
    check_shape(config, CONFIG_SHAPE, str(where))
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
    return config


def check_format(content: dict[str, Any], where: Path) -> None:
    """Raise RunError when a file is of another format than this charlm reads."""
    version = content.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RunError(f"{where}: format is {shown(version)}; expected {FORMAT}")
    if version > FORMAT:
        maker = f"; made by charlm {str(content['charlm'])[:40]}" if "charlm" in content else ""
        raise RunError(
            f"{where}: format {version} is newer than {FORMAT}, which this charlm "
            f"({__version__}) reads{maker}. Upgrade charlm"
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run, its format checked. Raises RunError."""
    manifest = read_written(path / MANIFEST)
    check_format(manifest, path / MANIFEST)
    return manifest


OLD_READING = {"keep_cr": True, "glue": True}
"""Rules for reading texts before they were settings."""


def read_record(path: Path) -> dict[str, Any]:
    """Read run.json, with settings that make sense.

    What older versions did without a setting is added to their settings. Raises RunError.
    """
    where = path / RECORD
    record = read_written(where)
    check_format(record, where)
    check_shape(record, RECORD_SHAPE, str(where))
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl; a last line that was cut off by a crash is left out.

    Records of older versions are given as those of this one: figures at the top level.

    Raises RunError when another line is not one that charlm wrote.
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
    write_json(path / RECORD, record | {SEAL: _seal(record)})


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json_bytes(record)).hexdigest()

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

from pathlib import Path
from typing import Any

from charlm import __version__
from charlm.errors import RunError
from charlm.runs.commit import read_json

FORMAT = 1
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
RECORD, METRICS, CARD = "run.json", "metrics.jsonl", "README.md"
BACKWARD = "backward"


def read_config(path: Path) -> dict[str, Any]:
    """config.json, its format and types checked. Raises RunError."""
    if not path.is_dir():
        raise RunError(f"{path}: no such run; expected a folder that charlm train wrote")
    config = read_json(path / CONFIG)
    version = config.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RunError(f"{path / CONFIG}: format is {version!r}; expected {FORMAT}")
    if version > FORMAT:
        raise RunError(
            f"{path / CONFIG}: format {version} is newer than {FORMAT}, which this charlm "
            f"({__version__}) reads; made by charlm {config.get('charlm')}. Upgrade charlm"
        )
    size, document = config.get("vocab_size"), config.get("document")
    if not isinstance(size, int) or isinstance(size, bool) or not 2 <= size <= 2**31:
        raise RunError(f"{path / CONFIG}: vocab_size is {size!r}; expected a number from 2 on")
    if not isinstance(document, str):
        raise RunError(f"{path / CONFIG}: document is {document!r}; expected a document rule")
    _check_tables(config, ("model", "vocabulary"), path / CONFIG)
    return config


def read_record(path: Path) -> dict[str, Any]:
    """run.json, its main parts checked. Raises RunError."""
    record = read_json(path / RECORD)
    _check_tables(record, ("settings", "corpus", "machine"), path / RECORD)
    _check_tables(record["settings"], ("vocabulary", "model", "training"), path / RECORD)
    _check_tables(record["corpus"], ("parts",), path / RECORD)
    return record


def _check_tables(content: dict[str, Any], names: tuple[str, ...], path: Path) -> None:
    for name in names:
        if not isinstance(content.get(name), dict):
            found = type(content[name]).__name__ if name in content else "nothing"
            raise RunError(f"{path}: {name} is {found}; expected a table, as charlm train writes")

"""New runs of n-gram models: count a text, and write the folder."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from charlm.backends.processor import processor_name
from charlm.config.corpus import HELD_OUT_NAMES
from charlm.files.atomic import json_bytes, write_file
from charlm.inference.likelihood import evaluate
from charlm.ngrams.kneser_ney import Discounts, fit
from charlm.ngrams.model import NgramModel
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.card import model_card
from charlm.runs.model_files import model_config, vocabulary_bytes, write_model_files
from charlm.runs.ngrams import ngram_pieces
from charlm.runs.run import load_run
from charlm.text.dataset import Dataset
from charlm.text.direction import mirrored
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.vocabulary import Vocabulary


def fit_text(
    train: EncodedText, vocabulary: Vocabulary, order: int, direction: str = "forward"
) -> tuple[NgramModel, list[Discounts]]:
    """Return the Kneser-Ney model of a text in its own order, and the discounts."""
    with phase(f"counting n-grams up to length {order}"):
        text = mirrored(train) if direction == "backward" else train
        return fit(np.asarray(text.ids), len(vocabulary), order, kind=np.float32)


def ngram_record(
    model: NgramModel, method: str, discounts: Sequence[Discounts] = ()
) -> dict[str, Any]:
    """Return the description of an n-gram model for run.json."""
    return {
        "order": model.order,
        "method": method,
        "sizes": model.sizes,
        "discounts": [asdict(each) for each in discounts],
    }


def write_ngram_run(
    path: Path,
    dataset: Dataset,
    model: NgramModel,
    record: Mapping[str, Any],
    direction: str = "forward",
) -> None:
    """Write the files of a new n-gram run into its folder, which holds its text already.

    `record` is the content of run.json, to which the results on the held-out text are added.
    """
    vocabulary = dataset.vocabulary
    about = {"kind": layout.NGRAM, "order": model.order, "direction": direction}
    config = model_config(about, vocabulary, dataset.boundaries, dataset.unk_types)
    with phase("writing the n-grams"):
        write_model_files(path, config, vocabulary, ngram_pieces(model))
    run = load_run(path)
    results = dict(record["results"])
    for name in HELD_OUT_NAMES:
        if (text := dataset.split(name)) is not None:
            with phase(f"evaluating: {name}", total=len(text.ids)):
                results[name] = evaluate(run.backend, run.as_read(text)).summary()
    known = vocabulary_bytes(vocabulary) + json_bytes([config, record["corpus"]])
    whole = {
        **record,
        "format": layout.FORMAT,
        "id": hashlib.sha256(known).hexdigest()[:16],
        "name": path.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "finished",
        "machine": {"device_name": processor_name(), "threads": 1},
        "results": results,
    }
    write_file(path / layout.CARD, model_card(path.name, whole).encode("utf-8"))
    layout.write_record(path, whole)

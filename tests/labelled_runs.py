"""Folders of runs that give labels, with random weights and no training."""

from collections.abc import Sequence
from pathlib import Path

import torch
from helpers import seeded, vocabulary_of

from charlm.config.model import ModelSettings
from charlm.files.atomic import write_json
from charlm.nn.classifier import Classifier
from charlm.runs import layout
from charlm.runs.model_files import model_config, write_model_files, write_weights
from charlm.text.boundaries import Boundaries

LABELS = ("neg", "pos", "so so")
WORDS = "a good film and a bad film , not good : an odd one ."


def label_run(
    path: Path,
    *,
    pooling: str = "concat",
    both_ways: bool = True,
    scale: float = 1.0,
    labels: Sequence[str] = LABELS,
    words: str = WORDS,
    seed: int = 0,
    **model,
) -> Path:
    """Write the run of a random classifier of words into a folder and return it.

    `words` is the text of the vocabulary, `model` are settings of the model; texts are cut to 12
    tokens.
    """
    sizes = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | model
    settings = ModelSettings(tie_weights=False, **sizes)
    vocabulary = vocabulary_of(words, "word", words="bare", lowercase=True)
    config = model_config(settings, vocabulary, Boundaries(document="line"))
    config["format"] = layout.NEWEST
    config[layout.TASK] = {
        "name": "classify", "labels": list(labels), "pooling": pooling, "both_ways": both_ways,
        "max_tokens": 12, "kept_part": "ends",
    }  # fmt: skip
    if scale != 1.0:
        config[layout.LOGIT_SCALE] = scale
    path.mkdir(parents=True)
    write_model_files(path, config, vocabulary)
    classifier = Classifier(settings, len(vocabulary), len(labels), pooling, both_ways)
    classifier.reset_parameters(seeded(seed))
    with torch.no_grad():
        for tensor in (*classifier.first_state, classifier.head.bias):
            tensor.normal_(generator=seeded(seed + 1))
        classifier.head.weight.mul_(4.0)
    write_weights(path, classifier)
    write_json(path / layout.RECORD, {})  # the list of runs leaves out a folder without one
    return path

"""Folders of runs that give tags, with random weights and no training."""

from pathlib import Path

import torch
from helpers import seeded, vocabulary_of

from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.files.atomic import write_json
from charlm.nn.tagger import Tagger
from charlm.runs import layout
from charlm.runs.model_files import model_config, write_model_files, write_weights
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.building import build_vocabulary

SPANS = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
PARTS = ("ADJ", "NOUN", "VERB")
WORDS = "Anna lives in New York . Bob met her there ; they saw Anna Smith ."


def tag_run(
    path: Path,
    *,
    labels: tuple[str, ...] = SPANS,
    unit: str = "word",
    both_ways: bool = True,
    letters: bool = True,
    scale: float = 1.0,
    **model,
) -> Path:
    """Write the run of a random tagger into a folder and return it.

    `model` are settings of the model.
    """
    sizes = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | model
    settings = ModelSettings(tie_weights=False, **sizes)
    words = {"words": "whitespace", "lowercase": True} if unit == "word" else {}
    vocabulary = vocabulary_of(WORDS, unit, **words)
    spelled = build_vocabulary(
        lambda: [WORDS], VocabularySettings(unit="char", min_count=1)
    ).vocabulary
    spans = "O" in labels
    task = {
        "name": "tag", "labels": list(labels), "spans": spans, "both_ways": both_ways,
        "output": "crf" if spans else "softmax", "letter_width": 2 if letters else 0,
        "letters": len(spelled) if letters else 0,
    }  # fmt: skip
    config = model_config(settings, vocabulary, Boundaries(document="line"))
    config |= {"format": layout.NEWEST, layout.TASK: task}
    if scale != 1.0:
        config[layout.LOGIT_SCALE] = scale
    path.mkdir(parents=True)
    more = {layout.LETTERS: spelled} if letters else {}
    write_model_files(path, config, vocabulary, more=more)
    tagger = Tagger.of_task(settings, len(vocabulary), task)
    tagger.reset_parameters(seeded())
    with torch.no_grad():
        for name, tensor in tagger.named_parameters():
            if name.startswith("head.") and name != "head.weight":
                tensor.normal_(generator=seeded(1))
        tagger.head.weight.mul_(4.0)
    write_weights(path, tagger)
    write_json(path / layout.RECORD, {})
    return path

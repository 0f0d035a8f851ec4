"""Folders of runs that give translations, with random weights and no training."""

from pathlib import Path

from helpers import seeded, vocabulary_of

from charlm.config.model import ModelSettings
from charlm.files.atomic import write_json
from charlm.nn.translator import Translator
from charlm.runs import layout
from charlm.runs.model_files import model_config, write_model_files, write_weights
from charlm.text.boundaries import Boundaries
from charlm.text.encoded import write_encoded
from charlm.text.labelled import encode_texts
from charlm.text.parallel import Parallel

PAIRS = [
    ("the dog ran", "der Hund lief"),
    ("a cat saw the dog", "eine Katze sah den Hund"),
    ("the cat and the dog", "die Katze und der Hund"),
    ("a red dog", "ein roter Hund"),
    ("the cat ran", "die Katze lief"),
]


def translate_run(
    path: Path,
    *,
    unit: str = "word",
    both_ways: bool = True,
    seed: int = 18,
    kept: str = "",
    **model,
) -> Path:
    """Write the run of a random translator into a folder and return it.

    `model` are settings of the model; `kept` names splits whose text is PAIRS.
    """
    sizes = {"num_layers": 1, "hidden_size": 5, "embedding_size": 4} | model
    settings = ModelSettings(tie_weights=False, **sizes)
    rules = {"words": "bare"} if unit == "word" else {}
    source, target = (
        vocabulary_of("\n".join(pair[side] for pair in PAIRS), unit, **rules) for side in (0, 1)
    )
    config = model_config(settings, source, Boundaries(document="line"))
    config["format"] = layout.NEWEST
    config[layout.TASK] = {
        "name": "translate", "both_ways": both_ways, "target_size": len(target),
    }  # fmt: skip
    path.mkdir(parents=True)
    write_model_files(path, config, source, more={layout.TARGET: target})
    translator = Translator(settings, len(source), len(target), both_ways).requires_grad_(False)
    translator.reset_parameters(seeded(seed))
    for tensor in translator.parameters():
        tensor.mul_(3.0)
    translator.head.bias.normal_(generator=seeded(1))
    write_weights(path, translator)
    write_json(path / layout.RECORD, {})
    sides = [
        encode_texts([pair[side] for pair in PAIRS], vocabulary, 1000, "start")
        for side, vocabulary in enumerate((source, target))
    ]
    for name in kept.split():
        folder = path / "data" / name
        write_encoded(folder, sides[0])
        own = Parallel(vocabulary=target, texts={name: sides[1]}, pairs={name: PAIRS})
        own.write(folder, name)
    return path

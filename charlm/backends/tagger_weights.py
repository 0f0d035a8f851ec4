"""Names, shapes and settings of a tagger's tensors, beside those of its encoders.

Letters: K tags, C hidden units of each encoder of letters.
"""

from collections.abc import Mapping
from typing import Any

from charlm.backends.weights import BACKWARD, HEAD, encoder_shapes
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings

CHARACTERS = "characters."
"""Beginning of the names of the tensors that read the letters of words."""
CRF = "crf"
"""Output of a tagger that chooses the tags of a sentence together."""
ILLEGAL = -1e4
"""Score of a step between tags that is not legal; minus infinity has no gradient."""


def tagger_shapes(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a tagger's file, by name.

    `task` is the table of config.json.
    """
    shapes = both_ways(encoder_shapes(settings, vocab_size), bool(task["both_ways"]))
    if width := int(task["letter_width"]):
        letters = encoder_shapes(letter_settings(settings, width), int(task["letters"]))
        own = both_ways(letters, True)
        shapes |= {f"{CHARACTERS}{name}": shape for name, shape in own.items()}
    tags, features = len(task["labels"]), (settings.hidden_size or 0) * (1 + task["both_ways"])
    shapes |= {f"{HEAD}weight": (tags, features), f"{HEAD}bias": (tags,)}
    if task["output"] == CRF:
        shapes |= {
            f"{HEAD}transitions": (tags, tags),
            f"{HEAD}first": (tags,),
            f"{HEAD}last": (tags,),
        }
    return shapes


def both_ways(shapes: dict[str, tuple[int, ...]], backward: bool) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an encoder with those of a backward one beside it, if there is one."""
    return shapes | ({f"{BACKWARD}{name}": s for name, s in shapes.items()} if backward else {})


def letter_settings(settings: ModelSettings, width: int) -> ModelSettings:
    """Return the settings of the encoders of letters: one small layer of the same cell."""
    names = ("recurrent_init", "input_init", "forget_bias", *CELLS[settings.cell].settings)
    return ModelSettings(
        cell=settings.cell, num_layers=1, embedding_size=width, hidden_size=width,
        **{name: getattr(settings, name) for name in names},
    )  # fmt: skip

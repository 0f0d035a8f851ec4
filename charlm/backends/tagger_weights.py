"""Names, shapes and settings of a tagger's tensors, beside those of its encoders.

Letters: K tags, C hidden units of each encoder of letters.
"""

from collections.abc import Mapping
from typing import Any

from charlm.backends.weights import HEAD, both_ways_shapes
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
    shapes = both_ways_shapes(settings, vocab_size, both_ways=task["both_ways"])
    if width := int(task["letter_width"]):
        own = letter_settings(settings, width)
        letters = both_ways_shapes(own, int(task["letters"]), both_ways=True)
        shapes |= {f"{CHARACTERS}{name}": shape for name, shape in letters.items()}
    tags, features = len(task["labels"]), (settings.hidden_size or 0) * (1 + task["both_ways"])
    shapes |= {f"{HEAD}weight": (tags, features), f"{HEAD}bias": (tags,)}
    if task["output"] == CRF:
        shapes |= {
            f"{HEAD}transitions": (tags, tags),
            f"{HEAD}first": (tags,),
            f"{HEAD}last": (tags,),
        }
    return shapes


def letter_settings(settings: ModelSettings, width: int) -> ModelSettings:
    """Return the settings of the encoders of letters: one small layer of the same cell."""
    names = ("recurrent_init", "input_init", "forget_bias", *CELLS[settings.cell].settings)
    return ModelSettings(
        cell=settings.cell, num_layers=1, embedding_size=width, hidden_size=width,
        **{name: getattr(settings, name) for name in names},
    )  # fmt: skip

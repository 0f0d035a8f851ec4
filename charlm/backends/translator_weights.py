"""Names and shapes of a translator's tensors, and the settings of its decoder."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from charlm.backends.weights import HEAD, both_ways_shapes, encoder_shapes
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings

DECODER = "decoder."
"""Beginning of the names of the tensors of the decoder."""
DECODER_LAYERS = f"{DECODER}encoder."
"""Beginning of the names of its embedding, which is its output matrix too, and of its layers."""


def decoder_settings(settings: ModelSettings, both_ways: bool) -> ModelSettings:
    """Return the settings of the decoder's layers: as wide as the vectors of the memory, D."""
    width = settings.output_size * (1 + both_ways)
    return replace(
        settings, hidden_size=width, last_hidden_size=None, one_hot=False, learned_state=False
    )


def translator_shapes(
    settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a translator's file, by name.

    `task` is the table in config.json, with the keys both_ways and target_size.
    """
    shapes = both_ways_shapes(settings, vocab_size, both_ways=task["both_ways"])
    own, size = decoder_settings(settings, task["both_ways"]), task["target_size"]
    width, embedding = own.hidden_size or 0, own.embedding_size or 0
    states = (own.num_layers or 0) * len(CELLS[own.cell].state)
    decoder = encoder_shapes(own, size)
    return (
        shapes
        | {f"{DECODER_LAYERS}{name}": shape for name, shape in decoder.items()}
        | {
            f"{DECODER}bridge.weight": (states * width, width),
            f"{DECODER}bridge.bias": (states * width,),
            f"{HEAD}bias": (size,),
            f"{HEAD}combine.weight": (embedding, 2 * width),
            f"{HEAD}combine.bias": (embedding,),
        }
    )

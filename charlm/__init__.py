"""Character- and word-level recurrent language models: train, sample, score, evaluate.

    import charlm
    lm = charlm.load("checkpoints/x")
    print("".join(lm.sample(200, seed=1)))

Names are looked up when they are first used, so that importing charlm imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlm.errors import CharlmError
    from charlm.library import Model, load, train
    from charlm.units import Tally

__version__ = "0.1.0"

_HOMES = {
    "CharlmError": "charlm.errors",
    "Model": "charlm.library",
    "Tally": "charlm.units",
    "load": "charlm.library",
    "train": "charlm.library",
}

__all__ = ["CharlmError", "Model", "Tally", "__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'charlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

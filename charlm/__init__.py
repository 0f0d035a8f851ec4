"""Character- and word-level recurrent language models: train, sample, score, evaluate.

    import charlm
    lm = charlm.load("checkpoints/x")
    print(lm.sample(200, seed=1))

Each name is imported when it is first used, so `import charlm` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from charlm.openmp import set_short_spins

set_short_spins()  # before anything imports torch

if TYPE_CHECKING:
    from charlm.api.hub import pull, push
    from charlm.api.labels import LabelModel
    from charlm.api.loading import load
    from charlm.api.model import Model
    from charlm.api.ngrams import ngram
    from charlm.api.pairs import pairs
    from charlm.api.rescoring import rescore, tune_weights
    from charlm.api.runs import list_runs
    from charlm.api.series import SeriesForecaster
    from charlm.api.tags import TagModel
    from charlm.api.training import fit, train
    from charlm.api.translations import TranslateModel
    from charlm.errors import CharlmError
    from charlm.inference.labelling import Label
    from charlm.units import Tally

__version__ = "0.1.0"

_HOMES = {
    "CharlmError": "charlm.errors",
    "Label": "charlm.inference.labelling",
    "LabelModel": "charlm.api.labels",
    "Model": "charlm.api.model",
    "SeriesForecaster": "charlm.api.series",
    "TagModel": "charlm.api.tags",
    "Tally": "charlm.units",
    "TranslateModel": "charlm.api.translations",
    "fit": "charlm.api.training",
    "list_runs": "charlm.api.runs",
    "load": "charlm.api.loading",
    "ngram": "charlm.api.ngrams",
    "pairs": "charlm.api.pairs",
    "pull": "charlm.api.hub",
    "push": "charlm.api.hub",
    "rescore": "charlm.api.rescoring",
    "train": "charlm.api.training",
    "tune_weights": "charlm.api.rescoring",
}
__all__ = [
    "CharlmError", "Label", "LabelModel", "Model", "SeriesForecaster", "TagModel", "Tally",
    "TranslateModel", "__version__", "fit", "list_runs", "load", "ngram", "pairs", "pull", "push",
    "rescore", "train", "tune_weights",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'charlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

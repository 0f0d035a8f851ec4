"""The API that programs and the command line call; each module is imported when it is first used.

from charlm import api
tallies = api.evaluation.evaluate_run(api.loading.load("tales")).plain
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from charlm.api import arpa as arpa
    from charlm.api import comparison as comparison
    from charlm.api import evaluation as evaluation
    from charlm.api import gradients as gradients
    from charlm.api import hub as hub
    from charlm.api import info as info
    from charlm.api import inside as inside
    from charlm.api import loading as loading
    from charlm.api import methods as methods
    from charlm.api import model as model
    from charlm.api import ngrams as ngrams
    from charlm.api import pairs as pairs
    from charlm.api import play as play
    from charlm.api import plots as plots
    from charlm.api import prompt as prompt
    from charlm.api import reproduction as reproduction
    from charlm.api import rescoring as rescoring
    from charlm.api import runs as runs
    from charlm.api import scoring as scoring
    from charlm.api import sessions as sessions
    from charlm.api import training as training


def __getattr__(name: str) -> ModuleType:
    if importlib.util.find_spec(f"charlm.api.{name}") is None:
        raise AttributeError(f"module 'charlm.api' has no attribute {name!r}")
    return importlib.import_module(f"charlm.api.{name}")

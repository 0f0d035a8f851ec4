"""The API that programs and the command line call; each name is imported when it is first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from charlm.api.comparison import Comparison as Comparison
    from charlm.api.comparison import compare_runs as compare_runs
    from charlm.api.evaluation import Evaluation as Evaluation
    from charlm.api.evaluation import evaluate_run as evaluate_run
    from charlm.api.gradients import compare_gradients as compare_gradients
    from charlm.api.gradients import describe_task as describe_task
    from charlm.api.gradients import run_gradients as run_gradients
    from charlm.api.info import describe_run as describe_run
    from charlm.api.methods import Methods as Methods
    from charlm.api.model import Model as Model
    from charlm.api.model import fresh_seed as fresh_seed
    from charlm.api.model import load as load
    from charlm.api.reproduction import RecipeResult as RecipeResult
    from charlm.api.reproduction import open_recipe as open_recipe
    from charlm.api.reproduction import recipe_result as recipe_result
    from charlm.api.results import History as History
    from charlm.api.results import ModelState as ModelState
    from charlm.api.results import NextTokens as NextTokens
    from charlm.api.scoring import file_sentences as file_sentences
    from charlm.api.scoring import numbered as numbered
    from charlm.api.scoring import score_rows as score_rows
    from charlm.api.scoring import stream_sentences as stream_sentences
    from charlm.api.sessions import Request as Request
    from charlm.api.sessions import plan_run as plan_run
    from charlm.api.sessions import resume_run as resume_run
    from charlm.api.sessions import start_or_resume as start_or_resume
    from charlm.api.sessions import start_run as start_run
    from charlm.api.training import Training as Training
    from charlm.api.training import fit as fit
    from charlm.api.training import train as train
    from charlm.benchmark import machine_name as machine_name
    from charlm.benchmark import run_benchmarks as run_benchmarks
    from charlm.errors import CharlmError as CharlmError
    from charlm.inference.infill import around_gaps as around_gaps
    from charlm.inference.samplers import Sampling as Sampling
    from charlm.inspect.worked_example import worked_example as worked_example
    from charlm.runs.verify import verify_run as verify_run
    from charlm.units import Tally as Tally

HOMES = {
    "charlm.api.comparison": ("Comparison", "compare_runs"),
    "charlm.api.evaluation": ("Evaluation", "evaluate_run"),
    "charlm.api.training": ("Training", "fit", "train"),
    "charlm.api.gradients": ("compare_gradients", "describe_task", "run_gradients"),
    "charlm.api.info": ("describe_run",),
    "charlm.api.methods": ("Methods",),
    "charlm.api.model": ("Model", "fresh_seed", "load"),
    "charlm.api.reproduction": ("RecipeResult", "open_recipe", "recipe_result"),
    "charlm.api.results": ("History", "ModelState", "NextTokens"),
    "charlm.api.scoring": ("file_sentences", "numbered", "score_rows", "stream_sentences"),
    "charlm.api.sessions": (
        "Request",
        "plan_run",
        "resume_run",
        "start_or_resume",
        "start_run",
    ),
    "charlm.benchmark": ("machine_name", "run_benchmarks"),
    "charlm.errors": ("CharlmError",),
    "charlm.inference.infill": ("around_gaps",),
    "charlm.inference.samplers": ("Sampling",),
    "charlm.inspect.worked_example": ("worked_example",),
    "charlm.runs.verify": ("verify_run",),
    "charlm.units": ("Tally",),
}
"""Public names by the module that defines them."""

_MODULES = {name: module for module, names in HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'charlm.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULES)

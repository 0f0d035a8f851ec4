"""Copies of a model, which is pickled as the name of its run."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import charlm

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.api.task_api import TaskModel


def load_again(
    path: str, others: Sequence[str], options: dict[str, Any], stamp: tuple[int, ...]
) -> "Model | TaskModel":
    """Load a model that was pickled or copied; warn if its weights have changed."""
    model = charlm.load(path, with_=others, **options)
    if model.stamp != stamp:
        warnings.warn(
            f"the weights of {path} have changed since the model was loaded; its copy has the new "
            "ones. Call charlm.load again to use them everywhere",
            RuntimeWarning,
            stacklevel=2,
        )
    return model

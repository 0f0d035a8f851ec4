"""The backend that computes with the weights of a run: its choice, and the compiled one."""

from collections.abc import Callable
from pathlib import Path

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import chosen_variant
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, only_in_torch, runs_without_torch
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import EnvironmentFailure, RunError, UsageError, check_choice, named

ENGINES = ("auto", "native", "numpy", "torch")
WEIGHT_KINDS = ("fp32", "bf16", "int8")


def chosen_engine(settings: ModelSettings, engine: str, weights: str = "fp32") -> str:
    """Return the engine for a model; auto becomes torch for one that only torch computes.

    `weights` is the type in which the kernels keep weights. Raises UsageError for unknown names or
    a wrong combination.
    """
    for name, value, choices in (
        ("engine", engine, ENGINES), ("weights", weights, WEIGHT_KINDS)
    ):  # fmt: skip
        check_choice(name, value, choices)
    if engine == "auto" and not runs_without_torch(settings):
        engine = "torch"
    if engine in ("torch", "numpy") and weights != "fp32":
        raise UsageError(
            f"{named('weights')} {weights} with {named('engine')} {engine}; expected fp32 there"
        )
    if engine != "torch" and not runs_without_torch(settings):
        raise UsageError(
            f"--engine {engine} with a model of {' and '.join(only_in_torch(settings))}, which "
            "only torch computes; expected torch or auto there"
        )
    return engine


def file_stamp(path: Path) -> tuple[int, int]:
    """Return the size and modification time of a file, which show that it was replaced."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def unchanged(path: Path) -> Callable[[], None]:
    """Return a function that raises RunError if the file has changed since this call."""
    stamp = file_stamp(path)

    def check() -> None:
        """Raise RunError if the file is no longer the same."""
        if file_stamp(path) != stamp:
            raise RunError(
                f"{path} has changed since the model was loaded, and this process is a fork that "
                "has to read it again. Call charlm.load in this process"
            )

    return check


def compiled_backend(
    plain: Weights, kind: str, threads: int | None, reread: Callable[[], Weights], *, required: bool
) -> Backend:
    """Return the native backend; without usable kernels numpy, or an error if `required`."""
    variant = None if CELLS[plain.cell].native_code is None else chosen_variant()
    if variant is not None:
        try:
            return NativeBackend(plain, variant, kind, threads, reread)
        except EnvironmentFailure:
            if required:
                raise
    elif required:
        raise EnvironmentFailure(
            f"--engine native --weights {kind} needs the compiled kernels, which are not here. "
            "Install charlm again where there is a C++ compiler, or leave both out"
        )
    return NumpyBackend(plain)

"""Choice of the engine and the device that compute with a run's weights, and the native backend."""

from collections.abc import Callable
from pathlib import Path

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import VARIABLE, chosen_variant, switched_off
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, only_in_torch
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import EnvironmentFailure, RunError, UsageError, assigned, check_choice

ENGINES = ("auto", "native", "numpy", "torch")
TORCH = "torch"
DEVICES = ("cpu", "cuda", "mps", "auto")
GPU_ENGINES = ("torch cuda", "torch mps")
"""Engines that `engine_on` returns for a GPU; users name its device instead."""
WEIGHT_KINDS = ("fp32", "bf16", "int8")


def chosen_engine(settings: ModelSettings, engine: str, weights: str = "fp32") -> str:
    """Return the engine for a model; auto becomes torch for one that only torch computes.

    torch may be followed by a device, as `engine_on` returns it. `weights` is the type in which the
    kernels keep weights. Raises UsageError for unknown names or a wrong combination.
    """
    known = GPU_ENGINES if engine in GPU_ENGINES else ENGINES
    for name, value, choices in (
        ("engine", engine, known), ("weights", weights, WEIGHT_KINDS)
    ):  # fmt: skip
        check_choice(name, value, choices)
    only = " and ".join(only_in_torch(settings))
    model = f"a model of {only}, which only torch computes"
    if only and engine in ("native", "numpy"):
        raise UsageError(f"{assigned('engine', engine)} with {model}; expected torch or auto there")
    if weights != "fp32" and (only or engine not in ("auto", "native")):
        device = device_of(engine)
        given = assigned("engine", engine) if device == "cpu" else assigned("device", device)
        given = model if engine == "auto" else given
        raise UsageError(f"{assigned('weights', weights)} with {given}; expected fp32 there")
    return TORCH if only and engine == "auto" else engine


def engine_on(device: str, engine: str = "auto") -> str:
    """Return the engine that computes on a device: `torch cuda`, `torch mps`.

    `device` is cpu, cuda, mps or auto: CUDA if it is available, else the CPU. On the CPU it is
    `engine` itself. Raises EnvironmentFailure for a device that is not here, UsageError for
    another name or an engine that computes on the CPU only.
    """
    check_choice("device", device, DEVICES)
    if device == "cpu":
        return engine
    from charlm.nn.devices import choose_device

    chosen = choose_device(device).type
    if chosen == "cpu":
        return engine
    if engine not in ("auto", TORCH):
        raise UsageError(
            f"{assigned('engine', engine)} with {assigned('device', device)}; expected torch or "
            "auto there"
        )
    return f"{TORCH} {chosen}"


def uses_torch(engine: str) -> bool:
    """Return True for an engine that is torch on some device."""
    return engine.partition(" ")[0] == TORCH


def device_of(engine: str) -> str:
    """Return the device that an engine computes on."""
    return engine.partition(" ")[2] if uses_torch(engine) and " " in engine else "cpu"


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
    asked = assigned("engine", "native") if kind == "fp32" else assigned("weights", kind)
    if variant is not None:
        try:
            return NativeBackend(plain, variant, kind, threads, reread)
        except EnvironmentFailure as error:
            if required:
                advice = f"Install charlm again, or leave out {asked}"
                raise EnvironmentFailure(f"{error}. {advice}") from error
    elif required:
        absent = "which are not here. Install charlm again where there is a C++ compiler"
        raise EnvironmentFailure(
            f"{asked} needs the compiled kernels, {switched_off(VARIABLE) or absent}, or leave out "
            f"{asked}"
        )
    return NumpyBackend(plain)

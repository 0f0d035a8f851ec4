"""The compiled kernels: their files, the ones that this processor can run, their functions.

There is one shared library for each instruction set, compiled when charlm is installed (see
`scripts/build_kernels.py`); without a compiler there is none.
"""

import ctypes
import os
from collections.abc import Mapping, Set
from pathlib import Path

import numpy as np

from charlm.backends.processor import fast_cores, processor_features
from charlm.errors import EnvironmentFailure

FOLDER = Path(__file__).parent
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c"},
    "dotprod": {"asimddp"},
    "plain": set[str](),
}
"""Processor features that each variant needs, by their names in Linux, the fastest first."""
VARIABLE = "CHARLM_KERNELS"
"""Environment variable that names a variant, or `none`."""
INTERFACE = 4
"""Version of the functions in kernels/library.cpp; it grows when they or their arguments change."""
UNLIMITED = 2**20
"""Number of cores of a process without a limit from a control group."""


def library_path(variant: str, purpose: str = "native") -> Path:
    """Return the path of a variant's library, which may not exist."""
    return FOLDER / f"{purpose}_{variant}.so"


def variants() -> list[str]:
    """Return the built variants that this processor can run, the fastest first."""
    return runnable(NEEDED, "native")


def runnable(variants: Mapping[str, Set[str]], purpose: str) -> list[str]:
    """Return those variants of kernels, by the features they need, that are built and run here."""
    features = processor_features()
    return [
        name
        for name, needed in variants.items()
        if needed <= features and library_path(name, purpose).exists()
    ]


def chosen_variant() -> str | None:
    """Return the variant that CHARLM_KERNELS names, else the fastest; None without any.

    Raises EnvironmentFailure if the named one does not run here.
    """
    return choose(VARIABLE, variants())


def choose(variable: str, names: list[str], by_name_only: str = "") -> str | None:
    """Return the variant that an environment variable names, else the first; None without any.

    Raises EnvironmentFailure if the named one is not in `names`.
    """
    name = os.environ.get(variable, "")
    if name == "none":
        return None
    if not name:
        return next((each for each in names if each != by_name_only), None)
    if name not in names:
        raise EnvironmentFailure(
            f"{variable} is {name!r}; expected none, or a variant that runs here: "
            f"{', '.join(names) or 'none was built'}"
        )
    return name


def switched_off(variable: str) -> str:
    """Return a clause that an environment variable switches kernels off, or "" if it does not."""
    off = os.environ.get(variable) == "none"
    return f"which {variable}=none switches off. Unset {variable}" if off else ""


def open_library(variant: str) -> ctypes.CDLL:
    """Return the functions of a variant. Raises EnvironmentFailure if it cannot be loaded."""
    library = load(variant, "native", INTERFACE)
    _declare(library)
    return library


def load(variant: str, purpose: str, interface: int) -> ctypes.CDLL:
    """Return a variant's library.

    Raises EnvironmentFailure, without advice, if it is missing or of another version.
    """
    kernels = f"{variant} kernels" if purpose == "native" else f"{variant} {purpose} kernels"
    try:
        library = ctypes.CDLL(str(library_path(variant, purpose)))
    except OSError as error:
        raise EnvironmentFailure(f"the {kernels} cannot be loaded ({error})") from error
    asked = "charlm_interface" if purpose == "native" else "training_interface"
    version = getattr(library, asked)() if hasattr(library, asked) else 1
    if version != interface:
        raise EnvironmentFailure(
            f"the {kernels} are those of another version of charlm (interface {version}; "
            f"{interface} after a new installation)"
        )
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Declare the argument types of the functions in kernels/library.cpp.

    ctypes then refuses arrays of another type, and arrays that are not contiguous.
    """
    number, handle = ctypes.c_int, ctypes.c_void_p
    floats, doubles, longs = (
        np.ctypeslib.ndpointer(dtype, flags="C_CONTIGUOUS")
        for dtype in (np.float32, np.float64, np.int64)
    )
    library.charlm_new.argtypes = [
        *[number] * 7, floats, ctypes.POINTER(ctypes.c_void_p), floats, floats,
        ctypes.POINTER(handle),
    ]  # fmt: skip
    library.charlm_free.argtypes = [handle]
    library.charlm_free.restype = None
    library.charlm_nats.argtypes = [
        handle, number, number, longs, longs, floats, doubles, *[ctypes.c_void_p] * 3,
    ]  # fmt: skip
    library.charlm_logits.argtypes = [handle, number, number, longs, floats, floats]
    library.charlm_distribution.argtypes = [handle, number, number, longs, floats, floats]
    library.charlm_trace.argtypes = [
        handle, number, number, longs, floats, ctypes.POINTER(ctypes.c_void_p),
    ]  # fmt: skip
    library.charlm_log_sums.argtypes = [handle, number, floats, doubles]
    library.charlm_draw.argtypes = [
        handle, number, number, doubles, number, number, doubles, floats, floats, longs, doubles,
        ctypes.c_void_p,
    ]  # fmt: skip


def default_threads() -> int:
    """Return the number of cores for this process, at most OMP_NUM_THREADS if that is set."""
    cores = min(_allowed_cores(), _core_quota(Path("/sys/fs/cgroup")))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) else cores


def useful_threads(work: float, each: float) -> int:
    """Return the number of threads that have at least `each` of the work, or 1.

    Threads wait for each other in each time step, so several threads with little work take longer
    than one, especially many threads on a busy machine.
    """
    return max(1, min(default_threads(), int(work / each)))


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return fast_cores() or os.cpu_count() or 1


def _core_quota(groups: Path) -> int:
    """Return the number of whole cores that a control group allows, or UNLIMITED.

    A container with a quota of two cores on a machine of 64 sees 64 cores.
    """
    pairs = (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # version 2, 1
    for quota, period in pairs:
        try:
            words = (groups / quota).read_text(encoding="ascii").split()
            words += (groups / period).read_text(encoding="ascii").split() if period else []
            return max(1, int(words[0]) // int(words[1])) if int(words[0]) > 0 else UNLIMITED
        except (OSError, ValueError, IndexError, ZeroDivisionError):  # no file, or "max"
            continue
    return UNLIMITED

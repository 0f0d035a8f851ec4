"""The compiled kernels: where they lie, which of them this processor can run, their functions.

One shared library for each instruction set, compiled when charlm is installed (see
`scripts/build_kernels.py`); without a compiler there are none.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

import numpy as np

from charlm.errors import EnvironmentFailure

FOLDER = Path(__file__).parent
NEEDED = {
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c"},
    "plain": set[str](),
}
"""What a processor must have for each variant, the fastest first, as Linux names it."""
VARIABLE = "CHARLM_KERNELS"
"""Environment variable that forces a variant, or `none`."""
UNLIMITED = 2**20
"""Cores of a process that no control group limits."""


@cache
def processor_features() -> frozenset[str]:
    """The processor's instruction sets; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(found.partition(":")[2].split())


def library_path(variant: str) -> Path:
    """Where the library of a variant lies, if it was built."""
    return FOLDER / f"native_{variant}.so"


def variants() -> list[str]:
    """The variants that are built and that this processor can run, the fastest first."""
    features = processor_features()
    return [name for name, needed in NEEDED.items() if needed <= features and _is_built(name)]


def _is_built(variant: str) -> bool:
    return library_path(variant).exists()


def chosen_variant() -> str | None:
    """The variant to use: the fastest, or the one that CHARLM_KERNELS names; None without any.

    Raises EnvironmentFailure when the one that is asked for cannot be had.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "none":
        return None
    there = variants()
    if not wanted:
        return there[0] if there else None
    if wanted not in there:
        raise EnvironmentFailure(
            f"{VARIABLE} is {wanted!r}; expected none or one of those that run here: "
            f"{', '.join(there) or 'none was built'}"
        )
    return wanted


def open_library(variant: str) -> ctypes.CDLL:
    """The functions of a variant, with their types. Raises EnvironmentFailure when unusable."""
    try:
        library = ctypes.CDLL(str(library_path(variant)))
    except OSError as error:
        raise EnvironmentFailure(
            f"the {variant} kernels cannot be loaded ({error}); use --engine numpy, or install "
            "charlm again"
        ) from error
    declare(library)
    return library


def array_type(dtype: type[np.generic]) -> type:
    """A pointer to a contiguous array of this type; anything else is refused by ctypes."""
    return np.ctypeslib.ndpointer(dtype=dtype, flags="C_CONTIGUOUS")


def declare(library: ctypes.CDLL) -> None:
    """Argument types of the functions in the kernels."""
    number, handle = ctypes.c_int, ctypes.c_void_p
    floats, doubles = array_type(np.float32), array_type(np.float64)
    longs = array_type(np.int64)
    library.charlm_new.argtypes = [
        *[number] * 7, floats, ctypes.POINTER(ctypes.c_void_p), floats, floats,
        ctypes.POINTER(handle),
    ]  # fmt: skip
    library.charlm_free.argtypes = [handle]
    library.charlm_free.restype = None
    library.charlm_nats.argtypes = [
        handle, number, number, longs, longs, floats, doubles, ctypes.c_void_p,
    ]  # fmt: skip
    library.charlm_logits.argtypes = [handle, number, number, longs, floats, floats]
    library.charlm_draw.argtypes = [
        handle, number, number, ctypes.c_double, number, number, doubles, floats, floats, longs,
        doubles,
    ]  # fmt: skip


def default_threads() -> int:
    """Return the cores that this process may use, at most OMP_NUM_THREADS if that is set."""
    cores = min(_allowed_cores(), _core_quota(Path("/sys/fs/cgroup")))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


def useful_threads(work: float, each: float) -> int:
    """Return how many threads share the work if each must have at least `each`; at least one.

    Threads wait for each other once a time step, so that several with little to do take longer
    than one, the more so the more of them there are and the busier the machine is.
    """
    return max(1, min(default_threads(), int(work / each)))


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _core_quota(groups: Path) -> int:
    """Return the whole cores that a control group leaves a container, or UNLIMITED.

    A container of two cores on a machine of 64 sees 64: threads beyond its quota are held back.
    """
    pairs = (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # version 2, 1
    for quota, period in pairs:
        try:
            found = (groups / quota).read_text(encoding="ascii").split()
            found += (groups / period).read_text(encoding="ascii").split() if period else []
            return max(1, int(found[0]) // int(found[1])) if int(found[0]) > 0 else UNLIMITED
        except (OSError, ValueError, IndexError, ZeroDivisionError):  # none, or "max"
            continue
    return UNLIMITED

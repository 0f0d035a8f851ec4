"""The compiled kernels that train recurrent layers: their variants, functions and arguments.

They need a processor with AVX-512 BF16. Their sources are in kernels/training; the class
`Call` mirrors the struct in call.hpp. `torch` must be imported before a library is opened, because
they use its OpenMP runtime.
"""

import ctypes
from functools import cache
from typing import NamedTuple

from charlm.backends import kernel_library
from charlm.errors import EnvironmentFailure

_AVX512_BF16 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "fma"}
NEEDED = {
    "amx": {"amx_tile", "amx_bf16", *_AVX512_BF16},
    "avx512bf16": _AVX512_BF16,
    "emulated512": _AVX512_BF16,
}
"""Processor features that each variant needs, by their names in Linux, the fastest first."""
EMULATED = "emulated512"
"""Variant with the bits of `amx`: slow, for tests, chosen by name only, no part of a package."""
VARIABLE = "CHARLM_TRAINING_KERNELS"
"""Environment variable that names a variant, or `none`."""
INTERFACE = 3
"""Version of the functions in kernels/training; it grows when they or their arguments change."""
CELLS = {"rnn": 0, "lstm": 1, "gru": 2}
"""Numbers of the cells that the kernels compute."""
POINTERS = (
    "x", "ids", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0", "y", "h_after", "c_after", "saved",
    "scratch", "dy", "dh_after", "dc_after", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0", "dc0",
)  # fmt: skip


class Numbers(NamedTuple):
    """Sizes and choices of a call: the first fields of `Call`."""

    cell: int
    threads: int
    T: int
    B: int
    E: int
    H: int
    V: int
    x_is_bf16: bool
    y_is_bf16: bool
    training: bool


class Call(ctypes.Structure):
    """Arguments of the kernels, with addresses of arrays; see kernels/training/call.hpp."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in Numbers._fields],
        *[(name, ctypes.c_void_p) for name in POINTERS],
    ]


def variants() -> list[str]:
    """Return the built variants that this processor can run, the fastest first."""
    return kernel_library.runnable(NEEDED, "training")


def chosen_variant() -> str | None:
    """Return the variant that CHARLM_TRAINING_KERNELS names, else the fastest; None without any.

    Raises EnvironmentFailure if the named one does not run here.
    """
    return kernel_library.choose(VARIABLE, variants(), by_name_only=EMULATED)


@cache
def open_library(variant: str) -> ctypes.CDLL:
    """Return the functions of a variant.

    Raises EnvironmentFailure if it cannot be loaded, or if the system does not permit tiles.
    """
    library = kernel_library.load(variant, "training", INTERFACE)
    if not library.training_usable():
        raise EnvironmentFailure(
            f"the {variant} training kernels need tiles, which this system does not permit; "
            "expected Linux 5.16 or later"
        )
    call, number = ctypes.POINTER(Call), ctypes.POINTER(ctypes.c_int64)
    library.training_sizes.argtypes = [call, number, number, number]
    library.training_sizes.restype = None
    library.training_forward.argtypes = [call]
    library.training_backward.argtypes = [call]
    library.training_softmax.argtypes = [
        *[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 2, ctypes.c_float, ctypes.c_int,
    ]  # fmt: skip
    library.training_tile.argtypes = [ctypes.c_void_p] * 3
    library.training_tile.restype = None
    return library

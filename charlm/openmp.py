"""The active waiting of OpenMP's threads, among which torch divides its work.

Threads that spin long while they wait slow each other down when other programs run. Short spins
cost nothing on a quiet machine (16.6 against 16.2 thousand tokens/s, 2 x 320 LSTM) and make two
threads 6 to 15 times faster on a busy one (`scripts/measure_threads.py`). GNU's OpenMP, which torch
uses on Linux, reads the variables once, when torch is first imported.
"""

import functools
import os
import sys

SPINS = "2000"
"""Turns of a waiting thread before it sleeps; without the variable it is 300,000 or more."""


@functools.cache
def set_short_spins() -> bool:
    """Let threads spin briefly in this process and in those that it starts; the user's choice wins.

    The first call, when charlm is imported, decides. Returns False if torch was imported before, so
    that the threads of this process spin long.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return True
    os.environ["GOMP_SPINCOUNT"] = SPINS
    return "torch" not in sys.modules or not sys.platform.startswith("linux")

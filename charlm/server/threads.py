"""Long computations for a request: in a thread, so that the server answers others meanwhile."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

LONG = 20_000
"""Number of characters, bytes or numbers from which a computation is long."""
Value = TypeVar("Value")


async def compute(function: Callable[[], Value], size: int) -> Value:
    """Return what a function returns; long ones run in a thread."""
    return await asyncio.to_thread(function) if size > LONG else function()

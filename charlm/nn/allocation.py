"""One error for too little memory, on every device."""

import contextlib
from collections.abc import Iterator

import torch

from charlm.errors import is_memory_full


@contextlib.contextmanager
def one_memory_error() -> Iterator[None]:
    """Raise OutOfMemoryError for any error of a full memory, as torch does on a CUDA GPU."""
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_memory_full(error):
            raise
        message = str(error) or "not enough memory"
    raise torch.OutOfMemoryError(message)  # outside of the handler, whose error holds memory

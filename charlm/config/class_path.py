"""Import paths in the tables of this package, which names classes without importing them."""

from importlib import import_module
from typing import Any


def resolve(path: str) -> Any:
    """Import and return the object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)

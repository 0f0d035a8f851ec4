"""Rows of a dataset of the Hugging Face hub, streamed by `datasets`."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from charlm.errors import CharlmError, CorpusError, EnvironmentFailure, UsageError
from charlm.text.home import SET_HOME, is_homeless
from charlm.text.sources.parquet import shown_cell
from charlm.text.sources.rows import (
    TEXT_COLUMN,
    Opened,
    Row,
    Rows,
    TextColumn,
    Warn,
    named_records,
)

HUB_PREFIX = "hf:"
ROWS_AT_ONCE, CHARS_AT_ONCE = 500, 1 << 20
_HUB_NAME = re.compile(
    r"(?P<path>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^/#]+))?(?:/(?P<split>[^/#]+))?(?:#(?P<column>.+))?"
)


def hub_rows(name: str, column: str | None) -> Rows:
    """Return the rows of `hf:org/name[:config][/split][#column]`. Raises UsageError."""
    parts = hub_parts(name)
    path, config, split = parts["path"], parts["config"], parts["split"] or "train"

    def load() -> Iterable[Row]:
        """Stream the rows of the split."""
        import datasets

        rows: Iterable[Row] = datasets.load_dataset(path, config, split=split, streaming=True)
        return rows

    def read(warn: Warn, cells: bool, rule: TextColumn = TEXT_COLUMN) -> Opened:
        """Open the split; see `Rows.read`."""
        numbered = ((None, row) for row in _guarded(name, load))
        own = rule.naming(parts["column"] or column)
        return named_records(name, numbered, warn, cells, shown_cell, own)

    return Rows(name, read)


def hub_parts(name: str) -> dict[str, Any]:
    """Return path, config, split and column of a name, each a string or None. Raises UsageError."""
    match = _HUB_NAME.fullmatch(name.removeprefix(HUB_PREFIX))
    if match is None:
        raise UsageError(f'"{name}" does not have the form hf:org/name[:config][/split][#column].')
    return match.groupdict()


def _guarded(label: str, load: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """Yield the rows of `load`. Raises a CharlmError for every failure of the reader."""
    try:
        with _quiet():
            rows = iter(load())
        while True:
            with _quiet():  # visits all loggers, so once for many rows
                batch = _batch(rows)
            if not batch:
                return
            yield from batch
    except CharlmError:
        raise
    except Exception as error:  # whatever pyarrow, fsspec and the hub raise
        raise _failure(label, error) from error


def _batch(rows: Iterator[Row]) -> list[Row]:
    """Return the next rows, fewer if they are long."""
    batch: list[Row] = []
    size = 0
    for row in islice(rows, ROWS_AT_ONCE):
        batch.append(row)
        size += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if size > CHARS_AT_ONCE:
            break
    return batch


def _failure(label: str, error: Exception) -> CharlmError:
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if isinstance(error, ImportError):
        return EnvironmentFailure(f"{label} cannot be read: {reason}.")
    if is_homeless(error):
        return EnvironmentFailure(f"{label} cannot be read: {SET_HOME}")
    if isinstance(error, ConnectionError | TimeoutError) or "offline" in reason.lower():
        return EnvironmentFailure(
            f"{label} cannot be fetched: {reason}. "
            f"Check the network and HF_HUB_OFFLINE, or use a file."
        )
    return CorpusError(
        f"{label} cannot be used: {reason}. Check the name, the configuration and the split; "
        f"a gated dataset needs `hf auth login`."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `datasets` from logging an error that is about to be raised."""
    from datasets.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)

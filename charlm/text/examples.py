"""Examples: texts with labels, read from tables."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources.names import find
from charlm.text.sources.rows import Rows, Warn


class Example(NamedTuple):
    """A text, its label, and where it was read."""

    text: str | None
    """None if the row has no text."""
    label: str | None
    """None if the row has no label."""
    place: str
    """Place for messages, such as "train.tsv: line 7"."""


def read_examples(
    sources: Sequence[str], reading: ReadSettings, target: str | None, warn: Warn
) -> Iterator[Example]:
    """Yield the examples of tables; `target` names the column of the labels."""
    column = target or "label"
    for source in find(sources, reading, warn):
        if not isinstance(source, Rows):
            raise CorpusError(f"{source.label} is not a table; expected texts with labels")
        for record in source.read(warn, True, reading.column or "text")[1]:
            place = f"row {record.number:,}" if record.line is None else f"line {record.line:,}"
            label = record.cells[column].strip()
            yield Example(record.text, label or None, f"{source.label}: {place}")

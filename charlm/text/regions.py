"""Tables whose rows are the words or regions of texts, as of a reading study, joined to texts."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from charlm.errors import CorpusError, UsageError, named
from charlm.text.sources.rows import Record

Key = tuple[str, ...]
"""Cells of the columns that distinguish the texts."""
DECIMAL = re.compile(r"\s*[-+]?\d+(?:\.\d*)?\s*")


@dataclass(frozen=True, kw_only=True)
class RowText:
    """A text whose regions are rows of a table, one blank between two of them.

    `places` are the rows in the order of the text, from 0; `starts` are the characters where
    their regions begin. Rows without text are left out there; `rows` has them too.
    """

    text: str
    rows: tuple[int, ...]
    places: tuple[int, ...]
    starts: tuple[int, ...]


def join_rows(rows: Sequence[Record], columns: Sequence[str], order: str | None) -> list[RowText]:
    """Return the texts of a table, in the order of their first rows.

    Rows with equal cells in `columns` are a text. They follow one another in the table, or have
    their position in the column `order`. Raises UsageError for a column that the table lacks,
    CorpusError for rows of a text that are apart, repeat a text, or have no position of their own.
    """
    for name in (*columns, *([order] if order else ())):
        _check_column(rows, name, "order" if name == order else "group_by")
    places: dict[Key, list[int]] = {}
    before: Key | None = None
    for place, row in enumerate(rows):
        key = tuple(row.cells.get(name, "") for name in columns)
        if order is None and key in places and key != before:
            raise CorpusError(
                f"{row.place}: {_name(columns, key)} begins again; expected the rows of a text one "
                f"after another. {_advice(rows, columns)}"
            )
        places.setdefault(key, []).append(place)
        before = key
    texts = []
    for key, own in places.items():
        ordered = own if order is None else _ordered(rows, own, order, _name(columns, key))
        kept = [place for place in ordered if (rows[place].text or "").strip()]
        if order is None:
            _check_repeats(rows, kept, columns, key)
        texts.append(_joined(rows, own, kept))
    return texts


def _check_column(rows: Sequence[Record], name: str, option: str) -> None:
    present = list(dict.fromkeys(column for row in rows for column in row.cells))
    if rows and name not in present:
        raise UsageError(
            f"{named(option)} names the column {name!r}; expected one of the columns beside the "
            f"text: {', '.join(present) or 'it has none'}. Correct {named(option)}"
        )


def _name(columns: Sequence[str], key: Key) -> str:
    """Return the name of a text for messages, such as item 3, condition a."""
    return ", ".join(f"{column} {cell}" for column, cell in zip(columns, key, strict=True))


def _advice(rows: Sequence[Record], columns: Sequence[str]) -> str:
    others = [name for name in rows[0].cells if name not in columns]
    return (
        f"Add the column that distinguishes the texts to {named('group_by')}"
        + (f" (there are {', '.join(others[:20])})" if others else "")
        + f", or name the column of the positions with {named('order')}"
    )


def _ordered(rows: Sequence[Record], own: Sequence[int], order: str, name: str) -> list[int]:
    """Return the rows of a text by their positions."""
    positions: dict[float, int] = {}
    for place in own:
        row, cell = rows[place], rows[place].cells.get(order, "")
        if not DECIMAL.fullmatch(cell) or not math.isfinite(position := float(cell)):
            raise CorpusError(
                f"{row.place}: {order} is {cell!r:.60}; expected a number, the position of the row "
                f"in its text. Correct the row, or {named('order')}"
            )
        if position in positions:
            raise CorpusError(
                f"{row.place}: {name} has a second row with {order} {cell.strip()}; expected "
                "each position once in a text. Add the column that distinguishes the texts to "
                f"{named('group_by')}"
            )
        positions[position] = place
    return [positions[position] for position in sorted(positions)]


def _check_repeats(
    rows: Sequence[Record], kept: Sequence[int], columns: Sequence[str], key: Key
) -> None:
    """Raise CorpusError for rows that are one text several times, such as of several readers."""
    words = [rows[place].text for place in kept]
    if len(set(words)) == 1:  # no no no no
        return
    for length in range(2, len(words) // 2 + 1):
        if len(words) % length == 0 and words == words[:length] * (len(words) // length):
            text = " ".join(map(str, words[:length]))
            raise CorpusError(
                f"{rows[kept[0]].place}: {_name(columns, key)} is {text!r:.80} "
                f"{len(words) // length} times; expected one text. {_advice(rows, columns)}"
            )


def _joined(rows: Sequence[Record], own: Sequence[int], kept: Sequence[int]) -> RowText:
    pieces = [(rows[place].text or "").strip() for place in kept]
    starts, at = [], 0
    for piece in pieces:
        starts.append(at)
        at += len(piece) + 1
    return RowText(text=" ".join(pieces), rows=tuple(own), places=tuple(kept), starts=tuple(starts))

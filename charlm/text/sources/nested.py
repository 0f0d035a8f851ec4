"""Texts inside the objects of a table: the field en of {"translation": {"en": "..."}}.

Such a field has the name translation.en. It is read only if the user, or a run, names it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from charlm.errors import named
from charlm.text.sources.files import shown
from charlm.units import first_few

MAX_DEPTH = 5
"""Depth of the objects in which fields are looked for."""
MAX_SHOWN = 5
"""Fields that a message names."""
Row = Mapping[str, object]


def leaves(row: Row, before: str = "", depth: int = MAX_DEPTH) -> Iterator[tuple[str, object]]:
    """Yield the fields of the objects in a row with their names; lists are no objects."""
    for key, value in row.items():
        name = f"{before}.{key}" if before else key
        if isinstance(value, Mapping) and depth:
            yield from leaves(value, name, depth - 1)
        elif before:
            yield name, value


def inner_names(rows: Iterable[Row], wanted: Iterable[str]) -> list[str]:
    """Return those of the names that are fields of an object in a row and no column."""
    rows = list(rows)
    columns = {name for row in rows for name in row}
    fields = {name for row in rows for name, _ in leaves(row)}
    return [name for name in dict.fromkeys(wanted) if name in fields and name not in columns]


def with_inner(row: Row, names: Sequence[str]) -> Row:
    """Return a row with fields of its objects as cells of their own; None for a missing one."""
    fields = dict(leaves(row))
    return {**row, **{name: fields.get(name) for name in names}}


def inner_texts(rows: Iterable[Row]) -> str:
    """Return the first names of the fields of text in objects, for a message, or ""."""
    fields = (pair for row in rows for pair in leaves(row))
    names = dict.fromkeys(name for name, value in fields if type(value) is str and value)
    return first_few(map(shown, names), MAX_SHOWN)


def inner_advice(rows: Iterable[Row]) -> str:
    """Return what to do about rows whose texts are inside objects or lists, or ""."""
    rows = list(rows)
    if texts := inner_texts(rows):
        return f" Texts are inside objects: {texts}. Name one with {named('column')}."
    for name, value in (pair for row in rows for pair in row.items()):
        first = next(iter(value), None) if isinstance(value, list) else None
        if isinstance(first, Mapping):
            keys = ", ".join(list(map(str, first))[:MAX_SHOWN])
            return (
                f' The column "{name}" holds lists of objects ({keys}). Make a row of each object, '
                f"for example with: jq -c '.{name}[]'"
            )
        if first is not None:
            return (
                f' The column "{name}" holds lists. Join each into a text, for example with: '
                f"jq -c '.{name} |= join(\" \")'"
            )
    return ""

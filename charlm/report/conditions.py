"""Conditions of texts for people and programs: posteriors, and figures by condition."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.inference.posteriors import Posteriors
from charlm.report.tables import plain_table
from charlm.report.text import number, shortened
from charlm.text.sources.delimited import quoted_field
from charlm.units import LOG_BASES, LOG_NAMES, Tally, count_of, first_few

MAX_SHOWN = 5
"""Conditions of a text in the table, the likeliest first."""
MAX_LISTED = 8
"""Conditions that are named in one line."""
NUMBERS_WIDTH = 33
"""Columns of a terminal for both figures of a text, and the gaps."""
SEPARATORS = {"tsv": "\t", "csv": ","}


def posterior_table(texts: Sequence[str], found: Posteriors, log_base: str, width: int) -> Table:
    """Return a row for each text and each of its likeliest conditions."""
    table = plain_table("probability", LOG_NAMES[log_base], "<condition", "<text")
    longest = max(len(name) for name in found.labels)
    room = max(width - longest - NUMBERS_WIDTH, 20)
    for text, logs, chances in zip(texts, found.log_p, found.probabilities, strict=True):
        order = np.argsort(-chances, kind="stable")[:MAX_SHOWN]
        for place, at in enumerate(order.tolist()):
            table.add_row(
                f"{chances[at]:.4f}",
                number(logs[at] / LOG_BASES[log_base] + 0.0, 3),
                Text(escape_unprintable(found.labels[at])),
                Text(shortened(text, room) if place == 0 else ""),
                style="bold green" if place == 0 else "",
            )
    return table


def posterior_lines(
    numbers: Sequence[int], texts: Sequence[str], found: Posteriors, log_base: str, output: str
) -> Iterator[str]:
    """Yield lines in the format tsv, csv or jsonl, in the order of texts and conditions.

    `numbers` are those of the rows of the input.
    """
    column, unit = f"log_probability_base_{log_base}", LOG_BASES[log_base]
    rows = zip(numbers, texts, found.log_p / unit + 0.0, found.probabilities, strict=True)
    if output == "jsonl":
        for row, text, logs, chances in rows:
            pairs = zip(found.labels, logs.tolist(), chances.tolist(), strict=True)
            conditions = [
                {"condition": name, "log_probability": log, "probability": chance}
                for name, log, chance in pairs
            ]
            content = {
                "schema_version": 1,
                "sentence_id": row,
                "text": text,
                "log_base": log_base,
                "condition": found.labels[int(chances.argmax())],
                "conditions": conditions,
            }
            yield json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
        return
    separator = SEPARATORS[output]
    text_name = '"text"' if output == "tsv" else "text"  # as in report.formats
    yield separator.join(["sentence_id", "condition", column, "probability", text_name]) + "\n"
    for row, text, logs, chances in rows:
        for name, log, chance in zip(found.labels, logs, chances, strict=True):
            cells = [str(row), quoted_field(name, separator), f"{log:.6f}", f"{chance:.6f}"]
            yield separator.join([*cells, quoted_field(text, separator)]) + "\n"


def condition_text(record: Mapping[str, Any]) -> str:
    """Return the conditions of a run and their training texts, from run.json; "" without any."""
    column = record["settings"].get("task", {}).get("condition")
    if not column:
        return ""
    counts = record["corpus"]["labels"]["train"]
    names = sorted(counts, key=lambda name: -counts[name])
    text = first_few((f"{shortened(name, 24)} {counts[name]:,}" for name in names), MAX_LISTED)
    without = record["corpus"]["parts"]["train"]["documents"] - sum(counts.values())
    rest = f" ({count_of(without, 'text')} without)" if without else ""
    return f"{column}: {text}{rest}"


def condition_table(tallies: Mapping[str, Mapping[str | None, Tally]]) -> Table:
    """Return a row for each text and condition with its figures; None is all conditions."""
    table = plain_table("<text, condition", "documents", "tokens", "nats/token", "perplexity")
    for part, by_name in tallies.items():
        for name, tally in by_name.items():
            table.add_row(
                Text(escape_unprintable(part if name is None else f"{part}, {name or '(none)'}")),
                number(tally.documents),
                number(tally.tokens),
                number(tally.nats_per_token),
                number(tally.perplexity, 2),
                style="bold" if name is None else "",
            )
    return table

"""Results in notebooks: tables, and texts coloured by surprisal, for light and dark pages."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charlm.files.escapes import escape_controls, escape_unprintable
from charlm.listing import HeatText, Part
from charlm.report.heat import SURPRISAL, css_rules, surprisal_level
from charlm.report.text import number
from charlm.runs.card import run_facts
from charlm.runs.layout import home, read_record
from charlm.runs.locate import run_name

SHOWN_ROWS = 30
"""Maximum number of rows of a table; a last row counts the others."""
SHOWN_PARTS = 5000
"""Maximum number of coloured parts of a text; the number of the others is shown."""
DARK_PAGES = ('[data-jp-theme-light="false"]', '[theme="dark"]', ".vscode-dark")
"""Selectors of a dark JupyterLab, Colab and VS Code, which need not set `color-scheme`."""


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the first rows as a table; a cell is a plain value or a `HeatText`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    lines = ["".join(_cell(row.get(name)) for name in columns) for row in rows[:SHOWN_ROWS]]
    if len(rows) > SHOWN_ROWS:
        more = f"{len(rows) - SHOWN_ROWS:,} more rows; to_pandas() has them all"
        lines.append(f'<td colspan="{len(columns)}">{more}</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    heated = any(isinstance(value, HeatText) for row in rows[:SHOWN_ROWS] for value in row.values())
    return f'<div class="charlm-heat">{_style()}{table}</div>' if heated else table


def model_html(path: Path, mixture: object = None) -> str:
    """Return a table of facts about a run, its losses, and the mixture that it is part of.

    Raises RunError if its record is missing or damaged.
    """
    record = read_record(home(path))
    facts = run_facts(record)
    for split in ("valid", "test"):
        if figures := record["results"].get(split):
            bits_per_char, perplexity = figures["bits_per_char"], figures["perplexity"]
            facts[f"{split} text"] = (
                f"{number(bits_per_char)} bits per character, "
                f"perplexity {number(perplexity, 2)} per token"
            )
    if mixture:
        facts["mixture"] = str(mixture)
    rows = "".join(f"<tr><th>{html.escape(name)}</th>{_cell(facts[name])}</tr>" for name in facts)
    title = html.escape(escape_unprintable(run_name(path)))
    return f"<table><caption>{title}</caption><tbody>{rows}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, HeatText):
        return f'<td style="text-align: left; white-space: pre-wrap">{_heat(value)}</td>'
    if isinstance(value, float):
        return f'<td style="text-align: right">{value:.6g}</td>'
    text = "" if value is None else str(value)
    shown = html.escape(escape_unprintable(text))
    side = "right" if type(value) is int else "left"
    return f'<td style="text-align: {side}; white-space: pre">{shown}</td>'


def _heat(heat: HeatText) -> str:
    spans = [_span(part, heat.vocab_size) for part in heat.parts[:SHOWN_PARTS]]
    left = len(heat.parts) - SHOWN_PARTS
    return "".join(spans) + (f" … {left:,} more" if left > 0 else "")


def _span(part: Part, vocab_size: int) -> str:
    """Return a part of a text with its colour, and its bits for a pointer."""
    level = surprisal_level(part.bits, vocab_size)
    shown = html.escape(escape_controls(part.text))
    name = SURPRISAL.css_class(level)
    marked = f' class="{name}"' if name else ""
    return f'<span{marked} title="{part.bits:.2f} bits">{shown}</span>'


def _style() -> str:
    """Return the colours; pages that are known as dark get those for dark themes."""
    dark = ",".join(f"{page} .charlm-heat" for page in DARK_PAGES)
    return f"<style>{css_rules('.charlm-heat ')}{dark}{{color-scheme:dark}}</style>"

"""Results in notebooks: tables, and texts coloured by surprisal, for light and dark pages."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.files.escapes import escape_controls, escape_unprintable
from charlm.listing import HeatText, UnitText
from charlm.report.heat import SIGNED, SURPRISAL, Scale, css_rules, signed_level, surprisal_level
from charlm.report.inside import full_value
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
    """Return the first rows as a table; a cell is a plain value, `HeatText` or `UnitText`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    firsts = [[row[name] for row in rows if row.get(name) is not None][:1] for name in columns]
    head = "".join(
        f'<th style="text-align: {_side(*first)}">{html.escape(name)}</th>'
        for name, first in zip(columns, firsts, strict=True)
    )
    lines = ["".join(_cell(row.get(name)) for name in columns) for row in rows[:SHOWN_ROWS]]
    if len(rows) > SHOWN_ROWS:
        more = f"{len(rows) - SHOWN_ROWS:,} more rows; to_pandas() has them all"
        lines.append(f'<td colspan="{len(columns)}">{more}</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    heated = any(
        isinstance(value, HeatText | UnitText)
        for row in rows[:SHOWN_ROWS]
        for value in row.values()
    )
    return f'<div class="charlm-heat">{_style()}{table}</div>' if heated else table


def model_html(path: Path, mixture: object = None) -> str:
    """Return a table of facts about a run, its losses, and the mixture that it is part of.

    Raises RunError if its record is missing or damaged.
    """
    record = read_record(home(path))
    facts = run_facts(record)
    for split in HELD_OUT_NAMES:
        if figures := record["results"].get(split):
            bits_per_char, perplexity = figures["bits_per_char"], figures["perplexity"]
            facts[f"{split} text"] = (
                f"{number(bits_per_char)} bits per character, "
                f"perplexity {number(perplexity, 2)} per token"
            )
    if mixture:
        facts["mixture"] = str(mixture).removeprefix("mixture: ")
    rows = "".join(f"<tr><th>{html.escape(name)}</th>{_cell(facts[name])}</tr>" for name in facts)
    title = html.escape(escape_unprintable(run_name(path)))
    return f"<table><caption>{title}</caption><tbody>{rows}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, HeatText | UnitText):
        return f'<td style="text-align: left; white-space: pre-wrap">{_colored(value)}</td>'
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    shown = html.escape(escape_unprintable(text))
    return f'<td style="text-align: {_side(value)}; white-space: pre">{shown}</td>'


def _side(value: Any = None) -> str:
    """Return the side of a column at which its values and its name are."""
    return "right" if isinstance(value, int | float) and not isinstance(value, bool) else "left"


def _colored(text: HeatText | UnitText) -> str:
    """Return the parts of a text in colours, each with its figure for a pointer."""
    if isinstance(text, HeatText):
        spans = [
            _span(
                part.text, SURPRISAL, surprisal_level(part.bits, text.vocab_size), "bits", part.bits
            )
            for part in text.parts[:SHOWN_PARTS]
        ]
    else:
        full = full_value(text.values)
        pairs = zip(text.pieces[:SHOWN_PARTS], text.values, strict=False)
        spans = [
            _span(piece, SIGNED, signed_level(value / full), text.unit, value)
            for piece, value in pairs
        ]
    left = len(text[0]) - SHOWN_PARTS
    return "".join(spans) + (f" … {left:,} more" if left > 0 else "")


def _span(text: str, scale: Scale, level: int, about: str, figure: float) -> str:
    name = scale.css_class(level)
    marked = f' class="{name}"' if name else ""
    shown = html.escape(escape_controls(text))
    return f'<span{marked} title="{figure:.2f} {html.escape(about)}">{shown}</span>'


def _style() -> str:
    """Return the colours; pages that are known as dark get those for dark themes."""
    dark = ",".join(f"{page} .charlm-heat" for page in DARK_PAGES)
    return f"<style>{css_rules('.charlm-heat ')}{dark}{{color-scheme:dark}}</style>"

"""Figures of translations for people: which are shown, their names, and a line of them."""

from charlm.config.tasks import figure_of_translations
from charlm.report.task_reports import Json
from charlm.report.text import number

NAMES = {"chrf": "chrF", "bleu": "BLEU", "exact": "exact"}
"""Names of the figures for people."""


def shown_figures(letters: float | None) -> list[str]:
    """Return the names of the figures for people, the headline first.

    `letters` is the mean length of the references. Short texts have no BLEU, which counts runs of
    four words.
    """
    is_short = figure_of_translations({"reference_letters": letters}) == "exact"
    return ["exact", "chrf"] if is_short else ["chrf", "bleu", "exact"]


def digits_of(name: str) -> int:
    """Return the digits after the point of a figure: of 0 to 100, or of a fraction."""
    return 3 if name == "exact" else 1


MIN_PLAIN = 0.001
"""Loss below which it is written with a power of ten."""


def figures_text(figures: Json) -> str:
    """Return the figures of a text in one line; before outputs are made only the loss."""
    names = shown_figures(figures.get("reference_letters")) if figures.get("texts") else []
    parts = [
        f"{NAMES[name]} {number(figures[name], digits_of(name))}{_interval(figures, name)}"
        for name in names
    ]
    if (nats := figures.get("nats_per_token")) is not None:
        parts.append(f"{f'{nats:.1e}' if 0.0 < nats < MIN_PLAIN else number(nats)} nats/token")
    return ", ".join(parts)


def _interval(figures: Json, name: str) -> str:
    ends = (figures.get("intervals") or {}).get(name)
    if not ends:
        return ""
    low, high = (number(end, digits_of(name)) for end in ends)
    return f" ({low} to {high})"

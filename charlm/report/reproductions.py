"""Tables that compare results of recipes with published ones."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from charlm.config.recipes import FIGURES, Recipe
from charlm.report.tables import plain_table
from charlm.report.text import number

TUNED = ("cache", "dynamic")
"""Methods that are tuned on the validation text."""
DIGITS = {
    "perplexity": 1, "bits_per_token": 3, "nats_per_token": 4, "accuracy": 3, "exact": 3,
}  # fmt: skip


def comparison(
    recipe: Recipe, figures: Mapping[str, Mapping[str, Any]], floors: Mapping[str, float]
) -> Table:
    """Return a row for each of our figures, each floor, each figure of others, and the aim."""
    table = plain_table("<who", f"{recipe.part} {FIGURES[recipe.figure]}", "<under")
    for name, own in figures.items():
        under = "the protocol below" if name == recipe.part else name.partition(", ")[2]
        if recipe.part == "valid" and under in TUNED:
            under += " (tuned on the start of this text)"
        table.add_row("ours", _shown(recipe, own[recipe.figure]), Text(under))
    for who, figure in floors.items():
        table.add_row("floor", _shown(recipe, figure), Text(who))
    for label in ("published", "measured"):
        for who, figure in getattr(recipe, label):
            table.add_row(label, _shown(recipe, figure), Text(who))
    if recipe.aim is not None:
        ours = figures.get(recipe.part)
        met = ours and recipe.reached(ours[recipe.figure])
        state = "" if ours is None else "reached" if met else "not reached"
        table.add_row("aim", _shown(recipe, recipe.aim), state)
    return table


def _shown(recipe: Recipe, figure: float) -> str:
    """Return a figure with the digits of its kind; squared errors span many powers of ten."""
    if recipe.figure == "mse":
        return f"{figure:.1e}"
    return number(figure, DIGITS[recipe.figure])


def recipe_table(recipes: Mapping[str, Recipe]) -> Table:
    """List the recipes with the published figures."""
    table = plain_table("<name", "<what", "<published")
    table.columns[0].no_wrap = True
    for name, recipe in recipes.items():
        figures = ", ".join(_shown(recipe, value) for _, value in recipe.published)
        if recipe.aim is not None and not recipe.published:
            figures = f"aim {_shown(recipe, recipe.aim)}"
        shown = f"{figures} {FIGURES[recipe.figure]}" if figures else "-"
        table.add_row(name, Text(recipe.summary), Text(shown))
    return table

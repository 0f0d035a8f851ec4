"""Tables that compare results of recipes with published ones."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from charlm.config.recipes import FIGURES, Recipe
from charlm.report.tables import plain_table
from charlm.report.text import number
from charlm.units import Tally

TUNED = ("cache", "dynamic")
"""Methods that are tuned on the validation text."""
DIGITS = {"perplexity": 1, "bits_per_token": 3, "nats_per_token": 4}


def comparison(recipe: Recipe, tallies: Mapping[str, Tally]) -> Table:
    """Return a row for each of our figures, then for each published one."""
    digits = DIGITS[recipe.figure]
    table = plain_table("<who", f"{recipe.part} {FIGURES[recipe.figure]}", "<under")
    for name, tally in tallies.items():
        under = "the protocol below" if name == recipe.part else name.partition(", ")[2]
        if recipe.part == "valid" and under in TUNED:
            under += " (tuned on the start of this text)"
        table.add_row("ours", number(tally.summary()[recipe.figure], digits), Text(under))
    for who, figure in recipe.published:
        table.add_row("published", number(figure, digits), Text(who))
    return table


def recipe_table(recipes: Mapping[str, Recipe]) -> Table:
    """List the recipes with the published figures."""
    table = plain_table("<name", "<what", "<published")
    table.columns[0].no_wrap = True
    for name, recipe in recipes.items():
        figures = ", ".join(number(value, DIGITS[recipe.figure]) for _, value in recipe.published)
        table.add_row(name, Text(recipe.summary), Text(f"{figures} {FIGURES[recipe.figure]}"))
    return table

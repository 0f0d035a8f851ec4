"""Draw the picture of the quote unit for the README: unit 2:8 of the built-in model on some lines.

python scripts/draw_inside.py        writes experiments/inside.svg
"""

import argparse
from pathlib import Path

from charlm.api.inside import inspect
from charlm.api.loading import load_model
from charlm.report.inside import heats
from charlm.report.inside_files import svg_picture

OUT = Path(__file__).parent / "experiments" / "inside.svg"
UNIT, SIGNAL = "2:8", "c"
TITLE = f"Unit {UNIT} of the built-in model after each letter: blue while a quotation is open"
TEXT = """She made the apple and pear salad.
"My dim tiny urns!" said the wise crab, and he hid three sly lamps.
The dog found the pie. "Where are my spoons?" asked Ana.
The apple and pear salad was damp and sad."""


def main() -> None:
    """Write the picture."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    lm = load_model("tales")
    inspection = inspect(lm, TEXT, units=[UNIT], signals=[SIGNAL])
    OUT.write_text(svg_picture(heats(inspection), [TITLE]), encoding="utf-8")


if __name__ == "__main__":
    main()

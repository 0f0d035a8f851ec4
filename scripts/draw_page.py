"""Draw the picture of the page for the README: `charlm serve --run tales`, as Chromium shows it.

python scripts/draw_page.py          writes experiments/page.png

Needs chromium, and playwright and pillow (pip install playwright pillow).
"""

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from server_process import Server

OUT = Path(__file__).parent / "experiments" / "page.png"
WIDTH, HEIGHT = 1180, 710
COLOURS = 128
"""Size of the palette; the page has few colours beside the shades of its letters."""
PROMPT, TOKENS, SEED = "The dog found", 260, 3
POINTED = "shy"
"""Text at whose first token the picture points."""


def write_text(page: Any) -> None:
    """Generate a text in the view Write, and point at one of its tokens."""
    page.get_by_label("Begin with").fill(PROMPT)
    page.get_by_label("Tokens", exact=True).fill(str(TOKENS))
    page.get_by_label("Seed", exact=True).fill(str(SEED))
    page.get_by_role("button", name="Write", exact=True).click()
    tokens = page.locator('[role=group][aria-label^="Written text"] span.t')
    tokens.nth(TOKENS - 1).wait_for()
    tokens.nth("".join(tokens.all_text_contents()).index(POINTED)).hover()
    page.wait_for_timeout(500)


def screenshot(url: str) -> bytes:
    """Return a picture of the page as PNG."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(color_scheme="light")
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        page.wait_for_load_state("networkidle")
        write_text(page)
        picture: bytes = page.screenshot()
        return picture


def compact(png: bytes) -> bytes:
    """Return a PNG with a palette instead of full colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    file = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    """Write the picture."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    with Server("--run", "tales") as server:
        OUT.write_bytes(compact(screenshot(server.url)))
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

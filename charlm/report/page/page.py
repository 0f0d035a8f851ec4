"""One file that holds the page with its data: it opens without a server, and loads nothing.

Its policy allows the one style and the one script in it, by their hashes.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from charlm.report.heat import css_rules

FOLDER = Path(__file__).parent


@cache
def page_file(name: str) -> str:
    """Return the text of one of the page's files; the style has a rule for each level of colour."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return f"{text}\n{css_rules()}" if name == "page.css" else text


def page_html(data: Mapping[str, Any]) -> str:
    """Return the page as one document with its data, a JSON object without NaN.

    No text in the data can end its element: "<" and ">" are escaped.
    """
    style, script = page_file("page.css"), page_file("page.js")
    policy = (
        f"default-src 'none'; style-src '{csp_hash(style)}'; script-src '{csp_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    content = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "<title>": f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<title>',
        '<link rel="stylesheet" href="page.css">': f"<style>{style}</style>",
        '<script src="page.js" defer></script>\n': "",
        "</body>": f'<script type="application/json" id="data">{content}</script>\n'
        f"<script>{script}</script>\n</body>",
    }
    page = page_file("index.html")
    for place, part in parts.items():
        before, found, after = page.partition(place)
        assert found, f"index.html has no {place}"
        page = before + part + after
    return page


def csp_hash(text: str) -> str:
    """Return the source of a policy that allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

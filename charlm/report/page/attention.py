"""The attention of a translation as one file that opens without a server and has no script."""

from html import escape
from string import Template

from charlm.inference.translating import Text
from charlm.report.attention import BOUNDS, attention_level, bare
from charlm.report.heat import SURPRISAL
from charlm.report.page.page import csp_hash, page_file
from charlm.report.text import visible

UPRIGHT = 3
"""Maximum number of characters of the head of a column that is not turned."""


def attention_html(run: str, text: str, answer: Text) -> str:
    """Return a page with the translation of a text and its attention."""
    style = page_file("page.css") + page_file("attention.css")
    policy = (
        f"default-src 'none'; style-src '{csp_hash(style)}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    rows = [
        f'<tr><th scope="row" title="probability {token.probability:.4f}">'
        f"{escape(bare(token.text))}</th>{''.join(map(_weight, weights))}</tr>"
        for token, weights in zip(answer.tokens, answer.attention.tolist(), strict=True)
    ]
    return Template(page_file("attention.html")).substitute(
        policy=policy,
        style=style,
        run=escape(run),
        text=escape(visible(text)),
        translation=escape(visible(answer.text)),
        heads="".join(map(_head, answer.source)),
        rows="\n".join(rows),
        keys="".join(
            f'<i class="{SURPRISAL.css_class(level)}">{round(100 * bound)}</i>'
            for level, bound in enumerate(BOUNDS, 1)
        ),
    )


def _head(piece: str) -> str:
    """Return the head of a column, upright if it fits."""
    name = escape(bare(piece))
    return f'<th scope="col">{f"<span>{name}</span>" if len(bare(piece)) > UPRIGHT else name}</th>'


def _weight(weight: float) -> str:
    name = SURPRISAL.css_class(attention_level(weight))
    level = f' class="{name}"' if name else ""
    return f'<td{level} title="{weight:.4f}">{round(100 * weight) or ""}</td>'

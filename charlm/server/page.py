"""The files of the page, from memory."""

import hashlib
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from charlm.report.page.page import page_file

KINDS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
"""Content types of the files."""


async def page(request: Request) -> Response:
    """Return a file of the page, or 304 if the client has it already."""
    name = request.scope["path"].removeprefix("/") or "index.html"
    content, tag = _file(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=KINDS[name], headers=headers)


@cache
def _file(name: str) -> tuple[bytes, str]:
    """Return the content of a file and its entity tag."""
    content = page_file(name).encode()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'

"""Bodies of requests: JSON objects of a bounded size, read as strictly as the files of a run."""

import asyncio
from functools import partial
from typing import Any

from starlette.requests import Request

from charlm.files.safe_read import decode_json
from charlm.server.errors import Refused
from charlm.server.limits import Limits
from charlm.server.threads import compute

MAX_DEPTH = 16
"""Maximum nesting of lists and objects."""
MAX_DIGITS = 100
"""Maximum length of a whole number; handlers check their ranges."""


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body of a request, a JSON object.

    Raises Refused: 415 for a body that is not declared as JSON or is compressed, 413 for one that
    is too large, 400 for one that is not valid JSON in UTF-8 or not an object.
    """
    check_type(request)
    data = await read_body(request)
    content = await compute(partial(parse_body, data), len(data))
    if not isinstance(content, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(content), "a number")
        raise Refused(400, f'the body is {kind}; expected a JSON object, such as {{"prompt": "A"}}')
    return content


def check_type(request: Request) -> None:
    """Raise Refused unless the body is declared as JSON that is not compressed."""
    declared = request.headers.get("content-type", "")
    kind, _, parameters = declared.partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise Refused(
            415,
            f"Content-Type is {declared[:80]!r}; expected application/json in UTF-8. Send the "
            "header Content-Type: application/json",
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise Refused(
            415,
            f"Content-Encoding is {encoding[:80]!r}; expected a body that is not compressed. Leave "
            "the header out",
        )


async def read_body(request: Request) -> bytes:
    """Return the body. Raises Refused as soon as it is too large, or if it comes too slowly."""
    limits: Limits = request.app.state.limits
    declared = request.headers.get("content-length", "0")
    data = bytearray()
    if int(declared[:20]) <= limits.body_bytes:
        try:
            async with asyncio.timeout(limits.body_seconds):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > limits.body_bytes:
                        break
                else:
                    return bytes(data)
        except TimeoutError as error:
            raise Refused(
                408,
                f"the body is not complete after {limits.body_seconds:g} s; expected all of it. "
                "Send it at once",
            ) from error
    raise Refused(
        413,
        f"the body has more than {limits.body_bytes:,} bytes; expected at most that many. Send the "
        "prompts in several requests",
    )


def parse_body(data: bytes) -> Any:
    """Parse JSON. Raises Refused if it is invalid or nested too deeply."""
    try:
        content = decode_json(data, MAX_DIGITS)
    except ValueError as error:
        raise Refused(
            400, f"the body is not valid JSON ({error}); expected a JSON object in UTF-8"
        ) from error
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        values = (
            value
            for each in level
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, list | dict)
        )
        level = list(values)
        if not level:
            return
    raise Refused(400, f"the body is nested too deeply; expected at most {MAX_DEPTH} levels")

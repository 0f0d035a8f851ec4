"""Routes of the page: a text in a served model, and the runs of the folder, as JSON.

The forms are those of an export of the page; see `api.page`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from charlm.api import page
from charlm.api.model import Model
from charlm.config.cells import SIGNALS
from charlm.errors import CharlmError, CorpusError
from charlm.inference.work import QueueFull, Stopping
from charlm.inspect.find_units import check_pattern
from charlm.server.bodies import read_json
from charlm.server.client import check_client, watched
from charlm.server.errors import Refused, unavailable
from charlm.server.requests import REQUIRED, Fields, read_fields, text, whole
from charlm.server.service import Served, Service
from charlm.server.shared_backend import SharedBackend

MAX_CHARS = 20_000
"""Maximum length of a text."""
MAX_PATTERN = 1_000
"""Maximum length of a regular expression."""
MAX_UNITS = 16
"""Maximum number of units that are named."""
MAX_READERS, MAX_SEARCHERS = 8, 2
"""Maximum requests that read texts at once, and of those that keep all units in memory."""


class Slots:
    """Places for the requests that work at once; more wait in order."""

    def __init__(self) -> None:
        self.readers = asyncio.Semaphore(MAX_READERS)
        self.searchers = asyncio.Semaphore(MAX_SEARCHERS)


def shown_text(value: Any) -> str:
    """Return a text that is short enough to show."""
    if len(text(value)) > MAX_CHARS:
        raise ValueError(f"a text of at most {MAX_CHARS:,} characters, not {len(value):,}")
    return str(value)


def pattern(value: Any) -> str:
    """Return a regular expression, or "column"."""
    if not 0 < len(text(value)) <= MAX_PATTERN:
        raise ValueError(f"a text of 1 to {MAX_PATTERN:,} characters")
    return str(value)


def names(most: int) -> Callable[[Any], tuple[str, ...]]:
    """Return a reader of lists of names."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"a list of at most {most} names")
        return tuple(map(text, value))

    return read


TEXT: Fields = {"text": (REQUIRED, shown_text), "run": (None, text)}
"""Fields of every request about a text."""
SCORE: Fields = {**TEXT, "top": (5, whole(0, 20))}
INSIDE: Fields = {**TEXT, "units": ((), names(MAX_UNITS)), "signals": ((), names(len(SIGNALS)))}
FIND: Fields = {
    **TEXT,
    "text": ("", shown_text),
    "pattern": (REQUIRED, pattern),
    "top": (10, whole(1, 100)),
}
COMPARE: Fields = {**TEXT, "other": (REQUIRED, text)}


async def model(request: Request) -> Response:
    """Return the facts about every served model, the default first."""
    service: Service = request.app.state.service
    return await answer(
        request,
        slots(request).readers,
        lambda: {"models": [facts(each) for each in service.models.values()]},
        "run",
    )


async def score(request: Request) -> Response:
    """Return the tokens of a text with their surprisal and alternatives."""
    asked = read_fields(await read_json(request), SCORE)
    own = served(request, asked)
    return await answer(
        request,
        slots(request).readers,
        lambda: page.score(own, asked["text"], asked["top"]),
        "text",
    )


async def inside(request: Request) -> Response:
    """Return the signals of units after each token of a text."""
    asked = read_fields(await read_json(request), INSIDE)
    own, units, signals = served(request, asked), asked["units"], asked["signals"]
    param = "units" if units else "signals" if signals else "text"
    return await answer(
        request,
        slots(request).searchers,
        lambda: page.inside(own, asked["text"], units, signals),
        param,
    )


async def find(request: Request) -> Response:
    """Return the units that follow a pattern."""
    asked = read_fields(await read_json(request), FIND)
    own = served(request, asked)

    def found() -> dict[str, Any]:
        check_pattern(asked["pattern"])
        return page.find(own, asked["pattern"], asked["text"], asked["top"])

    return await answer(request, slots(request).searchers, found, "pattern")


async def compare(request: Request) -> Response:
    """Return the parts of a text with their bits under two served models."""
    asked = read_fields(await read_json(request), COMPARE)
    own, other = served(request, asked), served(request, asked, "other")
    return await answer(
        request, slots(request).readers, lambda: page.compare(own, asked["text"], other), "other"
    )


async def runs(request: Request) -> Response:
    """Return the runs of the folder with the curves of their training."""
    service: Service = request.app.state.service
    return await answer(request, slots(request).readers, lambda: page.runs(service.checkpoints))


def slots(request: Request) -> Slots:
    """Return the places for requests of this kind."""
    found: Slots = request.app.state.slots
    return found


def served(request: Request, asked: Mapping[str, Any], field: str = "run") -> Model:
    """Return the model that a field names. Raises Refused (404)."""
    try:
        return shared(request.app.state.service.find(asked[field]))
    except Refused as refused:
        refused.param = field
        raise


@lru_cache(maxsize=32)
def shared(each: Served) -> Model:
    """Return a served model that computes on the worker thread of its rows."""
    run = replace(each.model.run, backend=SharedBackend(each.rows))
    return Model(run, each.model.mixture)


@lru_cache(maxsize=32)
def facts(each: Served) -> dict[str, Any]:
    """Return the facts about a served model; its validation text is read once."""
    return page.facts(shared(each))


async def answer(
    request: Request,
    places: asyncio.Semaphore,
    make: Callable[[], dict[str, Any]],
    param: str | None = None,
) -> Response:
    """Return what a function makes, run in a thread of its own once there is a place, as JSON.

    The function ends early, by `check_client`, once the client has gone. Raises ClientGone then,
    and Refused: 503 while the server is busy or stopping, 400 for other errors of charlm, which are
    about the field `param`.
    """

    def content() -> bytes:
        check_client()  # it may have left while it waited for a place
        data = {"schema_version": 1, **make()}
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()

    try:
        async with watched(request.receive), places:
            return Response(await run_in_threadpool(content), media_type="application/json")
    except (QueueFull, Stopping) as error:
        raise unavailable(error) from error
    except CorpusError as error:
        raise Refused(400, str(error), "text") from error
    except CharlmError as error:
        raise Refused(400, str(error), param) from error


ROUTES = (
    Route("/api/model", model, methods=["GET"]),
    Route("/api/score", score, methods=["POST"]),
    Route("/api/inside", inside, methods=["POST"]),
    Route("/api/find", find, methods=["POST"]),
    Route("/api/compare", compare, methods=["POST"]),
    Route("/api/runs", runs, methods=["GET"]),
)
"""Routes of the page's data."""

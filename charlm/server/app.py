"""The application: the routes, and errors as JSON.

A route of its own is a line of ROUTES: its path, its handler and its method. The handler is a
coroutine that gets a request and returns a response; it raises `Refused` for an error.
`request.app.state.service` holds the models, `request.app.state.limits` the limits.
"""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charlm.server import models, page_routes, predict_route, tokenizer_routes
from charlm.server.client import ClientGone
from charlm.server.completions import completions
from charlm.server.errors import BUG, CLIENT_LEFT, Refused
from charlm.server.limits import Limits
from charlm.server.page import page
from charlm.server.service import Service


async def health(request: Request) -> Response:
    """Report that the server answers, with figures on its work."""
    service: Service = request.app.state.service
    status = "stopping" if service.stopping else "ok"
    return JSONResponse({"status": status, **service.counts()})


ROUTES = (
    Route("/health", health, methods=["GET"]),
    Route("/metrics", models.metrics, methods=["GET"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/models", models.models, methods=["GET"]),
    Route("/v1/models/{name:path}", models.model, methods=["GET"]),
    Route("/v1/chat/completions", models.no_chat, methods=["GET", "POST"]),
    Route("/v1/embeddings", models.no_chat, methods=["GET", "POST"]),
    Route("/tokenize", tokenizer_routes.tokenize, methods=["POST"]),
    Route("/detokenize", tokenizer_routes.detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_routes.tokenizer_info, methods=["GET"]),
    Route("/api/predict", predict_route.predict, methods=["POST"]),
)
"""Routes of the API; /health alone needs no key (see `security.OPEN_PATHS`)."""
PAGE_ROUTES = (
    *(Route(path, page, methods=["GET"]) for path in ("/", "/page.css", "/page.js")),
    *page_routes.ROUTES,
)
"""Routes of the page and of its data."""


def make_app(service: Service, limits: Limits, *, with_page: bool = True) -> Starlette:
    """Return the application that serves models, and the page unless it is switched off."""
    app = Starlette(
        routes=[*ROUTES, *(PAGE_ROUTES if with_page else ())],
        exception_handlers={
            Refused: _refused,
            ClientDisconnect: _left,
            ClientGone: _left,
            HTTPException: _http_error,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    app.state.service, app.state.limits = service, limits
    app.state.slots = page_routes.Slots()
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _left(_: Request, __: Exception) -> Response:
    """Return an answer that is not sent, for the log."""
    return Response(status_code=CLIENT_LEFT)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer for a path or a method that is not there."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        message = f"the method {request.method} is not allowed here; expected {headers['Allow']}"
        return Refused(405, message, headers=headers).response
    service: Service = request.app.state.service
    usual = "/v1/completions" if service.models else "POST /api/predict (these runs have no page)"
    message = f"there is nothing at this path; expected one such as {usual} or /health"
    return Refused(404, message, headers=headers).response


async def _failed(_: Request, __: Exception) -> Response:
    return Refused(500, BUG).response

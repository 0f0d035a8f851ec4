"""Routes about the models: their list, what they are not, and their counters."""

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from charlm.server.errors import Refused
from charlm.server.service import Service

METRICS = {
    "waiting": ("gauge", "Requests that wait"),
    "rows": ("gauge", "Samples that are being generated"),
    "requests": ("counter", "Requests for completions"),
    "refused": ("counter", "Requests refused, since too many waited"),
    "tokens": ("counter", "Tokens sampled"),
}
"""Kind and help of each counter of `Rows.counts`."""


async def models(request: Request) -> Response:
    """List the models, those that answer texts last."""
    service: Service = request.app.state.service
    names = [*service.models, *service.labellers]
    return JSONResponse({"object": "list", "data": [_entry(service, name) for name in names]})


async def model(request: Request) -> Response:
    """Return the entry of one model."""
    service: Service = request.app.state.service
    name = request.path_params["name"]
    return JSONResponse(
        _entry(service, name if name in service.labellers else service.find(name).name)
    )


def _entry(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "charlm",
        "gives": service.gives(name),
    }


async def no_chat(_: Request) -> Response:
    """Refuse chat and embeddings."""
    raise Refused(
        404,
        "this server has plain language models, which continue a text: no chat, no embeddings. Use "
        "POST /v1/completions with a prompt",
        code="not_supported",
    )


async def metrics(request: Request) -> Response:
    """Return the counters of each model in the text format of Prometheus."""
    service: Service = request.app.state.service
    counts = {name: asdict(each.rows.counts) for name, each in service.models.items()}
    lines = []
    for key, (kind, text) in METRICS.items():
        name = f"charlm_{key}" + ("_total" if kind == "counter" else "")
        lines += [f"# HELP {name} {text}.", f"# TYPE {name} {kind}"]
        lines += [f'{name}{{model="{_label(model)}"}} {own[key]}' for model, own in counts.items()]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _label(text: str) -> str:
    """Return the value of a label, escaped."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""POST /api/predict: answers to texts, by a run that gives labels, tags or translations."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from charlm.report.task_reports import report_of_task
from charlm.runs.layout import run_task
from charlm.server.bodies import read_json
from charlm.server.client import check_client
from charlm.server.errors import Refused
from charlm.server.page_routes import answer, shown_text, slots
from charlm.server.requests import REQUIRED, Fields, read_fields, text
from charlm.server.service import Service

MAX_TEXTS = 256
"""Maximum number of texts in a request."""
READ_AT_ONCE = 32
"""Number of texts that are answered before it is checked whether the client has gone."""


def texts(value: Any) -> list[str]:
    """Return one text, or several, in a list."""
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in given):
        raise ValueError(f"a text, or a list of at most {MAX_TEXTS} texts")
    if len(given) > MAX_TEXTS:
        raise ValueError(f"at most {MAX_TEXTS} texts, not {len(given):,}")
    return [shown_text(each) for each in given]


FIELDS: Fields = {"text": (REQUIRED, texts), "run": (None, text)}
"""Fields of the body."""


async def predict(request: Request) -> Response:
    """Return the answer to each text, and its probabilities; stop once the client has gone."""
    asked = read_fields(await read_json(request), FIELDS)
    service: Service = request.app.state.service
    model = service.find_labels(asked["run"])
    size, most = sum(map(len, asked["text"])), model.max_request_chars
    if size > most:
        raise Refused(
            400,
            f"text has {size:,} characters; expected at most {most:,} in one request to run "
            f"{model.path.name}. Send several requests",
            "text",
        )
    report = report_of_task(run_task(model.path))

    def answered() -> dict[str, Any]:
        found = []
        for start in range(0, len(asked["text"]), READ_AT_ONCE):
            check_client()
            group = asked["text"][start : start + READ_AT_ONCE]
            found += [report.predictions.json(each) for each in model.predict(group)]
        labels = {"labels": model.labels} if model.labels else {}
        return {"run": model.path.name, **labels, "predictions": found}

    return await answer(request, slots(request).readers, answered, "text")

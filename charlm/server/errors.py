"""Refusals: errors of a request, in the form of OpenAI's API."""

from typing import Any

from starlette.responses import JSONResponse

from charlm.inference.work import QueueFull, Stopping

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}
"""Types of errors by status; another status below 500 is an `invalid_request_error`."""

CLIENT_LEFT = 499
"""Status in the log of a request whose client left before the answer began."""
BUG = "an error in the server; this is a bug in charlm. Its log has the details"
"""Message of an answer with status 500."""


class Refused(Exception):
    """Request that gets an error for an answer.

    The message has three parts: what was found, what was expected, what to do. `param` is the field
    of the body that it is about; `code` is a word for programs, such as "model_not_found".
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}

    @property
    def content(self) -> dict[str, Any]:
        """Error object of OpenAI's API, for an answer or an event of a stream."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {
            "error": {
                "message": self.message,
                "type": kind if self.status < 500 else "server_error",
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def response(self) -> JSONResponse:
        """Answer with the error object."""
        return JSONResponse(self.content, self.status, self.headers)


def unavailable(error: QueueFull | Stopping) -> Refused:
    """Return the answer to work that comes while too much is waiting, or while the server stops."""
    code = "queue_full" if isinstance(error, QueueFull) else "stopping"
    return Refused(503, str(error), code=code, headers={"Retry-After": "1"})

"""POST /v1/completions: samples after prompts, and the log-probabilities of both."""

import logging
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charlm.errors import UsageError
from charlm.inference.work import Event, PromptFigures, QueueFull, Stopping
from charlm.server.answers import Answer, event_text
from charlm.server.bodies import read_json
from charlm.server.channel import Channel
from charlm.server.client import ClientGone
from charlm.server.errors import BUG, Refused, unavailable
from charlm.server.requests import Completion, read_completion, read_fields
from charlm.server.service import Served, Service
from charlm.server.threads import compute


async def completions(request: Request) -> Response:
    """Answer a request for completions, as a whole or as a stream of server-sent events."""
    service: Service = request.app.state.service
    values = read_fields(await read_json(request))
    served = service.find(values["model"])
    size = sum(map(len, values["prompt"]))
    completion, answer = await compute(partial(_begin, values, served), size)
    channel = Channel(served.rows, completion.work, request.receive)
    if not completion.stream:
        return await _whole(channel, answer)
    events = _events(channel, answer)
    return EventStream(await anext(events), events)


def _begin(values: dict[str, Any], served: Served) -> tuple[Completion, Answer]:
    """Return the request with these values, and its answer, which is still empty."""
    run = served.model.run
    completion = read_completion(values, run.vocabulary, run.boundaries)
    echoes = [prompt.echo(run) for prompt in completion.prompts if completion.echo]
    return completion, Answer(completion, served.name, served.names, echoes)


async def _whole(channel: Channel, answer: Answer) -> Response:
    """Return the whole answer. Raises Refused."""
    try:
        async with channel:
            is_last = False
            while not is_last:
                events, is_last = await channel.take()
                answer.add(events)
    except (QueueFull, Stopping, UsageError) as error:
        raise _refusal(error) from error
    content = await compute(answer.text, answer.size)
    return Response(content, media_type="application/json")


async def _events(channel: Channel, answer: Answer) -> AsyncGenerator[str, None]:
    """Yield the events of a stream; those that arrive together are one text.

    Raises Refused before the first event; a later error is an event, the last one.
    """
    has_begun = False
    try:
        async with channel:
            is_last = False
            while not is_last:
                events, is_last = await channel.take()
                figures = [each for each in events if isinstance(each, PromptFigures)]
                size = sum(len(each.tokens) for each in figures) * (2 + (channel.work.top or 0))
                text = await compute(partial(_stream_text, answer, events, is_last), size)
                if text:
                    yield text
                    has_begun = True
    except ClientGone:
        raise
    except Exception as error:
        if not has_begun:
            raise _refusal(error) from error
        yield event_text(_refusal(error).content)


def _stream_text(answer: Answer, events: list[Event], is_last: bool) -> str:
    """Return the text of a stream for events of the scheduler."""
    chunks = [*answer.chunks(events), *(answer.last_chunks() if is_last else ())]
    return "".join(map(event_text, chunks)) + ("data: [DONE]\n\n" if is_last else "")


def _refusal(error: Exception) -> Refused:
    """Return the answer to work that the rows refused or that failed."""
    if isinstance(error, QueueFull | Stopping):
        return unavailable(error)
    if isinstance(error, UsageError):
        return Refused(400, str(error))
    logging.getLogger(__name__).error("an error in the server", exc_info=error)
    return Refused(500, BUG)


class EventStream(Response):
    """Answer that is sent event by event, as they arrive."""

    media_type = "text/event-stream"

    def __init__(self, first: str, events: AsyncGenerator[str, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.first, self.events = first, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; stop at once when the client has gone."""
        try:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            await send(_body(self.first, more=True))
            async for text in self.events:
                await send(_body(text, more=True))
            await send(_body("", more=False))
        except ClientGone:
            pass
        finally:
            await self.events.aclose()


def _body(text: str, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": more}

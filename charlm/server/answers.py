"""Answers of /v1/completions: events of the scheduler in the forms of OpenAI's API.

Log-probabilities are of the model itself, before temperature and other rules. A chosen token and
its alternatives have one number in both places, so that programs may compare them.
"""

import itertools
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from charlm.inference.work import Event, NewText, PromptFigures, TokenFigures
from charlm.server.requests import Completion

MIN_LOGPROB = -9999.0
"""Log-probability of what is impossible; JSON has no infinity (vLLM's number)."""
Json = dict[str, Any]
Echo = tuple[str, list[int]]
"""Text of a prompt, and the characters before each of its tokens."""


@dataclass
class Choice:
    """One sample of an answer, as far as it is known."""

    texts: list[str] = field(default_factory=list)
    figures: list[TokenFigures] = field(default_factory=list)
    count: int = 0
    reason: str | None = None
    stop_text: str | None = None

    def add(self, event: NewText) -> None:
        """Add new text."""
        self.texts.append(event.text)
        self.figures += event.tokens
        self.count += event.count
        self.reason, self.stop_text = event.reason, event.stop_text

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens, an EOS included; without tokens it comes last."""
        values = [logprob(each.nats) for each in self.figures]
        return sum(values) / len(values) if values else MIN_LOGPROB


def logprob(nats: float | None) -> float:
    """Return the log-probability of a token with these nats."""
    return max(0.0 - nats, MIN_LOGPROB) if nats is not None else 0.0


class Answer:
    """Answer to a request for completions, whole or as the chunks of a stream.

    `names` are the names of tokens by id. `echoes` has the text of each prompt and the offsets of
    its tokens, if the request asks for an echo.
    """

    def __init__(
        self, request: Completion, model: str, names: Sequence[str], echoes: Sequence[Echo] = ()
    ) -> None:
        self.request, self.names, self.echoes = request, names, echoes
        self.head: Json = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self.prompts: dict[int, list[TokenFigures]] = {}
        self.choices = [Choice() for _ in range(len(request.prompts) * request.work.samples)]
        self.begun: set[int] = set()

    @property
    def usage(self) -> Json:
        """Numbers of tokens; those of discarded samples count, and EOS."""
        prompt, sampled = self.request.prompt_tokens, sum(each.count for each in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sampled,
            "total_tokens": prompt + sampled,
        }

    # ------------------------------------------------------------------ whole

    def add(self, events: Iterable[Event]) -> None:
        """Add events of the scheduler."""
        for event in events:
            if isinstance(event, PromptFigures):
                self.prompts[event.prompt] = event.tokens
            elif isinstance(event, NewText):
                self.choices[event.row].add(event)

    @property
    def size(self) -> int:
        """Number of samples and figures that were added, about."""
        lists = [*self.prompts.values(), *(each.figures for each in self.choices)]
        return len(self.choices) + sum(map(len, lists)) * (1 + (self.request.work.top or 0))

    def text(self) -> str:
        """Return the whole answer as JSON, when all events were added."""
        choices = ",".join(map(json_text, self._chosen()))  # one by one: others use the GIL too
        usage = json_text(self.usage)
        return f'{json_text(self.head)[:-1]},"choices":[{choices}],"usage":{usage}}}'

    def _chosen(self) -> Iterator[Json]:
        """Yield the choices of the whole answer, without those that are discarded."""
        index = itertools.count()
        for prompt in range(len(self.request.prompts)):
            first = prompt * self.request.work.samples
            own = self.choices[first : first + self.request.work.samples]
            if len(own) > self.request.n:
                own = sorted(own, key=lambda each: each.mean_logprob, reverse=True)
            for choice in own[: self.request.n]:
                yield self._choice(next(index), prompt, choice, begins=True)

    # ------------------------------------------------------------------ streamed

    def chunks(self, events: Iterable[Event]) -> Iterator[Json]:
        """Yield the chunks of a stream for events that arrived together.

        Each sample with something new has one chunk.
        """
        new: dict[int, Choice] = {}
        for event in events:
            if isinstance(event, PromptFigures):
                self.prompts[event.prompt] = event.tokens
            elif isinstance(event, NewText):
                new.setdefault(event.row, Choice()).add(event)
        for row, choice in new.items():
            known = self.choices[row]
            known.count += choice.count
            begins = row not in self.begun
            echoed = begins and self.request.echo
            if echoed or any(choice.texts) or choice.figures or choice.reason:
                self.begun.add(row)
                part = self._choice(row, row // self.request.n, choice, begins=begins)
                usage = {"usage": None} if self.request.include_usage else {}
                yield {**self.head, "choices": [part], **usage}

    def last_chunks(self) -> Iterator[Json]:
        """Yield the chunk at the end: the usage, if it was asked for."""
        if self.request.include_usage:
            yield {**self.head, "choices": [], "usage": self.usage}

    # ------------------------------------------------------------------ choices

    def _choice(self, index: int, prompt: int, choice: Choice, *, begins: bool) -> Json:
        """Return a choice, or the part of it that is new; the prompt is in the one that begins."""
        request = self.request
        echoed = request.echo and begins
        prompt_text = self.echoes[prompt][0] if request.echo else ""
        result: Json = {
            "index": index,
            "text": (prompt_text if echoed else "") + "".join(choice.texts),
            "logprobs": None,
            "finish_reason": choice.reason,
            "stop_reason": choice.stop_text,
        }
        if request.logprobs is not None:
            offsets = [len(prompt_text) + each.offset for each in choice.figures]
            block = self._block(choice.figures, offsets)
            result["logprobs"] = block
            if echoed:
                before = self._prompt_block(prompt)
                result["logprobs"] = {name: before[name] + block[name] for name in block}
                values = [logprob(each.nats) for each in self.prompts[prompt]]
                result["prompt_log_probability"] = sum(values)
        if request.token_ids:
            result["token_ids"] = [each.id for each in choice.figures]
            if begins:
                result["prompt_token_ids"] = request.prompts[prompt].ids.tolist()
        return result

    def _prompt_block(self, prompt: int) -> Json:
        """Return the log-probabilities of a prompt; its first token has none, as everywhere."""
        figures = self.prompts[prompt][self.request.prompts[prompt].added :]
        block = self._block(figures, self.echoes[prompt][1])
        for name in ("token_logprobs", "top_logprobs", "top_token_ids"):
            if block.get(name):
                block[name][0] = None
        return block

    def _block(self, figures: Sequence[TokenFigures], offsets: list[int]) -> Json:
        """Return the lists of `logprobs` for tokens at these offsets."""
        names = self.names
        block: Json = {
            "tokens": [names[each.id] for each in figures],
            "token_logprobs": [logprob(each.nats) for each in figures],
            "top_logprobs": [
                {names[index]: logprob(nats) for index, nats in each.alternatives}
                for each in figures
            ],
            "text_offset": offsets,
        }
        if self.request.token_ids:
            block["top_token_ids"] = [
                {names[index]: index for index, _ in each.alternatives} for each in figures
            ]
        return block


def json_text(content: Json) -> str:
    """Return JSON, with text as it is."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def event_text(content: Json) -> str:
    """Return a server-sent event; JSON holds no line end that could cut it."""
    return f"data: {json_text(content)}\n\n"

"""Requests for completions: their fields, the limits of each, and the work that they ask for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from charlm.errors import near_name
from charlm.inference.samplers import Sampling, fresh_seed
from charlm.inference.work import Work
from charlm.server.errors import Refused
from charlm.server.prompts import Prompt, checked_ids, read_prompt
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary

MAX_TOKENS = 1_000_000
"""Maximum tokens of a sample, and of all prompts of a request."""
MAX_CHOICES = 128
"""Maximum samples for each prompt."""
MAX_PROMPTS = 2_048
"""Maximum prompts of a request."""
MAX_LOGPROBS = 20
"""Maximum alternatives for each token."""
MAX_STOPS, MAX_STOP_CHARS = 16, 256
"""Maximum stop texts, and the characters of each."""
MAX_ANSWER = 2_000_000
"""Maximum tokens and numbers that an answer holds in memory; of a stream, those of its prompts."""
CHOICE = 16
"""Numbers that a choice adds to an answer, about, beside those of its tokens."""

Read = Callable[[Any], Any]
"""Function that returns the value of a field; ValueError says what was expected."""


def whole(low: int, high: int) -> Read:
    """Return a reader of whole numbers; true is not a number."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return value

    return read


def number(low: float, high: float, *, above: bool = False) -> Read:
    """Return a reader of numbers; with `above` the lower limit itself is not allowed."""

    def read(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high or (above and value == low):
            limits = f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"
            raise ValueError(f"a number {limits}")
        return float(value)

    return read


def flag(value: Any) -> bool:
    """Return a flag; 1 is not one."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def unused(value: Any) -> None:
    """Accept only values that switch the field off."""
    if value:
        raise ValueError("nothing: it is not supported here. Leave it out")


def prompts(value: Any) -> list[str | list[int]]:
    """Return prompts: a text, texts, token ids, or lists of token ids."""
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if given and all(type(each) is int for each in given):
        given = [given]
    if not 0 < len(given) <= MAX_PROMPTS or not (
        all(isinstance(each, str) for each in given) or all(map(_are_ids, given))
    ):
        raise ValueError(
            "a text, token ids (whole numbers), or a list of one of them, with at most "
            f"{MAX_PROMPTS:,} prompts"
        )
    return given


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def stops(value: Any) -> tuple[str, ...]:
    """Return stop texts: one, or a list of them."""
    given = [value] if isinstance(value, str) else value
    fits = isinstance(given, list) and len(given) <= MAX_STOPS
    if not fits or not all(
        isinstance(each, str) and 0 < len(each) <= MAX_STOP_CHARS for each in given
    ):
        raise ValueError(f"at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters each")
    return tuple(given)


def bias(value: Any) -> dict[int, float]:
    """Return what is added to the logits of tokens, by their ids."""
    try:
        added = {int(key): number(-100, 100)(each) for key, each in value.items()}
        if [str(key) for key in added] != list(value):
            raise ValueError
    except (AttributeError, ValueError):
        raise ValueError('an object from token ids to -100 ... 100, such as {"5": -100}') from None
    return added


def stream_options(value: Any) -> bool:
    """Return `include_usage`."""
    if not isinstance(value, dict) or not value.keys() <= {"include_usage", "include_obfuscation"}:
        raise ValueError('an object such as {"include_usage": true}')
    if value.get("include_obfuscation"):
        raise ValueError("no include_obfuscation: it is not supported here")
    return flag(value.get("include_usage", False))


REQUIRED = object()
"""Default of a field that must be given."""
Fields = Mapping[str, tuple[Any, Read]]
"""Fields of a body: the default, which null means too, and the reader of other values."""

FIELDS: Fields = {
    "model": (None, text),
    "prompt": ([""], prompts),
    "max_tokens": (16, whole(0, MAX_TOKENS)),
    "temperature": (1.0, number(0, 100)),
    "top_p": (1.0, number(0, 1, above=True)),
    "top_k": (0, whole(0, 1_000_000)),
    "min_p": (0.0, number(0, 1)),
    "n": (1, whole(1, MAX_CHOICES)),
    "best_of": (None, whole(1, MAX_CHOICES)),
    "seed": (None, whole(-(2**63), 2**63 - 1)),
    "stop": ((), stops),
    "echo": (False, flag),
    "logprobs": (None, whole(0, MAX_LOGPROBS)),
    "logit_bias": ({}, bias),
    "stream": (False, flag),
    "stream_options": (None, stream_options),
    "ignore_eos": (False, flag),
    "return_token_ids": (False, flag),
    "user": (None, text),
    "suffix": (None, unused),
    "presence_penalty": (None, unused),
    "frequency_penalty": (None, unused),
}
"""Fields of a request for completions."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Request for completions: what its answer holds, and the work that it asks for."""

    prompts: tuple[Prompt, ...]
    n: int
    echo: bool
    logprobs: int | None
    stream: bool
    include_usage: bool
    token_ids: bool
    work: Work

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens in all prompts."""
        return sum(prompt.tokens for prompt in self.prompts)


def read_fields(body: Mapping[str, Any], fields: Fields = FIELDS) -> dict[str, Any]:
    """Return the value of every field. Raises Refused for an unknown field or a wrong value."""
    for name in body:
        if name not in fields:
            shown = ascii(name)[1:-1][:80]
            near = near_name(shown, fields)
            message = (
                f"{shown} is not a field of this request; expected one of {', '.join(fields)}. "
                + (f"Use {near}" if near else "Leave it out")
            )
            raise Refused(400, message, shown, "unknown_field")
    values = {}
    for name, (default, read) in fields.items():
        value = body.get(name)
        try:
            keep = value is None and default is not REQUIRED
            values[name] = default if keep else read(value)
        except ValueError as error:
            shown = json.dumps(value[:60] if isinstance(value, str | list) else value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            raise Refused(400, f"{name} is {shown}; expected {error}", name) from error
    return values


def read_completion(
    values: Mapping[str, Any], vocabulary: Vocabulary, boundaries: Boundaries
) -> Completion:
    """Return the request with these values of its fields.

    Raises Refused for what a model cannot do, or fields that exclude each other, or a large answer.
    """
    if isinstance(vocabulary, BackwardVocabulary):
        raise Refused(
            400,
            "this model reads backward, so it writes what comes before a prompt; expected one that "
            "reads forward. Use `charlm sample` or `charlm score` with this run",
            "model",
        )
    _check_together(values)
    read = tuple(read_prompt(each, vocabulary, boundaries) for each in values["prompt"])
    checked_ids(list(values["logit_bias"]), vocabulary, "logit_bias")
    best_of = values["best_of"] or values["n"]
    wanted, seed = values["logprobs"], values["seed"]
    needs_figures = best_of > values["n"] or values["return_token_ids"]
    request = Completion(
        prompts=read,
        n=values["n"],
        echo=values["echo"],
        logprobs=wanted,
        stream=values["stream"],
        include_usage=bool(values["stream_options"]),
        token_ids=values["return_token_ids"],
        work=Work(
            prompts=tuple(prompt.ids for prompt in read),
            samples=best_of,
            max_tokens=values["max_tokens"],
            sampling=Sampling(**{name: values[name] for name in SAMPLING}),
            bias=values["logit_bias"],
            seed=fresh_seed() if seed is None else seed % 2**64,
            stop=values["stop"],
            until_eos=boundaries.has_ends and not values["ignore_eos"],
            top=(0 if needs_figures else None) if wanted is None else min(wanted, len(vocabulary)),
            score_prompts=values["echo"] and wanted is not None,
        ),
    )
    _check_size(request)
    return request


SAMPLING = ("temperature", "top_k", "top_p", "min_p")
"""Fields that are settings of `Sampling`."""


def _check_together(values: Mapping[str, Any]) -> None:
    """Raise Refused for fields that exclude each other."""
    n, best_of = values["n"], values["best_of"]
    if best_of is not None and best_of < n:
        raise Refused(400, f"best_of is {best_of}, n is {n}; expected best_of >= n", "best_of")
    if best_of is not None and best_of > n and values["stream"]:
        raise Refused(
            400, "best_of and stream were both given; expected one. Leave one out", "best_of"
        )
    if values["stream_options"] is not None and not values["stream"]:
        raise Refused(
            400, "stream_options without stream; expected stream: true too", "stream_options"
        )


def _check_size(request: Completion) -> None:
    """Raise Refused if prompts or the answer are too large."""
    if request.prompt_tokens > MAX_TOKENS:
        raise Refused(
            400,
            f"prompt has {request.prompt_tokens:,} tokens; expected at most {MAX_TOKENS:,}. Send "
            "several requests",
            "prompt",
        )
    work = request.work
    tokens = request.prompt_tokens * request.n if work.score_prompts else 0
    choices = len(work.prompts) * work.samples
    tokens += choices * (CHOICE if request.stream else CHOICE + work.max_tokens)
    size = tokens * (1 if work.top is None else 2 + work.top)
    if size > MAX_ANSWER:
        raise Refused(
            400,
            f"the answer could have {size:,} tokens and numbers; expected at most {MAX_ANSWER:,}. "
            "Ask for fewer (max_tokens, n, best_of, logprobs)"
            + ("" if request.stream else ", or set stream"),
            "max_tokens" if work.top is None else "logprobs",
        )

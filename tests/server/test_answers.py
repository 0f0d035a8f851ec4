"""Answers: events of the scheduler in the forms of OpenAI's API."""

import json
import math

import pytest
from helpers import vocabulary_of
from serving import run_of

from charlm.inference.work import NewText, PromptFigures, TokenFigures
from charlm.server.answers import MIN_LOGPROB, Answer, event_text
from charlm.server.prompts import token_names
from charlm.server.requests import read_completion, read_fields
from charlm.text.boundaries import STREAM
from charlm.text.tokenizers.tokenizer_json import EOS

VOCABULARY = vocabulary_of("ab\n")
A, B = VOCABULARY.ids["a"], VOCABULARY.ids["b"]


def answer_to(**body) -> Answer:
    """Return the empty answer to a request."""
    request = read_completion(read_fields(body), VOCABULARY, STREAM)
    echoes = [prompt.echo(run_of(VOCABULARY, STREAM)) for prompt in request.prompts if request.echo]
    return Answer(request, "tiny", token_names(VOCABULARY), echoes)


def whole_of(answer: Answer) -> dict:
    """Return the whole answer, as a client reads it."""
    return json.loads(answer.text())


def token(index: int, nats: float | None, offset: int, *others: tuple[int, float]) -> TokenFigures:
    """Return a token with its alternatives."""
    return TokenFigures(index, nats, ((index, nats), *others) if nats is not None else (), offset)


def text(row: int, text: str, *tokens: TokenFigures, reason=None, stop=None, count=None) -> NewText:
    """Return an event of new text."""
    number = len(tokens) if count is None else count
    return NewText(row, text, list(tokens), number, reason, stop)


def test_a_whole_answer() -> None:
    answer = answer_to(prompt="ab", max_tokens=2, logprobs=1)
    answer.add([text(0, "a", token(A, 0.5, 0, (B, 0.9)))])
    answer.add([text(0, "b", token(B, 0.25, 1), reason="length")])
    whole = whole_of(answer)
    assert whole["id"].startswith("cmpl-")
    assert (whole["object"], whole["model"]) == ("text_completion", "tiny")
    assert whole["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert whole["choices"] == [
        {
            "index": 0,
            "text": "ab",
            "logprobs": {
                "tokens": ["a", "b"],
                "token_logprobs": [-0.5, -0.25],
                "top_logprobs": [{"a": -0.5, "b": -0.9}, {"b": -0.25}],
                "text_offset": [0, 1],
            },
            "finish_reason": "length",
            "stop_reason": None,
        }
    ]


def test_an_echo_begins_with_the_prompt_and_its_first_number_is_null() -> None:
    answer = answer_to(prompt="ab", max_tokens=1, logprobs=0, echo=True)
    figures = [token(A, 1.0, 0), token(B, 2.0, 1)]
    answer.add([PromptFigures(0, figures), text(0, "b", token(B, 0.5, 0), reason="length")])
    (choice,) = whole_of(answer)["choices"]
    assert choice["text"] == "abb"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "b"],
        "token_logprobs": [None, -2.0, -0.5],
        "top_logprobs": [None, {"b": -2.0}, {"b": -0.5}],
        "text_offset": [0, 1, 2],
    }
    assert choice["prompt_log_probability"] == -3.0


def test_a_start_symbol_takes_the_null() -> None:
    """So the probability of the first token of the text is there."""
    answer = answer_to(prompt=[EOS, A], max_tokens=0, logprobs=0, echo=True)
    figures = [token(EOS, None, 0), token(A, 1.0, 1)]
    answer.add([PromptFigures(0, figures), text(0, "", reason="length")])
    (choice,) = whole_of(answer)["choices"]
    assert choice["text"] == "a"
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0]
    assert choice["logprobs"]["text_offset"] == [0, 0]
    assert choice["prompt_log_probability"] == -1.0


def test_the_best_samples_have_the_highest_mean() -> None:
    """Discarded samples count as used, and their numbers are not in the answer."""
    answer = answer_to(n=2, best_of=3)
    answer.add([text(0, "aa", token(A, 1.0, 0), token(A, 1.0, 1), reason="length")])
    answer.add([text(1, "b", token(B, 0.5, 0), reason="stop", stop="x", count=2)])
    answer.add([text(2, "", token(EOS, 3.0, 0), reason="stop")])
    whole = whole_of(answer)
    assert [choice["text"] for choice in whole["choices"]] == ["b", "aa"]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    assert [choice["stop_reason"] for choice in whole["choices"]] == ["x", None]
    assert whole["choices"][0]["logprobs"] is None
    assert whole["usage"]["completion_tokens"] == 5


def test_what_is_impossible_has_a_number() -> None:
    """JSON has no infinity."""
    answer = answer_to(max_tokens=1, logprobs=0)
    answer.add([text(0, "a", token(A, math.inf, 0), reason="length")])
    whole = whole_of(answer)
    assert whole["choices"][0]["logprobs"]["token_logprobs"] == [MIN_LOGPROB]


def test_ids_are_in_the_answer_if_asked_for() -> None:
    answer = answer_to(prompt="ab", logprobs=1, return_token_ids=True)
    last = token(EOS, 2.0, 1)
    answer.add([text(0, "a", token(A, 0.5, 0, (B, 0.9)), last, reason="stop")])
    (choice,) = whole_of(answer)["choices"]
    assert choice["prompt_token_ids"] == [A, B]
    assert choice["token_ids"] == [A, EOS]
    assert choice["logprobs"]["top_token_ids"] == [{"a": A, "b": B}, {"<eos>": EOS}]


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("ids", [False, True])
def test_a_stream_joins_to_the_whole_answer(echo: bool, ids: bool) -> None:
    body = {"prompt": ["a", "b"], "n": 2, "logprobs": 1, "echo": echo, "return_token_ids": ids}
    options = {"include_usage": True}
    streamed = answer_to(**body, stream=True, stream_options=options)
    whole = answer_to(**body)
    batches = [
        [PromptFigures(0, [token(A, 1.0, 0)])] if echo else [],
        [text(0, "", count=1), text(1, "b", token(B, 0.5, 0))],  # the first text is held back
        [PromptFigures(1, [token(B, 1.5, 0)])] if echo else [],
        [text(3, "a", token(A, 0.5, 0)), text(3, "a", token(A, 0.6, 1), reason="length")],
        [text(2, "", token(EOS, 0.1, 0), reason="stop")],
        [text(0, "", count=1), text(1, "a", token(A, 0.3, 1), reason="length")],
        [text(0, "b", token(B, 0.2, 0), reason="stop", stop="aa")],
    ]
    chunks = []
    for batch in batches:
        whole.add(batch)
        chunks += streamed.chunks(batch)
    chunks += streamed.last_chunks()
    joined: list[dict] = [{} for _ in range(4)]
    for chunk in chunks[:-1]:
        assert chunk["usage"] is None
        (part,) = chunk["choices"]
        join(joined[part["index"]], part)
    expected = whole_of(whole)
    assert joined == expected["choices"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == expected["usage"]
    assert {(chunk["id"], chunk["model"]) for chunk in chunks} == {(streamed.head["id"], "tiny")}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert len([reason for reason in reasons if reason]) == 4
    assert len(chunks) == 5 + echo + 1  # nothing is sent for a text that is held back


def join(whole: dict, part: dict) -> None:
    """Add a chunk's part of a choice to the parts before."""
    for name, value in part.items():
        known = whole.get(name)
        if isinstance(value, dict):
            join(whole.setdefault(name, {}), value)
        elif isinstance(value, str | list) and known is not None:
            whole[name] = known + value
        elif known is None:
            whole[name] = value


def test_an_event_is_one_line() -> None:
    """Line ends of all kinds in a text are escaped, or do not end a line of a stream."""
    texts = "a\nb\rc\u2028d\x00é"
    event = event_text({"text": texts})
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    assert not set("\n\r") & set(event[:-2])
    assert json.loads(event[6:]) == {"text": texts}

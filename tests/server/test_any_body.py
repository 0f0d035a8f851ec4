"""Arbitrary bodies of requests: an answer or a refusal, never an error of the server (W-12)."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from serving import Serving

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([-1, 0, 10**9, 2**63, 10**19, 1e300, "\0", "<eos>", "\ud800", [[]], [True]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
TEXT = st.text(max_size=12) | st.sampled_from(["The dog", "é日👍", "<eos>", "a\nb\r\n\t\0"])
IDS = st.lists(st.integers(0, 30), min_size=1, max_size=6)
VALID = {
    "model": st.sampled_from(["tales", "format-1"]),
    "prompt": TEXT | IDS | st.lists(TEXT, min_size=1, max_size=3)
    | st.lists(IDS, min_size=1, max_size=3),
    "max_tokens": st.integers(0, 12),
    "temperature": st.floats(0, 100),
    "top_p": st.floats(0.01, 1),
    "top_k": st.integers(0, 60),
    "min_p": st.floats(0, 1),
    "n": st.integers(1, 3),
    "best_of": st.integers(1, 4),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "stop": TEXT | st.lists(TEXT, max_size=3),
    "echo": st.booleans(),
    "logprobs": st.integers(0, 20),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "ignore_eos": st.booleans(),
    "return_token_ids": st.booleans(),
    "logit_bias": st.dictionaries(st.integers(0, 30).map(str), st.floats(-100, 100), max_size=3),
    "suffix": st.just(""),
    "user": st.text(max_size=5),
}  # fmt: skip
"""Fields of a completion, with values that are right, alone if not together."""
COMPLETIONS = st.fixed_dictionaries({}, optional=VALID).map(lambda body: {"max_tokens": 5} | body)
FIELDS = {
    "/v1/completions": sorted(VALID),
    "/v1/chat/completions": ["messages"],
    "/v1/embeddings": ["input"],
    "/tokenize": ["prompt", "add_special_tokens"],
    "/detokenize": ["tokens"],
    "/api/score": ["text", "top", "run"],
    "/api/inside": ["text", "signals", "units", "run"],
    "/api/find": ["pattern", "text", "top", "signals", "run"],
    "/api/compare": ["text", "other", "run"],
    "/api/predict": ["text", "run"],
}
"""Fields of the body for each route."""
OTHERS = st.sampled_from([path for path in FIELDS if path != "/v1/completions"]).flatmap(
    lambda path: st.tuples(
        st.just(path),
        st.dictionaries(st.sampled_from(FIELDS[path]), TEXT | IDS | JUNK, max_size=4),
    )
)


def check_answered(server: Serving, path: str, body: bytes) -> None:
    """Send a body; it must be answered, or refused with an error in the agreed form."""
    headers = {"Content-Type": "application/json"}
    answer = server.client.post(path, content=body, headers=headers)
    assert answer.status_code < 500, (path, body, answer.text)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert 10 < len(error["message"]) < 2000
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer.text
    else:
        assert isinstance(answer.json(), dict)


def check_completion(server: Serving, body: dict, change: dict) -> None:
    """Send a completion whose fields are right, or with some values replaced."""
    if isinstance(change.get("max_tokens"), int | float):
        change.pop("max_tokens")
    check_answered(server, "/v1/completions", json.dumps(body | change).encode())


CHANGES = st.just({}) | st.dictionaries(st.sampled_from(sorted(VALID)), JUNK, max_size=2)


@settings(max_examples=120)
@example(body={"prompt": "\ud800", "max_tokens": 2}, change={})
@example(body={"prompt": [0], "max_tokens": 2, "logprobs": 2, "echo": True}, change={})
@example(body={"prompt": [1, 1, 1], "max_tokens": 0, "logprobs": 0, "echo": True}, change={})
@example(body={"prompt": "", "max_tokens": 0, "n": 3, "echo": True, "stream": True}, change={})
@example(body={"max_tokens": 3}, change={"seed": 10**400})
@given(body=COMPLETIONS, change=CHANGES)
def test_any_completion_is_answered_or_refused(server: Serving, body, change) -> None:
    check_completion(server, body, change)


@settings(max_examples=80)
@given(request=OTHERS)
def test_any_body_of_another_route_is_answered_or_refused(server: Serving, request) -> None:
    path, body = request
    check_answered(server, path, json.dumps(body).encode())


def is_object(body: bytes) -> bool:
    """Return whether bytes are a JSON object, such as {}, which hypothesis draws now and then."""
    try:
        return isinstance(json.loads(body.decode()), dict)
    except ValueError:
        return False


@settings(max_examples=40)
@example(path="/v1/completions", body=b'{"prompt": "a", "prompt": "b"}')
@example(path="/v1/completions", body=b'{"prompt": "a", "temperature": NaN}')
@example(path="/v1/completions", body=b'{"prompt": "a", "temperature": 1e999}')
@example(path="/v1/completions", body=b"[" * 100_000)
@example(path="/v1/completions", body=b'{"a":' * 100_000)
@example(path="/v1/completions", body=b'\xef\xbb\xbf{"prompt": "a", "max_tokens": 1}')
@example(path="/v1/completions", body='{"prompt": "a", "max_tokens": 1}'.encode("utf-16"))
@example(path="/v1/completions", body='{"prompt": "é"}'.encode("latin-1"))
@given(
    path=st.sampled_from(sorted(FIELDS)),
    body=st.binary(max_size=30).filter(lambda body: not is_object(body)),
)
def test_bytes_that_are_no_json_object_are_refused(server: Serving, path, body) -> None:
    """Depth, names that occur twice, NaN, a byte order mark, other encodings (W-14)."""
    headers = {"Content-Type": "application/json"}
    answer = server.client.post(path, content=body, headers=headers)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


@pytest.mark.slow
@settings(max_examples=10_000)
@given(body=COMPLETIONS, change=CHANGES)
def test_any_of_many_completions_is_answered_or_refused(server: Serving, body, change) -> None:
    check_completion(server, body, change)

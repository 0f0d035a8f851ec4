"""Completions over HTTP: streams, disconnects, refusals, and agreement with score and sample."""

import json

import pytest
from serving import Serving
from waiting import wait_until

from charlm.api.model import Model

TEXT = "The apple and pear salad was"
SEEDED = {"prompt": TEXT, "max_tokens": 30, "seed": 3}


def complete(server: Serving, **body) -> dict:
    """Return the answer to a request."""
    answer = server.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(answer: dict) -> list[str]:
    """Return the texts of an answer."""
    return [choice["text"] for choice in answer["choices"]]


def streamed(server: Serving, **body) -> list[dict]:
    """Return the chunks of a stream."""
    answer = server.client.post("/v1/completions", json={**body, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.fixture(scope="module")
def model(server: Serving) -> Model:
    return server.service.default.model


def test_an_echoed_prompt_has_the_numbers_of_score(server: Serving, model: Model) -> None:
    (choice,) = complete(server, prompt=TEXT, max_tokens=0, echo=True, logprobs=0)["choices"]
    (score,) = model.score(TEXT, tokens=True)
    assert (choice["text"], choice["finish_reason"]) == (TEXT, "length")
    numbers = choice["logprobs"]["token_logprobs"]
    assert numbers[0] is None
    assert numbers[1:] == pytest.approx([-token.nats for token in score.tokens[1:]], abs=1e-6)
    assert choice["prompt_log_probability"] == pytest.approx(score.log_probability, abs=1e-6)


def test_samples_are_those_of_charlm_sample(server: Serving, model: Model) -> None:
    for rules in ({}, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0}, {"top_k": 3}):
        answer = complete(server, **SEEDED, n=2, **rules)
        assert texts(answer) == model.samples(2, 30, prompt=TEXT, seed=3, **rules)


def test_a_text_does_not_depend_on_what_else_is_asked(server: Serving) -> None:
    (alone,) = texts(complete(server, **SEEDED))
    assert texts(complete(server, **SEEDED, n=3, logprobs=2))[0] == alone
    assert texts(complete(server, **{**SEEDED, "prompt": ["The", TEXT, TEXT]}))[1:] == [alone] * 2
    chunks = streamed(server, **SEEDED)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == alone


def test_a_token_has_one_number_in_both_lists(server: Serving) -> None:
    """To the bit: programs ask whether a token is the likeliest by comparing the two."""
    (choice,) = complete(server, **SEEDED, echo=True, logprobs=3)["choices"]
    lists = [choice["logprobs"][name][1:] for name in ("tokens", "token_logprobs", "top_logprobs")]
    assert all(top[token] == number for token, number, top in zip(*lists, strict=True))


@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_stream_ends_before_a_stop_text(server: Serving, length: int) -> None:
    """Its beginning is held back until it cannot become the stop text."""
    (text,) = texts(complete(server, **SEEDED))
    stop = text[10 : 10 + length]
    body = {**SEEDED, "stop": ["never", stop], "logprobs": 0}
    (whole,) = complete(server, **body)["choices"]
    assert whole["text"] == text[: text.index(stop)]
    assert (whole["finish_reason"], whole["stop_reason"]) == ("stop", stop)
    assert "".join(whole["logprobs"]["tokens"]) == whole["text"]
    chunks = [chunk["choices"][0] for chunk in streamed(server, **body)]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    assert [chunk["stop_reason"] for chunk in chunks if chunk["finish_reason"]] == [stop]


def test_a_bias_forbids_a_token_and_leaves_the_numbers(server: Serving) -> None:
    (free,) = complete(server, prompt=TEXT, temperature=0, max_tokens=1, logprobs=2)["choices"]
    likeliest, second = free["logprobs"]["top_logprobs"][0]
    (index,) = server.client.post("/tokenize", json={"prompt": likeliest}).json()["tokens"]
    body = {"prompt": TEXT, "temperature": 0, "max_tokens": 1, "logprobs": 2}
    (biased,) = complete(server, **body, logit_bias={str(index): -100})["choices"]
    assert biased["text"] == second
    assert biased["logprobs"]["top_logprobs"] == free["logprobs"]["top_logprobs"]


def test_ids_continue_exactly_where_a_sample_ended(server: Serving) -> None:
    body = {"prompt": TEXT, "temperature": 0, "return_token_ids": True}
    (first,) = complete(server, **body, max_tokens=4)["choices"]
    ids = first["prompt_token_ids"] + first["token_ids"]
    assert len(first["token_ids"]) == 4
    (rest,) = texts(complete(server, prompt=ids, temperature=0, max_tokens=4))
    assert [first["text"] + rest] == texts(complete(server, **body, max_tokens=8))


def test_a_request_chooses_a_model_by_its_name(server: Serving) -> None:
    models = server.client.get("/v1/models").json()
    names = [entry["id"] for entry in models["data"]]
    assert names == list(server.service.models)
    for name in names:
        answer = complete(server, model=name, prompt="a", max_tokens=2)
        assert answer["model"] == server.client.get(f"/v1/models/{name}").json()["id"] == name
    assert complete(server, prompt="a", max_tokens=2)["model"] == names[0]


@pytest.mark.parametrize("name", ["nothing", "../../etc/passwd", "\ud800", ""])
def test_another_model_is_not_found(server: Serving, name: str) -> None:
    body = json.dumps({"model": name, "prompt": "a"})
    headers = {"Content-Type": "application/json"}
    answer = server.client.post("/v1/completions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_what_plain_models_cannot_do_is_not_found(server: Serving, path: str) -> None:
    answer = server.client.post(path, json={"messages": []})
    assert answer.status_code == 404
    assert "POST /v1/completions" in answer.json()["error"]["message"]


def test_a_full_queue_refuses_at_once_and_recovers(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = server.service.default.rows
    refused = rows.counts.refused
    with monkeypatch.context() as patch:
        patch.setattr(rows, "queue", 0)
        for stream in (False, True):
            answer = server.client.post("/v1/completions", json={"prompt": "a", "stream": stream})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["code"] == "queue_full"
    assert rows.counts.refused == refused + 2
    assert complete(server, prompt="a", max_tokens=1)["choices"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_samples(server: Serving, stream: bool) -> None:
    """Before the first token, or in the middle of a stream."""
    rows = server.service.default.rows
    body = json.dumps({"prompt": TEXT, "max_tokens": 100_000, "n": 3, "stream": stream})
    with server.connect() as client:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        client.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_until(lambda: rows.counts.rows == 3)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    wait_until(lambda: rows.counts.rows == 0)
    assert rows.counts.waiting == 0
    assert complete(server, prompt="a", max_tokens=1)["choices"]


def test_a_failure_of_the_engine_is_a_500_or_the_last_event(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other requests are answered before and after it."""
    backend = server.service.default.model.run.backend
    with monkeypatch.context() as patch:
        patch.setattr(backend, "logits", lambda *_: 1 / 0)
        patch.setattr(backend, "distribution", lambda *_: 1 / 0)
        patch.setattr(backend, "sample", lambda *_, **__: 1 / 0)
        for stream in (False, True):
            answer = server.client.post("/v1/completions", json={**SEEDED, "stream": stream})
            assert answer.status_code == 500
            assert answer.json()["error"]["type"] == "server_error"
    assert complete(server, prompt="a", max_tokens=1)["choices"]


def test_a_failure_in_a_stream_is_its_last_event(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = server.service.default.model.run.backend
    body = {"prompt": TEXT, "max_tokens": 100_000, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)[6:])["choices"]
        with monkeypatch.context() as patch:
            for name in ("sample", "logits"):
                patch.setattr(backend, name, lambda *_, **__: 1 / 0)
            *_, last, _ = lines
    assert json.loads(last[6:])["error"]["type"] == "server_error"
    assert complete(server, prompt="a", max_tokens=1)["choices"]


def test_counters_are_in_the_format_of_prometheus(server: Serving) -> None:
    complete(server, prompt="a", max_tokens=5)
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    tokens = next(line for line in lines if line.startswith('charlm_tokens_total{model="tales"}'))
    assert int(tokens.split()[1]) > 0
    assert lines.count("# TYPE charlm_rows gauge") == 1
    assert sum("model=" in line for line in lines) == 5 * len(server.service.models)


def test_tokenize_and_detokenize_are_inverse(server: Serving) -> None:
    ids = server.client.post("/tokenize", json={"prompt": TEXT}).json()
    assert ids["count"] == len(ids["tokens"]) == len(TEXT)
    assert server.client.post("/detokenize", json=ids_of(ids)).json() == {"prompt": TEXT}
    special = {"prompt": TEXT, "add_special_tokens": True}
    assert server.client.post("/tokenize", json=special).json()["tokens"] == [1, *ids["tokens"]]


def ids_of(answer: dict) -> dict:
    """Return the body that asks for the text of ids."""
    return {"tokens": answer["tokens"]}


def test_the_eos_token_of_the_tokenizer_is_one_token(server: Serving) -> None:
    """lm-eval takes the first id of its text as the start symbol."""
    info = server.client.get("/tokenizer_info").json()
    for special in (False, True):
        body = {"prompt": info["eos_token"], "add_special_tokens": special}
        assert server.client.post("/tokenize", json=body).json()["tokens"] == [1]
    assert info["ends"] is False
    assert info["vocab_size"] == len(server.service.default.model.vocabulary)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": [1]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "other": 1}, "other"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": "1"}, "tokens"),
        ("/detokenize", {}, "tokens"),
    ],
)
def test_tokenizer_routes_name_a_wrong_field(
    server: Serving, path: str, body: dict, param: str
) -> None:
    answer = server.client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

"""POST /api/predict: the labels of the library; refusals by field."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelled_runs import LABELS, label_run
from serving import Serving, serving
from tagged_runs import SPANS, tag_run
from translate_runs import translate_run
from waiting import PATIENCE, wait_until

from charlm.api.labels import LabelModel
from charlm.api.loading import load
from charlm.inference.labelling import Label
from charlm.server.client import GONE
from charlm.server.service import Service

HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LabelModel:
    return load(label_run(tmp_path_factory.mktemp("runs") / "movies"), threads=1)


@pytest.fixture(scope="module")
def labels(model: LabelModel) -> Iterator[Serving]:
    """Serve a run that gives labels, alone."""
    with serving(Service([model])) as server:
        yield server


def refusal(server: Serving, path: str, body: object) -> tuple[int, str | None, str]:
    """Return the status of an answer, and the field and message of its error."""
    answer = server.client.post(path, json=body)
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def test_answers_are_those_of_the_library(labels: Serving, model: LabelModel) -> None:
    texts = ["a good film", "", "bad"]
    answer = labels.client.post("/api/predict", json={"text": texts}).json()
    assert (answer["schema_version"], answer["run"]) == (1, "movies")
    assert answer["labels"] == list(LABELS)
    for found, expected in zip(answer["predictions"], model.predict(texts), strict=True):
        assert found["label"] == expected.label
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    for body in ({"text": "bad"}, {"text": ["bad"], "run": "movies"}):
        alone = labels.client.post("/api/predict", json=body).json()["predictions"]
        assert alone == answer["predictions"][2:]
    assert labels.client.post("/api/predict", json={"text": []}).json()["predictions"] == []


def test_a_path_that_is_not_there_names_the_route_that_answers_texts(labels: Serving) -> None:
    """The story: the address that charlm serve writes named /v1/completions, which refuses them."""
    answer = labels.client.get("/nothing")
    assert answer.status_code == 404
    assert "POST /api/predict (these runs have no page)" in answer.json()["error"]["message"]


def test_a_client_that_leaves_stops_its_texts(
    model: LabelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are read at that moment are the last ones.

    The server is a new one: the lines of earlier requests may come later than their answers.
    """
    begun, groups = threading.Event(), []

    def predict(texts: list[str]) -> Iterator[Label]:
        """Answer once the server knows that the client has left."""
        groups.append(texts)
        begun.set()
        gone = GONE.get()
        assert gone and gone.wait(PATIENCE)
        return iter(())

    body = json.dumps({"text": ["a"] * 256})
    monkeypatch.setattr(model, "predict", predict)
    with serving(Service([model])) as server:
        with server.connect() as client:
            head = "POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
            client.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            assert begun.wait(PATIENCE)
        wait_until(lambda: len(server.log) > 0)
        assert [line.split()[2] for line in server.log] == ["499"] and len(groups) == 1


def test_wrong_requests_are_refused_by_their_field(labels: Serving) -> None:
    for body, status, param in (
        ({}, 400, "text"),
        ({"text": 5}, 400, "text"),
        ({"text": ["a", None]}, 400, "text"),
        ({"text": ["a"] * 257}, 400, "text"),
        ({"text": "a" * 20_001}, 400, "text"),
        ({"text": "a \ud800"}, 400, "text"),
        ({"text": "a", "run": "tales"}, 404, "run"),
        ({"text": "a", "run": 5}, 400, "run"),
        ({"text": "a", "top": 5}, 400, "top"),
    ):
        data = json.dumps(body).encode()
        answer = labels.client.post("/api/predict", content=data, headers=HEADERS)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), body


def test_the_refusal_of_a_wrong_type_mentions_lists(labels: Serving) -> None:
    for value in (5, ["a", None]):
        message = refusal(labels, "/api/predict", {"text": value})[2]
        expected = "expected a text, or a list of at most 256 texts"
        assert message == f"text is {json.dumps(value)}; {expected}"


def test_a_name_that_is_not_served_is_in_the_message(labels: Serving) -> None:
    for name in ("", "tales"):
        message = refusal(labels, "/api/predict", {"text": "a", "run": name})[2]
        assert message.startswith(f"run is {name!r}; expected one of movies.")


def test_a_run_of_labels_is_served_alone_without_text(labels: Serving) -> None:
    for body in ({"prompt": "a"}, {"prompt": "a", "model": "gpt-2"}):
        status, param, message = refusal(labels, "/v1/completions", body)
        assert (status, param) == (404, "model")
        assert "run 'movies' gives labels" in message
        assert "POST /api/predict" in message
    (entry,) = labels.client.get("/v1/models").json()["data"]
    assert (entry["id"], entry["gives"]) == ("movies", "labels")
    assert labels.client.get("/v1/models/movies").json() == entry
    assert labels.client.get("/v1/models/tales").status_code == 404
    health = labels.client.get("/health").json()
    assert (health["status"], health["requests"]) == ("ok", 0)
    assert labels.client.get("/metrics").status_code == 200


def test_both_kinds_are_served_side_by_side(model: LabelModel) -> None:
    with serving(Service([load("tales", threads=1), model])) as server:
        answer = server.client.post("/api/predict", json={"text": "a good film"})
        assert answer.json()["run"] == "movies"
        body = {"prompt": "The", "max_tokens": 2}
        assert server.client.post("/v1/completions", json=body).status_code == 200
        named = refusal(server, "/v1/completions", body | {"model": "movies"})
        assert (named[0], "gives labels" in named[2]) == (404, True)
        entries = server.client.get("/v1/models").json()["data"]
        assert [each["id"] for each in entries] == ["tales", "movies"]
        assert [each["gives"] for each in entries] == ["text", "labels"]
        assert server.client.get("/").status_code == 200


def test_without_a_run_of_labels_there_are_none(server: Serving) -> None:
    for body in ({"text": "a"}, {"text": "a", "run": "tales"}):
        status, param, message = refusal(server, "/api/predict", body)
        assert (status, param) == (404, "run")
        assert "expected one that gives labels" in message


def test_tags_have_spans_of_the_text(tmp_path: Path) -> None:
    """A text without words has none, and a run of tags says so in the list of models."""
    tagger = load(tag_run(tmp_path / "names"), threads=1)
    text = "Anna  lives in New York"
    (found,) = tagger.predict(text)
    with serving(Service([tagger])) as server:
        answer = server.client.post("/api/predict", json={"text": [text, ""]}).json()
        models = server.client.get("/v1/models").json()["data"]
    assert answer["labels"] == list(SPANS)
    first, empty = answer["predictions"]
    assert first["tags"] == list(found.tags)
    assert [text[span["start"] : span["end"]] for span in first["spans"]] == [
        span.text for span in found.spans
    ]
    assert empty == {"words": [], "tags": [], "probabilities": [], "spans": []}
    assert models[0]["gives"] == "tags"


def test_translations_have_tokens_and_attention(tmp_path: Path) -> None:
    """A text without words is empty; one that is too long is refused, and so is too much work."""
    translator = load(translate_run(tmp_path / "de"), threads=1)
    (found,) = translator.predict("the dog ran")
    with serving(Service([translator])) as server:
        answer = server.client.post("/api/predict", json={"text": ["the dog ran", ""]}).json()
        status, param, message = refusal(server, "/api/predict", {"text": "dog " * 1001})
        texts = ["dog " * 500] * 6
        large = refusal(server, "/api/predict", {"text": texts})
        fitting = server.client.post("/api/predict", json={"text": texts[:5]})
        models = server.client.get("/v1/models").json()["data"]
    first, empty = answer["predictions"]
    assert (large[:2], fitting.status_code) == ((400, "text"), 200)
    assert "12,000 characters; expected at most 10,000 in one request to run de" in large[2]
    assert "labels" not in answer and first["translation"] == found.text
    assert [token["token"] for token in first["tokens"]] == [token.text for token in found.tokens]
    assert first["source"] == ["<eos>", "the", "dog", "ran"]
    assert first["attention"] == pytest.approx(found.attention, abs=1e-5)
    assert (empty["translation"], empty["probability"], empty["tokens"]) == ("", None, [])
    assert (status, param, "1,001 tokens" in message) == (400, "text", True)
    assert models[0]["gives"] == "translations"

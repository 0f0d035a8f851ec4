"""Routes of the page's data: the figures of the library, refusals by field, and runs."""

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from serving import Serving
from waiting import PATIENCE, wait_until

from charlm.api import page
from charlm.inference.work import QueueFull, Stopping
from charlm.server.client import GONE
from charlm.server.page_routes import MAX_SEARCHERS
from charlm.server.service import Service

TEXT = 'She said "My urns!"\nand "how sad".\n'


def ask(server: Serving, path: str, **body: object) -> dict:
    """Return the answer to a request that is fine."""
    answer = server.client.post(f"/api/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["schema_version"] == 1
    return answer.json()


def refusal(server: Serving, path: str, **body: object) -> tuple[int, str, str]:
    """Return the status of an answer, and the field and message of its error."""
    headers = {"Content-Type": "application/json"}
    answer = server.client.post(f"/api/{path}", content=json.dumps(body), headers=headers)
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


def test_answers_are_those_of_the_library(server: Serving, service: Service) -> None:
    """Though every computation waits for its turn on the thread of the rows."""
    model, small = (service.models[name].model for name in ("tales", "format-1"))
    units = ["2:8", "1:3"]
    expected = {
        "score": page.score(model, TEXT, 3),
        "inside": page.inside(model, TEXT, units, ["c", "o"]),
        "find": page.find(small, "[aeiou]", top=2),
    }
    answers = {
        "score": ask(server, "score", text=TEXT, top=3),
        "inside": ask(server, "inside", text=TEXT, units=units, signals=["c", "o"]),
        "find": ask(server, "find", pattern="[aeiou]", top=2, run="format-1"),
    }
    for name, answer in answers.items():
        for field, value in expected[name].items():
            assert answer[field] == plain(value), (name, field)


def plain(value: object) -> object:
    """Return a value as JSON has it."""
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def test_models_are_described(server: Serving) -> None:
    models = server.client.get("/api/model").json()["models"]
    assert [(model["id"], model["inside"]) for model in models] == [
        ("tales", True),
        ("format-1", True),
    ]
    assert 100 < len(models[0]["example"]) <= 300


def test_the_validation_text_is_read_once_for_the_description(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each load of the page read and decoded it again."""
    first = server.client.get("/api/model").json()
    monkeypatch.setattr(page, "search_text", None)
    assert server.client.get("/api/model").json() == first


def test_two_models_are_compared(server: Serving) -> None:
    answer = ask(server, "compare", text="the sea", run="format-1", other="tales")
    assert "".join(part["text"] for part in answer["parts"]) == "the sea"
    own = ask(server, "score", text="the sea", run="format-1")["tokens"]
    assert [part["bits"] for part in answer["parts"]] == [bits for _, bits, *_ in own]


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("score", {}, "text", "null; expected a text"),
        ("score", {"text": 1}, "text", "expected a text"),
        ("score", {"text": "a" * 20_001}, "text", "at most 20,000 characters, not 20,001"),
        ("score", {"text": "\ud800"}, "text", "surrogate"),
        ("inside", {"text": "\ud800", "units": ["1:0"]}, "text", "surrogate"),
        ("score", {"text": "a", "top": 21}, "top", "from 0 to 20"),
        ("score", {"text": "a", "top": True}, "top", "whole number"),
        ("score", {"text": "a", "size": 2}, "size", "not a field"),
        ("inside", {"text": "a", "units": ["9:9"]}, "units", "expected a layer and a unit"),
        ("inside", {"text": "a", "units": ["1:1"] * 17}, "units", "at most 16"),
        ("inside", {"text": "a", "signals": ["q"]}, "signals", "one of"),
        ("find", {"text": "a"}, "pattern", "expected a text"),
        ("find", {"pattern": "["}, "pattern", "not a regular expression"),
        ("find", {"pattern": "\u2603", "run": "format-1"}, "pattern", "nowhere in a half"),
        ("find", {"pattern": "a" * 1001}, "pattern", "1 to 1,000 characters"),
        ("compare", {"text": "a"}, "other", "expected a text"),
    ],
)
def test_errors_name_their_field(
    server: Serving, path: str, body: dict, param: str, words: str
) -> None:
    status, field, message = refusal(server, path, **body)
    assert (status, field) == (400, param), message
    assert words in message


@pytest.mark.parametrize("field", ["run", "other"])
def test_a_run_that_is_not_served_is_not_found(server: Serving, field: str) -> None:
    status, param, message = refusal(
        server, "compare", **{"text": "a", "other": "tales", field: "x"}
    )
    assert (status, param) == (404, field) and "'x'" in message


def test_a_slow_pattern_ends(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.inspect.find_units.REGEX_SECONDS", 0.2)
    status, param, message = refusal(server, "find", pattern="(([a-z. ]+)+)+!", run="format-1")
    assert (status, param) == (400, "pattern") and "fast" in message


@pytest.mark.parametrize(("error", "code"), [(QueueFull, "queue_full"), (Stopping, "stopping")])
def test_a_busy_server_asks_to_try_again(
    server: Serving, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: str
) -> None:
    """The answer is that of completions, whose code a program can read."""

    def refuse(*_: object) -> dict:
        raise error("busy")

    monkeypatch.setattr(page, "score", refuse)
    answer = server.client.post("/api/score", json={"text": "a"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == code


LONG = {"text": TEXT * 9, "run": "format-1"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("score", LONG),
        ("inside", LONG),
        ("find", {"pattern": "[aeiou]", "run": "format-1"}),
        ("compare", LONG | {"other": "tales"}),
    ],
)
def test_a_client_that_leaves_ends_the_work(
    server: Serving, service: Service, monkeypatch: pytest.MonkeyPatch, path: str, body: dict
) -> None:
    """What is computed at that moment is the last of it.

    The line of an earlier request may come into the log later than its answer.
    """
    rows, begun, calls = service.models["format-1"].rows, threading.Event(), []
    own_call = rows.call

    def call(function: Callable[[], Any]) -> Any:
        """Compute once the client has left."""
        calls.append(function)
        begun.set()
        gone = GONE.get()
        assert gone and gone.wait(PATIENCE)
        return own_call(function)

    content, before = json.dumps(body), len(server.log)
    monkeypatch.setattr(rows, "call", call)
    with server.connect() as client:
        head = f"POST /api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        client.sendall(f"{head}\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode())
        assert begun.wait(PATIENCE)
    left = f"POST /api/{path} 499 "
    wait_until(lambda: any(line.startswith(left) for line in server.log[before:]))
    assert len(calls) == 1


def test_few_requests_search_at_once(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait, since each has all units of a text in memory."""
    active, most = set[int](), list[int]()
    entered, leave = queue.Queue[int](), threading.Event()

    def find(*_: object) -> dict:
        active.add(threading.get_ident())
        most.append(len(active))
        entered.put(1)
        leave.wait(PATIENCE)
        active.discard(threading.get_ident())
        return {}

    monkeypatch.setattr(page, "find", find)
    asked = [
        threading.Thread(target=ask, args=(server, "find"), kwargs={"pattern": "a"})
        for _ in range(6)
    ]
    for thread in asked:
        thread.start()
    for _ in range(MAX_SEARCHERS):
        entered.get(timeout=PATIENCE)
    leave.set()
    for thread in asked:
        thread.join(PATIENCE)
    assert len(most) == 6 and max(most) == MAX_SEARCHERS


def test_runs_are_listed(server: Serving) -> None:
    rows = server.client.get("/api/runs").json()["runs"]
    assert {"tales", "prose"} <= {row["id"] for row in rows}

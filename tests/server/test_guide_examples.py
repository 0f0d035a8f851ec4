"""The examples of the guide page `serve`, run against a server of the built-in model."""

import contextlib
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from helpers import Call
from serving import Serving

import write_guide
from charlm.server import page_routes
from charlm.server.app import ROUTES
from charlm.server.requests import FIELDS, unused

PAGE = (write_guide.ROOT / "charlm" / "guide" / "serve.md").read_text(encoding="utf-8")
REFUSED = {"/v1/chat/completions", "/v1/embeddings"}
"""Routes that explain why they are not there."""


def code(language: str) -> list[str]:
    """Return the blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def exchanges() -> list[tuple[str, str]]:
    """Return the commands of sessions that ask the server, each with the output on the page."""
    found: list[tuple[str, str]] = []
    for block in code("console"):
        _, *parts = write_guide.COMMAND.split(block)
        found += zip(parts[::2], parts[1::2], strict=True)
    return [(command, out) for command, out in found if write_guide.ADDRESS in command]


def parsed(text: str) -> list[Any]:
    """Return the JSON of each event of a stream."""
    events = re.findall("^data: (.*)$", text, re.MULTILINE)
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def steady(out: str) -> str:
    """Return output without what is new each time, and without the last digits of numbers."""
    out = re.sub(r'"(id|created)": ?[^,]*', r'"\1"', out)
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.3f}", out)


@pytest.mark.parametrize(("command", "out"), exchanges())
def test_curl_gets_the_answers_of_the_page(command: str, out: str, server: Serving) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = command.replace(write_guide.ADDRESS, server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    if "[DONE]" in out:  # the pieces of a stream depend on the speed
        texts = [re.findall('"text":"(.*)"', each) for each in (done.stdout, out)]
        assert "".join(texts[0]) == "".join(texts[1])
    else:
        assert steady(done.stdout).split() == steady(out).split()


def test_javascript_gets_a_whole_text_in_pieces(server: Serving) -> None:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (script,) = code("javascript")
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script.replace(write_guide.ADDRESS, server.url)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (body,) = re.findall(r"wanted = (\{.*\})", script)
    fields = json.loads(re.sub(r"(\w+):", r'"\1":', body)) | {"stream": False}
    answer = server.client.post("/v1/completions", json=fields).json()
    assert done.stdout == answer["choices"][0]["text"] + "\n"


class StandIn:
    """The part of the client `openai` that the page uses, for where it is not installed."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.url, self.headers = base_url, {"Authorization": f"Bearer {api_key}"}
        self.models = SimpleNamespace(list=lambda: self.ask("GET", "/models").data)
        self.completions = SimpleNamespace(create=self.create)

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def create(self, **fields: Any) -> Any:
        return self.ask("POST", "/completions", json=fields)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        url = self.url + path
        answer = httpx.request(method, url, headers=self.headers, trust_env=False, **options)
        assert answer.status_code == 200, answer.text
        if "event-stream" in answer.headers["content-type"]:
            return [objects(json.dumps(event)) for event in parsed(answer.text)]
        return objects(answer.text)


def objects(text: str) -> Any:
    return json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))


def test_the_openai_client_gets_answers(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    if not importlib.util.find_spec("openai"):
        module = ModuleType("openai")
        module.OpenAI = StandIn
        monkeypatch.setitem(sys.modules, "openai", module)
    (block,) = code("python")
    assert write_guide.ADDRESS in block
    values: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(block.replace(write_guide.ADDRESS, server.url), "serve", "exec"), values)
    values["client"].close()
    names, *_, last = out.getvalue().splitlines()
    assert "'tales'" in names
    assert "('T', None), ('h', -" in last


@pytest.mark.slow
def test_lm_eval_gets_the_figures_of_score(server: Serving, call: Call, here: Path) -> None:
    if not shutil.which("lm_eval"):
        pytest.skip("lm_eval is not installed")
    (lines,), (task,), commands = code("json"), code("yaml"), code("sh")
    (here / "lines.jsonl").write_text(lines, encoding="utf-8")
    (here / "lines.yaml").write_text(task, encoding="utf-8")
    (command,) = (block for block in commands if "lm_eval" in block)
    command = command.replace(write_guide.ADDRESS, server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    figure = float(re.findall(r"bits_per_byte[^\d]*([\d.]+)", done.stdout)[0])
    texts = [json.loads(line)["text"] for line in lines.splitlines()]
    _, out, _ = call("score", "--run", "tales", "--format", "jsonl", *texts)
    nats = sum(json.loads(line)["log_probability"] for line in out.splitlines())
    assert figure == pytest.approx(-nats / 0.6931471805599453 / len("".join(texts)), abs=1e-4)


def test_the_health_check_of_the_container_works(server: Serving) -> None:
    (recipe,) = code("dockerfile")
    (check,) = re.findall(r'"(import urllib.*?)"\]', recipe)
    exec(check.replace(write_guide.ADDRESS, server.url), {})


def rows(head: str) -> str:
    """Return the table of the page whose first column has this head."""
    return PAGE[PAGE.index(f"| {head} |") :].partition("\n\n")[0]


def test_the_page_lists_every_route_and_field() -> None:
    """And none that is not there."""
    named = set(re.findall(r"[` ](/[\w/]+)", rows("route")))
    served = {re.sub(r"/\{.*", "", route.path) for route in (*ROUTES, *page_routes.ROUTES)}
    assert named == served - REFUSED
    cells = re.findall(r"^\| (`.*?) \|", rows("field"), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(cells)))
    assert named == {name for name, (_, read) in FIELDS.items() if read is not unused} - {"user"}

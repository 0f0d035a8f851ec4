"""Routes, the page, and errors as JSON."""

import pytest
from serving import Serving

from charlm.report.page.page import page_file


def test_health_reports_that_the_server_answers(server: Serving) -> None:
    answer = server.client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/", "index.html", "text/html"),
        ("/page.css", "page.css", "text/css"),
        ("/page.js", "page.js", "text/javascript"),
    ],
)
def test_the_page_is_served_once_and_then_known(
    server: Serving, path: str, name: str, kind: str
) -> None:
    answer = server.client.get(path)
    assert answer.text == page_file(name)
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    again = server.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/health/", 404),
        ("GET", "/page.py", 404),
        ("POST", "/health", 405),
    ],
)
def test_errors_are_json(server: Serving, method: str, path: str, status: int) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "expected" in error["message"]

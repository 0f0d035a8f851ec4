"""Who may ask: hosts, keys, origins, odd paths; and the headers of every answer."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from serving import Serving, serving_app

from charlm.server.app import make_app
from charlm.server.limits import Limits
from charlm.server.security import LOOPBACK, POLICY, Access
from charlm.server.service import Service

KEY = "a-long-random-word"
ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[Serving]:
    """Serve the models of the session with a key, by another name, to the page of an origin."""
    access = Access(key=KEY, hosts=[*LOOPBACK, "models.example.org"], origins=[ORIGIN])
    stops = SimpleNamespace(stopping=False, stop=lambda grace: None)
    with serving_app(make_app(service, Limits()), stops, access=access) as running:
        yield running


def raw(server: Serving, *lines: str) -> tuple[int, bytes]:
    """Send a request line by line; return the status and the body of the answer."""
    with server.connect() as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        ["Bearer wrong"],
        [f"Bearer {KEY[:-1]}"],
        [f"Bearer {KEY}x"],
        [f"Bearer {KEY} x"],
        [f"bearer {KEY}"],
        [f"Basic {KEY}"],
        [KEY],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
        [f"Bearer {KEY}", "Bearer wrong"],
        ["Bearer \xe9"],
    ],
)
def test_only_the_key_opens(guarded: Serving, given: list[str]) -> None:
    """None, a wrong one, a part, an empty one, two, another scheme: W-02."""
    headers = [f"Authorization: {value}" for value in given]
    status, body = raw(guarded, "GET /v1/models HTTP/1.1", "Host: localhost", *headers)
    assert status == 401
    assert b"invalid_api_key" in body
    assert KEY.encode() not in body


def test_the_key_opens_and_the_page_needs_none(guarded: Serving) -> None:
    client = guarded.client
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    for path in ("/", "/page.css", "/page.js", "/health"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "//v1/models",
        "/V1/models",
        "/v1%2fmodels",
        "/v1/%6dodels",
        "/%76%31/models",
        "/health/../v1/models",
        "/health/%2e%2e/v1/models",
        "/health%2f..%2fv1/models",
        "/health;/v1/models",
        "/health/",
        "/./v1/models",
        "/page.css/../v1/models",
        "@localhost/v1/models",
        "http://localhost/v1/models",
        "http://localhost/health",
        "*",
        "/nothing",
        "/metrics",
        "/static/../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/page.css%00",
        "/%c0%af",
        "/" + "../" * 20 + "etc/passwd",
    ],
)
def test_no_spelling_of_a_path_avoids_the_key(guarded: Serving, path: str) -> None:
    """W-05; with the key, nothing but the routes is there: W-06."""
    assert raw(guarded, f"GET {path} HTTP/1.1", "Host: localhost")[0] == 401
    key = f"Authorization: Bearer {KEY}"
    status, body = raw(guarded, f"GET {path} HTTP/1.1", "Host: localhost", key)
    assert status in (200, 404)
    assert (b'"object"' in body) == (status == 200) or path == "/metrics"
    assert b"root:" not in body


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example"],
        ["localhost.evil.example"],
        ["127.0.0.1.evil.example:80"],
        ["localhost:80:80"],
        ["localhost:port"],
        ["user@localhost"],
        ["localhost/v1/models?"],
        ["localhost."],
        ["[::1"],
        ["[::2]"],
        ["127.0.0.2"],
        ["0.0.0.0"],
        ["localhost", "localhost"],
        ["localhost", "evil.example"],
        ["localhost, evil.example"],
        ["loc\xe4lhost"],
    ],
)
def test_only_names_of_the_server_are_answered(guarded: Serving, hosts: list[str]) -> None:
    """A page elsewhere may let its name lead here: W-03. HTTP/1.0 allows that there is no Host."""
    for version in ("1.0", "1.1"):
        request = [f"GET /health HTTP/{version}", *(f"Host: {host}" for host in hosts)]
        assert raw(guarded, *request)[0] in (400, 403)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1:8765", "[::1]", "[::1]:80", "Models.Example.org"],
)
def test_names_of_the_server_are_answered(guarded: Serving, host: str) -> None:
    assert raw(guarded, "GET /health HTTP/1.1", f"Host: {host}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"{ORIGIN}0", ORIGIN.upper()])
def test_other_pages_cannot_read_answers(guarded: Serving, server: Serving, origin: str) -> None:
    """W-04."""
    asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for each in (guarded, server):
        for answer in (
            each.client.get("/health", headers={"Origin": origin}),
            each.client.options("/v1/completions", headers=asks),
        ):
            assert "access-control-allow-origin" not in answer.headers
    assert server.client.options("/v1/completions", headers=asks).status_code == 405


def test_the_page_of_an_allowed_origin_can_ask(guarded: Serving) -> None:
    asks = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    preflight = guarded.client.options("/v1/completions", headers=asks)
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    for answer in (preflight, guarded.client.get("/v1/models", headers={"Origin": ORIGIN})):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({}, 415),
        ({"Content-Type": "application/json; charset=utf-16"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "br, gzip"}, 415),
        ({"Content-Type": 'Application/JSON; Charset="UTF-8"'}, 200),
    ],
)
def test_a_form_of_another_page_and_packed_bodies_are_refused(
    server: Serving, headers: dict[str, str], status: int
) -> None:
    """What a form can send without being asked for: W-04; a bomb: W-09."""
    answer = server.client.post("/tokenize", content=b'{"prompt": "The"}', headers=headers)
    assert answer.status_code == status


def test_every_answer_has_the_policy(guarded: Serving) -> None:
    for path in ("/", "/health", "/v1/models", "/nothing"):
        answer = guarded.client.get(path)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


def test_the_log_has_one_escaped_line_a_request(guarded: Serving) -> None:
    """W-28; no query, no text of a client, no key."""
    client = guarded.client
    key = {"Authorization": f"Bearer {KEY}", "User-Agent": "evil\x1b[31m"}
    client.get("/a%0aPOST /forged 200%1b[31m?text=secret", headers=key)
    client.post("/tokenize", json={"prompt": "The secret"}, headers=key)
    raw(guarded, "GET /\x7f\x1b[31m HTTP/1.1", "Host: localhost")
    raw(guarded, f"GET /{'a' * 1000} HTTP/1.1", "Host: localhost")
    while not any("/aaa" in line for line in guarded.log):  # it is written after the answer
        client.get("/page.css")
    lines = [line for line in guarded.log if "/page.css" not in line][-4:]
    assert [line.split()[1:3] for line in lines] == [
        ["/a%0aPOST%20/forged%20200%1b[31m", "404"],
        ["/tokenize", "200"],
        ["-", "400"],
        ["/" + "a" * 199 + "...", "401"],
    ]
    assert not any("secret" in line or KEY in line or not line.isprintable() for line in lines)

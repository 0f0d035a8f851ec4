"""The command `charlm serve`: its flags, its one line, and its end."""

import json
import re
import resource
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers import Call
from labelled_runs import label_run
from waiting import PATIENCE

from charlm.api.loading import load
from charlm.cli import serve
from charlm.server.limits import fitting_limits
from charlm.server.run import Address, url_of
from charlm.server.service import Service

SMALL_RUN = Path(__file__).parents[1] / "fixtures" / "format-1"
WATCHED = """
import os, sys

def watch(event, values):
    if event == "socket.connect":
        os.write(2, f"connects to {values[1]}".encode())
        os._exit(99)

sys.addaudithook(watch)
from charlm.cli import main
try:
    main(sys.argv[1:])
finally:
    assert "torch" not in sys.modules
"""
"""The command line in a process that ends if it opens a connection: W-17; torch is not needed."""


def test_a_server_reports_its_url_answers_and_ends(call: Call, tmp_path: Path) -> None:
    """One line on stdout: W-17; a used port: W-24; weights that change: W-25; SIGTERM: W-23."""
    run = tmp_path / "small"
    run.mkdir()
    for file in SMALL_RUN.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, "serve", "--run", str(run), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().rstrip("\n")
    port = int(url.removeprefix("http://127.0.0.1:").removesuffix("/"))

    status, out, err = call("serve", "--run", str(run), "--port", str(port))
    assert (status, out) == (5, "")
    assert "in use" in err and "expected" in err

    first = _sampled(url)
    (run / "model.safetensors").write_bytes(b"")
    for path in run.iterdir():
        path.unlink()
    assert _sampled(url) == first

    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (143, ""), err
    lines = err.splitlines()
    assert re.fullmatch(
        r"serving small \(\S.*\); for this machine, without a key; Ctrl-C stops", lines[0]
    )
    assert [line.split()[1:4] for line in lines[1:-1]] == [["POST", "/v1/completions", "200"]] * 2
    assert lines[-1] == "stopped"


def _sampled(url: str) -> str:
    body = json.dumps({"prompt": "a", "seed": 1, "max_tokens": 20}).encode()
    request = urllib.request.Request(
        f"{url}v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())["choices"][0]["text"]


@pytest.mark.parametrize(
    ("flags", "status", "problem"),
    [
        (["--host", "0.0.0.0"], 2, "no key"),
        (["--host", "::"], 2, "no key"),
        (["--host", "192.0.2.1", "--insecure"], 5, "cannot listen"),
        (["--host", "no.such.host.invalid"], 5, "cannot listen"),
        (["--host", ""], 5, "cannot listen"),
        (["--port", "65536"], 2, "65536"),
        (["--port", "x"], 2, "x"),
        (["--cors", "*"], 2, "--cors"),
        (["--cors", "http://localhost/"], 2, "--cors"),
        (["--allow-host", "http://example.org"], 2, "--allow-host"),
        (["--key-file", "missing"], 2, "a file with the key"),
        (["--key-file", "."], 2, "a file with the key"),
        (["--log", "no/such/folder"], 5, "--log"),
        (["--run", "nothing"], 4, "nothing"),
        (["--open", "--no-page"], 2, "--no-page"),
    ],
)
def test_flags_that_make_no_sense(
    flags: list[str], status: int, problem: str, call: Call, here: Path
) -> None:
    code, out, err = call("serve", "--port", "0", *flags)
    assert (code, out) == (status, "")
    assert problem in err
    assert err.splitlines()[-1].startswith("charlm: ")


def test_there_is_no_page_to_open_of_a_run_that_gives_labels(call: Call, tmp_path: Path) -> None:
    run = label_run(tmp_path / "movies")
    status, out, err = call("serve", "--port", "0", "--run", str(run), "--open")
    assert (status, out) == (2, "")
    assert "--open with run movies, which gives labels" in err


@pytest.mark.parametrize("key", [b"", b" \n", b"two words", b"\xff\xfe", "ключ".encode()])
def test_a_key_that_no_header_can_hold_is_refused(key: bytes, call: Call, here: Path) -> None:
    Path("key").write_bytes(key)
    status, _, err = call("serve", "--port", "0", "--key-file", "key")
    assert status == 2
    assert "the key in key is" in err


def test_a_key_comes_from_a_file_or_a_variable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serve._key(None) is None
    monkeypatch.setenv("CHARLM_KEY", "from-the-variable")
    Path("key").write_bytes(b"from-the-file\r\n")
    assert serve._key(None) == "from-the-variable"
    assert serve._key(Path("key")) == "from-the-file"


def test_the_extra_is_named_if_it_is_missing(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("charlm.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, out, err = call("serve", "--port", "0")
    assert (status, out) == (5, "")
    assert "uvicorn, which is not installed" in err and "charlm[serve]" in err


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:{}/"), ("0.0.0.0", "http://127.0.0.1:{}/"),
     ("localhost", "http://127.0.0.1:{}/"), ("::1", "http://[::1]:{}/"), ("::", "http://[::1]:{}/")],
)  # fmt: skip
def test_the_url_is_one_that_a_browser_can_open(host: str, url: str) -> None:
    try:
        listener = Address(host, 0).bind()
    except Exception:
        pytest.skip(f"this machine has no address {host}")
    with listener:
        assert url_of(listener) == url.format(listener.getsockname()[1])


def test_names_of_one_address_are_allowed_hosts() -> None:
    access = serve._access(
        Address("127.0.0.2", 0), None, serve.Asked(allow_host=["Models.example.org"])
    )
    assert access.hosts == ("127.0.0.1", "localhost", "[::1]", "127.0.0.2", "models.example.org")
    with pytest.raises(ValueError, match="no key"):
        serve._access(Address("192.0.2.1", 0), None, serve.Asked())
    assert "192.0.2.1" in serve._access(Address("192.0.2.1", 0), "key", serve.Asked()).hosts


def test_connections_leave_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, connections in ((256, 128), (1 << 20, 512), (resource.RLIM_INFINITY, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert fitting_limits().connections == connections


def test_a_run_in_the_working_folder_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SMALL_RUN)
    service = Service([load(".")])
    assert list(service.models) == [SMALL_RUN.name]
    assert service.default.name == SMALL_RUN.name
    service.stop()

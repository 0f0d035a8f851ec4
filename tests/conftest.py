"""Set-up of all tests: threads that do not spin, set before torch is first imported."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import gc
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import set_no_time_limits

gc.disable()  # until all tests are collected, a million objects that live as long as the process
set_no_time_limits()
USUAL = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
for number, usual in ((getattr(signal, name, None), USUAL[name]) for name in USUAL):
    if number and signal.getsignal(number) is signal.SIG_IGN:  # behind &, or under nohup
        signal.signal(number, usual)


def pytest_collection_finish() -> None:
    """Leave the collected tests out of each later collection of garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def steady_speed() -> Iterator[None]:
    """Plan for a machine of fixed speed, so that no plan depends on or measures this machine."""
    from charlm.training.plan import speed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "measured_speed", lambda *_: 2e10)
        yield


@pytest.fixture
def call(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command in this process: exit code, stdout, stderr."""
    from charlm.cli import main

    waiting = tmp_path_factory.mktemp("streams") / "stdin"

    def run(*arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        waiting.write_bytes(stdin or b"")
        with waiting.open(encoding="utf-8") as file, pytest.raises(SystemExit) as ended:
            monkeypatch.setattr(sys, "stdin", file)
            main(list(arguments))
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture(autouse=True)
def no_lines_about_slow_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the load of the machine from changing what a command writes to stderr."""
    from charlm.cli import display

    monkeypatch.setattr(display, "TICK", 1e6)


@pytest.fixture(autouse=True)
def usual_verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide from a test that an earlier command in this process was quiet or verbose."""
    from charlm.cli.output import Verbosity

    monkeypatch.setattr(Verbosity, "level", 1)
    monkeypatch.setattr(Verbosity, "debug", False)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Leave out fsync, which matters only if the power fails; tests of its order patch it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def short_samples() -> Iterator[None]:
    """Generate little text when a run ends; tests of the review generate as much as users do."""
    from charlm.training import review

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(review, "SAMPLE_TOKENS", 20)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder without runs, with lines of 100 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("CHARLM_CHECKPOINTS", "CHARLM_RUN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def line_and_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of lines, and one of a stream, which is newer; tests only read them."""
    from helpers import started

    folder = tmp_path_factory.mktemp("runs")
    for name, document in (("lines", "line"), ("stream", "stream")):
        list(started(folder, name, document=document).records())
    return folder


@pytest.fixture
def runs(line_and_stream: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the two runs, which commands find from an empty folder."""
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(line_and_stream))
    return line_and_stream


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Open a browser. Skips the test where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the Python package playwright is not installed"
    )
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the program chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()

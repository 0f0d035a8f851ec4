"""No test depends on how fast or busy the machine is.

Clocks, sleeps and limits in seconds are in `waiting.py` alone. Everything else counts steps, or
waits as long as PATIENCE for another process.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import for_each

ROOT = Path(__file__).resolve().parent
FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "waiting.py")
CLOCKS = {"time", "timeit", "sched"}
READINGS = {
    "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime", "sleep", "utcnow",
    "setitimer", "alarm", "perf_counter_ns", "monotonic_ns", "time_ns", "loadavg", "getloadavg",
}  # fmt: skip
WAITING = {"wait", "join", "communicate", "acquire", "get"}
"""Methods whose first argument may be a limit in seconds."""


def offences(source: str) -> list[str]:
    """Return what in a test file depends on time, each with its line."""
    lines = [(node.lineno, text) for node in _nodes(source) for text in _reasons(node)]
    return [f"line {line}: {text}" for line, text in sorted(lines)]


def _nodes(source: str) -> Iterator[ast.expr | ast.stmt]:
    nodes = ast.walk(ast.parse(source))
    return (node for node in nodes if isinstance(node, ast.expr | ast.stmt))


def _reasons(node: ast.expr | ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import {alias.name}" for alias in node.names if alias.name in CLOCKS)
    if isinstance(node, ast.ImportFrom) and node.module in CLOCKS:
        yield f"import from {node.module}"
    if isinstance(node, ast.Attribute) and node.attr in READINGS:
        yield f"use of {node.attr}"
    if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("datetime.now"):
        yield "use of datetime.now"
    if isinstance(node, ast.Call):
        yield from _limits(node)


def _limits(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        if keyword.arg == "timeout" and not _patient(keyword.value):
            yield "timeout that is not PATIENCE"
        if keyword.arg in ("deadline", "suppress_health_check"):
            yield f"{keyword.arg} of its own; `set_no_time_limits` has it"
    waits = isinstance(call.func, ast.Attribute) and call.func.attr in WAITING
    if waits and call.args and isinstance(call.args[0], ast.Constant):
        value = call.args[0].value
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield "limit that is not PATIENCE"


def _patient(value: ast.expr) -> bool:
    """Return whether a limit is PATIENCE, or 0, which does not wait at all."""
    return (isinstance(value, ast.Name) and value.id == "PATIENCE") or (
        isinstance(value, ast.Constant) and value.value == 0
    )


@for_each(FILES)
def test_no_test_depends_on_the_wall_time(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "offends"),
    [
        ("import time\nassert time.time() < 5", True),
        ("from time import perf_counter\nassert perf_counter() == 3", True),
        ("datetime.now() - begun", True),
        ("asyncio.sleep(0.1)", True),
        ("subprocess.run(['x'], timeout=60)", True),
        ("child.communicate(timeout=2 * 60)", True),
        ("child.wait(60)", True),
        ("settings(deadline=200)", True),
        ("subprocess.run(['x'], timeout=PATIENCE)", False),
        ("child.wait(timeout=PATIENCE)", False),
        ("lock.acquire(timeout=0)", False),
        ("', '.join('ab')", False),
        ("settings(max_examples=5)", False),
        ("trainer = make(minutes=2.0, clock=Ticking())", False),
    ],
)
def test_clocks_and_limits_are_found_and_counted_steps_pass(source: str, offends: bool) -> None:
    assert bool(offences(source)) == offends

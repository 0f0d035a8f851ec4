"""A `charlm serve` process of this checkout, for scripts that measure and disturb it (Linux)."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 60.0
"""Seconds after which a request or a process counts as hanging."""


class Server:
    """A server on a free port of loopback: its address, its processor time, memory and files."""

    def __init__(
        self, *arguments: str, code: Path = ROOT, environment: dict[str, str] | None = None
    ) -> None:
        """Start it in `code`, the folder with the package, and wait for the line on stdout."""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "charlm", "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=code,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.seconds = time.perf_counter() - begun
        """Time from the start of the process to the line on stdout."""
        if not self.url:
            raise SystemExit(f"the server did not start:\n{self.log()}")
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def log(self) -> str:
        """Return what it has written to stderr."""
        self.errors.flush()
        self.errors.seek(0)
        return self.errors.read()

    def bad_lines(self) -> list[str]:
        """Return the lines of its log that begin a traceback, or tell of a lost connection."""
        signs = ("Traceback", "socket.send")
        return [line for line in self.log().splitlines() if any(sign in line for sign in signs)]

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit code, and the seconds until the process ended."""
        begun = time.perf_counter()
        self.process.send_signal(number)
        return self.process.wait(PATIENCE), time.perf_counter() - begun

    def cpu(self) -> float:
        """Return the seconds of the processor that all its threads have used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Return its resident memory, in MB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def files(self) -> int:
        """Return the number of its open files and sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request on a connection of its own; return the status and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict | list) else body
            connection.request(
                method, path, data, {"Content-Type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def health(self) -> dict[str, Any]:
        """Return the answer of GET /health."""
        found: dict[str, Any] = json.loads(self.ask("GET", "/health")[1])
        return found

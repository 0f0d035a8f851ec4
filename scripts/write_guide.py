"""Write the generated parts of the README and of the guide: tables, and sessions with their output.

    python scripts/write_guide.py              tables, and sessions that take no training
    python scripts/write_guide.py --training   also sessions that train a model (minutes)
    python scripts/write_guide.py --check      change nothing; exit 1 if a table is out of date

A table is between `<!-- generated: NAME -->` and `<!-- end -->`. A session is a block ```console:
its lines `$ command` are run in an empty folder, and the lines below each are replaced by what a
terminal of 80 columns shows. `<!-- keep: REGEX -->` above the block shortens a training to the
lines that begin with the expression, and the indented lines below them; `...` replaces the others.
While a command that names the address of a server runs, `charlm serve --run tales` is there.
The corpora are taken from CHARLM_DATA; a session that names one which is not there stays as it is.
"""

import argparse
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

from charlm.config.cells import CELLS
from charlm.config.presets import PRESETS
from charlm.report.settings import markdown_tables
from server_process import Server

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "charlm" / "guide").glob("*.md"))]
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SESSION = re.compile(
    r"((?:^<!-- keep: (?P<keep>[^\n]*) -->\n)?^```console\n)(?P<lines>.*?)(^```$)",
    re.MULTILINE | re.DOTALL,
)
CORPORA = {"shakespeare.txt": "tinyshakespeare/input.txt", "names.txt": "names/names.txt"}
"""Files that sessions name, and their places below CHARLM_DATA."""
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.+)$", re.MULTILINE)
"""A command of a session, which may have several lines."""
PORT = "8765"
ADDRESS = f"http://127.0.0.1:{PORT}"
"""Where the guide reaches the server."""


def rows(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    table = [list(head), ["---"] * len(list(head))]
    table += [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in table)


def settings_tables() -> str:
    """Return a table for each section of the settings."""
    return "\n" + "\n".join(markdown_tables()) + "\n"


def presets_table() -> str:
    """Return the published models that `--preset` knows."""
    lines = [
        (f"`{name}`", preset.summary, ", ".join(f"{k} {v}" for k, v in preset.published.items()))
        for name, preset in PRESETS.items()
    ]
    return rows(("preset", "model", "published"), lines)


def cells_table() -> str:
    """Return the cells that `--cell` knows."""
    return rows(("cell", "what it is"), [(f"`{n}`", cell.summary) for n, cell in CELLS.items()])


TABLES: dict[str, Callable[[], str]] = {
    "settings": settings_tables,
    "presets": presets_table,
    "cells": cells_table,
}


def with_tables(text: str) -> str:
    """Return a page with its generated tables written again."""
    return GENERATED.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], text)


def with_sessions(text: str, training: bool) -> str:
    """Return a page with its sessions run again; those that train only on request."""

    def run(found: re.Match[str]) -> str:
        commands = COMMAND.findall(found["lines"])
        if not training and any(command.startswith("charlm train") for command in commands):
            return found[0]
        missing = [name for name in CORPORA if name in found["lines"] and not corpus(name).exists()]
        if missing:
            print(f"{corpus(missing[0])} does not exist; its session is kept. Set CHARLM_DATA")
            return found[0]
        return found[1] + kept_lines(session(commands), found["keep"]) + found[4]

    return SESSION.sub(run, text)


def kept_lines(text: str, keep: str | None) -> str:
    """Return a session without the lines of a training that do not begin with an expression."""
    lines: list[str] = []
    training = kept = False
    for line in text.splitlines():
        if line.startswith("$ "):
            training = line.startswith("$ charlm train")
        if not line.startswith(" "):  # an indented line continues the one above
            kept = not (keep and training) or bool(re.match(rf"\$ |{keep}", line))
        if kept or lines[-1] != "...":
            lines.append(line if kept else "...")
    return "\n".join(lines) + "\n"


def corpus(name: str) -> Path:
    """Return the path of a file that sessions name, which may not exist."""
    return Path(os.environ.get("CHARLM_DATA", "data")) / CORPORA[name]


def session(commands: Iterable[str]) -> str:
    """Return commands with the output of each, run one after another in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        for name in CORPORA:
            if corpus(name).exists():
                shutil.copy(corpus(name), Path(folder) / name)
        is_asked = any(ADDRESS in command for command in commands)
        with Server("--run", "tales", "--port", PORT) if is_asked else nullcontext():
            return "".join(f"$ {line}\n{terminal_output(line, folder)}" for line in commands)


def terminal_output(command: str, folder: str) -> str:
    """Return what a terminal shows of a command when it has ended: no colours, no progress."""
    environment = {name: value for name, value in os.environ.items() if "CHARLM" not in name}
    environment |= {"COLUMNS": "80", "LINES": "40", "NO_COLOR": "1", "TERM": "dumb"}
    script = f'charlm() {{ "{sys.executable}" -m charlm "$@"; }}; {command}'
    master, slave = pty.openpty()
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        written = b""
        while piece := read(master):
            written += piece
            if command.startswith("charlm serve") and ADDRESS.encode() in written:
                os.killpg(process.pid, signal.SIGTERM)  # it answers; it would never end
                break
    os.close(master)
    if process.returncode not in (0, -signal.SIGTERM):
        raise SystemExit(f"{command}: exit {process.returncode}\n{written.decode()}")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).replace("\r\n", "\n")
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return "\n".join(lines).strip("\n").replace(folder + "/", "") + "\n"


def read(descriptor: int) -> bytes:
    """Return what a terminal has shown since the last call; nothing when its program has ended."""
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux reports that nobody writes to the terminal any more
        return b""


def main() -> None:
    """Write every page, or compare its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--training", action="store_true", help="also run sessions that train")
    parser.add_argument("--check", action="store_true", help="compare the tables, write nothing")
    options = parser.parse_args()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        new = with_tables(text)
        if options.check and new != text:
            raise SystemExit(f"{page.name} is out of date; run: python scripts/write_guide.py")
        if not options.check:
            page.write_text(with_sessions(new, options.training), encoding="utf-8")


if __name__ == "__main__":
    main()

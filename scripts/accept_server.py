"""Train a small run of every kind, serve each, and run the acceptance clients against it.

    CHARLM_DATA=folder python scripts/accept_server.py --clients folder \\
        --openai V/bin/python --lm-eval V/bin/lm_eval --browser V/bin/python [--only gru bytes]

The folder of clients holds openai_client.py, lm_eval_client.sh and browser.py; their heads say what
to install. A client without its option is left out. Runs that are already in --checkpoints are
used; without CHARLM_DATA only the built-in run and those trained on its text are served. Prints a
table, and the lines of checks that fail; exits with 1 if one does.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from charlm.report.tables import plain_table
from server_process import ROOT, Server

DATA = os.environ.get("CHARLM_DATA", "")
SHAKESPEARE = "tinyshakespeare/input.txt"
TRAIN = ["train", "--seed", "1", "--threads", "1", "--layers", "1"]
TEXTS = ["multilingual/en.txt", "multilingual/ru.txt", "multilingual/ko.txt", "multilingual/zh.txt"]


@dataclass(frozen=True)
class Kind:
    """One kind of run: the command that makes it, and how it is served and asked."""

    make: tuple[str, ...] = ()
    """Arguments of `charlm`; texts in CHARLM_DATA are named relative to it. Empty: built in."""
    serve: tuple[str, ...] = ()
    """Further arguments of `charlm serve`, and of `charlm score` beside it."""
    text: str = "The apple and pear salad was"
    pattern: str = r"\b[A-Z]\w*"
    """Pattern that the page looks for in the run's own text; empty for a run without units."""
    bytes_: bool = False
    """Whether a character can be more than one token."""
    key: str = ""
    """Key that the server wants; only the client of openai takes one."""
    needs: tuple[str, ...] = ()
    """Other kinds that must be made first."""


KINDS = {
    "tales": Kind(serve=("--run", "tales", "--also", "prose"), pattern='"[^"]*"'),
    "key": Kind(serve=("--run", "tales"), key="one-two-three"),
    "gru": Kind((*TRAIN, SHAKESPEARE, "--cell", "gru", "--hidden", "128", "--epochs", "1"),
                text="ROMEO: I would not be"),
    "bytes": Kind((*TRAIN, *TEXTS, "--document", "stream", "--unit", "byte", "--hidden", "128",
                   "--epochs", "1.5"), bytes_=True),
    "words": Kind((*TRAIN, "ptb/ptb.valid.txt", "--unit", "word", "--hidden", "96",
                   "--epochs", "2"), text="the company said it would sell shares of the",
                  pattern="<unk>|N"),
    "bpe": Kind((*TRAIN, "prose20/prose20.valid.txt", "--unit", "bpe", "--max-size", "1000",
                 "--hidden", "96", "--epochs", "0.5"), text="It was not the house of the",
                bytes_=True),
    "lines": Kind((*TRAIN, "multilingual/en.txt", "--document", "line", "--hidden", "128",
                   "--epochs", "4"), text="The new plan was not known"),
    "ngram": Kind(("ngram", SHAKESPEARE, "--order", "6"), text="ROMEO: I would not be", pattern=""),
    "word-ngram": Kind(("ngram", "ptb/ptb.valid.txt", "--unit", "word", "--order", "3"),
                       text="the company said it would sell shares of the", pattern=""),
    "mixture": Kind(serve=("--run", "gru", "--with", "ngram"), text="ROMEO: I would not be",
                    needs=("gru", "ngram")),
}  # fmt: skip


def make(name: str, checkpoints: Path) -> None:
    """Train the run of a kind unless it is there."""
    kind = KINDS[name]
    for other in kind.needs:
        make(other, checkpoints)
    if not kind.make or (checkpoints / name).exists():
        return
    arguments = [str(Path(DATA) / part) if part.endswith(".txt") else part for part in kind.make]
    command = [sys.executable, "-m", "charlm", "-q", *arguments, "--name", name]
    subprocess.run([*command, "--checkpoints", str(checkpoints)], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def charlm_command(kind: Kind) -> str:
    """Return how a client calls charlm, so that `score --run NAME` is of the mixture, too."""
    command = f"{sys.executable} -m charlm"
    if "--with" not in kind.serve:
        return command
    mixed = " ".join(kind.serve[kind.serve.index("--with") :])
    return f"bash -c '{command} \"$@\" {mixed}' charlm"


def commands(name: str, url: str, options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yield each client that is asked for, with the command that runs it."""
    kind, clients = KINDS[name], options.clients
    run = kind.serve[1] if kind.serve else name
    if options.openai:
        arguments = ["--charlm", charlm_command(kind), "--run", run, "--text", kind.text]
        arguments += ["--bytes"] if kind.bytes_ else []
        arguments += ["--key", kind.key] if kind.key else []
        yield "openai", [options.openai, str(clients / "openai_client.py"), url, *arguments]
    if options.lm_eval and not kind.key:
        yield "lm-eval", ["bash", str(clients / "lm_eval_client.sh"), url, run]
    if options.browser and not kind.key:
        arguments = ["--shots", str(options.shots / name)] if options.shots else ["--no-shots"]
        arguments += ["--prompt", kind.text]
        arguments += ["--pattern", kind.pattern] if kind.pattern else without_units(clients)
        yield "browser", [options.browser, str(clients / "browser.py"), f"{url}/", *arguments]


def without_units(clients: Path) -> list[str]:
    """Return the option that leaves out the checks of units, which an n-gram model has not."""
    names = re.findall(r"^def check_(\w+)", (clients / "browser.py").read_text(), re.MULTILINE)
    return ["--only", ",".join(name for name in names if name not in ("inside", "bad_pattern"))]


def accept(name: str, options: argparse.Namespace) -> list[tuple[str, list[int]]]:
    """Serve a run and run the clients; return the counts of each client, and print the failures."""
    make(name, options.checkpoints)
    kind = KINDS[name]
    environment = {
        "CHARLM_CHECKPOINTS": str(options.checkpoints), "PYTHONPATH": str(ROOT),
        "CHARLM": charlm_command(kind), "LM_EVAL": options.lm_eval or "",
    }  # fmt: skip
    os.environ.update(environment)
    os.environ.pop("CHARLM_KEY", None)
    if kind.key:
        os.environ["CHARLM_KEY"] = kind.key
    counts = []
    with Server(*(kind.serve or ("--run", name))) as server:
        url = server.url.rstrip("/")
        for client, command in commands(name, url, options):
            done = subprocess.run(command, capture_output=True, text=True)
            counts.append((client, verdicts(f"{name} {client}", done, options.verbose)))
        log = server.log()
    if "Traceback" in log:
        print(f"{name}: a traceback in the server's log:\n{log[-3000:]}")
        counts.append(("log", [0, 1, 0]))
    return counts


def verdicts(title: str, done: "subprocess.CompletedProcess[str]", verbose: bool) -> list[int]:
    """Count the checks of a client that passed, failed and were skipped; print the failures."""
    words = ("PASS", "FAIL", "SKIP")
    lines = [line for line in done.stdout.splitlines() if line.startswith(words)]
    counts = [sum(line.startswith(word) for line in lines) for word in words]
    if done.returncode and not counts[1]:
        lines.append(f"FAIL  exit {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
        counts[1] = 1
    for line in lines:
        if verbose or line.startswith("FAIL"):
            print(f"{title}: {line}", flush=True)
    return counts


def main() -> None:
    """Run the clients for all kinds of runs, or some, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=Path, required=True, help="folder of the clients")
    parser.add_argument("--checkpoints", type=Path, default=Path("accept-checkpoints"))
    parser.add_argument("--openai", help="Python that has openai and httpx")
    parser.add_argument("--lm-eval", help="program lm_eval")
    parser.add_argument("--browser", help="Python that has playwright; chromium is on PATH")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    parser.add_argument("--only", nargs="*", choices=KINDS, default=None)
    parser.add_argument("--verbose", action="store_true", help="print the lines of all checks")
    options = parser.parse_args()
    names = options.only or [
        n for n, kind in KINDS.items() if DATA or not (kind.make or kind.needs)
    ]
    rows = {name: accept(name, options) for name in names}
    table = plain_table("<run", "<client", "passed", "failed", "skipped")
    for name, counts in rows.items():
        for client, figures in counts:
            table.add_row(name, client, *map(str, figures))
    Console(width=100, highlight=False).print(table)
    if any(failed for counts in rows.values() for _, (_, failed, _) in counts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

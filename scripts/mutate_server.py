"""Break the server on purpose, one fault at a time, and report which checks notice it.

    python scripts/mutate_server.py [--client folder/openai_client.py --python V/bin/python]

Each mutant is a copy of the package with one piece of code replaced. Our own tests of the server
run against it, until the first one fails, and with --client the acceptance client, too. Prints a
table; exits with 1 if a mutant is noticed by neither.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from charlm.report.tables import plain_table
from server_process import ROOT, Server

TESTS = ("tests/server", "tests/test_rows.py")
HANGS = 300
"""Seconds after which a test is waiting for something that a mutant does not do."""
COPIED = ("charlm", "tests", "scripts", "pyproject.toml")
LINKED = ("corpora", "checkpoints")


@dataclass(frozen=True)
class Mutant:
    """One fault: what it does to users, and the piece of code that it replaces."""

    fault: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant("prompts of one request sample differently", "inference/row_sampling.py",
           "[self.work.seed % 2**64, sample]", "[self.work.seed % 2**64, self.number]"),
    Mutant("all samples of a prompt are the same", "inference/row_sampling.py",
           "[self.work.seed % 2**64, sample]", "[self.work.seed % 2**64, 0]"),
    Mutant("rows that leave take the state of a neighbour with them", "inference/row_sampling.py",
           "position.rows(kept) if kept else None",
           "position.rows(sorted(kept[1:] + kept[:1], reverse=True)) if kept else None"),
    Mutant("a stop text is a part of the text", "inference/generation.py",
           "return self._release(place), False", "return self._release(len(self.held)), False"),
    Mutant("a stream sends the beginning of a stop text", "inference/generation.py",
           "return self._release(len(self.held) - self._partial()), True",
           "return self._release(len(self.held)), True"),
    Mutant("the first token of a prompt has a number", "server/answers.py",
           "                block[name][0] = None", "                pass"),
    Mutant("a chosen token and its alternatives have two numbers", "server/answers.py",
           '"token_logprobs": [logprob(each.nats) for',
           '"token_logprobs": [round(logprob(each.nats), 7) for'),
    Mutant("offsets do not count the echoed prompt", "server/answers.py",
           "len(prompt_text) + each.offset", "each.offset"),
    Mutant("best_of keeps the least likely samples", "server/answers.py",
           "key=lambda each: each.mean_logprob, reverse=True",
           "key=lambda each: each.mean_logprob"),
    Mutant("finish_reason is always stop", "server/answers.py",
           '"finish_reason": choice.reason,', '"finish_reason": choice.reason and "stop",'),
    Mutant("usage counts the tokens of the last piece alone", "server/answers.py",
           "        self.count += event.count", "        self.count = event.count"),
    Mutant("a stream has no [DONE]", "server/completions.py",
           '("data: [DONE]\\n\\n" if is_last else "")', '""'),
    Mutant("a client that leaves is not noticed", "server/channel.py",
           "        self.gone = True\n        self.ticket.cancel()\n        self.arrived.set()",
           "        pass"),
    Mutant("true is a number", "server/requests.py",
           "if type(value) is not int or not low", "if not isinstance(value, int) or not low"),
    Mutant("unknown fields are ignored", "server/requests.py",
           "        if name not in fields:", "        if False:"),
    Mutant("the text <eos> is five characters", "server/prompts.py",
           "if text == EOS_TOKEN:", "if False:"),
    Mutant("any Host is answered", "server/security.py",
           "if name not in self.hosts:", "if not name:"),
    Mutant("a part of the key opens", "server/security.py",
           "if not hmac.compare_digest(sent, expected):", "if not expected.startswith(sent):"),
    Mutant("bodies have no limit", "server/bodies.py",
           "if len(data) > limits.body_bytes:", "if False:"),
    Mutant("forms of other pages are read", "server/bodies.py",
           "    check_type(request)\n", ""),
)  # fmt: skip
"""Faults, most of which an early version had or another server has."""


def apply(mutant: Mutant, tree: Path) -> Path:
    """Replace the code in a copy; return the file. Exits if the code is not there, once."""
    path = tree / "charlm" / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        found = source.count(mutant.old)
        raise SystemExit(f"{mutant.fault}: {mutant.old!r} is {found} times in {mutant.file}")
    path.write_text(source.replace(mutant.old, mutant.new))
    return path


def own_tests(tree: Path) -> str:
    """Return the first of our tests that fails, or an empty text."""
    command = [sys.executable, "-m", "pytest", *TESTS, "-x", "-n", "0", "--tb=no"]
    command += ["-m", "not slow and not browser"]
    try:
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=HANGS)
    except subprocess.TimeoutExpired:
        return "a test waits for ever"
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    if done.returncode and not failed:
        return f"exit {done.returncode}: {(done.stdout + done.stderr)[-200:]}"
    return failed[1] if failed else ""


def client_checks(tree: Path, options: argparse.Namespace) -> str:
    """Return the checks of the client that fail, or an empty text."""
    with Server("--run", "tales", code=tree) as server:
        command = [options.python, str(options.client), server.url.rstrip("/"), "--run", "tales",
                   "--charlm", f"{sys.executable} -m charlm"]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return ", ".join(_failed(done.stdout)) or ("" if done.returncode == 0 else "no answer")


def _failed(output: str) -> Iterator[str]:
    for line in output.splitlines():
        if line.startswith("FAIL"):
            yield line.split()[1]


def main() -> None:
    """Try all mutants, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--client", type=Path, help="openai_client.py")
    parser.add_argument("--python", default=sys.executable, help="Python that has openai and httpx")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of mutants")
    options = parser.parse_args()
    table = plain_table("<", "<fault", "<first of our tests", "<checks of the client")
    missed = 0
    with tempfile.TemporaryDirectory(prefix="charlm-mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, tree / name)
        for name in LINKED:
            (tree / name).symlink_to(ROOT / name)
        waiting = tree / "tests" / "waiting.py"  # a mutant may hang
        waiting.write_text(waiting.read_text().replace("PATIENCE = 900", "PATIENCE = 30"))
        ours, theirs = own_tests(tree), client_checks(tree, options) if options.client else ""
        if ours or theirs:
            raise SystemExit(f"without a mutant, {ours or 'none'} and {theirs or 'none'} fail")
        for number, mutant in enumerate(MUTANTS, start=1):
            if options.only and number not in options.only:
                continue
            path = apply(mutant, tree)
            ours = own_tests(tree)
            theirs = client_checks(tree, options) if options.client else ""
            shutil.copy(ROOT / "charlm" / mutant.file, path)
            missed += not (ours or theirs)
            table.add_row(str(number), mutant.fault, ours or "none", theirs or "none")
            print(f"{number} {mutant.fault}: {ours or '-'} | {theirs or '-'}", flush=True)
    Console(width=160, highlight=False).print(table)
    if missed:
        raise SystemExit(f"{missed} mutants were not noticed")


if __name__ == "__main__":
    main()

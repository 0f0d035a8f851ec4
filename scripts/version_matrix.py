"""Run the tests under the lowest and the highest versions of the dependencies.

Each installed Python that pyproject.toml allows gets two virtual environments: one with the lowest
version of each dependency and extra, one with the highest. Pythons are found by PYTHONS (paths,
separated by colons), on PATH, in pyenv and in uv. An environment stays in the cache folder until
its requirements change. The exit status is 1 if an environment could not be made or a test failed.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("httpx", "hypothesis", "pytest", "pytest-xdist")
"""Development tools that the tests import."""
SHOWN = ("torch", "numpy", "datasets", "tokenizers", "typer")
"""Packages with a column in the table."""
ASK = "import sys, ensurepip, venv; print('.'.join(map(str, sys.version_info[:3])))"
LOWEST, HIGHEST = "lowest", "highest"
QUIET = {LOWEST: ("-W", "ignore::DeprecationWarning"), HIGHEST: ()}
"""Python options: warnings of old releases about their own dependencies are not failures."""
BOUND = re.compile(r">=\s*([\w.]+)[^;]*")


@dataclass(frozen=True)
class Combination:
    """Python together with the lowest or highest versions."""

    python: Path
    version: str
    end: str

    @property
    def name(self) -> str:
        """Name of the environment and of its log."""
        return f"{self.version}-{self.end}"


@dataclass(frozen=True)
class Outcome:
    """Installed versions and the last line of the tests, or what failed before."""

    versions: dict[str, str]
    text: str
    passed: bool


def interpreters(oldest: tuple[int, int]) -> dict[str, Path]:
    """Return the newest interpreter found for each minor version, by full version."""
    newest: dict[tuple[int, int], tuple[tuple[int, ...], Path]] = {}
    for path in _candidates():
        try:
            asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            continue  # not an interpreter, or one without venv
        version = tuple(int(part) for part in asked.stdout.split("."))
        minor = version[0], version[1]
        if minor >= oldest and version > newest.get(minor, ((), path))[0]:
            newest[minor] = version, path
    return {".".join(map(str, version)): path for version, path in sorted(newest.values())}


def _candidates() -> Iterator[Path]:
    yield from (Path(part) for part in os.environ.get("PYTHONS", "").split(os.pathsep) if part)
    yield Path(sys.executable)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield from sorted(Path(folder).glob("python3.[0-9]*"))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob("versions/*/bin/python"))
    yield from sorted(Path.home().glob(".local/share/uv/python/*/bin/python3"))


def requirements(project: dict[str, object], end: str, torch: str | None) -> list[str]:
    """Return the dependencies and extras, with lowest versions or as they are."""
    table = project["project"]
    assert isinstance(table, dict)
    lines = list(table["dependencies"])
    for extra in table["optional-dependencies"].values():
        lines += extra
    if end == LOWEST:
        lines = [BOUND.sub(r"==\1", line) for line in lines]
    if torch:
        lines = [line for line in lines if not line.startswith("torch")] + [f"torch=={torch}"]
    return [*lines, *TOOLS]


def environment(folder: Path, combination: Combination, wanted: list[str], log: Path) -> Path:
    """Return the Python of an environment with these requirements; make it if needed."""
    place, python = folder / combination.name, folder / combination.name / "bin" / "python"
    text = "\n".join([str(ROOT), str(combination.python), *wanted])
    mark, stamp = place / "complete", hashlib.sha256(text.encode()).hexdigest()
    if not mark.exists() or mark.read_text() != stamp:
        shutil.rmtree(place, ignore_errors=True)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _logged([combination.python, "-m", "venv", place], log)
        _logged([python, *pip, "--only-binary", ":all:", *wanted], log)
        _logged([python, *pip, "hatchling", "editables"], log)
        _logged([python, *pip, "--no-deps", "--no-build-isolation", "--editable", ROOT], log)
        mark.write_text(stamp)
    return python


def _logged(command: list[str | Path], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        subprocess.run(command, stdout=file, stderr=file, cwd=ROOT, check=True)


def versions_in(python: Path) -> dict[str, str]:
    """Return the versions of the packages in SHOWN."""
    code = f"from importlib.metadata import version\nfor n in {SHOWN}: print(n, version(n))"
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(line.split() for line in asked.stdout.splitlines())


def outcome(combination: Combination, wanted: list[str], folder: Path, more: list[str]) -> Outcome:
    """Make the environment, run the tests in it, and return the outcome."""
    log = folder / f"{combination.name}.log"
    log.write_text("", encoding="utf-8")
    try:
        python = environment(folder, combination, wanted, log)
        versions = versions_in(python)
    except subprocess.CalledProcessError:
        errors = [line for line in log.read_text("utf-8").splitlines() if "ERROR" in line]
        return Outcome({}, f"not installed: {errors[0] if errors else log}", False)
    command = [str(python), "-m", "pytest", "--numprocesses", "auto", "--maxprocesses", "4",
               "--dist", "worksteal", *QUIET[combination.end], *more]  # fmt: skip
    with log.open("a", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=file, cwd=ROOT, check=False).returncode
    lines = log.read_text("utf-8").splitlines()
    for line in lines:
        if line.startswith(("FAILED ", "ERROR ")):
            print(f"  {line[:150]}", flush=True)
    return Outcome(versions, lines[-1] if lines else "no output", status == 0)


def table(rows: list[tuple[Combination, Outcome]]) -> str:
    """Return the outcomes as a Markdown table."""
    head = ["Python", "versions", *SHOWN, "tests"]
    lines = [head, ["---"] * len(head)]
    for combination, result in rows:
        versions = [result.versions.get(name, "-") for name in SHOWN]
        lines.append([combination.version, combination.end, *versions, result.text])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Run every combination and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "charlm-versions"
    parser.add_argument("--cache", type=Path, default=default, help=f"default: {default}")
    parser.add_argument("--list", action="store_true", help="show the combinations, run nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="such as 3.12, or 3.11.7-lowest")
    parser.add_argument("--torch", help="version of torch, instead of lowest or highest")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = re.findall(r"\d+", project["project"]["requires-python"])
    folder = arguments.cache.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for version, python in interpreters((int(oldest[0]), int(oldest[1]))).items():
        for end in (LOWEST, HIGHEST):
            combination = Combination(python, version, end)
            if arguments.only not in combination.name:
                continue
            wanted = requirements(project, end, arguments.torch)
            print(f"{combination.name}: {python}", flush=True)
            if arguments.list:
                print(f"  {', '.join(wanted)}")
                continue
            rows.append((combination, outcome(combination, wanted, folder, arguments.pytest)))
            print(f"  {rows[-1][1].text}", flush=True)
    if rows:
        print(table(rows))
    return int(not all(result.passed for _, result in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Versions that `scripts/test-versions` tests: each bound of pyproject.toml, each Python."""

import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import version_matrix
from version_matrix import HIGHEST, LOWEST, interpreters, requirements

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEPENDENCIES = PROJECT["project"]["dependencies"]
EXTRAS = [line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]


def name_of(requirement: str) -> str:
    match = re.match(r"[\w-]+", requirement)
    assert match
    return match[0]


def test_every_dependency_has_a_lowest_version_that_is_pinned() -> None:
    """Also of extras; other conditions of a bound are removed, markers are kept."""
    lowest = requirements(PROJECT, LOWEST, None)
    pinned = [line for line in lowest if line not in version_matrix.TOOLS]
    assert [name_of(line) for line in pinned] == [name_of(line) for line in DEPENDENCIES + EXTRAS]
    for line, declared in zip(pinned, DEPENDENCIES + EXTRAS, strict=True):
        assert re.fullmatch(r"[\w-]+==[\w.]+(;.*)?", line), declared
        assert f">={line.partition('==')[2].partition(';')[0]}" in declared
    made = {"project": {"dependencies": ["a >= 1.2,!=1.3 ; python_version < '3.13'"],
                        "optional-dependencies": {}}}  # fmt: skip
    assert requirements(made, LOWEST, None)[0] == "a ==1.2; python_version < '3.13'"


def test_the_highest_versions_are_left_to_pip_and_torch_can_be_chosen() -> None:
    highest = requirements(PROJECT, HIGHEST, None)
    assert highest[: len(DEPENDENCIES)] == DEPENDENCIES
    for end in (LOWEST, HIGHEST):
        chosen = [line for line in requirements(PROJECT, end, "2.13.0") if "torch" in line]
        assert chosen == ["torch==2.13.0"]


def test_interpreters_are_found_once_for_each_minor_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that is too old, broken or without venv is left out."""
    for name, answer in {
        "python3.10": "3.10.1", "python3.98": "3.99.0", "python3.99": "3.99.2", "python3.12": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{f'echo {answer}' if answer else 'exit 1'}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python3.13").write_text("no program")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    monkeypatch.setenv("PYTHONS", str(tmp_path / "missing"))
    by_version = interpreters((3, 11))
    assert by_version["3.99.2"] == tmp_path / "python3.99"
    assert set(by_version) - {platform.python_version()} == {"3.99.2"}


def test_the_list_installs_nothing(tmp_path: Path) -> None:
    command = [ROOT / "scripts" / "test-versions", "--list", "--cache", tmp_path]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert f"{platform.python_version()}-lowest: " in done.stdout
    assert list(tmp_path.iterdir()) == []

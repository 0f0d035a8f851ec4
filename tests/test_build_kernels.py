"""The build of the kernels: what is compiled where, and what a failure leaves."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import build_kernels

INFERENCE = ["native_avx2.so", "native_avx512.so", "native_plain.so"]
ARM = ["native_dotprod.so", "native_plain.so"]
TRAINING = ["training_amx.so", "training_avx512bf16.so"]
EMULATED = "training_emulated512.so"


class Hook(build_kernels.KernelBuildHook):
    """Hook of a wheel, with or without hatchling."""

    target_name = "wheel"

    def __init__(self) -> None:
        pass


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of a build, of which the compiler of an old system refuses some."""
    seen: list[list[str]] = []

    def run(command: list[str], **given) -> subprocess.CompletedProcess:
        seen.append(command)
        old = "-mavx512bf16" in command and os.environ.get("OLD")
        if not old:
            Path(command[-1]).touch()
        error = "error: unrecognized command-line option '-mavx512bf16'" if old else ""
        return subprocess.CompletedProcess(command, int(bool(old)), "", error)

    monkeypatch.setattr(build_kernels, "BACKENDS", tmp_path)
    monkeypatch.setattr(build_kernels.subprocess, "run", run)
    monkeypatch.setattr(build_kernels, "compiler", lambda: ["c++"])
    monkeypatch.setattr(build_kernels.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build_kernels.sys, "platform", "linux")
    return seen


@pytest.mark.usefixtures("commands")
def test_kernels_that_do_not_compile_leave_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library of an earlier build goes, as it may not fit the sources any more."""
    monkeypatch.setenv("OLD", "1")
    (tmp_path / TRAINING[0]).touch()
    os.utime(tmp_path / TRAINING[0], (0, 0))
    assert sorted(path.name for path in build_kernels.build()) == INFERENCE
    assert sorted(path.name for path in tmp_path.iterdir()) == INFERENCE
    assert "training_amx was not compiled: error: unrecognized" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", INFERENCE + TRAINING),
        ("darwin", "x86_64", INFERENCE),
        ("darwin", "arm64", ARM),
        ("linux", "aarch64", ARM),
        ("linux", "riscv64", ARM[-1:]),
    ],
)
@pytest.mark.usefixtures("commands")
def test_the_kernels_of_each_system(
    system: str, machine: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those for training need the system calls of Linux and the OpenMP runtime of its torch."""
    monkeypatch.setattr(build_kernels.sys, "platform", system)
    monkeypatch.setattr(build_kernels.platform, "machine", lambda: machine)
    assert sorted(path.name for path in build_kernels.build()) == expected
    more = [EMULATED] if "training_amx.so" in expected else []
    assert sorted(path.name for path in build_kernels.build(for_tests=True)) == expected + more


@pytest.mark.usefixtures("commands")
def test_a_package_has_no_kernels_for_tests() -> None:
    """Not even one that was built by hand before."""
    build_kernels.build(for_tests=True)
    about: dict[str, Any] = {"artifacts": []}
    Hook().initialize("standard", about)
    assert sorted(about["artifacts"]) == [
        f"charlm/backends/{name}" for name in INFERENCE + TRAINING
    ]


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        (["manylinux_2_36_aarch64", "musllinux_1_2_aarch64", "linux_aarch64"], "linux_aarch64"),
        (["macosx_14_0_arm64", "macosx_14_0_universal2"], "macosx_14_0_arm64"),
    ],
)
@pytest.mark.usefixtures("commands")
def test_a_package_has_a_platform_that_pip_accepts(
    accepted: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs on the system that compiled it, not on every distribution."""
    monkeypatch.setattr("packaging.tags.platform_tags", lambda: iter(accepted))
    about: dict[str, Any] = {"artifacts": []}
    Hook().initialize("standard", about)
    assert about["tag"] == f"py3-none-{expected}"
    assert about["pure_python"] is False


def test_kernels_are_compiled_again_after_a_change_of_flags(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_kernels.build()
    commands.clear()
    build_kernels.build()
    assert not commands
    for path in build_kernels.BACKENDS.iterdir():
        os.utime(path, (0, Path(build_kernels.__file__).stat().st_mtime - 1))
    monkeypatch.setattr(build_kernels, "KERNELS", build_kernels.BACKENDS)  # no newer source
    build_kernels.build()
    assert commands

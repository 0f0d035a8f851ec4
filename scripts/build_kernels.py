"""Compile the kernels in charlm/backends/kernels: libraries for inference and for training.

Each is compiled once for each instruction set. Those for training (x86-64 Linux only) are linked
without an OpenMP runtime, so that its functions are those of torch's.

Run by the installation (as a hatchling build hook), and by hand after a change, which also builds
the emulation of AMX for tests:

    python scripts/build_kernels.py [--force]

Needs a C++17 compiler (CXX, c++, g++ or clang++). If there is none or it fails, the reason is
printed, and charlm is installed without kernels and computes with numpy and torch.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface as Hook
except ImportError:  # run by hand
    Hook = object

BACKENDS = Path(__file__).resolve().parent.parent / "charlm" / "backends"
KERNELS = BACKENDS / "kernels"
FLAGS = (
    "-O3", "-std=c++17", "-fPIC", "-pthread", "-fvisibility=default", "-Wall", "-Wextra",
    "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
AVX512 = (
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512",
)  # fmt: skip
TRAINING = (
    "-fopenmp", "-ffp-contract=off", *AVX512, "-mavx512bf16", "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
)  # fmt: skip
"""Flags of the training kernels. gcc's own intrinsics use undefined vectors, of which it warns."""
OTHERS = {"native_plain": ("-DLANES=4",)}
X86 = {
    "native_avx512": ("-DLANES=16", *AVX512, "-mavx512vnni", "-mf16c"),
    "native_avx2": ("-DLANES=8", "-mavx2", "-mfma", "-mf16c"),
    **OTHERS,
    "training_amx": ("-DTILES_AMX", *TRAINING, "-mamx-tile", "-mamx-bf16"),
    "training_avx512bf16": TRAINING,
}
ARM = {"native_dotprod": ("-DLANES=4", "-march=armv8.2-a+dotprod"), **OTHERS}
FOR_TESTS = {"training_emulated512": ("-DTILES_EMULATED", *TRAINING)}
"""Libraries of x86-64 that are no part of the package: tests and scripts use them."""


class KernelBuildHook(Hook):  # type: ignore[misc]
    """Compile for a wheel or an editable installation, and add the libraries."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the libraries before hatchling gathers files."""
        del version
        if self.target_name != "wheel" or not (built := build()):
            return
        build_data["artifacts"] += [f"charlm/backends/{path.name}" for path in built]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"


def platform_tag() -> str:
    """Return the first platform that pip accepts here and that is no set of Linux distributions.

    On macOS the platform of Python itself may be another: both architectures, of which one is
    compiled, or a version without its zero (`macosx_14_arm64`), which pip does not know.
    """
    from packaging.tags import platform_tags

    return next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))


def compiler() -> list[str] | None:
    """Return the C++ compiler: CXX if it is set (`ccache g++` too), else the first one found."""
    chosen = os.environ.get("CXX")
    commands = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    return next((command for command in commands if command and shutil.which(command[0])), None)


def build(force: bool = False, *, for_tests: bool = False) -> list[Path]:
    """Compile the libraries that are older than the source; return those that exist now."""
    machine = platform.machine()
    x86, arm = machine in ("x86_64", "AMD64"), machine in ("aarch64", "arm64")
    variants = dict(X86 if x86 else ARM if arm else OTHERS)
    variants |= FOR_TESTS if for_tests and variants.keys() == X86.keys() else {}
    if not sys.platform.startswith("linux"):
        variants = {name: flags for name, flags in variants.items() if "-fopenmp" not in flags}
    program = compiler()
    if program is None or sys.platform == "win32":
        print("charlm: no C++ compiler found; kernels are left out, numpy is used", file=sys.stderr)
        return []
    sources = [Path(__file__), *KERNELS.rglob("*.?pp")]  # this file has the flags
    changed = max(path.stat().st_mtime for path in sources)
    with ThreadPoolExecutor() as pool:
        paths = pool.map(
            lambda name: _compile(program, name, variants[name], 2**63 if force else changed),
            variants,
        )
    return [path for path in paths if path is not None]


def _compile(program: list[str], name: str, flags: tuple[str, ...], changed: float) -> Path | None:
    """Compile and link a library unless it is newer than `changed`."""
    target = BACKENDS / f"{name}.so"
    if target.exists() and target.stat().st_mtime >= changed:
        return target
    source = KERNELS / "training" if name.startswith("training") else KERNELS
    compiled, linked = (target.with_suffix(f".{kind}-{os.getpid()}") for kind in ("o", "tmp"))
    commands = (
        [*program, *FLAGS, *flags, "-c", str(source / "library.cpp"), "-o", str(compiled)],
        [*program, "-shared", "-pthread", str(compiled), "-o", str(linked)],
    )
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
                print(f"charlm: {name} was not compiled: {lines[0]}", file=sys.stderr)
                target.unlink(missing_ok=True)  # it was compiled from another source
                return None
            if done.stderr:
                print(done.stderr, file=sys.stderr)
        linked.replace(target)
    finally:
        compiled.unlink(missing_ok=True)
        linked.unlink(missing_ok=True)
    return target


def main() -> None:
    """Compile and print which libraries exist."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="compile up-to-date libraries too")
    built = build(parser.parse_args().force, for_tests=True)
    print("kernels:", ", ".join(path.name for path in built) or "none")


if __name__ == "__main__":
    main()

"""Compile the kernels of charlm/backends/native.cpp, one library for each instruction set.

Run by the installation (as a hatchling build hook) and by hand after a change:

    python scripts/build_kernels.py [--force]

Needs a C++17 compiler (CXX, c++, g++ or clang++). Without one, or where compiling fails, charlm is
installed all the same and computes with numpy; the reason is printed.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface as Hook
except ImportError:  # run by hand
    Hook = object

BACKENDS = Path(__file__).resolve().parent.parent / "charlm" / "backends"
SOURCE = BACKENDS / "native.cpp"
FLAGS = (
    "-O3", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fvisibility=default", "-Wall",
    "-Wextra", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
AVX512 = (
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c",
    "-mprefer-vector-width=512",
)  # fmt: skip
X86 = {
    "avx512": ("-DLANES=16", *AVX512),
    "avx2": ("-DLANES=8", "-mavx2", "-mfma", "-mf16c"),
    "plain": ("-DLANES=4",),
}
OTHERS = {"plain": ("-DLANES=4",)}


class KernelBuildHook(Hook):  # type: ignore[misc]
    """Compiles when a wheel or an editable installation is made, and adds the libraries."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it gathers files."""
        del version
        if self.target_name != "wheel" or not build():
            return
        build_data["artifacts"].append("charlm/backends/native_*.so")
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def compiler() -> list[str] | None:
    """The C++ compiler: CXX where it is set (`ccache g++` too), else the first that is there."""
    wanted = os.environ.get("CXX")
    names = [shlex.split(wanted)] if wanted else [["c++"], ["g++"], ["clang++"]]
    return next((name for name in names if name and shutil.which(name[0])), None)


def build(force: bool = False) -> list[Path]:
    """Compile what is older than its source; returns the libraries that are there now."""
    variants = X86 if platform.machine() in ("x86_64", "AMD64") else OTHERS
    program = compiler()
    if program is None or sys.platform == "win32":
        print("charlm: no C++ compiler found; kernels are left out, numpy is used", file=sys.stderr)
        return []
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda v: _compile(program, v, variants[v], force), variants)
    return [path for path in results if path is not None]


def _compile(program: list[str], variant: str, flags: tuple[str, ...], force: bool) -> Path | None:
    target = BACKENDS / f"native_{variant}.so"
    if not force and target.exists() and target.stat().st_mtime >= SOURCE.stat().st_mtime:
        return target
    part = target.with_suffix(f".tmp-{os.getpid()}")
    command = [*program, *FLAGS, *flags, str(SOURCE), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        print(f"charlm: {variant} kernels were not compiled: {lines[0]}", file=sys.stderr)
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)  # what is there was compiled from another source
        return None
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    part.replace(target)
    return target


def main() -> None:
    """Compile and say what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="compile again what is there")
    built = build(parser.parse_args().force)
    print("kernels:", ", ".join(path.name for path in built) or "none")


if __name__ == "__main__":
    main()

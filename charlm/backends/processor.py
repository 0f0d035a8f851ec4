"""The name and the instruction sets of this machine's processor, as the system reports them."""

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
ARM_MACHINES = ("arm64", "aarch64")
ARM_CORES = {
    ("0x41", "0xd03"): "Arm Cortex-A53",
    ("0x41", "0xd05"): "Arm Cortex-A55",
    ("0x41", "0xd08"): "Arm Cortex-A72",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
    ("0x41", "0xd0c"): "Arm Neoverse N1",
    ("0x41", "0xd40"): "Arm Neoverse V1",
    ("0x41", "0xd49"): "Arm Neoverse N2",
    ("0x41", "0xd4f"): "Arm Neoverse V2",
}
"""Names of cores in small computers and in clouds, by implementer and part (util-linux, lscpu)."""


@cache
def processor_features() -> frozenset[str]:
    """Return the instruction sets of the processor; empty if the system does not report them.

    Every Apple processor with macOS has the dot products of Armv8.4.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return frozenset({"asimd", "asimddp"})
    for key in ("flags", "Features"):  # x86, Arm
        if values := _values(key):
            return frozenset(values[0].split())
    return frozenset()


def processor_name() -> str:
    """Return the name of the processor; on Arm the names of its kinds of cores.

    Without any it is the architecture, for example `aarch64`.
    """
    if names := _values("model name"):
        return names[0]
    parts = zip(_values("CPU implementer"), _values("CPU part"), strict=False)
    if cores := [_core_name(*each) for each in dict.fromkeys(parts)]:
        return " + ".join(cores)
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _values(key: str) -> list[str]:
    """Return the values of a key in /proc/cpuinfo, one for each core; empty without the file."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key and value.strip()]


def _core_name(implementer: str, part: str) -> str:
    return ARM_CORES.get((implementer, part), f"Arm core {implementer}:{part}")


@cache
def fast_cores() -> int | None:
    """Return the number of performance cores of a Mac with an Apple processor; None elsewhere.

    As in torch, work is not divided among the efficiency cores too: all would wait for them.
    """
    words = _sysctl("hw.perflevel0.physicalcpu")
    return int(words) if words.isdecimal() and int(words) else None


def _sysctl(name: str) -> str:
    """Return a value of the kernel of macOS, or "" without it and on other systems."""
    if sys.platform != "darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""

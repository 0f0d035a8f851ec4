"""The name and the instruction sets of the processor, from recorded reports of systems."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from charlm.backends import kernel_library, processor

PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
END = "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
PI_4 = PI_5.replace("0xd0b", "0xd08").replace(" atomics", "").replace(" asimddp", "")
EPYC = "processor\t: 0\nmodel name\t: AMD EPYC 9554\nflags\t\t: fpu avx2 fma f16c\n\n"
ANOTHER = PI_5.replace("0x41", "0x61").replace("0xd0b", "0x022")
BUILT = {"avx2", "dotprod", "plain"}


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Linux whose kernels were built for every processor."""
    monkeypatch.setattr(processor.sys, "platform", "linux")
    exists = Path.exists
    names = {f"native_{name}.so": name in BUILT for name in kernel_library.NEEDED}
    monkeypatch.setattr(Path, "exists", lambda path: names.get(path.name, exists(path)))
    processor.processor_features.cache_clear()
    yield
    processor.processor_features.cache_clear()


@pytest.mark.parametrize(
    ("cpuinfo", "name", "variants"),
    [
        (EPYC * 2, "AMD EPYC 9554", ["avx2", "plain"]),
        (PI_5 * 4 + END, "Arm Cortex-A76", ["dotprod", "plain"]),
        (PI_4 * 4 + END, "Arm Cortex-A72", ["plain"]),
        (ANOTHER + PI_5 + ANOTHER, "Arm core 0x61:0x022 + Arm Cortex-A76", ["dotprod", "plain"]),
    ],
    ids=["x86", "Pi 5", "Pi 4", "two kinds of cores"],
)
def test_processors_of_linux(
    cpuinfo: str, name: str, variants: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert processor.processor_name() == name
    assert kernel_library.variants() == variants


@pytest.mark.parametrize("reported", [None, "processor\t: 0\nCPU part\t: 0xd0b\n"])
def test_an_unknown_processor_has_the_name_of_its_architecture(
    reported: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reported is not None:
        (tmp_path / "cpuinfo").write_text(reported, encoding="utf-8")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "processor", lambda: "")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert processor.processor_name() == "aarch64"
    assert kernel_library.variants() == ["plain"]


@pytest.mark.parametrize(
    ("machine", "variants"), [("arm64", ["dotprod", "plain"]), ("x86_64", ["plain"])]
)
def test_processors_of_macos(
    machine: str, variants: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name comes from sysctl; without it, from Python."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(processor.sys, "platform", "darwin")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor.platform, "processor", lambda: "arm")
    assert kernel_library.variants() == variants
    done = subprocess.CompletedProcess([], 0, "Apple M1\n", "")
    monkeypatch.setattr(processor.subprocess, "run", lambda *_, **__: done)
    assert processor.processor_name() == "Apple M1"

    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(processor.subprocess, "run", fail)
    assert processor.processor_name() == "arm"


@pytest.mark.parametrize(("answer", "cores"), [("4\n", 4), ("", 12), ("0\n", 12)])
def test_a_mac_computes_with_its_fast_cores(
    answer: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an Intel processor have no levels; then all are used."""
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(processor, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(processor.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(kernel_library.os, "cpu_count", lambda: 12)
    monkeypatch.delattr(kernel_library.os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(kernel_library, "_core_quota", lambda _: kernel_library.UNLIMITED)
    processor.fast_cores.cache_clear()
    try:
        assert kernel_library.default_threads() == cores
    finally:
        processor.fast_cores.cache_clear()

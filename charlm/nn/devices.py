"""Where a model computes and in which number type, checked where trust is not due.

The trap that makes the check necessary: with torch 2.13 on processors with AMX, the backward pass
of nn.LSTM under bfloat16 autocast is silently wrong from hidden size 1024 on. No choice depends on
a measured time: two runs of one seed would differ by what else the machine does.
"""

import contextlib
import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from charlm.backends.kernel_library import processor_features
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import EnvironmentFailure
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights

MAX_GRADIENT_ERROR = 0.05
"""Relative error up to which bfloat16 gradients count as right; correct ones stay below 0.01."""
PROBE_SHAPE = (16, 32)
"""Steps and rows of the comparison."""
MAX_PROBED = 2**26
"""Logits of it, at 22 bytes each; fewer rows where there would be more."""
MIN_BF16_WEIGHTS = 100_000
"""Multiplied weights below which `auto` stays with fp32 on a processor. Seconds in bf16 by seconds
in fp32, least of four, one thread of an AMD EPYC, nine cells: 1.0 to 2.1 with up to 40,000 weights,
0.7 to 1.5 with 60,000 to 150,000, 0.45 to 0.67 with more."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Features in /proc/cpuinfo of processors that compute in bfloat16, for builds without probes."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The type that training computes in, `fp32` or `bf16`, and why."""

    name: str
    reason: str

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


def choose_device(name: str) -> torch.device:
    """The device of this name; `auto` takes CUDA where there is one, else the CPU.

    Raises EnvironmentFailure when the device is not there.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "cpu")
    if not available[name]:
        there = ", ".join(kind for kind, found in available.items() if found)
        raise EnvironmentFailure(
            f"device {name} is not available here; found {there}. Use --device auto"
        )
    return torch.device(name)


def choose_precision(
    requested: str, settings: ModelSettings, vocab_size: int, device: torch.device
) -> Precision:
    """Return bf16 if it is asked for or, with `auto`, if it is right here and the model not small.

    The choice follows from the processor's features, the model and the gradients of one small
    batch; nothing is timed. Raises EnvironmentFailure if bf16 was asked for and does not work here.
    """
    if requested == "fp32":
        return Precision(name="fp32", reason="asked for")
    weights = multiplied_weights(settings, vocab_size)
    if requested == "auto" and device.type == "cpu" and weights < MIN_BF16_WEIGHTS:
        return Precision(name="fp32", reason="bf16 is no faster for a model this small")
    problem = bf16_problem(settings, vocab_size, device)
    if problem is None:
        return Precision(name="bf16", reason="gradients agree with fp32 at these layer shapes")
    if requested == "bf16":
        raise EnvironmentFailure(f"bf16 cannot be used: {problem}. Use --precision fp32")
    return Precision(name="fp32", reason=problem)


def bf16_problem(settings: ModelSettings, vocab_size: int, device: torch.device) -> str | None:
    """Why training in bfloat16 is not to be trusted here, or None when it is.

    One forward and backward pass at the model's own layer shapes, in both types, compared.
    """
    if problem := unserved_bf16(device):
        return problem
    if not CELLS[settings.cell].learns_input:
        return "a reservoir has no gradients to compare"
    try:
        exact = _probe(settings, vocab_size, device, "fp32")
        rough = _probe(settings, vocab_size, device, "bf16")
    except RuntimeError as error:
        return f"torch cannot run these layers in bfloat16 ({str(error).splitlines()[0]})"
    worst = max(
        float((a - b).norm() / a.norm().clamp_min(1e-30)) for a, b in zip(exact, rough, strict=True)
    )
    if not worst <= MAX_GRADIENT_ERROR:
        return f"bfloat16 gradients are {100 * worst:.0f} % off at these layer shapes"
    return None


def unserved_bf16(device: torch.device) -> str | None:
    """Explain why a device does not compute in bfloat16, or return None if it does."""
    if device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return f"bfloat16 is not served on this {device.type} device"
    if device.type == "cpu" and not processor_has_bf16():
        return "this processor has no bfloat16 arithmetic"
    return None


def _probe(
    settings: ModelSettings, vocab_size: int, device: torch.device, name: str
) -> list[Tensor]:
    """Return the gradients of the recurrent weights for one small batch.

    Raises RuntimeError where torch's own layers take float16 for bfloat16, as those of cuDNN do:
    without scaling, small gradients vanish in it, and the few tokens of a probe do not show it.
    """
    precision = Precision(name=name, reason="probe")
    generator = torch.Generator().manual_seed(0)
    model = RecurrentLanguageModel(settings, vocab_size)
    model.reset_parameters(generator)
    model.to(device)
    steps, most = PROBE_SHAPE
    rows = max(1, min(most, MAX_PROBED // (steps * vocab_size * settings.mixture)))
    ids = torch.randint(vocab_size, (steps, rows), generator=generator).to(device)
    computed: set[torch.dtype] = set()
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase):
            layer.register_forward_hook(lambda _, __, out: computed.add(out[0].dtype))
    with precision.autocast(device):
        logits, _ = model(ids)
    if torch.float16 in computed:
        raise RuntimeError("its recurrent layers are computed in float16, which has no scale")
    logits.float().log_softmax(-1)[..., 0].mean().backward()
    recurrent = [p for p in model.layers.parameters() if p.dim() > 1]
    return [p.grad.float().cpu() for p in recurrent if p.grad is not None]


def processor_has_bf16() -> bool:
    """Report whether the processor computes in bfloat16 (AMX, AVX-512 BF16 or Arm's BF16)."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    found = [getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe)]
    found += [bool(BF16_FLAGS & processor_features()), platform.machine() in ("arm64", "aarch64")]
    with contextlib.suppress(AttributeError, RuntimeError):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and any(found)
    return False


def processor_name() -> str:
    """The processor's name, as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> bool:
    """Stop glibc from giving large freed blocks back, which makes oneDNN training 1.2-1.6x faster.

    nn.LSTM allocates its workspace anew in every step; mapped and unmapped each time, it costs
    page faults. Returns whether it was done (glibc only). The process keeps its peak memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
    return False


def free_memory() -> int | None:
    """Bytes of memory that this process may still take, as Linux tells it; None elsewhere.

    What the machine has free, or what its control group leaves, if that is less.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
                break
        else:
            return None
        with contextlib.suppress(OSError, ValueError):
            group = Path("/sys/fs/cgroup")
            limit = int((group / "memory.max").read_text(encoding="ascii"))
            used = int((group / "memory.current").read_text(encoding="ascii"))
            stat = (group / "memory.stat").read_text(encoding="ascii").split()
            caches = int(stat[stat.index("inactive_file") + 1])
            free = min(free, max(limit - used + caches, 0))
        return free
    return None

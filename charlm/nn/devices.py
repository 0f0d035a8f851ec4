"""The device and the number type of a computation, with a check of low precision.

The check is necessary: with torch 2.13 on processors with AMX, the backward pass of nn.LSTM under
bfloat16 autocast is silently wrong from hidden size 1024 on. No choice depends on a measured time,
so that runs with the same seed are equal on a busy machine.
"""

import contextlib
import copy
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from charlm.backends.kernel_library import switched_off
from charlm.backends.processor import ARM_MACHINES, processor_features
from charlm.backends.training_library import VARIABLE, chosen_variant, open_library
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import EnvironmentFailure, UsageError, assigned, named
from charlm.nn.gpu import cuda_problem, low_type
from charlm.nn.kernel_layers import (
    LOOP,
    MIN_STEPS_OF_LOOP,
    changed_steps,
    computes,
    kernels_in_use,
    loop_pays,
)
from charlm.nn.low_precision import LowCopy, can_be_static
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.nn.output import has_chunked_loss

MAX_GRADIENT_ERROR = 0.05
"""Largest relative error of bfloat16 gradients that count as correct; correct ones have 0.01."""
PROBE_SHAPE = (16, 32)
"""Steps and sequences of the check."""
PROBE_REST = 3
"""Steps of a second window, which begins in the state after the first."""
MIN_COMPARED = 64
"""Fewest gradients of a bias that are compared, as the terms of few may cancel, and number of
logits of each token that are."""
MAX_PROBED = 2**26
"""Largest number of logits in the check, at 22 bytes each; batches are smaller if need be."""
MIN_BF16_WEIGHTS = 100_000
"""Number of multiplied weights below which `auto` is fp32 on a processor. Time in bf16 relative to
fp32, best of four, one thread of an AMD EPYC, nine cells: 1.0 to 2.1 with up to 40,000 weights, 0.7
to 1.5 with 60,000 to 150,000, 0.45 to 0.67 with more."""
TILE_ROWS = 32
"""Number of rows to which the training kernels fill up a batch."""
MIN_FILLED = {"amx": 0.0}
"""Least fraction of these rows for which a variant of the kernels comes before torch, by default
USUAL_FILLED. Speed of the AMX kernels relative to torch with 128, 256 and 512 units: 0.97, 1.57 and
1.71 for one row, 1.08, 1.58 and 2.05 for 8, 1.33, 1.83 and 2.39 for 16."""
USUAL_FILLED = 0.75
"""Speed of the AVX-512 BF16 kernels relative to torch with 256 units: 0.34 for one row, 0.59 for 8,
0.85 for 16, 1.03 for 24, 1.25 for 32."""
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
"""Features of processors with bfloat16 in /proc/cpuinfo, for torch builds without probes."""
COPY_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The number type of training, `fp32`, `bf16` or `fp16`, and the reason for it.

    `kernels` is the variant of the compiled kernels that compute recurrent layers, `loop` in fp32,
    and `softmax` the one that computes a large softmax; without one, torch does.
    """

    name: str
    reason: str
    kernels: str | None = None
    softmax: str | None = None

    @property
    def copy_type(self) -> torch.dtype | None:
        """Number type of the copy of a model that computes on a GPU, None without a copy."""
        return COPY_TYPES.get(self.name)

    @contextlib.contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Provide the context for the forward pass; on a GPU, a `LowCopy` takes its place."""
        low = self.name != "fp32" and device.type != "cuda"
        autocast = torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext()
        with autocast, kernels_in_use(self.kernels, self.softmax):
            yield

    def for_windows(self, steps: int) -> "Precision":
        """Return the precision for windows of at most this many steps.

        Without the loop if torch computes all of them in its place, since they are too short.
        """
        unused = self.kernels == LOOP and steps < MIN_STEPS_OF_LOOP
        return replace(self, kernels=None) if unused else self

    def record(self) -> dict[str, str]:
        """Return the entry of run.json."""
        parts = {"kernels": self.kernels, "softmax": self.softmax}
        used = {part: variant for part, variant in parts.items() if variant}
        return {"name": self.name, "reason": self.reason, **used}


PrecisionRule = Callable[[ModelSettings, int], Precision]
"""Choice of the precision for a model and batches of a number of sequences."""


def choose_device(name: str) -> torch.device:
    """Return the device of this name; `auto` is CUDA if there is a GPU that computes, else the CPU.

    Raises EnvironmentFailure if the device is not available or does not compute.
    """
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    asks_gpu = name in ("auto", "cuda") and available["cuda"]
    problem = cuda_problem() if asks_gpu else ""
    if name == "auto":
        return torch.device("cuda" if asks_gpu and not problem else "cpu")
    if not available[name]:
        names = ", ".join(kind for kind, present in available.items() if present)
        raise EnvironmentFailure(
            f"device {name} is not available here; found {names}. Use {assigned('device', 'auto')}"
        )
    if problem:
        raise EnvironmentFailure(
            f"device {name} does not compute here ({problem}); expected free memory on a GPU "
            f"that torch {torch.__version__} supports. Use {assigned('device', 'cpu')}"
        )
    return torch.device(name)


def choose_precision(
    requested: str,
    networks: Sequence[ModelSettings],
    vocab_size: int,
    device: torch.device,
    engine: str = "auto",
    rows: int = TILE_ROWS,
    *,
    static: bool = False,
) -> Precision:
    """Return bf16 if it is requested or, with `auto`, if it is correct here and the model large.

    A model has layers of the shapes of all `networks`, the largest number of weights in the first.
    Of the compiled kernels (`engine` native) and torch, the faster one for batches of this many
    rows is chosen, or the other one if its gradients are wrong. On a GPU, a copy of the model
    computes, which needs a task with `static` steps. Raises EnvironmentFailure if a type or native
    is requested and does not work here, UsageError if kernels are and do not compute the settings.
    """
    loop = next(iter(exact_engines(engine, networks[0], device)), None)
    if requested == "fp32":
        return Precision(name="fp32", reason="as set", kernels=loop)
    weights = multiplied_weights(networks[0], vocab_size)
    open_ = requested == "auto" and engine != "native"
    if open_ and device.type == "cpu" and weights < MIN_BF16_WEIGHTS:
        reason = "bf16 is no faster for a model this small"
        return Precision(name="fp32", reason=reason, kernels=loop)
    name = low_type(networks[0], device) if requested == "auto" else requested
    problem, failures = missing_type(name, networks[0], device, static=static), ""
    for kernels in [] if problem else engines(engine, networks[0], device, rows):
        problem = gradient_problem(networks, vocab_size, device, kernels, name)
        if problem is None:
            reason = f"gradients agree with fp32{failures}"
            large = not failures and has_chunked_loss(networks[0], vocab_size)
            softmax = softmax_kernels(name, device, engine) if large else None
            return Precision(name=name, reason=reason, kernels=kernels, softmax=softmax)
        failures += f"; in {f'{kernels} kernels' if kernels else 'torch'}, {problem}"
    if engine == "native":
        raise EnvironmentFailure(
            f"{assigned('engine', 'native')} cannot be used: {problem}. "
            f"Use {assigned('engine', 'torch')}"
        )
    if requested == name:
        raise EnvironmentFailure(
            f"{name} cannot be used: {problem}. Use {assigned('precision', 'fp32')}"
        )
    return Precision(name="fp32", reason=problem or "", kernels=loop)


def exact_engines(engine: str, settings: ModelSettings, device: torch.device) -> list[str | None]:
    """Return what can compute layers in fp32: the loop if it is faster here, None for torch."""
    if engine == "native":
        return []
    loops = engine == "auto" and device.type == "cpu" and loop_pays(settings)
    return [LOOP, None] if loops else [None]


def engines(
    engine: str, settings: ModelSettings, device: torch.device, rows: int = TILE_ROWS
) -> list[str | None]:
    """Return the variants of the kernels to try for batches of this many rows, None for torch.

    The first should be the fastest.

    Raises EnvironmentFailure if engine native is requested and there are none for this cell here,
    UsageError if the settings ask for what kernels do not compute.
    """
    kernels = _native_variant(settings, device) if engine != "torch" else None
    if engine != "native":
        both = [kernels, None] if fills_tiles(rows, kernels) else [None, kernels]
        return both if kernels else [None]
    if changed := changed_steps(settings):
        raise UsageError(
            f"{assigned('engine', 'native')} with {named(changed[0])}, which its kernels do not "
            f"compute. Use {assigned('engine', 'torch')}, or leave out {named(changed[0])}"
        )
    if kernels is None and (off := switched_off(VARIABLE)):
        raise EnvironmentFailure(
            f"{assigned('engine', 'native')} needs the training kernels, {off}, or use "
            f"{assigned('engine', 'torch')}"
        )
    if kernels is None:
        raise EnvironmentFailure(
            f"{assigned('engine', 'native')} cannot train cell {settings.cell} on this "
            f"{device.type}; expected a cell and a processor with training kernels, such as lstm "
            f"and AMX. Use {assigned('engine', 'torch')}"
        )
    return [kernels]


def softmax_kernels(name: str, device: torch.device, engine: str) -> str | None:
    """Return the variant of the kernels for a large softmax in a number type, None for torch.

    Raises EnvironmentFailure if CHARLM_TRAINING_KERNELS names one that does not run here.
    """
    if name != "bf16" or device.type != "cpu" or engine == "torch":
        return None
    variant = chosen_variant()
    with contextlib.suppress(EnvironmentFailure):  # of kernels that cannot be opened
        return variant if variant and open_library(variant) else None
    return None


def fills_tiles(rows: int, variant: str | None = None) -> bool:
    """Report whether batches of this many rows fill the tiles of a variant well enough for it."""
    least = MIN_FILLED.get(variant or "", USUAL_FILLED)
    return rows >= least * math.ceil(rows / TILE_ROWS) * TILE_ROWS


def _native_variant(settings: ModelSettings, device: torch.device) -> str | None:
    """Return the variant of the training kernels for a cell on this machine, if there is one."""
    return chosen_variant() if device.type == "cpu" and computes(settings) else None


def gradient_problem(
    networks: Sequence[ModelSettings],
    vocab_size: int,
    device: torch.device,
    kernels: str | None = None,
    name: str = "bf16",
) -> str | None:
    """Explain why training in low precision is not reliable here, or return None if it is.

    Compares one forward and backward pass with the layer shapes of each network in both types.
    """
    if not CELLS[networks[0].cell].learns_input:
        return "a reservoir has no gradients to compare"
    exact = Precision(name="fp32", reason="probe")
    rough = Precision(name=name, reason="probe", kernels=kernels)
    errors = []
    for settings in networks:
        try:
            fresh = _Fresh(settings, vocab_size)
            results = _probe(fresh, device, exact), _probe(fresh, device, rough)
        except EnvironmentFailure as error:  # of kernels that cannot be opened
            return str(error)
        except RuntimeError as error:
            return f"torch cannot run these layers in {name} ({str(error).splitlines()[0]})"
        pairs = zip(*results, strict=True)
        errors += [(a - b).norm() / a.norm().clamp_min(1e-30) for a, b in pairs]
    worst = float(torch.stack(errors).max())
    if not worst <= MAX_GRADIENT_ERROR:
        return f"{name} gradients are {100 * worst:.0f} % off at these layer shapes"
    return None


def missing_type(
    name: str, model: ModelSettings, device: torch.device, *, static: bool
) -> str | None:
    """Explain why a device does not train a model in bf16 or fp16, or return None if it does.

    `static` is as in `choose_precision`.
    """
    if device.type == "cuda" and not (static and can_be_static(model)):
        return "the steps of this training cannot be computed by a copy of the model"
    if name == "fp16" and device.type != "cuda":
        return f"only a CUDA GPU trains in it, and this is {device.type}"
    return missing_bf16(device) if name == "bf16" else None


def missing_bf16(device: torch.device) -> str | None:
    """Explain why a device does not compute in bfloat16, or return None if it does."""
    problem = device.type == "mps"
    if device.type == "cuda":  # older GPUs emulate it, which takes longer than float32
        problem = not torch.cuda.is_bf16_supported(including_emulation=False)
    if problem:
        return f"bfloat16 is not supported on this {device.type} device"
    if device.type == "cpu" and not processor_has_bf16():
        return "this processor has no bfloat16 arithmetic"
    return None


class _Fresh:
    """A model with its first weights, for several probes: orthogonal ones take seconds to make."""

    def __init__(self, settings: ModelSettings, vocab_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = RecurrentLanguageModel(settings, vocab_size)
        self.model.reset_parameters(generator)
        self._after = generator.get_state()

    def copies(self) -> tuple[RecurrentLanguageModel, torch.Generator]:
        """Return a copy of the model, and a generator as it was after making the weights."""
        generator = torch.Generator()
        generator.set_state(self._after)
        return copy.deepcopy(self.model), generator


def _probe(fresh: _Fresh, device: torch.device, precision: Precision) -> list[Tensor]:
    """Return the gradients of the recurrent weights for one small batch, with dropout.

    For the cells of the kernels, all that these compute is returned: outputs, states, which a
    second window begins with, and the gradients of embeddings and biases.
    """
    model, generator = fresh.copies()
    settings, vocab_size = model.settings, model.vocab_size
    model.to(device)
    whole, (steps, batch_size) = computes(settings), PROBE_SHAPE
    batch_size = max(1, min(batch_size, MAX_PROBED // (steps * vocab_size * settings.mixture)))
    shape = (steps + whole * PROBE_REST, batch_size)
    ids = torch.randint(vocab_size, shape, generator=generator).to(device)
    low = _copy_of(model, device, precision)
    scale, computed = (low.scale, cast(RecurrentLanguageModel, low.model)) if low else (1.0, model)
    state, masks = None, torch.Generator(device).manual_seed(0)
    loss, results = torch.zeros((), device=device), list[Tensor]()
    for window in (ids[:steps], ids[steps:]) if whole else (ids,):
        with precision.autocast(device):
            logits, state = computed(window, state, masks)
        loss = loss + logits.float().log_softmax(-1)[..., 0].mean()
        if whole:
            results += [logits[..., :MIN_COMPARED], *(part for layer in state for part in layer)]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    found: Sequence[Tensor | None] = (
        low.gradients(loss * scale)
        if low
        else torch.autograd.grad(loss, trained, allow_unused=True)
    )
    gradients = dict(zip(trained, found, strict=True))
    weights = [p for p in model.layers.parameters() if p.dim() > 1 or whole]
    weights += model.embedding.parameters() if whole else ()
    many = [p for p in weights if p.dim() > 1 or p.numel() >= MIN_COMPARED]
    results += [g.float() / scale for p in many if (g := gradients.get(p)) is not None]
    return [result.detach().float().cpu() for result in results]


def _copy_of(
    model: RecurrentLanguageModel, device: torch.device, precision: Precision
) -> LowCopy | None:
    """Return the copy that computes on a GPU, also in fp32: masks depend on its padded sizes."""
    return LowCopy(model, precision.copy_type or torch.float32) if device.type == "cuda" else None


def processor_has_bf16() -> bool:
    """Report whether the processor computes in bfloat16 (AMX, AVX-512 BF16 or Arm's BF16)."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    answers = [getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe)]
    answers += [bool(BF16_FLAGS & processor_features()), platform.machine() in ARM_MACHINES]
    with contextlib.suppress(AttributeError, RuntimeError):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and any(answers)
    return False

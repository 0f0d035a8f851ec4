"""Abilities of a CUDA GPU and of the libraries of torch for it."""

import functools

import torch

from charlm.config.model import ModelSettings

CELLS_OF_CUDNN = ("lstm", "gru", "rnn")
"""Cells that cuDNN computes."""
BFLOAT16_CUDNN, BFLOAT16_TORCH = 91300, (2, 10)
"""First version of cuDNN that computes these cells in bfloat16, and first torch that lets it. With
older ones, torch computes them step by step. https://github.com/pytorch/pytorch/pull/164411"""
FLOAT16_CAPABILITY = (7, 0)
"""First compute capability of GPUs that multiply float16 faster than float32."""


@functools.cache
def cuda_problem() -> str:
    """Explain why the GPU that torch finds does not compute, or return "" if it does.

    It may be too old or too new for this torch, or other programs hold all of its memory.
    """
    try:
        float(torch.ones((), device="cuda") + 1.0)
    except RuntimeError as error:
        return str(error).strip().partition("\n")[0]
    return ""


def low_type(model: ModelSettings, device: torch.device) -> str:
    """Return the 16-bit type that `auto` compares with float32: bf16, or fp16 if that is faster.

    Both have correct gradients, but bf16 needs no scale of the loss. A GPU computes it slowly if it
    only emulates it, and the cells of cuDNN if cuDNN or torch is too old.
    """
    if device.type != "cuda":
        return "bf16"
    is_emulated = not torch.cuda.is_bf16_supported(including_emulation=False)
    is_slow = model.cell in CELLS_OF_CUDNN and not cudnn_has_bfloat16()
    fast = torch.cuda.get_device_capability(device) >= FLOAT16_CAPABILITY
    return "fp16" if fast and (is_emulated or is_slow) else "bf16"


def cudnn_has_bfloat16() -> bool:
    """Report whether cuDNN computes recurrent layers in bfloat16; MIOpen of AMD does not."""
    if torch.version.hip is not None:
        return False
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return torch_release() >= BFLOAT16_TORCH and (cudnn or 0) >= BFLOAT16_CUDNN


def torch_release() -> tuple[int, ...]:
    """Return the first two numbers of the version of torch."""
    return tuple(map(int, torch.__version__.split(".")[:2]))

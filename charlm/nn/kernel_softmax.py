"""The softmax of bfloat16 logits and its gradient, computed by the compiled training kernels."""

import torch
from torch import Tensor

from charlm.backends.training_library import open_library


def kernel_nats(
    variant: str,
    logits: Tensor,
    bias: Tensor,
    targets: Tensor,
    smoothing: float,
    by_bias: Tensor | None,
) -> Tensor:
    """Return the loss of targets (N,), and put its gradient in the place of the logits (N, V).

    P = softmax(logits + bias) for logits in bfloat16 and `bias` (V,) in float32. The fraction
    `smoothing` of each target is spread over all entries. A negative target has no loss, and its
    logits become zero. The gradient by the bias is added to `by_bias` (V,). Raises IndexError for a
    target outside of the vocabulary.
    """
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(), "the kernels check nothing"
    assert bias.dtype == torch.float32 and targets.dtype == torch.int64, "see above"
    bias, targets = bias.contiguous(), targets.contiguous()
    threads, losses = torch.get_num_threads(), torch.empty(len(logits))
    sums = None if by_bias is None else torch.zeros(threads, len(bias))
    if open_library(variant).training_softmax(
        logits.data_ptr(), bias.data_ptr(), targets.data_ptr(), losses.data_ptr(),
        None if sums is None else sums.data_ptr(), *logits.shape, smoothing, threads,
    ):  # fmt: skip
        raise IndexError(f"a target is outside of the {len(bias)} entries of the vocabulary")
    if by_bias is not None and sums is not None:
        by_bias += sums.sum(0)
    return losses.sum()

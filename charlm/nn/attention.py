"""Dot-product attention: each query reads a mean of the memory, weighted by likeness.

weights = softmax(query . memory), context = weights . memory (Luong et al. 2015, "dot",
arxiv.org/abs/1508.04025).
"""

import torch
from torch import Tensor


def attend(queries: Tensor, memory: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the context (T', B, D) of queries (T', B, D), and the weights (T', B, T) in float32.

    `memory` (T, B, D) has a row for each step of the source texts, which have `lengths` (B,) steps.
    Weights of a query are positive and sum to one; those of padding are zero.
    """
    values = memory.transpose(0, 1)  # (B, T, D)
    scores = torch.bmm(queries.transpose(0, 1), values.transpose(1, 2))  # (B, T', T)
    padding = torch.arange(len(memory), device=lengths.device) >= lengths[:, None]  # (B, T)
    scores = scores.float().masked_fill(padding[:, None], -torch.inf)
    weights = scores.softmax(dim=-1)
    context = torch.bmm(weights.to(values.dtype), values)  # (B, T', D)
    return context.transpose(0, 1), weights.transpose(0, 1)

"""Pooling: one vector of the hidden vectors of a text."""

import torch
from torch import Tensor

from charlm.backends.weights import pooling_parts


def pooled(name: str, hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return one vector (B, P) of the hidden vectors (T, B, H) of texts of these lengths (B,).

    Steps from a text's length on are padding and have no effect. `name` is last, mean, max or
    concat, which is all three in this order (Howard & Ruder 2018, "concat pooling"). Computed in
    float32.
    """
    hidden = hidden.float()
    inside = (torch.arange(len(hidden), device=hidden.device)[:, None] < lengths)[..., None]
    ways = {
        "last": lambda: hidden[lengths - 1, torch.arange(hidden.shape[1], device=hidden.device)],
        "mean": lambda: (hidden * inside).sum(dim=0) / lengths[:, None],
        "max": lambda: hidden.masked_fill(~inside, -torch.inf).amax(dim=0),
    }
    return torch.cat([ways[part]() for part in pooling_parts(name)], dim=1)

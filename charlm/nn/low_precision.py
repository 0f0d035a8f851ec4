"""A copy of a model in a low-precision number type, which computes in the place of the model.

The weights of the model stay in float32: an update of a low-precision weight is often smaller than
the distance to the next number (Micikevicius et al. 2018, arxiv.org/abs/1710.03740).
"""

import copy

import torch
from torch import Tensor

from charlm.nn.encoder import Encoder

FP16_SCALE = 1024.0
"""Factor on the loss in float16, in which small gradients would otherwise vanish."""


class LowCopy:
    """A copy of a model in a low-precision type, whose weights follow those of the model.

    `model` is the copy. `weights` are its weights that are trained; their gradients are for the
    weights of the original, once divided by `scale`, the factor on the loss.
    """

    def __init__(self, model: Encoder, dtype: torch.dtype) -> None:
        self.model, self.dtype = copy.deepcopy(model).to(dtype), dtype
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.scale = FP16_SCALE if dtype == torch.float16 else 1.0
        self._copies: list[Tensor] = list(self.model.parameters())
        self._originals: list[Tensor] = list(model.parameters())
        self.prepare()

    def refresh(self) -> None:
        """Round the weights of the original again, into the same memory."""
        with torch.no_grad():
            torch._foreach_copy_(self._copies, self._originals)

    def prepare(self) -> None:
        """Arrange the weights as the layers of the device need them; nothing on a processor."""

    def cast(self, x: Tensor) -> Tensor:
        """Return x in the number type of the copy."""
        return x.to(self.dtype)

"""A copy of a model in a low-precision number type, which computes in the place of the model.

The weights of the model stay in float32: an update of a low-precision weight is often smaller than
the distance to the next number (Micikevicius et al. 2018, arxiv.org/abs/1710.03740).
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.backends.cudnn.rnn import get_cudnn_mode

from charlm.config.model import ModelSettings
from charlm.nn.encoder import Encoder, State

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
        """Put the weights of each layer of cuDNN into one block of memory, as it needs them.

        torch's own `flatten_parameters` leaves bfloat16 out, which cuDNN computes as well.
        """
        for layer in self.model.modules():
            if isinstance(layer, nn.RNNBase) and layer.weight_hh_l0.is_cuda:
                flat = [cast(Tensor, weight) for weight in layer._flat_weights]
                mode: int = get_cudnn_mode(layer.mode)  # type: ignore[no-untyped-call]
                with torch.no_grad():
                    torch._cudnn_rnn_flatten_weight(
                        flat, len(flat), layer.input_size, mode, layer.hidden_size, 0,
                        layer.num_layers, layer.batch_first, layer.bidirectional,
                    )  # fmt: skip

    def cast(self, state: State) -> State:
        """Return a recurrent state in the number type of the copy."""
        return tuple(tuple(tensor.to(self.dtype) for tensor in layer) for layer in state)


def can_be_static(settings: ModelSettings) -> bool:
    """Return whether all weights of a language model have a gradient in each step.

    Some have none in some steps if a first state is learned, and with an adaptive softmax, which
    also reads on the host which clusters a window has.
    """
    return not settings.learned_state and not settings.adaptive_softmax

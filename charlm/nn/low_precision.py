"""A copy of a model in a low-precision number type, which computes in the place of the model.

The weights of the model stay in float32: an update of a low-precision weight is often smaller than
the distance to the next number (Micikevicius et al. 2018, arxiv.org/abs/1710.03740).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.backends.cudnn.rnn import get_cudnn_mode

from charlm.config.model import ModelSettings
from charlm.nn.encoder import Encoder, State
from charlm.nn.padding import blocks_of, padded_copy, padded_state, real_part

FP16_SCALE = 1024.0
"""Factor on the loss in float16 that training begins with; without one, small gradients vanish."""
MAX_SCALE = 2.0**24
"""Factor on the loss up to which it is doubled."""
GROWTH_STEPS = 2000
"""Steps in a row with finite gradients after which the factor is doubled, as in torch.amp."""


class Pair(NamedTuple):
    """A weight of the copy, that of the original, and the number of its blocks (`blocks_of`)."""

    copy: Tensor
    original: Tensor
    blocks: int


class LowCopy:
    """A copy of a model in a low-precision type, whose weights follow those of the model.

    `model` is the copy, whose sizes may be padded (see `padding`). The factor on the loss, which is
    to be divided out of gradients, is `scale` at first.
    """

    def __init__(self, model: Encoder, dtype: torch.dtype) -> None:
        self.model, self.dtype = padded_copy(model).to(dtype), dtype
        self.scale = FP16_SCALE if dtype == torch.float16 else 1.0
        weights = self.model.parameters(), model.parameters(), blocks_of(model)
        self._pairs = [Pair(*each) for each in zip(*weights, strict=True)]
        self._trained = [pair for pair in self._pairs if pair.copy.requires_grad]
        layers = zip(self.model.recurrent_layers(), model.recurrent_layers(), strict=True)
        self._added = [wide.hidden_size - layer.hidden_size for wide, layer in layers]
        """Units by which each layer is padded."""
        self.prepare()
        self.refresh()

    def refresh(self) -> None:
        """Round the weights of the original again, into the same memory."""
        with torch.no_grad():
            parts = [real_part(*pair) for pair in self._pairs]
            originals = [
                pair.original.view_as(part) for pair, part in zip(self._pairs, parts, strict=True)
            ]
            torch._foreach_copy_(parts, originals)

    def prepare(self) -> None:
        """Put the weights of each layer of cuDNN into one block of memory, as it needs them.

        torch's own `flatten_parameters` leaves bfloat16 out, which cuDNN computes as well.
        """
        if not torch._use_cudnn_rnn_flatten_weight():  # torch for AMD's GPUs has no cuDNN
            return
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
        """Return a state of the original in the number type and the sizes of the copy."""
        layers = zip(state, self._added, strict=True)
        return tuple(
            tuple(padded_state(tensor, added, self.dtype) for tensor in layer)
            for layer, added in layers
        )

    def cut(self, state: State) -> State:
        """Return a state of the copy in the sizes of the original, as views."""
        layers = zip(state, self._added, strict=True)
        return tuple(
            tuple(tensor[:, : tensor.shape[1] - added] for tensor in layer)
            for layer, added in layers
        )

    def gradients(self, loss: Tensor) -> list[Tensor | None]:
        """Return the gradients of a loss for the trained weights of the original.

        That of a weight (K H, ...) whose copy is padded is a view (K, H, ...), see `real_part`.
        """
        weights = [pair.copy for pair in self._trained]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return [
            None if gradient is None else real_part(gradient, pair.original, pair.blocks)
            for gradient, pair in zip(found, self._trained, strict=True)
        ]


class LossScale:
    """The factor on the loss in float16, on the device, adapted to the gradients of each step.

    Gradients that are not finite, of a finite loss, halve it, and that step changes nothing else;
    `GROWTH_STEPS` in a row with finite ones double it (Micikevicius et al. 2018, as in
    torch.amp.GradScaler). Where it would fall below 1, the gradients are not finite in themselves,
    and the step has failed. It changes only with an update, so that all windows of a step have the
    same one.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.tensor(FP16_SCALE, device=device)
        self.good_steps = torch.zeros((), device=device)
        """Steps with finite gradients since the factor changed."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint keeps, by name."""
        return {"factor": self.factor, "good_steps": self.good_steps}

    def divide_out(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the factor, in place; as a power of 2, it costs no digits."""
        torch._foreach_mul_(list(gradients), 1.0 / self.factor)

    def after(self, norm: Tensor, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return factor and good steps after a step, and whether its gradients have overflowed.

        `norm` is the norm of its gradients, `loss` its loss. If the step has failed, nothing
        changes. All numbers stay on the device.
        """
        known, finite, half = loss.isfinite(), norm.isfinite(), self.factor / 2
        overflows = known & ~finite & (half >= 1.0)
        good_steps = self.good_steps + (known & finite)
        doubles = good_steps >= GROWTH_STEPS
        larger = torch.where(doubles, (2 * self.factor).clamp(max=MAX_SCALE), self.factor)
        factor = torch.where(overflows, half, larger)
        return factor, good_steps.masked_fill(doubles | overflows, 0.0), overflows

    def put(self, factor: Tensor, good_steps: Tensor) -> None:
        """Take these numbers, into the same memory."""
        self.factor.copy_(factor)
        self.good_steps.copy_(good_steps)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the tensors of a checkpoint; from the beginning if it has none."""
        self.put(**{**LossScale(self.factor.device).tensors, **tensors})


def can_be_static(settings: ModelSettings) -> bool:
    """Return whether all weights of a language model have a gradient in each step.

    Some have none in some steps if a first state is learned, and with an adaptive softmax, which
    also reads on the host which clusters a window has.
    """
    return not settings.learned_state and not settings.adaptive_softmax

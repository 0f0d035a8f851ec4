"""The cells of `torch.nn`, which reach oneDNN and cuDNN, and the compiled kernels or the loop.

Each is a module of one layer: dropout between layers then comes from our generator (cuDNN keeps a
hidden random state of its own).
"""

import warnings
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.cells import CANDIDATE
from charlm.config.model import ModelSettings
from charlm.nn.kernel_layers import LayerWeights, run_layer_kernel, serves
from charlm.nn.layers import LayerState, Lookup, RecurrentLayer, without_init

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
"""Names of the weights of a torch module, in the order of `LayerWeights`."""
# a dropped weight is in memory of its own in each step, so cuDNN has to copy the weights together
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")


class TorchLayer(RecurrentLayer):
    """One layer of a `torch.nn` recurrent cell."""

    module_class: type[nn.RNNBase] = nn.RNN
    recurrent_weight = "rnn.weight_hh_l0"
    gate_bias = "rnn.bias_ih_l0"

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.rnn = without_init(self.module_class, input_size, hidden_size, **self.options())

    def options(self) -> dict[str, str]:
        """Return the arguments of the torch module other than its sizes."""
        return {}

    def forward(self, x: Tensor | Lookup, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`; x is a Lookup only if the kernels in use serve it."""
        if serves(self.settings, x):
            return run_layer_kernel(self.settings.cell, x, state, self.weights())
        y, (after,) = run_at_once([self], cast(Tensor, x), [state])
        return y, after

    def weights(self) -> LayerWeights:
        """Return the weights as they are now, which may be dropped ones."""
        return LayerWeights(*(cast(Tensor, getattr(self.rnn, name)) for name in WEIGHTS))

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`; each gate is sigmoid(W x + U h + b).

        The candidate is tanh(W x + U h + b), where the reset gate of a GRU multiplies U h + b.
        """
        weights = dict(self.rnn.named_parameters())
        from_input = F.linear(x, weights["weight_ih_l0"], weights["bias_ih_l0"])
        from_state = F.linear(state[0], weights["weight_hh_l0"], weights["bias_hh_l0"])
        blocks = self.spec.blocks
        sides = [side.chunk(len(blocks), dim=-1) for side in (from_input, from_state)]
        values: dict[str, Tensor] = {}
        for name, left, right in zip(blocks, *sides, strict=True):
            if name == CANDIDATE:
                values[name] = torch.tanh(left + right * values.get("reset", 1.0))
            else:
                values[name] = torch.sigmoid(left + right)
        return values


def run_at_once(
    layers: Sequence[TorchLayer], x: Tensor, state: Sequence[LayerState]
) -> tuple[Tensor, tuple[LayerState, ...]]:
    """Return the output (T, B, H) of stacked layers of H units each, and the states after it.

    On a GPU, cuDNN computes several layers of one call side by side. In plain torch, a step of two
    layers of 512 units took 3.0 ms so; charlm's, with a call for each layer, took 4.6 ms.
    """
    before = [  # (L, B, H) each; autocast refuses to stack float16 on a processor
        tensors[0].unsqueeze(0).contiguous() if len(tensors) == 1 else torch.stack(tensors)
        for tensors in zip(*state, strict=True)
    ]
    # not nn.LSTM itself: given a dropped weight, it moves all weights to other memory on a GPU,
    # where the optimiser and the graphs of a training step no longer find them
    rnn = layers[0].rnn
    compute = getattr(torch, rnn.mode.lower())  # torch.lstm, gru, rnn_tanh, rnn_relu
    weights = [weight for layer in layers for weight in layer.weights()]
    y, *after = compute(
        x, before if len(before) > 1 else before[0], weights,
        True, len(layers), 0.0, rnn.training and keeps_for_gradient(x), False, False,
    )  # fmt: skip
    return y, tuple(zip(*(tensor.unbind(0) for tensor in after), strict=True))


def keeps_for_gradient(x: Tensor) -> bool:
    """Report whether a layer must keep what its gradient needs.

    In training mode, cuDNN keeps several numbers for each output, also if there is no gradient.
    """
    return torch.is_grad_enabled() or not x.is_cuda


class ElmanLayer(TorchLayer):
    """h' = tanh(W x + U h + b), or with relu for tanh (Elman 1990; Le et al. 2015)."""

    def options(self) -> dict[str, str]:
        """Return the nonlinearity."""
        return {"nonlinearity": self.settings.nonlinearity}

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """Return nothing: there are no gates."""
        return RecurrentLayer.gate_values(self, x, state)


class LstmLayer(TorchLayer):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W x + U h + b); g = tanh(...); c' = f c + i g; h' = o tanh(c').
    """

    module_class = nn.LSTM


class GruLayer(TorchLayer):
    """Gated recurrent unit (Cho et al. 2014) with its reset gate after the recurrent product."""

    module_class = nn.GRU

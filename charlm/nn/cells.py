"""Recurrent layers behind one interface: a sequence and a state in, a sequence and a state out.

The built-in cells are one-layer `torch.nn` modules, which reach oneDNN and cuDNN. One layer each,
because dropout between layers is then ours to draw (cuDNN keeps a hidden random state of its own).
The others are in `stepwise`, `parallel` and `reservoir`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.cells import CANDIDATE
from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer, without_init


class TorchLayer(RecurrentLayer):
    """One layer of a `torch.nn` recurrent cell."""

    module_class: type[nn.RNNBase] = nn.RNN
    recurrent_weight = "rnn.weight_hh_l0"
    gate_bias = "rnn.bias_ih_l0"

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.rnn = without_init(self.module_class, input_size, hidden_size, **self.options())

    def options(self) -> dict[str, str]:
        """What the torch module is made with, beside its sizes."""
        return {}

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (T, B, E) and the state before it -> h at every step (T, B, H) and the state after."""
        before = tuple(part.unsqueeze(0) for part in state)  # (1, B, H) each
        y, after = self.rnn(x, before if len(before) > 1 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        return y, tuple(part.squeeze(0) for part in after)

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`: sigmoid(W x + U h + b) of the named blocks."""
        weights = dict(self.rnn.named_parameters())
        into = F.linear(x, weights["weight_ih_l0"], weights["bias_ih_l0"])
        back = F.linear(state[0], weights["weight_hh_l0"], weights["bias_hh_l0"])
        blocks = torch.sigmoid(into + back).chunk(len(self.spec.blocks), dim=-1)
        named = zip(self.spec.blocks, blocks, strict=True)
        return {name: block for name, block in named if name != CANDIDATE}


class ElmanLayer(TorchLayer):
    """h' = tanh(W x + U h + b), or relu in place of tanh (Elman 1990; Le et al. 2015)."""

    def options(self) -> dict[str, str]:
        """The nonlinearity."""
        return {"nonlinearity": self.settings.nonlinearity}


class LstmLayer(TorchLayer):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W x + U h + b); g = tanh(...); c' = f c + i g; h' = o tanh(c').
    """

    module_class = nn.LSTM


class GruLayer(TorchLayer):
    """Gated recurrent unit (Cho et al. 2014), reset gate after the recurrent product."""

    module_class = nn.GRU


def embedding_scale(embedding_size: int) -> float:
    """Standard deviation of fresh embeddings: rows of length about one, at least 0.1."""
    return max(0.1, 1.0 / math.sqrt(embedding_size))

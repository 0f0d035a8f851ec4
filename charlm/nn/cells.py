"""Recurrent layers behind one interface: a sequence and a state in, a sequence and a state out.

The built-in cells are one-layer `torch.nn` modules, which reach oneDNN and cuDNN. One layer each,
because dropout between layers is then ours to draw (cuDNN keeps a hidden random state of its own).
The others are in `stepwise`, `parallel` and `reservoir`; CELLS holds them all.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from charlm.nn.layers import LayerState, RecurrentLayer, without_init
from charlm.nn.parallel import MinGru, MinLstm, Qrnn
from charlm.nn.reservoir import EchoState
from charlm.nn.stepwise import (
    CappedLstm,
    LayerNormLstm,
    MogrifierLstm,
    MultiplicativeLstm,
    PeepholeLstm,
)


class TorchLayer(RecurrentLayer):
    """One layer of a `torch.nn` recurrent cell."""

    module_class: type[nn.RNNBase] = nn.RNN
    recurrent_weight = "rnn.weight_hh_l0"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.rnn = without_init(self.module_class, input_size, hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (T, B, E) and the state before it -> h at every step (T, B, H) and the state after."""
        before = tuple(part.unsqueeze(0) for part in state)  # (1, B, H) each
        y, after = self.rnn(x, before if self.parts > 1 else before[0])
        after = after if isinstance(after, tuple) else (after,)
        return y, tuple(part.squeeze(0) for part in after)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Recurrent blocks orthogonal (Saxe et al. 2014), input blocks Xavier-uniform, no bias."""
        for name, parameter in self.rnn.named_parameters():
            for block in parameter.chunk(self.gates):
                if name.startswith("weight_hh"):
                    nn.init.orthogonal_(block, generator=generator)
                elif name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(block, generator=generator)
                else:
                    nn.init.zeros_(block)


class ElmanLayer(TorchLayer):
    """h' = tanh(W x + U h + b) (Elman 1990)."""


class LstmLayer(TorchLayer):
    """Long short-term memory with a forget gate (Hochreiter & Schmidhuber 1997; Gers et al. 2000).

    i, f, o = sigmoid(W x + U h + b); g = tanh(...); c' = f c + i g; h' = o tanh(c').
    """

    gates = 4
    parts = 2
    module_class = nn.LSTM

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others, and forget bias 1 (Jozefowicz et al. 2015): remember until told not to."""
        super().reset_parameters(generator)
        hidden = self.hidden_size
        cast(Tensor, self.rnn.bias_ih_l0)[hidden : 2 * hidden] = 1.0


class GruLayer(TorchLayer):
    """Gated recurrent unit (Cho et al. 2014), reset gate after the recurrent product."""

    gates = 3
    module_class = nn.GRU


CELLS: dict[str, type[RecurrentLayer]] = {
    "rnn": ElmanLayer,
    "lstm": LstmLayer,
    "gru": GruLayer,
    "lstm-peephole": PeepholeLstm,
    "lstm-layernorm": LayerNormLstm,
    "lstm-capped": CappedLstm,
    "mlstm": MultiplicativeLstm,
    "mogrifier": MogrifierLstm,
    "qrnn": Qrnn,
    "mingru": MinGru,
    "minlstm": MinLstm,
    "esn": EchoState,
}
"""Every cell by the name that `--cell` takes."""


def embedding_scale(embedding_size: int) -> float:
    """Standard deviation of fresh embeddings: rows of length about one, at least 0.1."""
    return max(0.1, 1.0 / math.sqrt(embedding_size))

"""Cells that are computed step by step: variants of the LSTM from the literature.

Symbols: x input (B, E), h and c state (B, H), W input weights, U recurrent weights, * elementwise.
Gate blocks are in the order i, f, g, o: input, forget, candidate, output.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.nn.layers import LayerState, RecurrentLayer, empty_parameter


class StepwiseLstm(RecurrentLayer):
    """What the variants share: one product for the inputs of all steps, then a loop.

    The forget bias is 1, as in the built-in LSTM.
    """

    gates = 4
    parts = 2
    recurrent_weight = "weight_hh"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_ih = empty_parameter(4 * hidden_size, input_size)
        self.weight_hh = empty_parameter(4 * hidden_size, hidden_size)
        self.bias = empty_parameter(4 * hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """x (T, B, E) and the state before it -> h at every step (T, B, H) and the state after."""
        side = F.linear(x, self.weight_ih, self.bias)  # (T, B, 4H)
        outputs = []
        for into in side.unbind(0):
            state = self.step(into, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """The state after one step; `into` is W x + b, shape (B, 4H)."""
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Recurrent blocks orthogonal, input blocks Xavier-uniform, forget bias 1."""
        for block in self.weight_hh.chunk(4):
            nn.init.orthogonal_(block, generator=generator)
        for block in self.weight_ih.chunk(4):
            nn.init.xavier_uniform_(block, generator=generator)
        nn.init.zeros_(self.bias)
        self.bias[self.hidden_size : 2 * self.hidden_size] = 1.0


class PeepholeLstm(StepwiseLstm):
    """Gates that see the cell (Gers & Schmidhuber 2000).

    i = sigmoid(W x + U h + p_i * c), f = sigmoid(... + p_f * c), c' = f * c + i * g,
    o = sigmoid(W x + U h + p_o * c'), h' = o * tanh(c').
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.peephole = empty_parameter(3, hidden_size)

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        i, f, g, o = (into + F.linear(h, self.weight_hh)).chunk(4, dim=-1)
        p = self.peephole
        c = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
        return torch.sigmoid(o + p[2] * c) * torch.tanh(c), c

    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others; peepholes closed."""
        super().reset_parameters(generator)
        nn.init.zeros_(self.peephole)


class LayerNormLstm(StepwiseLstm):
    """Normalised gates and cell (Ba et al. 2016, equations 20 to 22).

    gates = LN(W x) + LN(U h) + b, c' = f * c + i * g, h' = o * tanh(LN(c')); LN subtracts the mean
    over its units, divides by their deviation, and multiplies by a learnt gain.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gain_ih = empty_parameter(4 * hidden_size)
        self.gain_hh = empty_parameter(4 * hidden_size)
        self.gain_c = empty_parameter(hidden_size)
        self.bias_c = empty_parameter(hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `StepwiseLstm.forward`."""
        side = normalised(F.linear(x, self.weight_ih)) * self.gain_ih + self.bias
        outputs = []
        for into in side.unbind(0):
            state = self.step(into, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        recurrent = normalised(F.linear(h, self.weight_hh)) * self.gain_hh
        i, f, g, o = (into + recurrent).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        shown = normalised(c) * self.gain_c + self.bias_c
        return torch.sigmoid(o) * torch.tanh(shown), c

    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others; gains 1."""
        super().reset_parameters(generator)
        for gain in (self.gain_ih, self.gain_hh, self.gain_c):
            nn.init.ones_(gain)
        nn.init.zeros_(self.bias_c)


def normalised(x: Tensor) -> Tensor:
    """Zero mean and unit variance over the last axis (epsilon 1e-5 under the root)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


class CappedLstm(StepwiseLstm):
    """The input gate is at most what was forgotten (Melis et al. 2018, section 2).

    c' = f * c + min(i, 1 - f) * g, so that the cell stays within [-1, 1].
    """

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        i, f, g, o = (into + F.linear(h, self.weight_hh)).chunk(4, dim=-1)
        f = torch.sigmoid(f)
        c = f * c + torch.minimum(torch.sigmoid(i), 1.0 - f) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class MultiplicativeLstm(StepwiseLstm):
    """Recurrent weights that depend on the input (Krause et al. 2016).

    m = (W_m x) * (U_m h), then an LSTM whose recurrent product reads m in place of h.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_mx = empty_parameter(hidden_size, input_size)
        self.weight_mh = empty_parameter(hidden_size, hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `StepwiseLstm.forward`."""
        side = F.linear(x, torch.cat([self.weight_ih, self.weight_mx]))
        bias = torch.cat([self.bias, self.bias.new_zeros(self.hidden_size)])
        outputs = []
        for into in (side + bias).unbind(0):
            state = self.step(into, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """`into` is W x + b and W_m x, shape (B, 5H)."""
        h, c = state
        gates, factor = into[:, : 4 * self.hidden_size], into[:, 4 * self.hidden_size :]
        m = factor * F.linear(h, self.weight_mh)
        i, f, g, o = (gates + F.linear(m, self.weight_hh)).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others; the factors Xavier-uniform and orthogonal."""
        super().reset_parameters(generator)
        nn.init.xavier_uniform_(self.weight_mx, generator=generator)
        nn.init.orthogonal_(self.weight_mh, generator=generator)


class MogrifierLstm(StepwiseLstm):
    """Input and state gate each other first (Melis et al. 2020).

    For r = 1 to ROUNDS: odd r: x <- 2 sigmoid(Q_r h) * x; even r: h <- 2 sigmoid(R_r x) * h.
    Then an ordinary LSTM step on x and h. Full-rank Q and R.
    """

    ROUNDS = 5

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.gating = nn.ParameterList(
            empty_parameter(input_size, hidden_size)
            if number % 2 == 0
            else empty_parameter(hidden_size, input_size)
            for number in range(self.ROUNDS)
        )

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `StepwiseLstm.forward`."""
        outputs = []
        for row in x.unbind(0):
            state = self.step(row, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """`into` is x itself, shape (B, E)."""
        h, c = state
        x = into
        for number, weight in enumerate(self.gating):
            if number % 2 == 0:
                x = 2.0 * torch.sigmoid(F.linear(h, weight)) * x
            else:
                h = 2.0 * torch.sigmoid(F.linear(x, weight)) * h
        gates = F.linear(x, self.weight_ih, self.bias) + F.linear(h, self.weight_hh)
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others; gating small, so that training starts near an ordinary LSTM."""
        super().reset_parameters(generator)
        for weight in self.gating:
            nn.init.xavier_uniform_(cast(Tensor, weight), gain=0.1, generator=generator)

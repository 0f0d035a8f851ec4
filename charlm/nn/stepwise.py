"""Cells that are computed step by step: variants of the LSTM from the literature.

Symbols: x input (B, E), h and c state (B, H), W input weights, U recurrent weights, * elementwise.
Gate blocks are in the order i, f, g, o: input, forget, candidate, output.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer, empty_parameter


def lstm_update(gates: Tensor, c: Tensor, capped: bool = False) -> LayerState:
    """h' and c' of the plain LSTM: c' = f * c + i * g, h' = o * tanh(c').

    `capped`: the input gate is at most 1 - f (Melis et al. 2018, section 2), so that the cell stays
    within [-1, 1].
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    if capped:
        i = torch.minimum(i, 1.0 - f)
    c = f * c + i * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class StepwiseLstm(RecurrentLayer):
    """What the variants share: one product for the inputs of all steps, then a loop."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_ih = empty_parameter(4 * hidden_size, input_size)
        self.weight_hh = empty_parameter(4 * hidden_size, hidden_size)
        self.bias = empty_parameter(4 * hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        outputs = []
        for into in self.sides(x).unbind(0):
            state = self.step(into, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def sides(self, x: Tensor) -> Tensor:
        """What each step takes from its input, for all steps at once: W x + b, (T, B, 4H)."""
        return F.linear(x, self.weight_ih, self.bias)

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """The state after one step; `into` is one of `sides`."""
        raise NotImplementedError


class PeepholeLstm(StepwiseLstm):
    """Gates that see the cell (Gers & Schmidhuber 2000).

    i = sigmoid(W x + U h + p_i * c), f = sigmoid(... + p_f * c), c' = f * c + i * g,
    o = sigmoid(W x + U h + p_o * c'), h' = o * tanh(c'). Peepholes begin closed.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.peephole = empty_parameter(3, hidden_size)

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        i, f, g, o = (into + F.linear(h, self.weight_hh)).chunk(4, dim=-1)
        p = self.peephole
        c = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
        return torch.sigmoid(o + p[2] * c) * torch.tanh(c), c


class LayerNormLstm(StepwiseLstm):
    """Normalised gates and cell (Ba et al. 2016, equations 20 to 22).

    gates = LN(W x) + LN(U h) + b, c' = f * c + i * g, h' = o * tanh(LN(c')); LN subtracts the mean
    over its units, divides by their deviation, and multiplies by a learnt gain.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.gain_ih = empty_parameter(4 * hidden_size)
        self.gain_hh = empty_parameter(4 * hidden_size)
        self.gain_c = empty_parameter(hidden_size)
        self.bias_c = empty_parameter(hidden_size)

    def sides(self, x: Tensor) -> Tensor:
        """LN(W x) + b, (T, B, 4H)."""
        return normalised(F.linear(x, self.weight_ih)) * self.gain_ih + self.bias

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        recurrent = normalised(F.linear(h, self.weight_hh)) * self.gain_hh
        i, f, g, o = (into + recurrent).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        shown = normalised(c) * self.gain_c + self.bias_c
        return torch.sigmoid(o) * torch.tanh(shown), c


def normalised(x: Tensor) -> Tensor:
    """Zero mean and unit variance over the last axis (epsilon 1e-5 under the root)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


class CappedLstm(StepwiseLstm):
    """The input gate is at most what was forgotten: c' = f * c + min(i, 1 - f) * g."""

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        return lstm_update(into + F.linear(h, self.weight_hh), c, capped=True)


class MultiplicativeLstm(StepwiseLstm):
    """Recurrent weights that depend on the input (Krause et al. 2016).

    m = (W_m x) * (U_m h), then an LSTM whose recurrent product reads m in place of h.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_mx = empty_parameter(hidden_size, input_size)
        self.weight_mh = empty_parameter(hidden_size, hidden_size)

    def sides(self, x: Tensor) -> Tensor:
        """W x + b and W_m x side by side, (T, B, 5H)."""
        bias = torch.cat([self.bias, self.bias.new_zeros(self.hidden_size)])
        return F.linear(x, torch.cat([self.weight_ih, self.weight_mx])) + bias

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        gates, factor = into[:, : 4 * self.hidden_size], into[:, 4 * self.hidden_size :]
        m = factor * F.linear(h, self.weight_mh)
        return lstm_update(gates + F.linear(m, self.weight_hh), c)


class MogrifierLstm(StepwiseLstm):
    """Input and state gate each other first (Melis et al. 2020).

    For r = 1 to `mogrifier_rounds`: odd r: x <- 2 sigmoid(Q_r h) * x; even r: h <- 2 sigmoid(R_r x)
    * h. Then an ordinary LSTM step on x and h. With a `mogrifier_rank` k, Q and R are products of
    two matrices of k columns and k rows; `cap_input_gate` holds i below 1 - f. Q and R begin small,
    so that training starts near an LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        sizes = (hidden_size, input_size), (input_size, hidden_size)
        self.gating = nn.ModuleList(
            _Gating(*sizes[number % 2], self.settings.mogrifier_rank)
            for number in range(self.settings.mogrifier_rounds)
        )

    def sides(self, x: Tensor) -> Tensor:
        """The inputs as they are, (T, B, E)."""
        return x

    def step(self, into: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        x = into
        for number, gating in enumerate(self.gating):
            if number % 2 == 0:
                x = gating(h) * x
            else:
                h = gating(x) * h
        gates = F.linear(x, self.weight_ih, self.bias) + F.linear(h, self.weight_hh)
        return lstm_update(gates, c, self.settings.cap_input_gate)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """As the others; gating matrices Xavier-uniform with a gain of 0.1."""
        super().reset_parameters(generator)
        for weight in self.gating.parameters():
            nn.init.xavier_uniform_(weight, gain=0.1, generator=generator)


class _Gating(nn.Module):
    """2 sigmoid(Q v) for a vector v; Q whole, or the product of two matrices of a lower rank."""

    def __init__(self, inputs: int, outputs: int, rank: int | None) -> None:
        super().__init__()
        shapes = [(outputs, inputs)] if rank is None else [(rank, inputs), (outputs, rank)]
        self.factors = nn.ParameterList(empty_parameter(*shape) for shape in shapes)

    def forward(self, v: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        for factor in self.factors:
            v = F.linear(v, factor)
        return 2.0 * torch.sigmoid(v)

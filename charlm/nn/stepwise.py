"""Variants of the LSTM that are computed step by step.

Symbols: x input (B, E), h and c state (B, H), W input weights, U recurrent weights, * elementwise.
Blocks are in the order i, f, g, o: input, forget, candidate, output.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer, empty_parameter


def lstm_blocks(gates: Tensor, capped: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return i, f, g, o (B, H) of an LSTM from W x + U h + b (B, 4H).

    With `capped`, the input gate is at most 1 - f (Melis et al. 2018, section 2), so that the cell
    stays within [-1, 1].
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    f, i = torch.sigmoid(f), torch.sigmoid(i)
    if capped:
        i = torch.minimum(i, 1.0 - f)
    return i, f, torch.tanh(g), torch.sigmoid(o)


class StepwiseLstm(RecurrentLayer):
    """An LSTM computed in a loop over steps, after one product for the inputs of all steps."""

    capped = False
    """True if the input gate is at most 1 - f; see `lstm_blocks`."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_ih = empty_parameter(4 * hidden_size, input_size)
        self.weight_hh = empty_parameter(4 * hidden_size, hidden_size)
        self.bias = empty_parameter(4 * hidden_size)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        outputs = []
        for from_input in self.project(x).unbind(0):
            state = self.step(from_input, state)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def project(self, x: Tensor) -> Tensor:
        """Return the part of the gates that depends on inputs alone: W x + b, (T, B, 4H)."""
        return F.linear(x, self.weight_ih, self.bias)

    def gates(self, from_input: Tensor, state: LayerState) -> Tensor:
        """Return i, f, g, o before their squashing functions, (B, 4H); arguments as in `step`."""
        return from_input + F.linear(state[0], self.weight_hh)

    def step(self, from_input: Tensor, state: LayerState) -> LayerState:
        """Return the state after one step: c' = f * c + i * g, h' = o * tanh(c').

        `from_input` is the step's row of `project`.
        """
        i, f, g, o = lstm_blocks(self.gates(from_input, state), self.capped)
        c = f * state[1] + i * g
        return o * torch.tanh(c), c

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`."""
        gates = self.gates(self.project(x[None])[0], state)
        return dict(zip(self.spec.blocks, lstm_blocks(gates, self.capped), strict=True))


class PeepholeLstm(StepwiseLstm):
    """Gates that see the cell (Gers & Schmidhuber 2000).

    i = sigmoid(W x + U h + p_i * c), f = sigmoid(... + p_f * c), c' = f * c + i * g,
    o = sigmoid(W x + U h + p_o * c'), h' = o * tanh(c'). Peepholes p are zero at first.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.peephole = empty_parameter(3, hidden_size)

    def step(self, from_input: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        h, c = state
        i, f, g, o = (from_input + F.linear(h, self.weight_hh)).chunk(4, dim=-1)
        p = self.peephole
        c = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
        return torch.sigmoid(o + p[2] * c) * torch.tanh(c), c

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`."""
        from_input, p = self.project(x[None])[0], self.peephole
        c, after = state[1], self.step(from_input, state)[1]
        seen = torch.cat([p[0] * c, p[1] * c, torch.zeros_like(c), p[2] * after], dim=-1)
        gates = self.gates(from_input, state) + seen
        return dict(zip(self.spec.blocks, lstm_blocks(gates), strict=True))


class LayerNormLstm(StepwiseLstm):
    """Normalised gates and cell (Ba et al. 2016, equations 20 to 22).

    gates = LN(W x) + LN(U h) + b, c' = f * c + i * g, h' = o * tanh(LN(c')); LN subtracts the mean
    over its units, divides by their deviation, and multiplies by a learned gain.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.gain_ih = empty_parameter(4 * hidden_size)
        self.gain_hh = empty_parameter(4 * hidden_size)
        self.gain_c = empty_parameter(hidden_size)
        self.bias_c = empty_parameter(hidden_size)

    def project(self, x: Tensor) -> Tensor:
        """Return LN(W x) + b, (T, B, 4H)."""
        return normalised(F.linear(x, self.weight_ih)) * self.gain_ih + self.bias

    def gates(self, from_input: Tensor, state: LayerState) -> Tensor:
        """See the class."""
        return from_input + normalised(F.linear(state[0], self.weight_hh)) * self.gain_hh

    def step(self, from_input: Tensor, state: LayerState) -> LayerState:
        """See the class."""
        i, f, g, o = lstm_blocks(self.gates(from_input, state))
        c = f * state[1] + i * g
        normal_c = normalised(c) * self.gain_c + self.bias_c
        return o * torch.tanh(normal_c), c


def normalised(x: Tensor) -> Tensor:
    """Return x with zero mean and unit variance over the last axis, epsilon 1e-5 under the root."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


class CappedLstm(StepwiseLstm):
    """An input gate of at most 1 - f: c' = f * c + min(i, 1 - f) * g."""

    capped = True


class MultiplicativeLstm(StepwiseLstm):
    """Recurrent weights that depend on the input (Krause et al. 2016).

    m = (W_m x) * (U_m h), then an LSTM step in which m replaces h.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.weight_mx = empty_parameter(hidden_size, input_size)
        self.weight_mh = empty_parameter(hidden_size, hidden_size)

    def project(self, x: Tensor) -> Tensor:
        """Return W x + b and W_m x side by side, (T, B, 5H)."""
        bias = torch.cat([self.bias, self.bias.new_zeros(self.hidden_size)])
        return F.linear(x, torch.cat([self.weight_ih, self.weight_mx])) + bias

    def gates(self, from_input: Tensor, state: LayerState) -> Tensor:
        """See the class."""
        gates, factor = from_input[:, : 4 * self.hidden_size], from_input[:, 4 * self.hidden_size :]
        m = factor * F.linear(state[0], self.weight_mh)
        return gates + F.linear(m, self.weight_hh)


class MogrifierLstm(StepwiseLstm):
    """Input and state gate each other first (Melis et al. 2020).

    For r = 1 to `mogrifier_rounds`: odd r: x <- 2 sigmoid(Q_r h) * x; even r: h <- 2 sigmoid(R_r x)
    * h. Then an LSTM step on x and h. With a `mogrifier_rank` k, Q and R are products of two
    matrices of rank k; `cap_input_gate` keeps i below 1 - f. Q and R are small at first, so that
    training begins near an LSTM.
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        self.capped = settings.cap_input_gate
        sizes = (hidden_size, input_size), (input_size, hidden_size)
        self.gating = nn.ModuleList(
            Gating(*sizes[number % 2], self.settings.mogrifier_rank)
            for number in range(self.settings.mogrifier_rounds)
        )

    def input_weights(self) -> list[nn.Parameter]:
        """See `RecurrentLayer.input_weights`; every second gating reads the input."""
        gating = [cast(Gating, gate).factors[0] for gate in list(self.gating)[1::2]]
        return [*super().input_weights(), *gating]

    def project(self, x: Tensor) -> Tensor:
        """Return the inputs as they are, (T, B, E)."""
        return x

    def gates(self, from_input: Tensor, state: LayerState) -> Tensor:
        """See the class."""
        x, h = from_input, state[0]
        for number, gating in enumerate(self.gating):
            if number % 2 == 0:
                x = gating(h) * x
            else:
                h = gating(x) * h
        return F.linear(x, self.weight_ih, self.bias) + F.linear(h, self.weight_hh)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """See `RecurrentLayer`; gating matrices are Xavier-uniform with gain 0.1."""
        super().reset_parameters(generator)
        for weight in self.gating.parameters():
            nn.init.xavier_uniform_(weight, gain=0.1, generator=generator)


class Gating(nn.Module):
    """2 sigmoid(Q v) for a vector v, with Q whole or a product of two matrices of lower rank."""

    def __init__(self, inputs: int, outputs: int, rank: int | None) -> None:
        super().__init__()
        shapes = [(outputs, inputs)] if rank is None else [(rank, inputs), (outputs, rank)]
        self.factors = nn.ParameterList(empty_parameter(*shape) for shape in shapes)

    def forward(self, v: Tensor) -> Tensor:
        """Map v (B, inputs) to (B, outputs)."""
        for factor in self.factors:
            v = F.linear(v, factor)
        return 2.0 * torch.sigmoid(v)

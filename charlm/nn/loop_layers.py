"""Recurrent layers in float32: a loop over the steps of a window, with the gradient by hand.

Where no library computes a whole window, torch's own layers record each operation of each step for
the gradient, and add to the gradients of weights in each step. Here a window is one function: the
loop works in place, and each gradient of weights is one product after it. The products of a small
vocabulary with the input weights are computed once for each entry (`Lookup`).

T steps, B sequences, H units, K blocks of gates in the order of `CellSpec.blocks`, except that a
GRU begins with its candidate (see `_gru_backward`). x input, h state, W and U weights, b biases.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from charlm.nn.layers import LayerState, Lookup

Steps = Sequence[Tensor]
"""A tensor for each step."""
Gradients = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""Gradients of W x + b and of U h, (T, B, K H) each, and of the state before the window."""
_through_sigmoid = torch.ops.aten.sigmoid_backward.grad_input
_through_tanh = torch.ops.aten.tanh_backward.grad_input


class Window(NamedTuple):
    """Tensors that a cell computes a window from, and those that its backward pass reads."""

    gates: Tensor
    """W x + b (T, B, K H), in whose memory the forward pass leaves the values of the gates."""
    y: Tensor
    """Outputs (T, B, H)."""
    kept: Tensor
    """Other values of each step (N, T, B, H), see the cells."""
    w_hh: Tensor
    state: Sequence[Tensor]
    """The state before the window, (B, H) each."""


def run_loop(
    cell: str, x: Tensor | Lookup, state: LayerState, weights: Sequence[Tensor]
) -> tuple[Tensor, LayerState]:
    """Return the output (T, B, H) for x (T, B, E), and the state after it; T is at least 1.

    Raises RuntimeError for a second derivative.
    """
    rows, ids = (x.table, x.ids) if isinstance(x, Lookup) else (x, None)
    w_ih, w_hh, b_ih, b_hh = weights
    inner: Tensor | None = None
    if cell == "gru":  # its reset gate multiplies U h + b_hh
        hidden = w_hh.shape[1]
        w_ih, b_ih, inner = w_ih.roll(hidden, 0), b_ih.roll(hidden), b_hh
    else:
        b_ih = b_ih + b_hh
    y, *after = _Loop.apply(  # type: ignore[no-untyped-call]
        CELLS[cell], rows, ids, w_ih, w_hh, b_ih, inner, *state
    )
    return y, (y[-1].clone(), *after)  # not a view, which would keep all steps in memory


class _Loop(torch.autograd.Function):
    """A layer over a window; the output comes out, and c after the window if there is one.

    `rows` are inputs (T, B, E), or a table (V, E) of which `ids` (T, B) are rows.
    """

    @staticmethod
    def forward(
        ctx: Any, cell: "_Cell", rows: Tensor, ids: Tensor | None, w_ih: Tensor, w_hh: Tensor,
        b_ih: Tensor, b_hh: Tensor | None, *state: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        gates = F.linear(rows, w_ih, b_ih)
        if ids is not None:
            gates = F.embedding(ids, gates)
        shape = *gates.shape[:2], w_hh.shape[1]
        y, kept = gates.new_empty(shape), gates.new_empty(cell.kept, *shape)
        after = cell.forward(Window(gates, y, kept, w_hh, state), b_hh)
        ctx.cell = cell
        ctx.save_for_backward(rows, ids, w_ih, gates, y, kept, w_hh, *state)
        ctx.set_materialize_grads(False)
        return y, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, *dafter: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, ids, w_ih, gates, y, kept, w_hh, *state = ctx.saved_tensors
        _, of_rows, _, of_w_ih, of_w_hh, of_b_ih, of_b_hh, *_ = ctx.needs_input_grad
        dys = (torch.zeros_like(y) if dy is None else dy).unbind(0)
        window = Window(gates, y, kept, w_hh, state)
        d_input, d_state, dstate = ctx.cell.backward(window, dys, *dafter)
        d, size = d_state.flatten(0, 1), y.shape[1]  # (T B, K H)
        dw_hh, db_hh = None, d.sum(0) if of_b_hh else None
        if of_w_hh:
            dw_hh = d[size:].t() @ y[:-1].flatten(0, 1)
            dw_hh.addmm_(d[:size].t(), state[0])
        d = d_input.flatten(0, 1)
        if ids is not None:  # the sum for each row of the table, (V, K H)
            d = torch.ops.aten.embedding_dense_backward(d, ids, len(rows), -1, False)
        drows = (d @ w_ih).view_as(rows) if of_rows else None
        dw_ih = d.t() @ rows.flatten(0, -2) if of_w_ih else None
        return None, drows, None, dw_ih, dw_hh, d.sum(0) if of_b_ih else None, db_hh, *dstate


def _blocks(x: Tensor, count: int) -> list[Steps]:
    """Return equal blocks of the columns of x (T, B, ...), for each step."""
    return [block.unbind(0) for block in x.chunk(count, dim=-1)]


def _before(first: Tensor, after: Tensor) -> Steps:
    """Return the state before each step, from the first one and those after each, (T, B, H)."""
    return (first, *after.unbind(0)[:-1])


def _last_first(*steps: Steps) -> Iterator[tuple[Tensor, ...]]:
    """Yield the tensors of each step, from the last step to the first."""
    return zip(*map(reversed, steps), strict=True)


def _rnn_forward(window: Window, _: Tensor | None) -> tuple[Tensor, ...]:
    """Fill y: h' = tanh(W x + U h + b)."""
    (h,), u = window.state, window.w_hh.t()
    for gates, y in zip(window.gates.unbind(0), window.y.unbind(0), strict=True):
        h = torch.tanh(torch.addmm(gates, h, u), out=y)
    return ()


def _rnn_backward(window: Window, dys: Steps) -> Gradients:
    """Return the gradients for those of the outputs."""
    d, dh = torch.empty_like(window.y), torch.zeros_like(window.state[0])
    for dy, d_step, y in _last_first(dys, d.unbind(0), window.y.unbind(0)):
        _through_tanh(dh.add_(dy), y, grad_input=d_step)
        torch.mm(d_step, window.w_hh, out=dh)
    return d, d, (dh,)


def _lstm_forward(window: Window, _: Tensor | None) -> tuple[Tensor, ...]:
    """Fill y, keep c and tanh(c), and return the last c: c' = f c + i g, h' = o tanh(c')."""
    (h, c), u, half = window.state, window.w_hh.t(), 2 * window.y.shape[-1]
    values = window.gates.unbind(0), window.gates[..., :half].unbind(0), *_blocks(window.gates, 4)
    results = *(kept.unbind(0) for kept in window.kept), window.y.unbind(0)
    for gates, i_f, i, f, g, o, c_after, tanh_c, y in zip(*values, *results, strict=True):
        gates.addmm_(h, u)
        i_f.sigmoid_()
        g.tanh_()
        o.sigmoid_()
        c = torch.mul(f, c, out=c_after).addcmul_(i, g)
        h = torch.mul(o, torch.tanh(c, out=tanh_c), out=y)
    return (c.clone(),)


def _lstm_backward(window: Window, dys: Steps, dc_after: Tensor | None = None) -> Gradients:
    """Return the gradients for those of the outputs and of the last c."""
    d, first = torch.empty_like(window.gates), window.state[1]
    dh, new = torch.zeros_like(first), torch.empty_like(first)
    dc = torch.zeros_like(first) if dc_after is None else dc_after.clone()
    values = _before(first, window.kept[0]), window.kept[1].unbind(0), *_blocks(window.gates, 4)
    for dy, d_step, di, df, dg, do, c, tanh_c, i, f, g, o in _last_first(
        dys, d.unbind(0), *_blocks(d, 4), *values
    ):
        dh.add_(dy)
        _through_sigmoid(torch.mul(dh, tanh_c, out=new), o, grad_input=do)
        dc.add_(_through_tanh(torch.mul(dh, o, out=new), tanh_c, grad_input=new))
        _through_sigmoid(torch.mul(dc, g, out=new), i, grad_input=di)
        _through_sigmoid(torch.mul(dc, c, out=new), f, grad_input=df)
        _through_tanh(torch.mul(dc, i, out=new), g, grad_input=dg)
        dc.mul_(f)
        torch.mm(d_step, window.w_hh, out=dh)
    return d, d, (dh, dc)


def _gru_forward(window: Window, b_hh: Tensor | None) -> tuple[Tensor, ...]:
    """Fill y, and keep q, which is U h + b of the candidate.

    n = tanh(W x + b + r q), h' = n + z (h - n).
    """
    assert b_hh is not None, "see `run_loop`"
    (h,), u, hidden = window.state, window.w_hh.t(), window.y.shape[-1]
    from_state = window.gates.new_empty(len(h), 3 * hidden)
    r_z_from_state, n_from_state = from_state[:, : 2 * hidden], from_state[:, 2 * hidden :]
    values = window.gates[..., hidden:].unbind(0), *_blocks(window.gates, 3)
    results = window.kept[0].unbind(0), window.y.unbind(0)
    for r_z, n, r, z, q, y in zip(*values, *results, strict=True):
        torch.addmm(b_hh, h, u, out=from_state)
        r_z.add_(r_z_from_state).sigmoid_()
        n.addcmul_(r, q.copy_(n_from_state)).tanh_()
        h = torch.lerp(n, h, z, out=y)
    return ()


def _gru_backward(window: Window, dys: Steps) -> Gradients:
    """Return the gradients for those of the outputs.

    By U h + b the candidate n has r times its gradient by W x + b. In memory of four blocks, n by W
    x + b, r, z, n by U h + b, each side is three neighbours, and nothing is copied.
    """
    first, hidden = window.state[0], window.y.shape[-1]
    d = window.gates.new_empty(*window.y.shape[:2], 4 * hidden)
    d_input, d_state = d[..., : 3 * hidden], d[..., hidden:]
    dh, new = torch.zeros_like(first), torch.empty_like(first)
    values = _before(first, window.y), window.kept[0].unbind(0), *_blocks(window.gates, 3)
    for dy, d_step, dn, dr, dz, dq, h, q, n, r, z in _last_first(
        dys, d_state.unbind(0), *_blocks(d, 4), *values
    ):
        kept = dh.add_(dy) * z
        _through_tanh(torch.sub(dh, kept, out=new), n, grad_input=dn)
        torch.mul(dn, r, out=dq)
        _through_sigmoid(torch.mul(dn, q, out=new), r, grad_input=dr)
        _through_sigmoid(torch.sub(h, n, out=new).mul_(dh), z, grad_input=dz)
        dh = kept.addmm_(d_step, window.w_hh)
    return d_input, d_state, (dh,)


class _Cell(NamedTuple):
    forward: Callable[[Window, Tensor | None], tuple[Tensor, ...]]
    backward: Callable[..., Gradients]
    kept: int
    """Number of values of each step that are kept beside the gates and the output."""


CELLS = {
    "rnn": _Cell(_rnn_forward, _rnn_backward, 0),
    "lstm": _Cell(_lstm_forward, _lstm_backward, 2),
    "gru": _Cell(_gru_forward, _gru_backward, 1),
}

// The recurrent cells: the places of their gates in tiles, and one step of 16 units, both ways.
//
// Units are numbered in blocks of 16 and in pairs of such blocks. A column is 32 columns of a
// product: two halves of 16, each of one gate and one unit block. A pair of unit blocks has COLUMNS
// of them for the gates:
//   LSTM  (i f) (g o) of the first block, (i f) (g o) of the second;
//   GRU   (r z) of the first block, (r z) of the second, (n n) of both;
//   RNN   (h h) of both.
// The forward pass computes GROUP unit blocks at a time, the fewest that fill whole columns.
//
// The gradients of the gates have BACK_COLUMNS. The GRU has one more, because its hidden side is
// inside of the product with r: (n n) is summed for the input side, (rn rn) for the hidden side.
// So the gradient of a gate's hidden side is that of `hidden_gate`; where it is another one, the
// bias of the hidden side is not added to W x.

#pragma once

#include "vectors.hpp"

namespace {

enum Cell { RNN = 0, LSTM = 1, GRU = 2 };  // as in network.hpp

struct Lstm {
    static constexpr int GATES = 4, COLUMNS = 4, GROUP = 1, SAVED = 4;
    static constexpr int BACK_GATES = 4, BACK_COLUMNS = 4;
    static constexpr bool HAS_CELL = true, DIRECT = false;  // DIRECT: the gradient of h passes by
    // The gate and the unit block (0 or 1 of the pair) of a half of a column, and the reverse.
    static constexpr int gate_of(int column, int half) { return column % 2 * 2 + half; }
    static constexpr int unit_of(int column, int) { return column / 2; }
    static constexpr int column_of(int gate, int which) { return which * 2 + gate / 2; }
    static constexpr int half_of(int gate, int) { return gate % 2; }
    // The k-step of a column of gradients, and the first k-step and the columns of the hidden side.
    static constexpr int step_of(int, int pair, int column) { return pair * COLUMNS + column; }
    static constexpr int hidden_first(int) { return 0; }
    static constexpr int hidden_column(int column) { return column; }
    static constexpr int hidden_gate(int gate) { return gate; }

    // Return h. hidden, given: the products with h and x; carried: c, replaced; saved: i f g o.
    static INLINE vf step(const vf* hidden, const vf* given, vf, vf& carried, vf* saved) {
        saved[0] = sigmoid_of(hidden[0] + given[0]);
        saved[1] = sigmoid_of(hidden[1] + given[1]);
        saved[2] = tanh_of(hidden[2] + given[2]);
        saved[3] = sigmoid_of(hidden[3] + given[3]);
        carried = fused(saved[1], carried, saved[0] * saved[2]);
        return saved[3] * tanh_of(carried);
    }
    // Set d, the gradients of the gates before their functions. carried: the gradient of c from
    // later steps, replaced by that of the step before; before, after: c.
    static INLINE void back(vf d_h, const vf* saved, vf before, vf after, vf& carried, vf* d) {
        const vf i = saved[0], f = saved[1], g = saved[2], o = saved[3], squashed = tanh_of(after);
        const vf through = d_h * o, by_o = through * squashed;
        const vf d_c = minus(by_o, squashed, carried + through);
        const vf by_c = d_c * f, by_i = d_c * i, by_g = by_i * g, by_f = by_c * before;
        carried = by_c;
        d[0] = minus(by_g, i, by_g);
        d[1] = minus(by_f, f, by_f);
        d[2] = minus(by_g, g, by_i);
        d[3] = minus(by_o, o, by_o);
    }
};

struct Gru {
    static constexpr int GATES = 3, COLUMNS = 3, GROUP = 2, SAVED = 4;
    static constexpr int BACK_GATES = 4, BACK_COLUMNS = 4;
    static constexpr bool HAS_CELL = false, DIRECT = true;
    static constexpr int gate_of(int column, int half) { return column < 2 ? half : 2; }
    static constexpr int unit_of(int column, int half) { return column < 2 ? column : half; }
    static constexpr int column_of(int gate, int which) { return gate < 2 ? which : gate; }
    static constexpr int half_of(int gate, int which) { return gate < 2 ? gate : which; }
    // All n, then all r and z, then all rn: both sides are runs of k-steps.
    static constexpr int step_of(int pairs, int pair, int column) {
        return column < 2 ? pairs + 2 * pair + column : (column == 2 ? 0 : 3 * pairs) + pair;
    }
    static constexpr int hidden_first(int pairs) { return pairs; }
    static constexpr int hidden_column(int column) { return column < 2 ? column : 3; }
    static constexpr int hidden_gate(int gate) { return gate == 2 ? 3 : gate; }

    // carried: h; saved: r z n and q = W_hn h + b_hn.
    static INLINE vf step(const vf* hidden, const vf* given, vf bias, vf& carried, vf* saved) {
        const vf r = saved[0] = sigmoid_of(hidden[0] + given[0]);
        const vf z = saved[1] = sigmoid_of(hidden[1] + given[1]);
        const vf q = saved[3] = hidden[2] + bias;
        const vf n = saved[2] = tanh_of(fused(r, q, given[2]));
        return carried = fused(z, carried - n, n);
    }
    // carried: the part of h's gradient that passes by the gates; d: of r, z, n and q.
    static INLINE void back(vf d_h, const vf* saved, vf before, vf, vf& carried, vf* d) {
        const vf r = saved[0], z = saved[1], n = saved[2], q = saved[3], whole = d_h + carried;
        carried = whole * z;
        const vf by_z = carried * (before - n), by_n = whole - carried;
        d[1] = minus(by_z, z, by_z);
        d[2] = minus(by_n * n, n, by_n);
        d[3] = d[2] * r;
        const vf by_r = d[3] * q;
        d[0] = minus(by_r, r, by_r);
    }
};

struct Rnn {
    static constexpr int GATES = 1, COLUMNS = 1, GROUP = 2, SAVED = 0;
    static constexpr int BACK_GATES = 1, BACK_COLUMNS = 1;
    static constexpr bool HAS_CELL = false, DIRECT = false;
    static constexpr int gate_of(int, int) { return 0; }
    static constexpr int unit_of(int, int half) { return half; }
    static constexpr int column_of(int, int) { return 0; }
    static constexpr int half_of(int, int which) { return which; }
    static constexpr int step_of(int, int pair, int) { return pair; }
    static constexpr int hidden_first(int) { return 0; }
    static constexpr int hidden_column(int column) { return column; }
    static constexpr int hidden_gate(int gate) { return gate; }

    static INLINE vf step(const vf* hidden, const vf* given, vf, vf& carried, vf*) {
        return carried = tanh_of(hidden[0] + given[0]);
    }
    static INLINE void back(vf d_h, const vf*, vf, vf after, vf&, vf* d) {
        d[0] = minus(d_h * after, after, d_h);
    }
};

}  // namespace

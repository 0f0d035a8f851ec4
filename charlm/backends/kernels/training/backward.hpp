// The recurrence backward: one layer over a window, in the threads of a call.
//
// Threads own hidden units, as in the forward pass. The gradients of the gates are written twice:
// by rows, which the products for dh and dx read, and across, which those for dW read.

#pragma once

#include "packing.hpp"
#include "products.hpp"

namespace {

// The pointwise work of one pair of unit blocks and one block of rows, in COUNT calls: 32 rows of
// each unit block.
template <class K, bool TABLE>
struct BackwardItems {
    static constexpr int COUNT = 64;
    const Call& call;
    const Shape& s;
    const Saved<K>& saved;
    const BackwardMemory<K>& b;
    vf one[K::BACK_GATES] = {};  // of the row before
    // The block:
    int rows = 0;
    const float* dh = nullptr;  // what later steps ask of h, [half of the rows][unit block][16][16]
    const bf16 *gates = nullptr, *before = nullptr, *after = nullptr;  // of the first unit block
    const int64_t* ids = nullptr;
    const char* dy = nullptr;
    float *carried = nullptr, *bias = nullptr, *table = nullptr;
    bf16 *d_rows[K::BACK_COLUMNS] = {}, *d_across[K::BACK_COLUMNS] = {};  // by column
    int some[2] = {};

    size_t dy_stride() const { return size_t(s.H) * (call.y_is_bf16 ? 2 : 4); }
    const char* dy_at(int step, int pair, int block) const {
        const size_t row = size_t(step) * s.B + block * 32;
        const char* first = static_cast<const char*>(call.dy) + row * dy_stride();
        return first + pair * (call.y_is_bf16 ? 64 : 128);
    }
    // Set the block: pair v of unit blocks, rows of block r at step t, and products `sums`.
    void aim(int t, int v, int r, const float* sums) {
        dh = sums;
        gates = saved.gates_at(s, t, 2 * v, r);
        before = saved.cells_at(s, t, 2 * v, r), after = saved.cells_at(s, t + 1, 2 * v, r);
        carried = b.carried + (size_t(2 * v) * s.rows + r) * 2 * TILE_FLOATS;
        bias = b.bias + 2 * v * K::BACK_GATES * 16;
        rows = std::min(32, s.B - r * 32);
        if (TABLE) ids = call.ids + size_t(t) * s.B + r * 32;
        if (TABLE) table = b.table + size_t(2 * v) * s.V * K::GATES * 16;
        for (int which = 0; which < 2; which++) some[which] = left(s.H, (2 * v + which) * 16);
        dy = call.dy ? dy_at(t, v, r) : nullptr;
        const size_t in_chunk = size_t(t / s.steps % 2) * s.steps + t % s.steps;
        aim_operands(v, b.d_rows + (in_chunk * s.rows + r) * b.all * BLOCK,
                     b.d_across + (size_t(t) * s.rows + r) * BLOCK, s.blocks);
    }
    // Set where gradients are written for pair v: a block of `blocks`.
    void aim_operands(int v, bf16* rows_at, bf16* across_at, int blocks) {
        for (int column = 0; column < K::BACK_COLUMNS; column++) {
            const size_t step = K::step_of(s.pairs, v, column);
            d_rows[column] = rows_at + step * BLOCK;
            d_across[column] = across_at + step * blocks * BLOCK;
        }
    }
    INLINE vf gradient_of_h(int which, int i) const {
        const vf d_h = load<vf>(dh + (i / 16 * 2 + which) * TILE_FLOATS + i % 16 * 16);
        const int count = some[which];
        if (!dy || i >= rows || !count) return d_h;
        const size_t from = size_t(i) * s.H + which * 16;
        if (call.y_is_bf16) return d_h + load_some(reinterpret_cast<const bf16*>(dy) + from, count);
        return d_h + load_some(reinterpret_cast<const float*>(dy) + from, count);
    }
    INLINE void operator()(int item) {
        const int which = item / 32, i = item % 32;
        const size_t tiles = size_t(which) * s.rows * TILE;  // before the unit block
        const bf16* values = gates + tiles * K::SAVED + i * K::SAVED * 16;
        vf kept[K::SAVED + 1], d[K::BACK_GATES];
#pragma GCC unroll 4
        for (int j = 0; j < K::SAVED; j++) kept[j] = widen(values + j * 16);
        float* running = carried + tiles + i * 16;  // as many floats as bfloat16 of cells
        vf now = load<vf>(running);
        K::back(gradient_of_h(which, i), kept, widen(before + tiles + i * 16),
                widen(after + tiles + i * 16), now, d);
        store(running, now);
        write(which, i, d, TABLE ? K::GATES : 0);
        if (TABLE && i < rows) {
            float* sums = table + (size_t(which) * s.V + ids[i]) * K::GATES * 16;
#pragma GCC unroll 4
            for (int g = 0; g < K::GATES; g++) store(sums + g * 16, load<vf>(sums + g * 16) + d[g]);
        }
    }
    // Write row i of the gradients of a unit block; those from gate `from` on are added to
    // the gradients of the biases.
    INLINE void write(int which, int i, const vf* d, int from) {
        write_row(which, i, d);
        if (i % 2)
            write_across(which, i / 2, d, from);
        else
#pragma GCC unroll 4
            for (int g = 0; g < K::BACK_GATES; g++) one[g] = d[g];
    }
    // Write the sums for block r of the rows of the table, and those of the biases.
    void write_table(int v, int r) {
        aim_operands(v, b.table_rows + size_t(r) * b.all * BLOCK,
                     b.table_across + size_t(r) * BLOCK, s.x_blocks);
        bias = b.bias + 2 * v * K::BACK_GATES * 16;
        for (int which = 0; which < 2; which++)
            for (int i = 0; i < 32; i++) {
                const size_t row = (size_t(2 * v + which) * s.V + r * 32 + i) * K::GATES;
                vf d[K::BACK_GATES] = {};
                for (int g = 0; g < K::GATES && i < s.x_count(r); g++)
                    d[g] = load<vf>(b.table + (row + g) * 16);
                write(which, i, d, 0);
            }
    }
    INLINE void write_row(int which, int i, const vf* d) const {
        constexpr bool IN_PAIRS = K::BACK_GATES > 1;
        if (IN_PAIRS) store(d_rows[K::column_of(0, which)] + i * 32, pack(d[0], d[1]));
        if (IN_PAIRS && K::half_of(3, 0) == 1)
            store(d_rows[K::column_of(2, which)] + i * 32, pack(d[2], d[3]));
        else
#pragma GCC unroll 4
            for (int g = IN_PAIRS ? 2 : 0; g < K::BACK_GATES; g++)
                store(d_rows[K::column_of(g, which)] + i * 32 + which * 16,
                      lower(pack(d[g], d[g])));
    }
    // Write rows 2j and 2j + 1, interleaved, and add the gates from `from` on to the gradients of
    // the biases.
    INLINE void write_across(int which, int j, const vf* d, int from) {
        float* sums = bias + which * K::BACK_GATES * 16;
#pragma GCC unroll 4
        for (int g = 0; g < K::BACK_GATES; g++) {
            bf16* to = d_across[K::column_of(g, which)];
            saved.put(to + K::half_of(g, which) * TILE + j * 32, interleave(pack(one[g], d[g])));
            if (g >= from)
                store(sums + g * 16, load<vf>(sums + g * 16) + (one[g] + d[g]));
        }
    }
};

template <class K, bool TABLE>
struct BackwardPass {
    using Items = BackwardItems<K, TABLE>;
    const Call& call;
    const Shape& s;
    Barrier& barrier;
    const int me;
    const Saved<K> saved;
    const BackwardMemory<K> b;
    const Range pairs, inputs;  // of this thread
    float* const own;
    Items items;

    BackwardPass(const Call& a_call, const Shape& shape, Barrier& a_barrier, int thread)
        : call(a_call), s(shape), barrier(a_barrier), me(thread), saved(shape, a_call.saved),
          b(shape, a_call), pairs(shape.pairs, thread, a_barrier.members),
          inputs(a_call.dx ? shape.inputs : 0, thread, a_barrier.members),
          own(b.own + size_t(BackwardMemory<K>::OWN) * thread), items{a_call, shape, saved, b} {}

    void run() {
        pack_weights();
        const size_t bias = 2 * K::BACK_GATES * 16, table = size_t(2) * s.V * K::GATES * 16;
        std::fill(b.bias + pairs.first * bias, b.bias + pairs.last * bias, 0.0f);
        std::fill(b.table + pairs.first * table, b.table + pairs.last * table, 0.0f);
        last_step();
        barrier.wait();
        for (int t = s.T - 1; t >= 0; t--) {
            if (!TABLE && t % s.steps == 0)
                input_side(t * s.rows, std::min(s.steps, s.T - t) * s.rows, chunk(t));
            step(t);
            barrier.wait();
        }
        if (TABLE) {
            for (int v = pairs.first; v < pairs.last; v++)
                for (int r = 0; r < s.x_blocks; r++) items.write_table(v, r);
            barrier.wait();
            input_side(0, s.x_blocks, b.table_rows);
        }
        for (int u = 2 * pairs.first; u < 2 * pairs.last; u++) store_unit_block(u);
        weight_gradients();
    }

    void pack_weights() const {
        const int first = K::hidden_first(s.pairs);
        for (int n = 0; n < b.side; n++) {
            const int pair = n / K::COLUMNS, j = n % K::COLUMNS;
            const int hidden = K::step_of(s.pairs, pair, K::hidden_column(j)) - first;
            const int input = K::step_of(s.pairs, pair, j);
            for (int v = pairs.first; v < pairs.last; v++)
                pack_backward<K>(call.w_hh, s, s.H, v, pair, j,
                                 b.w_hh + (size_t(v) * b.side + hidden) * BLOCK);
            for (int m = inputs.first; m < inputs.last; m++)
                pack_backward<K>(call.w_ih, s, s.E, m, pair, j,
                                 b.w_ih + (size_t(m) * b.side + input) * BLOCK);
        }
    }

    // Load row i of block r and unit block u of a gradient (B, H); zero beyond its edges or if null.
    vf given(const float* from, int u, int r, int i) const {
        const int row = r * 32 + i, some = left(s.H, u * 16);
        if (!from || !some || row >= s.B) return vf{};
        return load_some(from + size_t(row) * s.H + u * 16, some);
    }
    void give(float* to, int u, int r, int i, vf value) const {
        const int row = r * 32 + i, some = left(s.H, u * 16);
        if (to && some && row < s.B) store_some(to + size_t(row) * s.H + u * 16, value, some);
    }
    float* carried_at(int u, int r, int i) const {
        return b.carried + ((size_t(u) * s.rows + r) * 32 + i) * 16;
    }

    void last_step() {
        for (int v = pairs.first; v < pairs.last; v++)
            for (int r = 0; r < s.rows; r++) {
                for (int item = 0; item < Items::COUNT; item++) {
                    const int half = item / 32, i = item % 32, u = 2 * v + half;
                    const float* dc = K::HAS_CELL ? call.dc_after : nullptr;
                    store(carried_at(u, r, i), given(dc, u, r, i));
                    store(own + (i / 16 * 2 + half) * TILE_FLOATS + i % 16 * 16,
                          given(call.dh_after, u, r, i));
                }
                items.aim(s.T - 1, v, r, own);
                for (int j = 0; j < Items::COUNT; j++) items(j);
            }
    }

    const bf16* chunk(int t) const {
        return b.d_rows + size_t(t / s.steps % 2) * s.steps * s.rows * b.all * BLOCK;
    }

    // Compute dx of some blocks of rows, from the gradients of their gates.
    void input_side(int first, int blocks, const bf16* rows) const {
        multiply_in_parts(blocks, inputs, b.side,
                          [&](int m) { return rows + size_t(m) * b.all * BLOCK; },
                          [&](int n) { return b.w_ih + size_t(n) * b.side * BLOCK; },
                          b.results + size_t(MAX_M * MAX_N) * BLOCK_FLOATS * me,
                          [&](int m, int n, const float* c) {
                              if (call.x_is_bf16)
                                  store_dx<bf16>(call, s, first + m, n, c);
                              else
                                  store_dx<float>(call, s, first + m, n, c);
                          });
    }

    // Compute what step t asks of the h before it, and the gradients of the gates at step t - 1.
    void step(int t) {
        int which = 0, waiting = 0;
        for (int i = 0; i < pairs.size(); i++)
            for (int r = 0; r < s.rows; r++) {
                const int v = pairs.first + in_turn(t, i, pairs.size());
                // What the items read that wait for this product, of the step before.
                Ahead gates, cells, dy;
                const int lines = s.rows == 1 ? 32 : 16;  // with one block, both unit blocks
                if (t) gates = {saved.gates_at(s, t - 1, 2 * v, r), lines * K::SAVED};
                if (t) cells = {saved.cells_at(s, t - 1, 2 * v, r), lines};
                if (t && call.dy)
                    dy = {items.dy_at(t - 1, v, r), std::min(32, s.B - r * 32), items.dy_stride()};
                Pacer<Items> pacer(items, waiting, b.side, gates, cells, dy);
                float* dh = own + which * BLOCK_FLOATS;
                Sums sums{dh};
                sums.zero();
                const bf16* rows = chunk(t) + (size_t(t % s.steps) * s.rows + r) * b.all * BLOCK;
                sums.template add<B_STREAMS>(rows + K::hidden_first(s.pairs) * BLOCK,
                                             b.w_hh + size_t(v) * b.side * BLOCK, b.side, pacer);
                pacer.finish();
                sums.store();
                if (t == 0) {
                    store_dh0(v, r, dh);
                    continue;
                }
                items.aim(t - 1, v, r, dh);
                waiting = Items::COUNT, which = 1 - which;
            }
        for (int j = 0; j < waiting; j++) items(j);
    }

    void store_dh0(int v, int r, const float* dh) const {
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 32; i++) {
                vf d = load<vf>(dh + (i / 16 * 2 + half) * TILE_FLOATS + i % 16 * 16);
                if (K::DIRECT) d += load<vf>(carried_at(2 * v + half, r, i));
                give(call.dh0, 2 * v + half, r, i, d);
            }
    }

    // Store the gradients of one unit block: of c before the window and of the biases.
    void store_unit_block(int u) const {
        for (int r = 0; K::HAS_CELL && r < s.rows; r++)
            for (int i = 0; i < 32; i++) give(call.dc0, u, r, i, load<vf>(carried_at(u, r, i)));
        const int some = left(s.H, u * 16);
        if (!some) return;
        const float* sums = b.bias + u * K::BACK_GATES * 16;
        for (int g = 0; g < K::GATES; g++) {
            const int to = g * s.H + u * 16;
            if (call.db_ih) store_some(call.db_ih + to, load<vf>(sums + g * 16), some);
            if (call.db_hh)
                store_some(call.db_hh + to, load<vf>(sums + K::hidden_gate(g) * 16), some);
        }
    }

    void weight_gradients() const {
        const Range columns(pairs.first * K::COLUMNS, pairs.last * K::COLUMNS);
        float* results = b.results + size_t(MAX_M * MAX_N) * BLOCK_FLOATS * me;
        const auto step_of = [&](int n, bool hidden) {
            const int j = n % K::COLUMNS;
            return K::step_of(s.pairs, n / K::COLUMNS, hidden ? K::hidden_column(j) : j);
        };
        const bf16* x_side = TABLE ? b.table_across : b.d_across;
        multiply_in_parts(call.dw_hh ? s.pairs : 0, columns, s.blocks,
                          [&](int m) { return saved.h_across + size_t(m) * s.blocks * BLOCK; },
                          [&](int n) {
                              return b.d_across + size_t(step_of(n, true)) * s.blocks * BLOCK;
                          },
                          results,
                          [&](int m, int n, const float* c) {
                              store_dw<K>(call.dw_hh, s, s.H, m, n / K::COLUMNS, n % K::COLUMNS, c);
                          });
        multiply_in_parts(call.dw_ih ? s.inputs : 0, columns, s.x_blocks,
                          [&](int m) { return saved.x_across + size_t(m) * s.x_blocks * BLOCK; },
                          [&](int n) {
                              return x_side + size_t(step_of(n, false)) * s.x_blocks * BLOCK;
                          },
                          results,
                          [&](int m, int n, const float* c) {
                              store_dw<K>(call.dw_ih, s, s.E, m, n / K::COLUMNS, n % K::COLUMNS, c);
                          });
    }
};

}  // namespace

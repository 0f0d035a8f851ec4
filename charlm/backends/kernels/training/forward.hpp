// The recurrence forward: one layer over a window, in the threads of a call.
//
// Threads own hidden units, with all of their gates, and meet once in each time step. Nothing is
// summed across threads, so results do not depend on their number. W x + b of a chunk of time steps
// is computed before the first of them. The pointwise work of one group of units is done between
// the products of the next.

#pragma once

#include "packing.hpp"
#include "products.hpp"

namespace {

// The pointwise work of one group of unit blocks and one block of rows, in COUNT calls: for each
// unit block 32 rows, then h transposed.
template <class K, bool TABLE, bool TRAINING>
struct ForwardItems {
    static constexpr int COUNT = 33 * K::GROUP;
    const Call& call;
    const Shape& s;
    const Saved<K>& saved;
    const ForwardMemory<K>& f;
    vi* across;  // 16 pairs of rows of h, interleaved
    vf one = {};  // h of the row before
    // The group:
    const float *hidden = nullptr, *given = nullptr, *bias = nullptr;
    const int64_t* ids = nullptr;
    float *carried = nullptr, *h_after = nullptr, *c_after = nullptr;
    bf16 *gates = nullptr, *cells = nullptr, *h_rows = nullptr, *h_across = nullptr;
    char* y = nullptr;
    int rows = 0, some[2] = {};

    // Set the group: unit blocks from u, rows of block r at step t, and products `sums` with h.
    void aim(int t, int u, int r, const float* sums) {
        const size_t row = size_t(t) * s.B + r * 32;
        const int column = u * K::COLUMNS / 2;
        hidden = sums;
        const size_t block = TABLE ? 0 : size_t(t % s.steps) * s.rows + r;
        given = f.given + (block * s.pairs * K::COLUMNS + column) * BLOCK_FLOATS;
        if (TABLE) ids = call.ids + row;
        bias = f.hidden_bias + u * 16;
        carried = f.carried + (size_t(u) * s.rows + r) * 2 * TILE_FLOATS;
        gates = saved.gates_at(s, t, u, r);
        rows = std::min(32, s.B - r * 32);
        for (int which = 0; which < K::GROUP; which++) some[which] = left(s.H, (u + which) * 16);
        y = static_cast<char*>(call.y) + (row * s.H + u * 16) * (call.y_is_bf16 ? 2 : 4);
        const size_t at = size_t(r) * 32 * s.H + u * 16;
        h_after = t + 1 == s.T ? call.h_after + at : nullptr;
        c_after = t + 1 == s.T ? call.c_after + at : nullptr;
        aim_state(t + 1, u, r);
    }
    // Set where the state before `step` is kept.
    void aim_state(int step, int u, int r) {
        const size_t block = size_t(step) * s.rows + r;
        h_rows = f.h + ((size_t(step % 2) * s.rows + r) * s.pairs + u / 2) * BLOCK + u % 2 * 16;
        cells = saved.cells_at(s, step, u, r);
        h_across = saved.h_across + (size_t(u / 2) * s.blocks + block) * BLOCK + u % 2 * TILE;
        if (step == s.T) h_across = nullptr;
    }
    // Keep rows 2j and 2j + 1 of h and of the carried values.
    INLINE vh keep(int which, int j, vf h0, vf h1, vf c0, vf c1) {
        const vh both = pack(h0, h1);
        store(h_rows + which * 16 + j * 64, lower(both));
        store(h_rows + which * 16 + j * 64 + 32, upper(both));
        if (TRAINING) across[j] = (vi)interleave(both);
        if (TRAINING) saved.put(cells + size_t(which) * s.rows * TILE + j * 32, pack(c0, c1));
        return both;
    }
    INLINE void turn(int which) const {
        if (TRAINING && h_across)
            transpose(across, reinterpret_cast<vi*>(h_across + which * TILE));
    }
    INLINE void operator()(int item) {
        const int which = K::GROUP == 1 ? 0 : item / 33, i = item - which * 33;
        if (i == 32) return turn(which);
        const int at = i / 16 * 2 * TILE_FLOATS + i % 16 * 16;
        vf from_h[K::GATES], from_x[K::GATES], keeps[K::SAVED + 1];
        const float* row = given + at;
        if (TABLE) {
            const int id = int(ids[i < rows ? i : 0]);  // padding: a row that is read anyway
            row = given + size_t(id / 32) * s.pairs * K::COLUMNS * BLOCK_FLOATS +
                  (id / 16 % 2 * 2 * TILE_FLOATS + id % 16 * 16);
        }
#pragma GCC unroll 4
        for (int gate = 0; gate < K::GATES; gate++) {
            const int place = K::column_of(gate, which) * BLOCK_FLOATS +
                              K::half_of(gate, which) * TILE_FLOATS;
            from_h[gate] = load<vf>(hidden + at + place);
            from_x[gate] = load<vf>(row + place);
        }
        float* state = carried + size_t(which) * s.rows * 2 * TILE_FLOATS + i * 16;
        vf now = load<vf>(state);
        const vf h = K::step(from_h, from_x, load<vf>(bias + which * 16), now, keeps);
        store(state, now);
        if (TRAINING) {
            bf16* to = gates + size_t(which) * s.rows * K::SAVED * TILE + i * K::SAVED * 16;
#pragma GCC unroll 2
            for (int j = 0; j < K::SAVED; j += 2)
                saved.put(to + j * 16, pack(keeps[j], keeps[j + 1]));
        }
        const size_t to = size_t(i) * s.H + which * 16;
        const int count = some[which];
        if (i < rows && count) {
            if (!call.y_is_bf16) store_some(reinterpret_cast<float*>(y) + to, h, count);
            if (h_after) store_some(h_after + to, h, count);
            if (K::HAS_CELL && h_after) store_some(c_after + to, now, count);
        }
        if (i % 2 == 0) {
            one = h;
            return;
        }
        const vh both = keep(which, i / 2, one, h, load<vf>(state - 16), now);
        if (call.y_is_bf16 && count) {
            bf16* out = reinterpret_cast<bf16*>(y) + to;
            if (i - 1 < rows) store_some(out - s.H, lower(both), count);
            if (i < rows) store_some(out, upper(both), count);
        }
    }
};

template <class K, bool TABLE, bool TRAINING>
struct ForwardPass {
    static constexpr int GROUP_COLUMNS = ForwardMemory<K>::GROUP_COLUMNS;
    using Items = ForwardItems<K, TABLE, TRAINING>;
    const Call& call;
    const Shape& s;
    Barrier& barrier;
    const int me;
    const Saved<K> saved;
    const ForwardMemory<K> f;
    const Range pairs, columns;  // of this thread
    float* const own;
    Items items;

    ForwardPass(const Call& a_call, const Shape& shape, Barrier& a_barrier, int thread)
        : call(a_call), s(shape), barrier(a_barrier), me(thread),
          saved(shape, TRAINING ? a_call.saved : nullptr), f(shape, a_call),
          pairs(shape.pairs, thread, a_barrier.members),
          columns(pairs.first * K::COLUMNS, pairs.last * K::COLUMNS),
          own(f.own + size_t(ForwardMemory<K>::OWN) * thread),
          items{a_call, shape, saved, f,
                reinterpret_cast<vi*>(own + 2 * GROUP_COLUMNS * BLOCK_FLOATS)} {}

    void run() {
        pack_weights();
        for (int u = 2 * pairs.first; u < 2 * pairs.last; u++)
            for (int r = 0; r < s.rows; r++) load_state(u, r);
        if (TABLE) input_side(0, s.x_blocks);
        barrier.wait();
        for (int t = 0; t < s.T; t++) {
            if (!TABLE && t % s.steps == 0)
                input_side(t * s.rows, std::min(s.steps, s.T - t) * s.rows);
            step(t);
            barrier.wait();
        }
    }

    void pack_weights() const {
        for (int column = columns.first; column < columns.last; column++) {
            const int pair = column / K::COLUMNS, j = column % K::COLUMNS;
            for (int k = 0; k < s.pairs; k++)
                pack_forward<K>(call.w_hh, s, s.H, pair, j, k,
                                f.w_hh + (size_t(column) * s.pairs + k) * BLOCK);
            for (int k = 0; k < s.inputs; k++)
                pack_forward<K>(call.w_ih, s, s.E, pair, j, k,
                                f.w_ih + (size_t(column) * s.inputs + k) * BLOCK);
            for (int half = 0; half < 2; half++) {
                const int unit = (2 * pair + K::unit_of(j, half)) * 16, some = left(s.H, unit);
                const int gate = K::gate_of(j, half), from = gate * s.H + unit;
                vf bias = some ? load_some(call.b_ih + from, some) : vf{};
                if (some && K::hidden_gate(gate) == gate) bias += load_some(call.b_hh + from, some);
                store(f.bias + column * 32 + half * 16, bias);
            }
        }
        for (int u = 2 * pairs.first; u < 2 * pairs.last; u++) {
            const int last = K::GATES - 1, some = left(s.H, u * 16);
            const bool apart = some && K::hidden_gate(last) != last;
            store(f.hidden_bias + u * 16,
                  apart ? load_some(call.b_hh + last * s.H + u * 16, some) : vf{});
        }
    }

    // Load the state before the window.
    void load_state(int u, int r) {
        const int some = left(s.H, u * 16);
        const float* carried = K::HAS_CELL ? call.c0 : call.h0;
        float* to = f.carried + (size_t(u) * s.rows + r) * 2 * TILE_FLOATS;
        items.aim_state(0, u, r);
        for (int j = 0; j < 16; j++) {
            vf h[2] = {}, c[2] = {};
            for (int half = 0; half < 2; half++) {
                const int b = r * 32 + 2 * j + half;
                const size_t at = size_t(b) * s.H + u * 16;
                if (b < s.B && some) {
                    h[half] = load_some(call.h0 + at, some);
                    c[half] = load_some(carried + at, some);
                }
                store(to + (2 * j + half) * 16, c[half]);
            }
            items.keep(0, j, h[0], h[1], c[0], c[1]);
        }
        items.turn(0);
    }

    // W x + b of a block of rows of the chunk (or of the table), for one column.
    float* given_at(int block, int column) const {
        return f.given + (size_t(block) * s.pairs * K::COLUMNS + column) * BLOCK_FLOATS;
    }

    // Compute W x + b of some blocks of rows of x, the next chunk.
    void input_side(int first, int blocks) {
        const Range part(blocks * s.inputs, me, barrier.members);
        for (int at = part.first; at < part.last; at++) {
            const int block = first + at / s.inputs, k = at % s.inputs;
            const size_t place = size_t(k) * s.x_blocks + block;
            bf16* out = f.x + size_t(at) * BLOCK;
            bf16* across = TRAINING ? saved.x_across + place * BLOCK : nullptr;
            if (call.x_is_bf16)
                pack_input(static_cast<const bf16*>(call.x), s, block, k, out, across);
            else
                pack_input(static_cast<const float*>(call.x), s, block, k, out, across);
        }
        barrier.wait();
        multiply({{0, blocks}, columns, s.inputs, blocks, columns.size()},
                 [&](int m) { return f.x + size_t(m) * s.inputs * BLOCK; },
                 [&](int n) { return f.w_ih + size_t(n) * s.inputs * BLOCK; },
                 [&](int m, int n) { return given_at(m, n); },
                 [&](Sums& sums, int n) { sums.fill(f.bias + n * 32); },
                 [](int, int, const float*) {});
    }

    void step(int t) {
        int which = 0, waiting = 0;  // the items of the group before this one
        const int groups = 2 * pairs.size() / K::GROUP;
        for (int i = 0; i < groups; i++)
            for (int r = 0; r < s.rows; r++) {
                const int u = 2 * pairs.first + in_turn(t, i, groups) * K::GROUP;
                const int column = u * K::COLUMNS / 2;
                Ahead ahead;  // W x of this group, which its items add
                if (!TABLE)
                    ahead = {given_at(t % s.steps * s.rows + r, column),
                             GROUP_COLUMNS * BLOCK_FLOATS / 16};
                const bf16* h = f.h + (size_t(t % 2) * s.rows + r) * s.pairs * BLOCK;
                Pacer<Items> pacer(items, waiting, GROUP_COLUMNS * s.pairs, ahead, {}, {});
                float* gates = own + which * GROUP_COLUMNS * BLOCK_FLOATS;
                for (int j = 0; j < GROUP_COLUMNS; j++) {
                    Sums sums{gates + j * BLOCK_FLOATS};
                    sums.zero();
                    sums.template add<B_STREAMS>(h, f.w_hh + size_t(column + j) * s.pairs * BLOCK,
                                                 s.pairs, pacer);
                    sums.store();
                }
                pacer.finish();
                items.aim(t, u, r, gates);
                waiting = Items::COUNT, which = 1 - which;
            }
        for (int j = 0; j < waiting; j++) items(j);
    }
};

}  // namespace

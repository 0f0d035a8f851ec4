// The arguments of a call, and the memory that it uses.
//
// Time-major: x (T, B, E), y (T, B, H). x may be a table of rows instead, with ids for T and B. A
// block of rows is 32 rows of the batch at one time step.
// Units, inputs and rows are padded to 32 inside.

#pragma once

#include <algorithm>

#include "cells.hpp"
#include "tiles.hpp"

extern "C" {
// As `Call` in training_library.py. G is the number of gates: 1 RNN, 4 LSTM, 3 GRU, in the order of
// torch.
// Pointers that are not wanted are null.
struct Call {
    int64_t cell, threads, T, B, E, H, V, x_is_bf16, y_is_bf16, training;
    // In: x (T, B, E); or, with ids (T, B), a table x (V, E) of which they are rows
    const void* x;
    const int64_t* ids;
    const float *w_ih, *w_hh, *b_ih, *b_hh;  // (GH, E), (GH, H), (GH), (GH)
    const float *h0, *c0;                    // (B, H)
    void* y;                                 // out, (T, B, H)
    float *h_after, *c_after;                // out, (B, H)
    char *saved, *scratch;
    // In, for the backward pass: gradients of y, h_after and c_after.
    const void* dy;
    const float *dh_after, *dc_after;
    // Out: gradients, each of the shape of its value.
    void* dx;
    float *dw_ih, *dw_hh, *db_ih, *db_hh, *dh0, *dc0;
};
}

namespace {

constexpr int CHUNK_ROWS = 256;  // rows for which W x and dx are computed at once
constexpr size_t MAX_CACHED = 8 << 20;  // bytes of what is saved that are left in the caches

struct Shape {
    int T, B, E, H, V;
    int pairs;   // of unit blocks, 32 units each
    int units;   // unit blocks
    int inputs;  // k-steps of the input
    int rows;    // blocks of rows at one step
    int steps;   // time steps in a chunk; one with a table, whose W x is computed before
    int blocks;  // blocks of rows in the window
    int x_blocks, x_chunk;  // blocks of rows of x: all, and those for which W x is computed at once
    explicit Shape(const Call& c)
        : T(int(c.T)), B(int(c.B)), E(int(c.E)), H(int(c.H)), V(int(c.V)),
          pairs((H + 31) / 32), units(2 * pairs), inputs((E + 31) / 32), rows((B + 31) / 32),
          steps(V ? 1 : std::min(T, std::max(1, CHUNK_ROWS / std::max(1, 32 * rows)))),
          blocks(T * rows), x_blocks(V ? (V + 31) / 32 : blocks),
          x_chunk(V ? x_blocks : steps * rows) {}
    // The first row of a block of x, and the number of its rows.
    size_t x_row(int block) const {
        return V ? size_t(block) * 32 : size_t(block / rows) * B + block % rows * 32;
    }
    int x_count(int block) const {
        return std::min(32, V ? V - block * 32 : B - block % rows * 32);
    }
};

// Areas of one allocation, each at a multiple of 64 bytes. Without a base, only their size.
struct Arena {
    char* base;
    size_t used = 0;
    template <class X>
    X* take(size_t count) {
        X* at = base ? reinterpret_cast<X*>(base + used) : nullptr;
        used += (count * sizeof(X) + 63) / 64 * 64;
        return at;
    }
};

// What the forward pass keeps for the backward pass. Step 0 of `cells` is before the window.
template <class K>
struct Saved {
    bf16 *gates, *cells, *h_across, *x_across;
    size_t bytes;
    bool past_caches;  // it is stored past the caches, which it would fill
    Saved(const Shape& s, char* base) {
        Arena a{base};
        const size_t blocks = size_t(s.units) * s.rows;
        gates = a.take<bf16>(s.T * blocks * K::SAVED * TILE);  // [t][u][r][32 rows][SAVED][16]
        cells = a.take<bf16>((s.T + 1) * blocks * TILE);       // [t][u][r][32 rows][16]
        h_across = a.take<bf16>(size_t(s.pairs) * s.blocks * BLOCK);   // A of dW_hh: h transposed
        x_across = a.take<bf16>(size_t(s.inputs) * s.x_blocks * BLOCK);  // A of dW_ih
        bytes = a.used;
        past_caches = bytes > MAX_CACHED;
    }
    // Store values that are read in another pass, or after the last time step.
    INLINE void put(bf16* to, vh v) const {
        if (past_caches)
            stream(to, v);
        else
            store(to, v);
    }
    bf16* gates_at(const Shape& s, int t, int u, int r) const {
        return gates + ((size_t(t) * s.units + u) * s.rows + r) * K::SAVED * TILE;
    }
    bf16* cells_at(const Shape& s, int t, int u, int r) const {
        return cells + ((size_t(t) * s.units + u) * s.rows + r) * TILE;
    }
};

template <class K>
struct ForwardMemory {
    bf16 *w_hh, *w_ih, *h, *x;
    float *bias, *hidden_bias, *carried, *given, *own;
    size_t bytes;
    static constexpr int GROUP_COLUMNS = K::COLUMNS * K::GROUP / 2;
    // Floats of each thread: gates of two groups, and h of a block, transposed.
    static constexpr int OWN = 2 * GROUP_COLUMNS * BLOCK_FLOATS + TILE_FLOATS;
    ForwardMemory(const Shape& s, const Call& call) {
        Arena a{call.scratch};
        const size_t columns = size_t(s.pairs) * K::COLUMNS;
        w_hh = a.take<bf16>(columns * s.pairs * BLOCK);              // [column][k-step][2]
        w_ih = a.take<bf16>(columns * s.inputs * BLOCK);
        h = a.take<bf16>(size_t(2) * s.rows * s.pairs * BLOCK);      // [step % 2][r][k-step][2]
        x = a.take<bf16>(size_t(s.x_chunk) * s.inputs * BLOCK);
        bias = a.take<float>(columns * 32);                             // [column][2][16]
        hidden_bias = a.take<float>(s.units * 16);
        carried = a.take<float>(size_t(s.units) * s.rows * 2 * TILE_FLOATS);  // [u][r][32][16]
        given = a.take<float>(s.x_chunk * columns * BLOCK_FLOATS);  // W x + b
        own = a.take<float>(size_t(OWN) * call.threads);
        bytes = a.used;
    }
};

template <class K>
struct BackwardMemory {
    bf16 *w_hh, *w_ih, *d_rows, *d_across, *table_rows, *table_across;
    float *carried, *bias, *table, *results, *own;
    size_t bytes;
    int all;   // k-steps of the gradients of a block of rows
    int side;  // k-steps of them that the input side sums over, and also the hidden side
    static constexpr int OWN = 2 * BLOCK_FLOATS;  // floats of each thread: dh of two blocks
    BackwardMemory(const Shape& s, const Call& call)
        : all(s.pairs * K::BACK_COLUMNS), side(s.pairs * K::COLUMNS) {
        Arena a{call.scratch};
        w_hh = a.take<bf16>(size_t(s.pairs) * side * BLOCK);   // [32 units][k-step][2]
        w_ih = a.take<bf16>(size_t(s.inputs) * side * BLOCK);  // [32 inputs][k-step][2]
        d_rows = a.take<bf16>(size_t(2) * s.steps * s.rows * all * BLOCK);  // 2 chunks: A of dh, dx
        d_across = a.take<bf16>(size_t(all) * s.blocks * BLOCK);  // [k-step][block][2]: B of dW
        carried = a.take<float>(size_t(s.units) * s.rows * 2 * TILE_FLOATS);
        bias = a.take<float>(size_t(s.units) * K::BACK_GATES * 16);
        // The gradients of W x + b of each row of a table: their sums, and these as operands.
        table = a.take<float>(size_t(s.units) * s.V * K::GATES * 16);  // [u][id][gate][16]
        table_rows = a.take<bf16>(s.V ? size_t(s.x_blocks) * all * BLOCK : 0);
        table_across = a.take<bf16>(s.V ? size_t(s.x_blocks) * all * BLOCK : 0);
        results = a.take<float>(size_t(MAX_M) * MAX_N * BLOCK_FLOATS * call.threads);
        own = a.take<float>(size_t(OWN) * call.threads);
        bytes = a.used;
    }
};

// How many of the 16 units (or inputs) from `before` exist.
INLINE int left(int all, int before) { return std::max(0, std::min(16, all - before)); }

}  // namespace

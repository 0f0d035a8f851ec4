// Packing of weights and inputs as operands: bfloat16 in tiles, padded with zeros.

#pragma once

#include "call.hpp"

namespace {

// B of gates = rows W^T: k-step k of one column of W (GH, width).
template <class K>
void pack_forward(const float* w, const Shape& s, int width, int pair, int column, int k,
                  bf16* out) {
    alignas(64) vh rows[16];
    const int at = k * 32, some = left(width, at), more = left(width, at + 16);
    for (int half = 0; half < 2; half++) {
        const int first = (2 * pair + K::unit_of(column, half)) * 16;
        const int gate = K::gate_of(column, half);
        for (int n = 0; n < 16; n++) {
            rows[n] = vh{};
            if (first + n >= s.H) continue;
            const float* from = w + size_t(gate * s.H + first + n) * width + at;
            rows[n] = more == 16 ? pack(load<vf>(from), load<vf>(from + 16))
                                 : pack(load_some(from, some),
                                        more ? load_some(from + 16, more) : vf{});
        }
        transpose(rows, reinterpret_cast<vi*>(out + half * TILE));
    }
}

// B of gradients = dgates W: the k-step of one column (16 units of each half), columns
// [32 n, 32 n + 32) of W (GH, width).
template <class K>
void pack_backward(const float* w, const Shape& s, int width, int n, int pair, int column,
                   bf16* out) {
    for (int half = 0; half < 2; half++) {
        const int at = n * 32 + half * 16, some = left(width, at);
        for (int k = 0; k < 16; k++) {
            const int unit = (2 * pair + K::unit_of(column, k / 8)) * 16 + k % 8 * 2;
            const float* from =
                w + size_t(K::gate_of(column, k / 8) * s.H + unit) * width + at;
            const vf one = unit < s.H && some ? load_some(from, some) : vf{};
            const vf two = unit + 1 < s.H && some ? load_some(from + width, some) : vf{};
            store(out + half * TILE + k * 32, interleave(pack(one, two)));
        }
    }
}

// A of a block of rows of x at inputs [32 k, 32 k + 32); and in `across`, if given, A of its
// transpose.
template <class X>
void pack_input(const X* x, const Shape& s, int block, int k, bf16* out, bf16* across) {
    alignas(64) vh rows[32], columns[16];
    const int some = left(s.E, k * 32), more = left(s.E, k * 32 + 16), count = s.x_count(block);
    for (int i = 0; i < 32; i++) {
        rows[i] = vh{};
        if (i < count) {
            const X* from = x + (s.x_row(block) + i) * s.E + k * 32;
            rows[i] = pack(load_some(from, some), more ? load_some(from + 16, more) : vf{});
        }
        store(out + i * 32, rows[i]);
    }
    for (int half = 0; across && half < 2; half++) {
        for (int j = 0; j < 16; j++)
            columns[j] = interleave(half ? joined(upper(rows[2 * j]), upper(rows[2 * j + 1]))
                                         : joined(lower(rows[2 * j]), lower(rows[2 * j + 1])));
        transpose(columns, reinterpret_cast<vi*>(across + half * TILE));
    }
}

// The gradient of a block of rows of x: c is 32 of its columns (n).
template <class X>
INLINE void store_dx(const Call& call, const Shape& s, int block, int n, const float* c) {
    const int count = s.x_count(block);
    for (int i = 0; i < count; i++) {
        X* to = static_cast<X*>(call.dx) + (s.x_row(block) + i) * s.E + n * 32;
        for (int half = 0; half < 2; half++) {
            const float* row = c + (i / 16 * 2 + half) * TILE_FLOATS + i % 16 * 16;
            if (const int some = left(s.E, n * 32 + half * 16))
                store_some(to + half * 16, load<vf>(row), some);
        }
    }
}

// The gradient of a weight matrix (GH, width): c is 32 of its columns (m) by one column of gates.
template <class K>
INLINE void store_dw(float* dw, const Shape& s, int width, int m, int pair, int column,
                     const float* c) {
    alignas(64) vi turned[16];
    for (int part = 0; part < 4; part++) {
        const int unit = (2 * pair + K::unit_of(column, part % 2)) * 16;
        const int gate = K::gate_of(column, part % 2);
        const int at = m * 32 + part / 2 * 16, some = left(width, at);
        if (!some) continue;
        transpose(c + part * TILE_FLOATS, turned);
        for (int i = 0; i < 16 && unit + i < s.H; i++)
            store_some(dw + size_t(gate * s.H + unit + i) * width + at, (vf)turned[i], some);
    }
}

}  // namespace

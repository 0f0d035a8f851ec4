// Products by vdpbf16ps: 16 floats += two products of bfloat16 each (AVX-512 BF16).
//
// Eight rows of a result are kept in registers (8 x 2 vectors of sums). A run of k-steps of B stays
// in the L1 cache while the four groups of rows pass over it.

#pragma once

#include <algorithm>

namespace {

inline bool tiles_usable() { return true; }

struct TileState {
    TileState() {}  // nothing to set up
};

constexpr int ROWS_AT_ONCE = 8;
constexpr int K_IN_CACHE = 8;  // 16 KB of B

// Rows [row, row + ROWS_AT_ONCE) of c += A times B; of c = A times B if c is empty.
INLINE void add_rows(float* c, const bf16* a, const bf16* b, int count, int row, bool empty) {
    c += row / 16 * 2 * TILE_FLOATS + row % 16 * 16;
    __m512 sums[ROWS_AT_ONCE][2];
#pragma GCC unroll 8
    for (int m = 0; m < ROWS_AT_ONCE; m++) {
        sums[m][0] = empty ? _mm512_setzero_ps() : _mm512_loadu_ps(c + m * 16);
        sums[m][1] = empty ? _mm512_setzero_ps() : _mm512_loadu_ps(c + TILE_FLOATS + m * 16);
    }
    for (int k = 0; k < count; k++, a += BLOCK, b += BLOCK)
#pragma GCC unroll 1
        for (int pair = 0; pair < 16; pair++) {
            const __m512bh left = (__m512bh)_mm512_loadu_si512(b + pair * 32);
            const __m512bh right = (__m512bh)_mm512_loadu_si512(b + TILE + pair * 32);
#pragma GCC unroll 8
            for (int m = 0; m < ROWS_AT_ONCE; m++) {
                const int32_t two = load<int32_t>(a + (row + m) * 32 + pair * 2);
                const __m512bh x = (__m512bh)_mm512_set1_epi32(two);
                sums[m][0] = _mm512_dpbf16_ps(sums[m][0], x, left);
                sums[m][1] = _mm512_dpbf16_ps(sums[m][1], x, right);
            }
        }
#pragma GCC unroll 8
    for (int m = 0; m < ROWS_AT_ONCE; m++) {
        _mm512_storeu_ps(c + m * 16, sums[m][0]);
        _mm512_storeu_ps(c + TILE_FLOATS + m * 16, sums[m][1]);
    }
}

__attribute__((noinline)) void add_product(float* c, const bf16* a, const bf16* b, int count,
                                          bool empty) {
    for (int k = 0; k < count; k += K_IN_CACHE)
        for (int row = 0; row < 32; row += ROWS_AT_ONCE)
            add_rows(c, a + size_t(k) * BLOCK, b + size_t(k) * BLOCK,
                     std::min(K_IN_CACHE, count - k), row, empty && k == 0);
}

struct Sums {
    float* place;
    bool empty = false;
    void zero() { empty = true; }
    void fill(const float* row) const {
        for (int i = 0; i < 64; i++) ::store(place + i * 16, ::load<vf>(row + i / 16 % 2 * 16));
    }
    void load() const {}
    void store() const {}
    // `between` runs after the products: it would compete with them for the vector units.
    template <Streams, class Between>
    INLINE void add(const bf16* a, const bf16* b, int count, Between&& between) const {
        add_product(place, a, b, count, empty);
        for (int k = 0; k < count; k++) between();
    }
};

}  // namespace

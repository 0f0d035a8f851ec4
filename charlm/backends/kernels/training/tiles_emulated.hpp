// Products with the bits of the tile instructions, by AVX-512.
//
// tdpbf16ps (Intel, Architectures Software Developer's Manual) computes for each row m and column n
//   even = sum over k = 0..15 of a[m][2k]   b[k][2n],
//   odd  = sum over k = 0..15 of a[m][2k+1] b[k][2n+1],
// each a chain of fused multiply-adds in float that begins with 0, and c[m][n] += (even + odd), two
// more additions. It rounds to nearest even and takes subnormal numbers as zero, whatever MXCSR
// says; here, Flushing does.

#pragma once

namespace {

inline bool tiles_usable() { return true; }

struct TileState {
    TileState() {}  // nothing to set up
};

__attribute__((noinline)) void add_tile(float* c, const bf16* a, const bf16* b) {
    const __m512i high = _mm512_set1_epi32(int(0xffff0000u));
    for (int m = 0; m < 16; m++) {
        __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
        for (int k = 0; k < 16; k++) {
            const __m512i x = _mm512_set1_epi32(load<int32_t>(a + m * 32 + 2 * k));
            const __m512i y = _mm512_loadu_si512(b + k * 32);
            even = _mm512_fmadd_ps((__m512)_mm512_slli_epi32(x, 16),
                                   (__m512)_mm512_slli_epi32(y, 16), even);
            odd = _mm512_fmadd_ps((__m512)_mm512_and_si512(x, high),
                                  (__m512)_mm512_and_si512(y, high), odd);
        }
        const __m512 sum = _mm512_add_ps(even, odd);
        _mm512_storeu_ps(c + m * 16, _mm512_add_ps(_mm512_loadu_ps(c + m * 16), sum));
    }
}

struct Sums {
    float* place;
    void zero() const { std::memset(place, 0, sizeof(float) * BLOCK_FLOATS); }
    void fill(const float* row) const {
        for (int i = 0; i < 64; i++) ::store(place + i * 16, ::load<vf>(row + i / 16 % 2 * 16));
    }
    void load() const {}
    void store() const {}
    template <Streams, class Between>
    INLINE void add(const bf16* a, const bf16* b, int count, Between&& between) const {
        for (int k = 0; k < count; k++, a += BLOCK, b += BLOCK) {
            for (int part = 0; part < 4; part++)
                add_tile(place + part * TILE_FLOATS, a + part / 2 * TILE, b + part % 2 * TILE);
            between();
        }
    }
};

}  // namespace

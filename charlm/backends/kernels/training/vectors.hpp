// Vectors of 16 floats and of 16 or 32 bfloat16, with exp, sigmoid and tanh (AVX-512 with BF16).

#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

typedef uint16_t bf16;
typedef float vf __attribute__((vector_size(64)));      // 16 floats
typedef int32_t vi __attribute__((vector_size(64)));    // 16 integers of 32 bits
typedef uint16_t vh __attribute__((vector_size(64)));   // 32 bfloat16
typedef uint16_t vhh __attribute__((vector_size(32)));  // 16 bfloat16

template <class V>
INLINE V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
}
template <class V>
INLINE void store(void* to, V v) {
    std::memcpy(to, &v, sizeof(V));
}
// Store past the caches, at a multiple of 64 bytes: for values that are read much later.
template <class V>
INLINE void stream(void* to, V v) {
    _mm512_stream_si512(static_cast<__m512i*>(to), (__m512i)v);
}

// [a | b] as bfloat16, a in the lower half.
INLINE vh pack(vf a, vf b) { return (vh)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a); }
// [a | b] -> a0 b0 a1 b1 ...: two rows become the pairs of a B tile.
INLINE vh interleave(vh v) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9,
                                           24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1,
                                           16, 0);
    return (vh)_mm512_permutexvar_epi16(order, (__m512i)v);
}
INLINE vhh lower(vh v) { return (vhh)_mm512_castsi512_si256((__m512i)v); }
INLINE vhh upper(vh v) { return (vhh)_mm512_extracti64x4_epi64((__m512i)v, 1); }
INLINE vh joined(vhh a, vhh b) {
    return (vh)_mm512_inserti64x4(_mm512_castsi256_si512((__m256i)a), (__m256i)b, 1);
}
INLINE vf floats(__m256i halves) {
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
}
INLINE float float_of(bf16 half) {
    const uint32_t bits = uint32_t(half) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
INLINE vf widen(const bf16* from) { return floats(_mm256_loadu_si256((const __m256i*)from)); }

// The first n of 16 values. The others are zero when loaded, and untouched when stored.
INLINE __mmask16 first(int n) { return __mmask16((1u << n) - 1); }
INLINE vf load_some(const float* from, int n) {
    return (vf)_mm512_maskz_loadu_ps(first(n), from);
}
INLINE vf load_some(const bf16* from, int n) {
    return floats(_mm256_maskz_loadu_epi16(first(n), from));
}
INLINE void store_some(float* to, vf v, int n) {
    _mm512_mask_storeu_ps(to, first(n), (__m512)v);
}
INLINE void store_some(bf16* to, vhh h, int n) {
    _mm256_mask_storeu_epi16(to, first(n), (__m256i)h);
}
INLINE void store_some(bf16* to, vf v, int n) { store_some(to, lower(pack(v, v)), n); }

// Transpose 16 x 16 units of 32 bits. Of interleaved rows of bfloat16 (a B tile), it makes the
// A tile of the transpose.
INLINE void transpose(const void* from, vi* out) {
    const char* at = static_cast<const char*>(from);
    __m512i r[16], s[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(at + i * 64);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        s[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(s[4 * i], s[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(s[4 * i], s[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(s[4 * i + 1], s[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(s[4 * i + 1], s[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        s[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        s[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        s[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        s[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        out[i] = (vi)_mm512_shuffle_i32x4(s[i], s[8 + i], 0x88);
        out[8 + i] = (vi)_mm512_shuffle_i32x4(s[i], s[8 + i], 0xdd);
        out[4 + i] = (vi)_mm512_shuffle_i32x4(s[4 + i], s[12 + i], 0x88);
        out[12 + i] = (vi)_mm512_shuffle_i32x4(s[4 + i], s[12 + i], 0xdd);
    }
}

// a b + c and c - a b, rounded once. The compiler fuses nothing by itself (-ffp-contract=off): what
// it fuses depends on whether a product is stored too, so training would differ from evaluation.
INLINE vf fused(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf minus(vf a, vf b, vf c) { return (vf)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c); }

// 2^x: 2^floor(x) times a polynomial of degree 4 in the rest. It is exact at 0 and 1, so that
// tanh(0) is 0; the relative error is 3.4e-6.
INLINE vf exp2_of(vf x) {
    const vf f = (vf)_mm512_reduce_ps((__m512)x, 1);  // x - floor(x)
    vf p = fused(vf{} + 0.01355575f, f, vf{} + 0.05203237f);
    p = fused(p, f, vf{} + 0.24137976f);
    p = fused(p, f, vf{} + 0.69303212f);
    p = fused(p, f, vf{} + 1.0f);
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)x);
}
INLINE vf reciprocal(vf x) { return (vf)_mm512_rcp14_ps((__m512)x); }  // relative error 2^-14
INLINE vf sigmoid_of(vf x) { return reciprocal(exp2_of(x * -1.44269504f) + 1.0f); }
// (e - 1) / (e + 1) with e = exp(2x), which is kept finite. The order of the operands of min lets
// a NaN through.
INLINE vf tanh_of(vf x) {
    const vf e = exp2_of((vf)_mm512_min_ps(_mm512_set1_ps(60.0f), (__m512)(x * 2.88539008f)));
    return (e - 1.0f) * reciprocal(e + 1.0f);
}

// While it lives, subnormal numbers count as zero in its thread, as they do in the products: they
// are slow to compute with, and smaller than anything that matters here.
struct Flushing {
    unsigned before = _mm_getcsr();
    Flushing() { _mm_setcsr(before | 0x8040u); }
    ~Flushing() { _mm_setcsr(before); }
};

}  // namespace

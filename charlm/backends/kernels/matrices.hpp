// Products of weight matrices with rows of inputs, in float32, bfloat16 and int8.
//
// Outputs of a matrix are stored in panels of 16 (PANEL): for every input k, a panel has its 16
// weights side by side.

#pragma once

#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "vectors.hpp"

namespace {

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

inline int rounded(int n, int to) { return (n + to - 1) / to * to; }

struct Free {
    void operator()(void* p) const { std::free(p); }
};

// Aligned memory that grows and never shrinks.
template <class T>
struct Buffer {
    std::unique_ptr<T, Free> data;
    size_t size = 0;
    void reserve(size_t n) {
        if (n <= size) return;
        size_t bytes = (n * sizeof(T) + 127) / 64 * 64;
        size = 0;
        data.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
        if (!data) throw std::bad_alloc();
        size = n;
    }
    T* get() const { return data.get(); }
};

// A matrix of n outputs and k inputs in panels. INT8 has four inputs side by side, [k / 4][16][4].
struct Matrix {
    Kind kind = FLOAT32;
    int n = 0, k = 0, panels = 0;
    Buffer<float> f;
    Buffer<uint16_t> h;
    Buffer<int8_t> q;
    Buffer<float> scale;   // INT8: for each output
    Buffer<int32_t> sums;  // INT8: 128 times the sum of an output's weights

    size_t stride() const { return size_t(k) * PANEL; }

    // Fill from source(output, input); outputs beyond the matrix are zero.
    template <class Source>
    void pack(Kind weight_kind, int outputs, int inputs, int padded_inputs, Source source) {
        kind = weight_kind;
        n = outputs;
        k = rounded(padded_inputs, 4);
        panels = (outputs + PANEL - 1) / PANEL;
        const size_t total = stride() * panels;
        if (kind == FLOAT32) f.reserve(total);
        if (kind == BFLOAT16) h.reserve(total);
        if (kind == INT8) {
            q.reserve(total);
            scale.reserve(size_t(panels) * PANEL);
            sums.reserve(size_t(panels) * PANEL);
        }
        std::vector<float> row(k);
        for (int o = 0; o < panels * PANEL; o++) {
            for (int i = 0; i < k; i++) row[i] = o < outputs && i < inputs ? source(o, i) : 0.0f;
            const size_t base = stride() * (o / PANEL);
            const int lane = o % PANEL;
            if (kind == FLOAT32)
                for (int i = 0; i < k; i++) f.get()[base + size_t(i) * PANEL + lane] = row[i];
            if (kind == BFLOAT16)
                for (int i = 0; i < k; i++)
                    h.get()[base + size_t(i) * PANEL + lane] = bfloat16(row[i]);
            if (kind == INT8) {
                float largest = 0.0f;
                for (float w : row) largest = std::fmax(largest, std::fabs(w));
                const float step = largest > 0.0f ? largest / 127.0f : 1.0f;
                int32_t sum = 0;
                for (int i = 0; i < k; i++) {
                    const int value = int(std::lrintf(row[i] / step));
                    sum += value;
                    q.get()[base + size_t(i / 4) * 4 * PANEL + lane * 4 + i % 4] = int8_t(value);
                }
                scale.get()[o] = step;
                sums.get()[o] = 128 * sum;
            }
        }
    }
    static uint16_t bfloat16(float x) {  // round to nearest, ties to even
        uint32_t bits = load<uint32_t>(&x);
        return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
};

// Rows of inputs: floats, or for INT8 bytes 128 + round(127 x / largest).
struct Rows {
    const float* f = nullptr;
    const uint8_t* q = nullptr;
    const float* scale = nullptr;
    int stride = 0;
};

inline void quantise(const float* x, int k, uint8_t* out, float* scale) {
    float largest = 0.0f;
    for (int i = 0; i < k; i++) largest = std::fmax(largest, std::fabs(x[i]));
    const float step = largest > 0.0f ? largest / 127.0f : 1.0f;
    const float inverse = 1.0f / step;
    for (int i = 0; i < k; i++) out[i] = uint8_t(int(std::nearbyintf(x[i] * inverse)) + 128);
    *scale = step;
}

inline vf weights_at(const float* w) { return load<vf>(w); }

inline vf weights_at(const uint16_t* w) {
    const vu bits = __builtin_convertvector(load<vh>(w), vu) << 16;
    return load<vf>(&bits);
}

// out[r][p][16] = rows r < M times panels p < P, of float32 or bfloat16 weights. A row of `out` has
// PANEL * pitch floats.
template <int M, int P, typename Weight>
inline void tile_floats(const Weight* w, size_t stride, int k, const Rows& a, int row, float* out,
                        int pitch) {
    vf acc[M][P][VECTORS] = {};
    for (int i = 0; i < k; i++) {
        vf b[P][VECTORS];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                b[p][v] = weights_at(w + p * stride + size_t(i) * PANEL + v * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const vf x = broadcast(a.f[size_t(row + m) * a.stride + i]);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) acc[m][p][v] += x * b[p][v];
        }
    }
    for (int m = 0; m < M; m++)
        for (int p = 0; p < P; p++)
            for (int v = 0; v < VECTORS; v++)
                store(out + (size_t(m) * pitch + p) * PANEL + v * LANES, acc[m][p][v]);
}

// Sixteen sums of four products each: sum[lane] += x[j] * w[lane][j], exact in int32. The inputs x
// are the bytes of Rows, on Arm these minus 128.
#if defined(__aarch64__)
struct Sums {
    int32x4_t quarters[4];
};
constexpr uint32_t SHIFT = 0x80808080;

inline Sums four_products(Sums sum, const int8_t* w, uint32_t x) {
    const int8x16_t xs = vreinterpretq_s8_u32(vdupq_n_u32(x));
    for (int quarter = 0; quarter < 4; quarter++) {
        const int8x16_t ws = vld1q_s8(w + 16 * quarter);
        int32x4_t& to = sum.quarters[quarter];
#if defined(__ARM_FEATURE_DOTPROD)
        to = vdotq_s32(to, ws, xs);
#else  // the sum of two products is at most 2 * 127 * 127, so it fits in 16 bits
        const int16x8_t low = vmull_s8(vget_low_s8(ws), vget_low_s8(xs));
        to = vpadalq_s16(to, vpaddq_s16(low, vmull_high_s8(ws, xs)));
#endif
    }
    return sum;
}

inline void scaled(const Sums& sum, const float* scales, float scale, float* to) {
    for (int quarter = 0; quarter < 4; quarter++) {
        const float32x4_t products = vld1q_f32(scales + 4 * quarter) * scale;
        vst1q_f32(to + 4 * quarter, vcvtq_f32_s32(sum.quarters[quarter]) * products);
    }
}
#else
typedef int32_t Sums __attribute__((vector_size(64)));
constexpr uint32_t SHIFT = 0;

inline Sums four_products(Sums sum, const int8_t* w, uint32_t x) {
#if defined(__AVX512VNNI__)
    return (Sums)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(int(x)),
                                     _mm512_loadu_si512(w));
#elif defined(__AVX2__)
    const __m256i xs = _mm256_cvtepu8_epi16(_mm_set1_epi32(int(x)));
    alignas(64) int32_t pairs[4][8];
    for (int quarter = 0; quarter < 4; quarter++) {
        const __m256i ws = _mm256_cvtepi8_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * quarter)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(pairs[quarter]), _mm256_madd_epi16(xs, ws));
    }
    Sums products;
    for (int lane = 0; lane < 16; lane++)
        products[lane] = pairs[lane / 4][lane % 4 * 2] + pairs[lane / 4][lane % 4 * 2 + 1];
    return sum + products;
#else
    const uint8_t* xs = reinterpret_cast<const uint8_t*>(&x);
    for (int lane = 0; lane < 16; lane++)
        for (int j = 0; j < 4; j++) sum[lane] += int32_t(xs[j]) * w[4 * lane + j];
    return sum;
#endif
}
#endif

template <int M, int P>
inline void tile_int8(const Matrix& matrix, int panel, const Rows& a, int row, float* out,
                      int pitch) {
    const int8_t* w = matrix.q.get() + matrix.stride() * panel;
    const size_t stride = matrix.stride();
    Sums acc[M][P] = {};
    for (int i = 0; i < matrix.k; i += 4)
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const uint32_t x = load<uint32_t>(a.q + size_t(row + m) * a.stride + i) ^ SHIFT;
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
                acc[m][p] = four_products(acc[m][p], w + p * stride + size_t(i) * PANEL, x);
        }
    for (int m = 0; m < M; m++)
        for (int p = 0; p < P; p++) {
            const int first = (panel + p) * PANEL;
            float* to = out + (size_t(m) * pitch + p) * PANEL;
#if defined(__aarch64__)
            scaled(acc[m][p], matrix.scale.get() + first, a.scale[row + m], to);
#else
            for (int lane = 0; lane < PANEL; lane++) {
                const int32_t sum = acc[m][p][lane] - matrix.sums.get()[first + lane];
                to[lane] = float(sum) * (matrix.scale.get()[first + lane] * a.scale[row + m]);
            }
#endif
        }
}

template <int M, int P>
inline void tile(const Matrix& w, int panel, const Rows& a, int row, float* out, int pitch) {
    const size_t offset = w.stride() * panel;
    if (w.kind == FLOAT32)
        tile_floats<M, P>(w.f.get() + offset, w.stride(), w.k, a, row, out, pitch);
    else if (w.kind == BFLOAT16)
        tile_floats<M, P>(w.h.get() + offset, w.stride(), w.k, a, row, out, pitch);
    else
        tile_int8<M, P>(w, panel, a, row, out, pitch);
}

#if LANES == 16
constexpr int MAX_ROWS = 12, PAIR = 2, WIDE = 4;
#elif LANES == 8
constexpr int MAX_ROWS = 3, PAIR = 2, WIDE = 4;
#else
constexpr int MAX_ROWS = 3, PAIR = 1, WIDE = 2;
#endif

// Panels [first, first + count) for M rows, in as few passes over the weights as registers allow.
template <int M>
inline void panels_for(const Matrix& w, int first, int count, const Rows& a, int row, float* out,
                       int pitch) {
    constexpr int P = M == 1 ? WIDE : PAIR;
    int p = 0;
    for (; p + P <= count; p += P) tile<M, P>(w, first + p, a, row, out + p * PANEL, pitch);
    for (; p < count; p++) tile<M, 1>(w, first + p, a, row, out + p * PANEL, pitch);
}

inline int rows_at_once(int rows) {
    if (rows >= MAX_ROWS) return MAX_ROWS;
#if LANES == 16
    if (rows >= 8) return 8;
    if (rows >= 4) return 4;
#endif
    return rows >= 2 ? 2 : 1;
}

inline void block(const Matrix& w, int first, int count, const Rows& a, int row, int rows,
                  float* out, int pitch) {
    switch (rows) {
#if LANES == 16
        case 12: return panels_for<12>(w, first, count, a, row, out, pitch);
        case 8: return panels_for<8>(w, first, count, a, row, out, pitch);
        case 4: return panels_for<4>(w, first, count, a, row, out, pitch);
#else
        case 3: return panels_for<3>(w, first, count, a, row, out, pitch);
#endif
        case 2: return panels_for<2>(w, first, count, a, row, out, pitch);
        default: return panels_for<1>(w, first, count, a, row, out, pitch);
    }
}

inline void add_bias(float* to, const float* bias, int count) {
    for (int i = 0; i < count; i += LANES)
        store(to + i, load<vf>(to + i) + load<vf>(bias + i));
}

// out = W a + bias for panels [first, first + count) and rows [begin, begin + rows) of `a`; `out`
// and `bias` begin at the first panel. Rows are the inner loop, so that the panels stay in cache.
inline void product(const Matrix& w, const float* bias, int first, int count, const Rows& a,
                    int begin, int rows, float* out, int pitch) {
    constexpr int AT_ONCE = 8;
    for (int p = 0; p < count; p += AT_ONCE) {
        const int panels = count - p < AT_ONCE ? count - p : AT_ONCE;
        for (int r = 0, some; r < rows; r += some) {
            some = rows_at_once(rows - r);
            float* to = out + (size_t(r) * pitch + p) * PANEL;
            block(w, first + p, panels, a, begin + r, some, to, pitch);
            for (int m = 0; m < some; m++)
                add_bias(to + size_t(m) * pitch * PANEL, bias + p * PANEL, panels * PANEL);
        }
    }
}

}  // namespace

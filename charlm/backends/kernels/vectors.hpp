// Vectors of LANES floats, with exp, sigmoid and tanh.

#pragma once

#include <cstdint>
#include <cstring>

#ifndef LANES
#define LANES 4
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr int PANEL = 16;
constexpr int VECTORS = PANEL / LANES;  // vectors in a panel

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

template <class T>
inline T load(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}
template <class T>
inline void store(void* to, T value) {
    std::memcpy(to, &value, sizeof(T));
}
inline vf broadcast(float x) {
    vf zero = {};
    return zero + x;
}

// exp for arguments in [-87, 88]: 2^n times a polynomial of degree 6, relative error about 2e-7.
inline vf exp_of(vf x) {
    const vf low = broadcast(-87.0f), high = broadcast(88.0f);
    x = x < low ? low : x;
    x = x > high ? high : x;
    vf scaled = x * 1.44269504088896341f;
    vf half = scaled < broadcast(0.0f) ? broadcast(-0.5f) : broadcast(0.5f);
    vi n = __builtin_convertvector(scaled + half, vi);
    vf whole = __builtin_convertvector(n, vf);
    vf r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    vf p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vi bits = (n + 127) << 23;
    return p * load<vf>(&bits);
}
inline vf sigmoid_of(vf x) { return broadcast(1.0f) / (exp_of(-x) + 1.0f); }
inline vf tanh_of(vf x) {
    // Near zero the quotient cancels; an odd polynomial is accurate there.
    vf square = x * x;
    vf small = x + x * square * (-0.333333333f + square * (0.133333333f - square * 0.053968254f));
    vf e = exp_of(x * 2.0f);
    vf large = broadcast(1.0f) - broadcast(2.0f) / (e + 1.0f);
    return square < broadcast(0.01f) ? small : large;
}

}  // namespace

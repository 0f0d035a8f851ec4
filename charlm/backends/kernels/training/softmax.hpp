// The softmax of rows of logits, its loss and its gradient, which takes the place of the logits.

#pragma once

#include <cmath>
#include <limits>

#include "threads.hpp"
#include "vectors.hpp"

namespace {

constexpr float LOG2_E = 1.44269504f;

// Rows of logits W h [N][V] and what is known of them; P = softmax(W h + bias).
struct Softmax {
    bf16* logits;            // [N][V], afterwards the gradient of the loss
    const float* bias;       // [V]
    const int64_t* targets;  // [N], negative for a row without one: no loss, no gradient
    float* losses;           // [N]
    float* by_bias;          // [threads][V], to which each thread adds its gradients; or none
    int64_t N, V;
    float smoothing;  // fraction of each target that is spread over all entries

    // Call f(i, n) for each 16 logits, and for the n that are left.
    template <class F>
    INLINE void each(const F& f) const {
        int64_t i = 0;
        for (; i + 16 <= V; i += 16) f(i, 16);
        if (i < V) f(i, int(V - i));
    }

    INLINE vf logit(const bf16* row, int64_t i, int n) const {
        return load_some(row + i, n) + load_some(bias + i, n);
    }

    // The loss of a row, whose logits become their gradients.
    float run_row(bf16* row, int64_t target, float* sums) const {
        __m512 largest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
        vf total = {}, exponentials = {};
        each([&](int64_t i, int n) {
            const vf z = logit(row, i, n);
            largest = _mm512_mask_max_ps(largest, first(n), largest, (__m512)z);
            if (smoothing != 0.0f) total += z;
        });
        const float top = _mm512_reduce_max_ps(largest);
        each([&](int64_t i, int n) {
            const vf e = exp2_of((logit(row, i, n) - top) * LOG2_E);
            exponentials += (vf)_mm512_maskz_mov_ps(first(n), (__m512)e);
        });
        const float log_sum = top + std::log(_mm512_reduce_add_ps((__m512)exponentials));
        const float own = float_of(row[target]) + bias[target];
        const float part = smoothing / float(V);
        each([&](int64_t i, int n) {
            const vf p = exp2_of((logit(row, i, n) - log_sum) * LOG2_E) - part;
            if (sums) store_some(sums + i, load_some(sums + i, n) + p, n);
            store_some(row + i, p, n);
        });
        const float p = std::exp(own - log_sum) - part - (1.0f - smoothing);
        if (sums) sums[target] -= 1.0f - smoothing;
        store_some(row + target, vf{} + p, 1);
        const float mean = _mm512_reduce_add_ps((__m512)total) / float(V);
        return log_sum - (1.0f - smoothing) * own - (smoothing != 0.0f ? smoothing * mean : 0.0f);
    }

    // All rows that belong to thread `me` of `members`.
    void run(int me, int members) const {
        const Flushing flushing;
        const Range mine(int(N), me, members);
        for (int64_t n = mine.first; n < mine.last; n++) {
            bf16* row = logits + n * V;
            losses[n] = 0.0f;
            if (targets[n] < 0)
                std::memset(row, 0, size_t(V) * sizeof(bf16));
            else
                losses[n] = run_row(row, targets[n], by_bias ? by_bias + me * V : nullptr);
        }
    }
};

}  // namespace

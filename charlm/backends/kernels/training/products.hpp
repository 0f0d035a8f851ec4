// Products of whole matrices, in parts that fit in a thread's caches.

#pragma once

#include <algorithm>

#include "threads.hpp"
#include "tiles.hpp"

namespace {

// Memory that is read soon and is fetched into the L2 cache little by little.
struct Ahead {
    const char* at = nullptr;
    int lines = 0;
    size_t stride = 64;  // bytes from line to line
    Ahead() = default;
    Ahead(const void* from, int count, size_t bytes = 64)
        : at(static_cast<const char*>(from)), lines(count), stride(bytes) {}
    INLINE void fetch(int count) {
        for (int i = 0; i < count && lines > 0; i++, lines--, at += stride)
            __builtin_prefetch(at, 0, 2);
    }
};

constexpr int K_AT_ONCE = 16;  // k-steps: 32 KB of B, which stay in the L1 cache

// Part `part` of `parts` of the next k-steps of an operand.
INLINE Ahead part_of(const bf16* at, int steps, int part, int parts) {
    const int lines = (steps * BLOCK / 32 + parts - 1) / parts;
    return {at + size_t(part) * lines * 32, lines};
}

// Compute C(m, n) = A(m) times B(n), both of `count` k-steps, for m and n in two ranges.
//   a_at(m), b_at(n)   the operands;
//   place(m, n)        where a result is kept;
//   begin(sums, n)     sets a result before the first product;
//   done(m, n, c)      takes a result.
// Meanwhile the operands of the next products are fetched into the L2 cache.
template <class A, class B, class Place, class Begin, class Done>
INLINE void multiply(Range m_range, Range n_range, int count, A a_at, B b_at, Place place,
                     Begin begin, Done done) {
    for (int k = 0; k < count; k += K_AT_ONCE) {
        const int now = std::min(K_AT_ONCE, count - k), next = std::min(K_AT_ONCE, count - k - now);
        for (int n = n_range.first; n < n_range.last; n++)
            for (int m = m_range.first; m < m_range.last; m++) {
                const int in_n = n - n_range.first, in_m = m - m_range.first;
                const bf16 *a = a_at(m) + size_t(k) * BLOCK, *b = b_at(n) + size_t(k) * BLOCK;
                Ahead of_a, of_b;
                if (next) {
                    of_a = part_of(a + size_t(now) * BLOCK, next, in_n, n_range.size());
                    of_b = part_of(b + size_t(now) * BLOCK, next, in_m, m_range.size());
                } else if (n + 1 < n_range.last && k == 0) {
                    of_b = part_of(b_at(n + 1), now, in_m, m_range.size());
                }
                const int lines_a = (of_a.lines + now - 1) / now;
                const int lines_b = (of_b.lines + now - 1) / now;
                float* c = place(m, n);
                Sums sums{c};
                if (k == 0)
                    begin(sums, n);
                else
                    sums.load();
                sums.template add<A_STREAMS>(a, b, now, [&] {
                    of_a.fetch(lines_a);
                    of_b.fetch(lines_b);
                });
                sums.store();
                if (!next) done(m, n, c);
            }
    }
}

// The same for many rows and columns, in parts whose results fit in `results`.
template <class A, class B, class Done>
INLINE void multiply_in_parts(int rows, Range columns, int count, A a_at, B b_at, float* results,
                              Done done) {
    for (int n = columns.first; n < columns.last; n += MAX_N)
        for (int m = 0; m < rows; m += MAX_M)
            multiply({m, std::min(rows, m + MAX_M)}, {n, std::min(columns.last, n + MAX_N)}, count,
                     a_at, b_at,
                     [=](int row, int column) {
                         return results + (size_t(column - n) * MAX_M + (row - m)) * BLOCK_FLOATS;
                     },
                     [](Sums& sums, int) { sums.zero(); }, done);
}

// Pointwise work that is spread over the k-steps of a product, `items` calls over `steps` of them,
// so that the vector units and the tile unit work at the same time.
template <class Item>
struct Pacer {
    Item& item;
    int items, steps;
    Ahead first, second, third;
    int done = 0, credit = 0;
    const int of_first, of_second, of_third;  // lines fetched at each k-step
    INLINE Pacer(Item& work, int count, int k_steps, Ahead a, Ahead b, Ahead c)
        : item(work), items(count), steps(k_steps), first(a), second(b), third(c),
          of_first((a.lines + k_steps - 1) / k_steps), of_second((b.lines + k_steps - 1) / k_steps),
          of_third((c.lines + k_steps - 1) / k_steps) {}
    INLINE void operator()() {
        first.fetch(of_first);
        second.fetch(of_second);
        third.fetch(of_third);
        credit += items;
        while (credit >= steps && done < items) {
            credit -= steps;
            item(done++);
        }
    }
    INLINE void finish() {
        while (done < items) item(done++);
    }
};

}  // namespace

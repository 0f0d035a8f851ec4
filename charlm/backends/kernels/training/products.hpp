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

// Part `part` of `parts` of some k-steps of an operand.
INLINE Ahead part_of(const bf16* at, int steps, int part, int parts) {
    const int lines = (steps * BLOCK / 32 + parts - 1) / parts;
    return {at + size_t(part) * lines * 32, lines};
}

// Results C(m, n) that are worked on at once, and `steps` k-steps from k that are added to them.
struct Piece {
    Range m, n;
    int k, steps;
};

// Rows, columns and k-steps of a product, in pieces. All k-steps of the results of one part, which
// are at most max_m by max_n, come before the next part.
struct Pieces {
    Range rows, columns;
    int count, max_m, max_n;

    Piece at(int m, int n, int k) const {
        return {{m, std::min(rows.last, m + max_m)},
                {n, std::min(columns.last, n + max_n)},
                k,
                std::min(K_AT_ONCE, count - k)};
    }
    bool have(const Piece& piece) const {
        return piece.m.size() > 0 && piece.n.size() > 0 && piece.steps > 0;
    }
    Piece first() const { return at(rows.first, columns.first, 0); }
    Piece after(const Piece& piece) const {
        const int k = piece.k + piece.steps;
        if (k < count) return at(piece.m.first, piece.n.first, k);
        if (piece.m.last < rows.last) return at(piece.m.last, piece.n.first, 0);
        return at(rows.first, piece.n.last, 0);
    }
};

// Compute C(m, n) = A(m) times B(n), both of `pieces.count` k-steps.
//   a_at(m), b_at(n)   the operands;
//   place(m, n)        where a result is kept while its part is computed;
//   begin(sums, n)     sets a result before the first product;
//   done(m, n, c)      takes a result.
// Meanwhile the operands of the next products are fetched into the L2 cache: A a piece ahead, since
// all columns read it, and B a column ahead.
template <class A, class B, class Place, class Begin, class Done>
INLINE void multiply(const Pieces& pieces, A a_at, B b_at, Place place, Begin begin, Done done) {
    Piece next = pieces.first();
    while (pieces.have(next)) {
        const Piece piece = next;
        next = pieces.after(piece);
        const bool more = pieces.have(next), last = piece.k + piece.steps == pieces.count;
        for (int n = piece.n.first; n < piece.n.last; n++)
            for (int m = piece.m.first; m < piece.m.last; m++) {
                const int in_n = n - piece.n.first, in_m = m - piece.m.first;
                Ahead of_a, of_b;
                if (more && in_m < next.m.size())
                    of_a = part_of(a_at(next.m.first + in_m) + size_t(next.k) * BLOCK, next.steps,
                                   in_n, piece.n.size());
                if (n + 1 < piece.n.last)
                    of_b = part_of(b_at(n + 1) + size_t(piece.k) * BLOCK, piece.steps, in_m,
                                   piece.m.size());
                else if (more)
                    of_b = part_of(b_at(next.n.first) + size_t(next.k) * BLOCK, next.steps, in_m,
                                   piece.m.size());
                const int lines_a = (of_a.lines + piece.steps - 1) / piece.steps;
                const int lines_b = (of_b.lines + piece.steps - 1) / piece.steps;
                float* c = place(m, n);
                Sums sums{c};
                if (piece.k == 0)
                    begin(sums, n);
                else
                    sums.load();
                sums.template add<A_STREAMS>(a_at(m) + size_t(piece.k) * BLOCK,
                                             b_at(n) + size_t(piece.k) * BLOCK, piece.steps, [&] {
                                                 of_a.fetch(lines_a);
                                                 of_b.fetch(lines_b);
                                             });
                sums.store();
                if (last) done(m, n, c);
            }
    }
}

// The same for many rows and columns, in parts whose results fit in `results`.
template <class A, class B, class Done>
INLINE void multiply_in_parts(int rows, Range columns, int count, A a_at, B b_at, float* results,
                              Done done) {
    multiply({{0, rows}, columns, count, MAX_M, MAX_N}, a_at, b_at,
             [=](int m, int n) {
                 const int place = (n - columns.first) % MAX_N * MAX_M + m % MAX_M;
                 return results + size_t(place) * BLOCK_FLOATS;
             },
             [](Sums& sums, int) { sums.zero(); }, done);
}

// Number i of `count` things in the order of time step t, which is the reverse of that of the step
// before: it begins with the weights that are still in the caches.
INLINE int in_turn(int t, int i, int count) { return t % 2 ? count - 1 - i : i; }

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

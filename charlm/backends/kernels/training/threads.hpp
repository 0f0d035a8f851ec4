// Threads of one call: those of torch's OpenMP pool, with a barrier of their own.
//
// The libraries are linked without an OpenMP runtime, so that its functions are torch's: a second
// pool would compete with torch's for the processor.

#pragma once

#include <omp.h>
#include <sched.h>

#include <atomic>
#include <cstdint>

namespace {

struct alignas(64) Barrier {
    std::atomic<int> arrived{0};
    alignas(64) std::atomic<int> round{0};
    int members = 1;
    void wait() {
        if (members == 1) return;
        const int now = round.load(std::memory_order_relaxed);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
            arrived.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round.load(std::memory_order_acquire) == now; spins++) {
            __builtin_ia32_pause();
            if (spins > 2000) sched_yield();  // the thread that is awaited may need this processor
        }
    }
};

// The part of `count` things that belongs to thread `me` of `members`.
struct Range {
    int first, last;
    Range(int begin, int end) : first(begin), last(end) {}
    Range(int count, int me, int members)
        : first(int(int64_t(count) * me / members)),
          last(int(int64_t(count) * (me + 1) / members)) {}
    int size() const { return last - first; }
};

// Call run(barrier, me) in `threads` threads, or in fewer if the system grants fewer.
template <class Run>
void in_threads(int threads, const Run& run) {
    Barrier barrier;
#pragma omp parallel num_threads(threads)
    {
#pragma omp single
        barrier.members = omp_get_num_threads();
        run(barrier, omp_get_thread_num());
    }
}

}  // namespace

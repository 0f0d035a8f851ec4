// A team of worker threads for one network.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace {

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Workers that wait for jobs, with a barrier between them during a job. Both spin for a short time
// and then yield the processor, so that a busy machine only makes them slower.
class Team {
   public:
    explicit Team(int threads) : count_(threads < 1 ? 1 : threads) {
        try {
            for (int id = 1; id < count_; id++) workers_.emplace_back([this, id] { work(id); });
        } catch (...) {  // the system has no more threads
            end();
            throw;
        }
    }
    ~Team() { end(); }
    int count() const { return count_; }

    // Run job(id) on every thread and wait for all of them. Jobs do not throw.
    template <class Job>
    void run(const Job& job) {
        if (count_ == 1) return job(0);
        job_ = [](const void* context, int id) { (*static_cast<const Job*>(context))(id); };
        context_ = &job;
        running_.store(count_ - 1, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> guard(mutex_);
            turn_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        job(0);
        for (int spins = 0; running_.load(std::memory_order_acquire) != 0; spins++) relax(spins);
    }

    void barrier() {
        if (count_ == 1) return;
        const uint32_t phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
        } else {
            for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; spins++)
                relax(spins);
        }
    }

   private:
    void end() {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            ending_ = true;
            turn_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
        workers_.clear();
    }
    static void relax(int spins) {
        if (spins < 4000)
            pause();
        else
            std::this_thread::yield();
    }
    void work(int id) {
        uint32_t seen = 0;
        for (;;) {
            for (int spins = 0; spins < 2000 && turn_.load(std::memory_order_acquire) == seen;
                 spins++)
                pause();
            if (turn_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> guard(mutex_);
                wake_.wait(guard,
                           [&] { return turn_.load(std::memory_order_acquire) != seen; });
            }
            seen = turn_.load(std::memory_order_acquire);
            if (ending_) return;
            job_(context_, id);
            running_.fetch_sub(1, std::memory_order_release);
        }
    }
    const int count_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint32_t> turn_{0};
    std::atomic<int> running_{0}, arrived_{0};
    std::atomic<uint32_t> phase_{0};
    bool ending_ = false;
    void (*job_)(const void*, int) = nullptr;
    const void* context_ = nullptr;
};

// The items of one thread.
struct Range {
    int begin, end;
    int size() const { return end - begin; }
};
inline Range range_of(int total, int id, int threads) {
    return {int(int64_t(total) * id / threads), int(int64_t(total) * (id + 1) / threads)};
}

}  // namespace

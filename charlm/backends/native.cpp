// Inference of stacked recurrent language models: one compiled library for each instruction set.
//
// The same source is compiled several times (AVX-512, AVX2, plain C++); LANES says how many floats
// a vector holds. There is no global state: a Net holds weights and worker threads, and everything
// else comes in as arguments. All functions are plain C, so that no Python or torch headers are
// needed and one library serves every version of both.
//
// Layout. Outputs of a matrix are kept in panels of 16 (PANEL); a panel holds for every input k its
// 16 weights side by side. The gates of 16 hidden units are G consecutive panels, "a group", so
// that a thread which owns a group can compute the new state of its units without its neighbours.

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#ifndef LANES
#define LANES 4
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int PANEL = 16;
constexpr int PARTS = PANEL / LANES;  // vectors in a panel

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));
typedef int32_t vi16 __attribute__((vector_size(64)));

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

// ---------------------------------------------------------------- exp, sigmoid, tanh

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
    // Near zero the quotient cancels; an odd polynomial is exact there.
    vf square = x * x;
    vf small = x + x * square * (-0.333333333f + square * (0.133333333f - square * 0.053968254f));
    vf e = exp_of(x * 2.0f);
    vf large = broadcast(1.0f) - broadcast(2.0f) / (e + 1.0f);
    return square < broadcast(0.01f) ? small : large;
}

// ---------------------------------------------------------------- matrices

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

inline int rounded(int n, int to) { return (n + to - 1) / to * to; }

struct Free {
    void operator()(void* p) const { std::free(p); }
};
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

// A matrix of N outputs and K inputs in panels. INT8: four inputs side by side, [k / 4][16][4].
struct Matrix {
    Kind kind = FLOAT32;
    int n = 0, k = 0, panels = 0;
    Buffer<float> f;
    Buffer<uint16_t> h;
    Buffer<int8_t> q;
    Buffer<float> scale;   // INT8: of each output
    Buffer<int32_t> sums;  // INT8: 128 times the sum of an output's weights

    size_t stride() const { return size_t(k) * PANEL; }

    // source(output, input) gives the weights; outputs beyond the matrix are zero.
    template <class Source>
    void pack(Kind wanted, int outputs, int inputs, int padded_inputs, Source source) {
        kind = wanted;
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
                float most = 0.0f;
                for (float w : row) most = std::fmax(most, std::fabs(w));
                const float step = most > 0.0f ? most / 127.0f : 1.0f;
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

// Rows of inputs, as the matrices want them: floats, or for INT8 bytes 128 + round(127 x / most).
struct Rows {
    const float* f = nullptr;
    const uint8_t* q = nullptr;
    const float* scale = nullptr;
    int stride = 0;
};

inline void quantise(const float* x, int k, uint8_t* out, float* scale) {
    float most = 0.0f;
    for (int i = 0; i < k; i++) most = std::fmax(most, std::fabs(x[i]));
    const float step = most > 0.0f ? most / 127.0f : 1.0f;
    const float inverse = 1.0f / step;
    for (int i = 0; i < k; i++) out[i] = uint8_t(int(std::nearbyintf(x[i] * inverse)) + 128);
    *scale = step;
}

inline vf weights_at(const float* w) { return load<vf>(w); }

inline vf weights_at(const uint16_t* w) {
    const vu bits = __builtin_convertvector(load<vh>(w), vu) << 16;
    return load<vf>(&bits);
}

// out[r][p][16] = rows r < M times panels p < P, of float32 or bfloat16 weights. `out` has
// PANEL * pitch floats a row.
template <int M, int P, typename Weight>
inline void tile_floats(const Weight* w, size_t stride, int k, const Rows& a, int row, float* out,
                        int pitch) {
    vf acc[M][P][PARTS] = {};
    for (int i = 0; i < k; i++) {
        vf b[P][PARTS];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < PARTS; v++)
                b[p][v] = weights_at(w + p * stride + size_t(i) * PANEL + v * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const vf x = broadcast(a.f[size_t(row + m) * a.stride + i]);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
#pragma GCC unroll 4
                for (int v = 0; v < PARTS; v++) acc[m][p][v] += x * b[p][v];
        }
    }
    for (int m = 0; m < M; m++)
        for (int p = 0; p < P; p++)
            for (int v = 0; v < PARTS; v++)
                store(out + (size_t(m) * pitch + p) * PANEL + v * LANES, acc[m][p][v]);
}

// Sixteen sums of four products each: sum[lane] += x[j] * w[lane][j], exact in int32.
inline vi16 four_products(vi16 sum, const int8_t* w, uint32_t x) {
#if defined(__AVX512VNNI__)
    return (vi16)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(int(x)),
                                     _mm512_loadu_si512(w));
#elif defined(__AVX2__)
    const __m256i xs = _mm256_cvtepu8_epi16(_mm_set1_epi32(int(x)));
    alignas(64) int32_t pairs[4][8];
    for (int part = 0; part < 4; part++) {
        const __m256i ws =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * part)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(pairs[part]), _mm256_madd_epi16(xs, ws));
    }
    vi16 found;
    for (int lane = 0; lane < 16; lane++)
        found[lane] = pairs[lane / 4][lane % 4 * 2] + pairs[lane / 4][lane % 4 * 2 + 1];
    return sum + found;
#else
    const uint8_t* xs = reinterpret_cast<const uint8_t*>(&x);
    for (int lane = 0; lane < 16; lane++)
        for (int j = 0; j < 4; j++) sum[lane] += int32_t(xs[j]) * w[4 * lane + j];
    return sum;
#endif
}

template <int M, int P>
inline void tile_int8(const Matrix& matrix, int panel, const Rows& a, int row, float* out,
                      int pitch) {
    const int8_t* w = matrix.q.get() + matrix.stride() * panel;
    const size_t stride = matrix.stride();
    vi16 acc[M][P] = {};
    for (int i = 0; i < matrix.k; i += 4)
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            const uint32_t x = load<uint32_t>(a.q + size_t(row + m) * a.stride + i);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++)
                acc[m][p] = four_products(acc[m][p], w + p * stride + size_t(i) * PANEL, x);
        }
    for (int m = 0; m < M; m++)
        for (int p = 0; p < P; p++) {
            const int first = (panel + p) * PANEL;
            float* to = out + (size_t(m) * pitch + p) * PANEL;
            for (int lane = 0; lane < PANEL; lane++) {
                const int32_t sum = acc[m][p][lane] - matrix.sums.get()[first + lane];
                to[lane] = float(sum) * (matrix.scale.get()[first + lane] * a.scale[row + m]);
            }
        }
}

template <int M, int P>
inline void tile(const Matrix& w, int panel, const Rows& a, int row, float* out, int pitch) {
    const size_t at = w.stride() * panel;
    if (w.kind == FLOAT32)
        tile_floats<M, P>(w.f.get() + at, w.stride(), w.k, a, row, out, pitch);
    else if (w.kind == BFLOAT16)
        tile_floats<M, P>(w.h.get() + at, w.stride(), w.k, a, row, out, pitch);
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

// Panels [first, first + count) for rows [row, row + rows), rows at most MAX_ROWS, in as few
// passes over the weights as registers allow.
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

// ---------------------------------------------------------------- threads

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Workers that wait for jobs, and a barrier between them while a job runs. Both spin shortly and
// then give the processor away, so that a busy machine only makes them slower.
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

    // Runs job(id, team) on every thread and waits for all of them. Jobs do not throw.
    template <class Job>
    void run(const Job& job) {
        if (count_ == 1) return job(0);
        job_ = [](const void* context, int id) { (*static_cast<const Job*>(context))(id); };
        context_ = &job;
        left_.store(count_ - 1, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> guard(mutex_);
            turn_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        job(0);
        for (int spins = 0; left_.load(std::memory_order_acquire) != 0; spins++) relax(spins);
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
            left_.fetch_sub(1, std::memory_order_release);
        }
    }
    const int count_;
    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<uint32_t> turn_{0};
    std::atomic<int> left_{0}, arrived_{0};
    std::atomic<uint32_t> phase_{0};
    bool ending_ = false;
    void (*job_)(const void*, int) = nullptr;
    const void* context_ = nullptr;
};

// ---------------------------------------------------------------- the network

enum Cell { RNN = 0, LSTM = 1, GRU = 2 };

struct Layer {
    Matrix from_input, from_hidden;
    Buffer<float> bias;         // of the input side, [group][gate][16]
    Buffer<float> hidden_bias;  // of the hidden side (GRU), [group][gate][16]
    Buffer<float> table;        // layer 0: the input side of every token, [V][group][gate][16]
};

constexpr int CHUNK_ROWS = 2048;   // rows of a chunk of time steps
constexpr int LOGIT_ROWS = 24;     // rows whose logits are held at once by a thread
constexpr size_t MAX_TABLE = size_t(4) << 20;  // floats

struct Net {
    Cell cell;
    int gates, parts, layers_count, hidden, padded, groups, vocab;
    Kind kind;
    std::vector<Layer> layers;
    Buffer<float> embeddings;  // [V][padded embedding]
    int embedding_padded;
    Matrix output;
    Buffer<float> output_bias;
    std::unique_ptr<Team> team;
    // Work space, made larger when a call needs it.
    Buffer<float> x, y, side, logits, scales, scales2;
    Buffer<uint8_t> bytes, bytes2;
    std::vector<Buffer<float>> state;  // one for each layer and part: [rows][padded], twice for h

    bool uses_table() const { return layers[0].table.size != 0; }
    int width() const { return groups * gates * PANEL; }
};

// New state of 16 units from both sides of their gates; the formulas of torch.nn.
inline void pointwise(Cell cell, const float* in, const float* rec, const float* rec_bias,
                      const float* h_before, float* c, float* h) {
    for (int v = 0; v < PARTS; v++) {
        auto gate = [&](const float* from, int g) {
            return load<vf>(from + g * PANEL + v * LANES);
        };
        if (cell == LSTM) {
            const vf i = sigmoid_of(gate(in, 0) + gate(rec, 0));
            const vf f = sigmoid_of(gate(in, 1) + gate(rec, 1));
            const vf g = tanh_of(gate(in, 2) + gate(rec, 2));
            const vf o = sigmoid_of(gate(in, 3) + gate(rec, 3));
            const vf next = f * load<vf>(c + v * LANES) + i * g;
            store(c + v * LANES, next);
            store(h + v * LANES, o * tanh_of(next));
        } else if (cell == GRU) {
            const vf r = sigmoid_of(gate(in, 0) + gate(rec, 0) + gate(rec_bias, 0));
            const vf z = sigmoid_of(gate(in, 1) + gate(rec, 1) + gate(rec_bias, 1));
            const vf n = tanh_of(gate(in, 2) + r * (gate(rec, 2) + gate(rec_bias, 2)));
            const vf before = load<vf>(h_before + v * LANES);
            store(h + v * LANES, n + z * (before - n));
        } else {
            store(h + v * LANES, tanh_of(gate(in, 0) + gate(rec, 0)));
        }
    }
}

struct Share {
    int begin, end;
};
inline Share share_of(int total, int id, int threads) {
    return {int(int64_t(total) * id / threads), int(int64_t(total) * (id + 1) / threads)};
}

inline void add_bias(float* to, const float* bias, int count) {
    for (int i = 0; i < count; i += LANES)
        store(to + i, load<vf>(to + i) + load<vf>(bias + i));
}

// The rows of a job as its matrices want them; each thread prepares its share, then all may read.
Rows prepared(const Net& net, const float* x, int stride, int rows, uint8_t* bytes, float* scales,
              int id, int threads) {
    Rows result;
    result.f = x;
    result.stride = stride;
    if (net.kind == INT8) {
        const Share mine = share_of(rows, id, threads);
        for (int r = mine.begin; r < mine.end; r++)
            quantise(x + size_t(r) * stride, stride, bytes + size_t(r) * stride, scales + r);
        result.q = bytes;
        result.scale = scales;
    }
    return result;
}

// Reads `steps` tokens of `rows` rows: the hidden vectors of the last layer go to net.y
// ([steps * rows][padded]), the state moves on. ids: [steps][rows].
void read_chunk(Net& net, int steps, int rows, const int64_t* ids) {
    const int threads = net.team->count(), padded = net.padded, width = net.width();
    const int total = steps * rows;
    const int widest = net.embedding_padded > padded ? net.embedding_padded : padded;
    net.x.reserve(size_t(total) * widest);
    net.y.reserve(size_t(total) * padded);
    net.side.reserve(size_t(total) * width);
    if (net.kind == INT8) {
        net.bytes.reserve(size_t(total) * widest);
        net.scales.reserve(total);
        net.bytes2.reserve(size_t(rows) * padded * 2);
        net.scales2.reserve(size_t(rows) * 2);
    }
    net.team->run([&](int id) {
        Team& team = *net.team;
        const Share mine = share_of(net.groups, id, threads);
        for (int number = 0; number < net.layers_count; number++) {
            Layer& layer = net.layers[number];
            const bool table = number == 0 && net.uses_table();
            const float* input = net.y.get();
            int stride = padded;
            if (number == 0 && !table) {
                const Share part = share_of(total, id, threads);
                stride = net.embedding_padded;
                for (int r = part.begin; r < part.end; r++)
                    std::memcpy(net.x.get() + size_t(r) * stride,
                                net.embeddings.get() + size_t(ids[r]) * stride,
                                sizeof(float) * stride);
                input = net.x.get();
                team.barrier();
            } else if (number) {
                // The layer below is read while this one is written: one goes to x.
                const Share part = share_of(total, id, threads);
                std::memcpy(net.x.get() + size_t(part.begin) * padded,
                            net.y.get() + size_t(part.begin) * padded,
                            sizeof(float) * padded * (part.end - part.begin));
                input = net.x.get();
                team.barrier();
            }
            if (!table) {  // the input side of all steps as one product
                const Rows a = prepared(net, input, stride, total, net.bytes.get(),
                                        net.scales.get(), id, threads);
                if (net.kind == INT8) team.barrier();
                const int first = mine.begin * net.gates;
                const int count = (mine.end - mine.begin) * net.gates;
                constexpr int AT_ONCE = 8;  // panels that stay in the cache over all rows
                for (int p = 0; p < count; p += AT_ONCE)
                    for (int r = 0; r < total;) {
                        const int now = rows_at_once(total - r);
                        const int some = count - p < AT_ONCE ? count - p : AT_ONCE;
                        float* to = net.side.get() + size_t(r) * width + (first + p) * PANEL;
                        block(layer.from_input, first + p, some, a, r, now, to, width / PANEL);
                        for (int m = 0; m < now; m++)
                            add_bias(to + size_t(m) * width,
                                     layer.bias.get() + (first + p) * PANEL, some * PANEL);
                        r += now;
                    }
            }
            // The recurrence: a thread owns groups of units; all wait for each other once a step.
            float* h[2] = {net.state[number * 3].get(), net.state[number * 3 + 1].get()};
            float* c = net.state[number * 3 + 2].get();
            float scratch[MAX_ROWS * 4 * PANEL];
            for (int t = 0; t < steps; t++) {
                const float* before = h[t % 2];
                float* after = h[1 - t % 2];
                const Rows a =
                    prepared(net, before, padded, rows, net.bytes2.get() + size_t(t % 2) * rows * padded,
                             net.scales2.get() + size_t(t % 2) * rows, id, threads);
                if (net.kind == INT8) team.barrier();
                for (int group = mine.begin; group < mine.end; group++)
                    for (int r = 0; r < rows;) {
                        const int now = rows_at_once(rows - r);
                        block(layer.from_hidden, group * net.gates, net.gates, a, r, now, scratch,
                              net.gates);
                        for (int m = 0; m < now; m++) {
                            const size_t row = size_t(t) * rows + r + m;
                            const float* in =
                                (table ? layer.table.get() + size_t(ids[row]) * width
                                       : net.side.get() + row * width) +
                                group * net.gates * PANEL;
                            const size_t unit = size_t(r + m) * padded + group * PANEL;
                            pointwise(net.cell, in, scratch + m * net.gates * PANEL,
                                      layer.hidden_bias.get() + group * net.gates * PANEL,
                                      before + unit, c + unit, after + unit);
                            std::memcpy(net.y.get() + row * padded + group * PANEL, after + unit,
                                        sizeof(float) * PANEL);
                        }
                        r += now;
                    }
                team.barrier();
            }
            if (steps % 2) {  // the newest h is kept in the first buffer
                const Share part = share_of(rows, id, threads);
                std::memcpy(h[0] + size_t(part.begin) * padded, h[1] + size_t(part.begin) * padded,
                            sizeof(float) * padded * (part.end - part.begin));
            }
            team.barrier();
        }
    });
}

// Logits of hidden vectors [rows][padded] -> out [rows][panels * 16]; bias added. Within a thread.
void logits_of(const Net& net, const Rows& a, int first_row, int rows, float* out) {
    const int panels = net.output.panels;
    constexpr int AT_ONCE = 8;
    for (int p = 0; p < panels; p += AT_ONCE) {
        const int some = panels - p < AT_ONCE ? panels - p : AT_ONCE;
        for (int r = 0; r < rows;) {
            const int now = rows_at_once(rows - r);
            block(net.output, p, some, a, first_row + r, now,
                  out + size_t(r) * panels * PANEL + p * PANEL, panels);
            r += now;
        }
    }
    for (int r = 0; r < rows; r++)
        add_bias(out + size_t(r) * panels * PANEL, net.output_bias.get(), panels * PANEL);
}

// Logits of hidden vectors [rows][padded] -> net.logits, the outputs shared among all threads.
void team_logits(Net& net, const float* hidden, int rows) {
    const int threads = net.team->count(), logits_row = net.output.panels * PANEL;
    net.logits.reserve(size_t(rows) * logits_row);
    net.team->run([&](int id) {
        const Rows a = prepared(net, hidden, net.padded, rows, net.bytes.get(), net.scales.get(),
                                id, threads);
        net.team->barrier();
        const Share mine = share_of(net.output.panels, id, threads);
        const int count = (mine.end - mine.begin) * PANEL;
        for (int r = 0; r < rows;) {
            const int some = rows_at_once(rows - r);
            float* to = net.logits.get() + size_t(r) * logits_row + mine.begin * PANEL;
            block(net.output, mine.begin, mine.end - mine.begin, a, r, some, to,
                  net.output.panels);
            for (int m = 0; m < some; m++)
                add_bias(to + size_t(m) * logits_row, net.output_bias.get() + mine.begin * PANEL,
                         count);
            r += some;
        }
    });
}

// ln of the sum of exponentials of V logits, and the number of logits above `own`.
double log_sum(const float* logits, int vocab, float own, int32_t* above) {
    float most = logits[0];
    int32_t count = 0;
    for (int i = 0; i < vocab; i++) most = logits[i] > most ? logits[i] : most;
    if (above) {
        for (int i = 0; i < vocab; i++) count += logits[i] > own;
        *above = count;
    }
    double total = 0.0;
    for (int i = 0; i < vocab; i += 64 * LANES) {
        vf sum = {};
        int j = i;
        const int end = i + 64 * LANES < vocab ? i + 64 * LANES : vocab;
        for (; j + LANES <= end; j += LANES) sum += exp_of(load<vf>(logits + j) - most);
        for (int lane = 0; lane < LANES; lane++) total += sum[lane];
        if (j < end) {
            vf rest = broadcast(-1e30f);
            for (int lane = 0; j + lane < end; lane++) rest[lane] = logits[j + lane] - most;
            const vf last = exp_of(rest);
            for (int lane = 0; j + lane < end; lane++) total += last[lane];
        }
    }
    return double(most) + std::log(total);
}

void load_state(Net& net, int rows, const float* from) {
    // from: [layer][part][rows][hidden] -> padded buffers
    for (int layer = 0; layer < net.layers_count; layer++)
        for (int part = 0; part < 3; part++) {
            Buffer<float>& buffer = net.state[layer * 3 + part];
            buffer.reserve(size_t(rows) * net.padded);
            std::memset(buffer.get(), 0, sizeof(float) * rows * net.padded);
        }
    for (int layer = 0; layer < net.layers_count; layer++)
        for (int part = 0; part < net.parts; part++) {
            float* to = net.state[layer * 3 + (part ? 2 : 0)].get();
            const float* source = from + (size_t(layer) * net.parts + part) * rows * net.hidden;
            for (int r = 0; r < rows; r++)
                std::memcpy(to + size_t(r) * net.padded, source + size_t(r) * net.hidden,
                            sizeof(float) * net.hidden);
        }
}

void save_state(const Net& net, int rows, float* to) {
    for (int layer = 0; layer < net.layers_count; layer++)
        for (int part = 0; part < net.parts; part++) {
            const float* from = net.state[layer * 3 + (part ? 2 : 0)].get();
            float* target = to + (size_t(layer) * net.parts + part) * rows * net.hidden;
            for (int r = 0; r < rows; r++)
                std::memcpy(target + size_t(r) * net.hidden, from + size_t(r) * net.padded,
                            sizeof(float) * net.hidden);
        }
}

int chunk_steps(int rows) { return rows >= CHUNK_ROWS ? 1 : CHUNK_ROWS / rows; }

template <class Body>
int guarded(const Body& body) {
    try {
        body();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    } catch (...) {
        return 2;
    }
}

}  // namespace

// ---------------------------------------------------------------- the C interface
// Every function returns 0, or 1 for lack of memory, or 2 for anything else.

extern "C" {

int charlm_lanes() { return LANES; }

// weights: for each layer W_ih (G*H, inputs), W_hh (G*H, H), b_ih, b_hh (G*H), as torch keeps them.
int charlm_new(int cell, int layers, int embedding, int hidden, int vocab, int kind, int threads,
               const float* embeddings, const float* const* weights, const float* output,
               const float* output_bias, void** result) {
    return guarded([&] {
        std::unique_ptr<Net> net(new Net());
        net->cell = Cell(cell);
        net->gates = cell == LSTM ? 4 : cell == GRU ? 3 : 1;
        net->parts = cell == LSTM ? 2 : 1;
        net->layers_count = layers;
        net->hidden = hidden;
        net->padded = rounded(hidden, PANEL);
        net->groups = net->padded / PANEL;
        net->vocab = vocab;
        net->kind = Kind(kind);
        net->embedding_padded = rounded(embedding, PANEL);
        net->team.reset(new Team(threads));
        net->layers.resize(layers);
        net->state.resize(size_t(layers) * 3);
        const int width = net->width(), stride = net->embedding_padded;
        for (int number = 0; number < layers; number++) {
            Layer& layer = net->layers[number];
            const float* ih = weights[number * 4];
            const float* hh = weights[number * 4 + 1];
            const float* b_ih = weights[number * 4 + 2];
            const float* b_hh = weights[number * 4 + 3];
            const int inputs = number ? hidden : embedding;
            // Output o of the panels is gate (o / 16) % G of unit o / (16 G) * 16 + o % 16.
            auto row_of = [&](int o) {
                const int unit = o / (PANEL * net->gates) * PANEL + o % PANEL;
                const int gate = o / PANEL % net->gates;
                return unit < hidden ? gate * hidden + unit : -1;
            };
            auto weight = [&](const float* from, int columns) {
                return [=](int o, int i) {
                    const int row = row_of(o);
                    return row < 0 ? 0.0f : from[size_t(row) * columns + i];
                };
            };
            layer.from_input.pack(net->kind, width, inputs, rounded(inputs, PANEL),
                                  weight(ih, inputs));
            layer.from_hidden.pack(net->kind, width, hidden, net->padded, weight(hh, hidden));
            layer.bias.reserve(width);
            layer.hidden_bias.reserve(width);
            for (int o = 0; o < width; o++) {
                const int row = row_of(o);
                const float in = row < 0 ? 0.0f : b_ih[row], rec = row < 0 ? 0.0f : b_hh[row];
                layer.bias.get()[o] = cell == GRU ? in : in + rec;
                layer.hidden_bias.get()[o] = cell == GRU ? rec : 0.0f;
            }
        }
        net->output.pack(net->kind, vocab, hidden, net->padded, [=](int o, int i) {
            return output[size_t(o) * hidden + i];
        });
        net->output_bias.reserve(size_t(net->output.panels) * PANEL);
        for (int o = 0; o < net->output.panels * PANEL; o++)
            net->output_bias.get()[o] = o < vocab ? output_bias[o] : 0.0f;
        if (size_t(vocab) * width <= MAX_TABLE) {
            // The input side of layer 0 for every token, in float32 whatever the kind.
            Matrix exact;
            const float* ih = weights[0];
            const int gates = net->gates;
            exact.pack(FLOAT32, width, embedding, stride, [=](int o, int i) {
                const int unit = o / (PANEL * gates) * PANEL + o % PANEL;
                const int row = o / PANEL % gates * hidden + unit;
                return unit < hidden ? ih[size_t(row) * embedding + i] : 0.0f;
            });
            std::vector<float> padded(size_t(vocab) * stride);
            for (int token = 0; token < vocab; token++)
                std::memcpy(padded.data() + size_t(token) * stride,
                            embeddings + size_t(token) * embedding, sizeof(float) * embedding);
            Rows a;
            a.f = padded.data();
            a.stride = stride;
            Buffer<float>& table = net->layers[0].table;
            table.reserve(size_t(vocab) * width);
            net->team->run([&](int id) {
                const Share mine = share_of(net->groups, id, net->team->count());
                const int first = mine.begin * gates, count = (mine.end - mine.begin) * gates;
                for (int r = 0; r < vocab;) {
                    const int now = rows_at_once(vocab - r);
                    float* to = table.get() + size_t(r) * width + first * PANEL;
                    block(exact, first, count, a, r, now, to, width / PANEL);
                    for (int m = 0; m < now; m++)
                        add_bias(to + size_t(m) * width,
                                 net->layers[0].bias.get() + first * PANEL, count * PANEL);
                    r += now;
                }
            });
            net->layers[0].from_input = Matrix();
        } else {
            net->embeddings.reserve(size_t(vocab) * stride);
            std::memset(net->embeddings.get(), 0, sizeof(float) * vocab * stride);
            for (int token = 0; token < vocab; token++)
                std::memcpy(net->embeddings.get() + size_t(token) * stride,
                            embeddings + size_t(token) * embedding, sizeof(float) * embedding);
        }
        *result = net.release();
    });
}

void charlm_free(void* handle) { delete static_cast<Net*>(handle); }

// Nats of targets [steps][rows] after inputs [steps][rows]; with ranks, one more than the number of
// tokens that were likelier. state: [layer][part][rows][hidden], read and replaced.
int charlm_nats(void* handle, int steps, int rows, const int64_t* inputs, const int64_t* targets,
                float* state, double* nats, int32_t* ranks) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        load_state(net, rows, state);
        const int threads = net.team->count(), padded = net.padded;
        const int logits_row = net.output.panels * PANEL;
        net.logits.reserve(size_t(threads) * LOGIT_ROWS * logits_row);
        const int at_once = chunk_steps(rows);
        for (int begin = 0; begin < steps; begin += at_once) {
            const int now = steps - begin < at_once ? steps - begin : at_once;
            const size_t offset = size_t(begin) * rows;
            read_chunk(net, now, rows, inputs + offset);
            const int total = now * rows;
            std::atomic<int> next{0};
            net.team->run([&](int id) {
                const Rows a = prepared(net, net.y.get(), padded, total, net.bytes.get(),
                                        net.scales.get(), id, threads);
                net.team->barrier();
                float* mine = net.logits.get() + size_t(id) * LOGIT_ROWS * logits_row;
                for (;;) {
                    const int first = next.fetch_add(LOGIT_ROWS);
                    if (first >= total) return;
                    const int some = total - first < LOGIT_ROWS ? total - first : LOGIT_ROWS;
                    logits_of(net, a, first, some, mine);
                    for (int r = 0; r < some; r++) {
                        const float* row = mine + size_t(r) * logits_row;
                        const size_t at = offset + first + r;
                        const float own = row[targets[at]];
                        int32_t above = 0;
                        nats[at] = log_sum(row, net.vocab, own, ranks ? &above : nullptr) - own;
                        if (ranks) ranks[at] = above + 1;
                    }
                }
            });
        }
        save_state(net, rows, state);
    });
}

// Logits [rows][V] after inputs [steps][rows], of the last step only.
int charlm_logits(void* handle, int steps, int rows, const int64_t* inputs, float* state,
                  float* logits) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        load_state(net, rows, state);
        const int padded = net.padded;
        const int logits_row = net.output.panels * PANEL;
        net.logits.reserve(size_t(rows) * logits_row);
        const int at_once = chunk_steps(rows);
        int now = 0;
        for (int begin = 0; begin < steps; begin += now) {
            now = steps - begin < at_once ? steps - begin : at_once;
            read_chunk(net, now, rows, inputs + size_t(begin) * rows);
        }
        const float* last = net.y.get() + size_t(now - 1) * rows * padded;
        team_logits(net, last, rows);
        for (int r = 0; r < rows; r++)
            std::memcpy(logits + size_t(r) * net.vocab, net.logits.get() + size_t(r) * logits_row,
                        sizeof(float) * net.vocab);
        save_state(net, rows, state);
    });
}

// Draws `steps` tokens for each row, from logits [rows][V] (those of the next token, replaced by
// the last ones) and uniform draws [steps][rows]. `temperature` 0 takes the likeliest; `barred` is
// a token that is never drawn (-1: none); `restart` a token after which a row begins anew from the
// zero state (-1: none). ids and nats: [steps][rows].
int charlm_draw(void* handle, int steps, int rows, double temperature, int barred, int restart,
                const double* uniform, float* state, float* logits, int64_t* ids, double* nats) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        const int vocab = net.vocab, padded = net.padded;
        const int logits_row = net.output.panels * PANEL;
        load_state(net, rows, state);
        net.logits.reserve(size_t(rows) * logits_row);
        for (int r = 0; r < rows; r++)
            std::memcpy(net.logits.get() + size_t(r) * logits_row, logits + size_t(r) * vocab,
                        sizeof(float) * vocab);
        std::vector<double> weights(vocab);
        for (int step = 0; step < steps; step++) {
            int64_t* drawn = ids + size_t(step) * rows;
            for (int r = 0; r < rows; r++) {
                const float* row = net.logits.get() + size_t(r) * logits_row;
                int best = -1;
                for (int i = 0; i < vocab; i++)
                    if (i != barred && (best < 0 || row[i] > row[best])) best = i;
                int chosen = best;
                if (temperature > 0.0) {
                    double total = 0.0;
                    for (int i = 0; i < vocab; i++) {
                        const double x = (double(row[i]) - double(row[best])) / temperature;
                        weights[i] = total += i == barred ? 0.0 : std::exp(x);
                    }
                    const double limit = uniform[size_t(step) * rows + r] * total;
                    for (chosen = 0; chosen < vocab - 1 && weights[chosen] <= limit;) chosen++;
                }
                drawn[r] = chosen;
                nats[size_t(step) * rows + r] =
                    log_sum(row, vocab, row[chosen], nullptr) - row[chosen];
                if (chosen == restart)
                    for (Buffer<float>& part : net.state)
                        std::memset(part.get() + size_t(r) * padded, 0, sizeof(float) * padded);
            }
            read_chunk(net, 1, rows, drawn);
            team_logits(net, net.y.get(), rows);
        }
        for (int r = 0; r < rows; r++)
            std::memcpy(logits + size_t(r) * vocab, net.logits.get() + size_t(r) * logits_row,
                        sizeof(float) * vocab);
        save_state(net, rows, state);
    });
}

}  // extern "C"

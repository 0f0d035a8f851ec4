// Inference of stacked recurrent language models: one compiled library for each instruction set.
//
// The same source is compiled several times (AVX-512, AVX2, plain C++); LANES is the number of
// floats in a vector. There is no global state: a Net holds weights and worker threads, and
// everything else is an argument. All functions are plain C, so that no Python or torch headers are
// needed and one library serves every version of both. Each returns 0, or 1 if memory is short, or
// 2 for any other failure.
//
//     vectors -> matrices -> network -> recurrence -> output -> library
//                threads ----^

#include "output.hpp"

namespace {

constexpr int CHUNK_ROWS = 2048;  // rows of a chunk of time steps
constexpr int LOGIT_ROWS = 24;    // rows whose logits a thread holds at once

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

// The token at which the sum of probabilities passes `uniform`; the likeliest at temperature 0.
int draw(const float* logits, int vocab, double temperature, int barred, double uniform,
         std::vector<double>& sums) {
    int best = -1;
    for (int i = 0; i < vocab; i++)
        if (i != barred && (best < 0 || logits[i] > logits[best])) best = i;
    if (temperature <= 0.0) return best;
    double total = 0.0;
    for (int i = 0; i < vocab; i++) {
        const double x = (double(logits[i]) - double(logits[best])) / temperature;
        sums[i] = total += i == barred ? 0.0 : std::exp(x);
    }
    const double limit = uniform * total;
    int chosen = 0;
    while (chosen < vocab - 1 && sums[chosen] <= limit) chosen++;
    return chosen;
}

// Copy net.logits to rows [rows][V].
void copy_logits(const Net& net, int rows, float* logits) {
    const size_t stride = size_t(net.output.panels) * PANEL;
    for (int r = 0; r < rows; r++)
        std::memcpy(logits + size_t(r) * net.vocab, net.logits.get() + r * stride,
                    sizeof(float) * net.vocab);
}

}  // namespace

extern "C" {

int charlm_lanes() { return LANES; }

// weights: for each layer W_ih (G*H, inputs), W_hh (G*H, H), b_ih, b_hh (G*H), as torch stores them.
int charlm_new(int cell, int layers, int embedding, int hidden, int vocab, int kind, int threads,
               const float* embeddings, const float* const* weights, const float* output,
               const float* output_bias, void** result) {
    return guarded([&] {
        std::unique_ptr<Net> net(new Net());
        net->cell = Cell(cell);
        net->gates = cell == LSTM ? 4 : cell == GRU ? 3 : 1;
        net->tensors = cell == LSTM ? 2 : 1;
        net->hidden = hidden;
        net->padded = rounded(hidden, PANEL);
        net->groups = net->padded / PANEL;
        net->vocab = vocab;
        net->kind = Kind(kind);
        net->embedding_padded = rounded(embedding, PANEL);
        net->team.reset(new Team(threads));
        net->layers.resize(layers);
        net->state.resize(layers);
        for (int number = 0; number < layers; number++)
            net->pack_layer(net->layers[number], number ? hidden : embedding, weights + number * 4);
        net->output.pack(net->kind, vocab, hidden, net->padded, [=](int o, int i) {
            return output[size_t(o) * hidden + i];
        });
        net->output_bias.reserve(size_t(net->output.panels) * PANEL);
        for (int o = 0; o < net->output.panels * PANEL; o++)
            net->output_bias.get()[o] = o < vocab ? output_bias[o] : 0.0f;
        net->pack_embeddings(embeddings, embedding);
        if (size_t(vocab) * net->width() <= MAX_TABLE) net->make_table(weights[0], embedding);
        *result = net.release();
    });
}

// Version of the functions in this file; equal to INTERFACE in kernel_library.py.
int charlm_interface() { return 4; }

void charlm_free(void* handle) { delete static_cast<Net*>(handle); }

// Nats of targets [steps][rows] after inputs [steps][rows]; with ranks, also one more than the
// number of likelier tokens; with entries [V] (1 or 0), also ln of the total probability of those
// that are 1, in log_masses. state: [layer][tensor][rows][hidden], read and replaced.
int charlm_nats(void* handle, int steps, int rows, const int64_t* inputs, const int64_t* targets,
                float* state, double* nats, int32_t* ranks, const float* entries,
                double* log_masses) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        load_state(net, rows, state);
        const int panels = net.output.panels, stride = panels * PANEL;
        net.logits.reserve(size_t(net.team->count()) * LOGIT_ROWS * stride);
        const int at_once = chunk_steps(rows);
        for (int begin = 0; begin < steps; begin += at_once) {
            const int count = steps - begin < at_once ? steps - begin : at_once;
            const size_t offset = size_t(begin) * rows;
            read_chunk(net, count, rows, inputs + offset);
            const int total = count * rows;
            std::atomic<int> next{0};
            net.team->run([&](int id) {
                const Rows a = prepare(net, net.y.get(), net.padded, total, net.bytes.get(),
                                       net.scales.get(), id);
                float* logits = net.logits.get() + size_t(id) * LOGIT_ROWS * stride;
                for (int first; (first = next.fetch_add(LOGIT_ROWS)) < total;) {
                    const int some = total - first < LOGIT_ROWS ? total - first : LOGIT_ROWS;
                    product(net.output, net.output_bias.get(), 0, panels, a, first, some, logits,
                            panels);
                    for (int r = 0; r < some; r++) {
                        const float* row = logits + size_t(r) * stride;
                        const size_t place = offset + first + r;
                        const float own = row[targets[place]];
                        int32_t above = 0;
                        Entries chosen{entries, 0.0};
                        nats[place] = log_sum(row, net.vocab, own, ranks ? &above : nullptr,
                                              entries ? &chosen : nullptr) - own;
                        if (ranks) ranks[place] = above + 1;
                        if (entries) log_masses[place] = chosen.log_mass;
                    }
                }
            });
        }
        save_state(net, rows, state);
    });
}

// Logits [rows][V] after inputs [steps][rows], for the last step only.
int charlm_logits(void* handle, int steps, int rows, const int64_t* inputs, float* state,
                  float* logits) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        load_state(net, rows, state);
        const int at_once = chunk_steps(rows);
        int count = 0;
        for (int begin = 0; begin < steps; begin += count) {
            count = steps - begin < at_once ? steps - begin : at_once;
            read_chunk(net, count, rows, inputs + size_t(begin) * rows);
        }
        team_logits(net, net.y.get() + size_t(count - 1) * rows * net.padded, rows);
        copy_logits(net, rows, logits);
        save_state(net, rows, state);
    });
}

// Logits [steps][rows][V] after each of the inputs [steps][rows].
int charlm_distribution(void* handle, int steps, int rows, const int64_t* inputs, float* state,
                        float* logits) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        load_state(net, rows, state);
        const int at_once = chunk_steps(rows);
        for (int begin = 0; begin < steps; begin += at_once) {
            const int count = steps - begin < at_once ? steps - begin : at_once;
            read_chunk(net, count, rows, inputs + size_t(begin) * rows);
            for (int first = 0; first < count * rows; first += LOGIT_ROWS) {
                const int rest = count * rows - first, some = rest < LOGIT_ROWS ? rest : LOGIT_ROWS;
                team_logits(net, net.y.get() + size_t(first) * net.padded, some);
                copy_logits(net, some, logits + (size_t(begin) * rows + first) * net.vocab);
            }
        }
        save_state(net, rows, state);
    });
}

// Values of the units after each of the inputs [steps][rows]; `signals` as in Trace.
int charlm_trace(void* handle, int steps, int rows, const int64_t* inputs, float* state,
                 float* const* signals) {
    Net& net = *static_cast<Net*>(handle);
    const int status = guarded([&] {
        Trace trace{signals, steps, rows, 0};
        net.trace = &trace;
        load_state(net, rows, state);
        const int at_once = chunk_steps(rows);
        for (; trace.begin < steps; trace.begin += at_once) {
            const int rest = steps - trace.begin;
            read_chunk(net, rest < at_once ? rest : at_once, rows,
                       inputs + size_t(trace.begin) * rows);
        }
        save_state(net, rows, state);
    });
    net.trace = nullptr;
    return status;
}

// ln of the sum of exponentials of each row of logits [rows][V], as in charlm_nats.
int charlm_log_sums(void* handle, int rows, const float* logits, double* sums) {
    return guarded([&] {
        const int vocab = static_cast<Net*>(handle)->vocab;
        for (int r = 0; r < rows; r++) {
            const float* row = logits + size_t(r) * vocab;
            sums[r] = log_sum(row, vocab, row[0], nullptr, nullptr);
        }
    });
}

// Draw `steps` tokens for each row, from logits [rows][V] (for the next token; replaced by the last
// ones) and uniform numbers [steps][rows], at the temperature of each row. `barred` is a token that
// is never drawn (-1: none); after token `restart` the row returns to the zero state (-1: none).
// ids and nats: [steps][rows]. kept [steps][rows][V], or null, takes the logits of each token.
int charlm_draw(void* handle, int steps, int rows, const double* temperatures, int barred,
                int restart, const double* uniform, float* state, float* logits, int64_t* ids,
                double* nats, float* kept) {
    return guarded([&] {
        Net& net = *static_cast<Net*>(handle);
        const int vocab = net.vocab;
        const size_t stride = size_t(net.output.panels) * PANEL;
        load_state(net, rows, state);
        net.logits.reserve(rows * stride);
        for (int r = 0; r < rows; r++)
            std::memcpy(net.logits.get() + r * stride, logits + size_t(r) * vocab,
                        sizeof(float) * vocab);
        std::vector<double> sums(vocab);
        for (int step = 0; step < steps; step++) {
            if (kept) copy_logits(net, rows, kept + size_t(step) * rows * vocab);
            for (int r = 0; r < rows; r++) {
                const float* row = net.logits.get() + r * stride;
                const size_t place = size_t(step) * rows + r;
                const int chosen = draw(row, vocab, temperatures[r], barred, uniform[place], sums);
                ids[place] = chosen;
                nats[place] = log_sum(row, vocab, row[chosen], nullptr, nullptr) - row[chosen];
                if (chosen == restart)
                    for (LayerState& layer : net.state)
                        for (int tensor = 0; tensor < net.tensors; tensor++)
                            std::memset(
                                state_tensor(layer, tensor).get() + size_t(r) * net.padded, 0,
                                sizeof(float) * net.padded);
            }
            read_chunk(net, 1, rows, ids + size_t(step) * rows);
            team_logits(net, net.y.get(), rows);
        }
        copy_logits(net, rows, logits);
        save_state(net, rows, state);
    });
}

}  // extern "C"

// The weights of a stacked recurrent language model, packed for the kernels.
//
// The gates of 16 hidden units are G consecutive panels, "a group", so that a thread that owns a
// group can compute the new state of its units without its neighbours.

#pragma once

#include "matrices.hpp"
#include "threads.hpp"

namespace {

enum Cell { RNN = 0, LSTM = 1, GRU = 2 };

constexpr size_t MAX_TABLE = size_t(4) << 20;  // floats

struct Layer {
    Matrix from_input, from_hidden;
    Buffer<float> bias;         // of the input side, [group][gate][16]
    Buffer<float> hidden_bias;  // of the hidden side (GRU), [group][gate][16]
    Buffer<float> table;        // layer 0: the input side of every token, [V][group][gate][16]
};

// The state of one layer, [rows][padded] each: h, a second h for alternate steps, and c.
struct LayerState {
    Buffer<float> h[2], c;
};

// The arrays that take the values of every step, for each signal (h, c if there is one, the gates)
// [layer][step][row][hidden], or null.
struct Trace {
    float* const* signals;
    int steps, rows, begin;  // begin: the step at which the chunk begins
};

struct Net {
    Cell cell;
    int gates, tensors, hidden, padded, groups, vocab;  // tensors: in the state of a layer
    Kind kind;
    std::vector<Layer> layers;
    Buffer<float> embeddings;  // [V][padded embedding]
    int embedding_padded;
    Matrix output;
    Buffer<float> output_bias;
    std::unique_ptr<Team> team;
    // Work space, which grows when a call needs more.
    Buffer<float> x, y, side, logits, scales, state_scales;
    Buffer<uint8_t> bytes, state_bytes;
    std::vector<LayerState> state;
    const Trace* trace = nullptr;

    bool uses_table() const { return layers[0].table.size != 0; }
    int signals() const { return tensors + (gates > 1 ? gates : 0); }
    int width() const { return groups * gates * PANEL; }
    // torch's row of output o of the panels, or -1 for padding.
    int row_of(int o) const {
        const int unit = o / (PANEL * gates) * PANEL + o % PANEL;
        return unit < hidden ? o / PANEL % gates * hidden + unit : -1;
    }
    // Pack a matrix (G*H, inputs) as torch stores it.
    void pack(Matrix& matrix, Kind kind_of, const float* from, int inputs) const {
        matrix.pack(kind_of, width(), inputs, rounded(inputs, PANEL), [this, from, inputs](int o, int i) {
            const int row = row_of(o);
            return row < 0 ? 0.0f : from[size_t(row) * inputs + i];
        });
    }
    void pack_layer(Layer& layer, int inputs, const float* const* weights) const {
        const float *b_ih = weights[2], *b_hh = weights[3];
        pack(layer.from_input, kind, weights[0], inputs);
        pack(layer.from_hidden, kind, weights[1], hidden);
        layer.bias.reserve(width());
        layer.hidden_bias.reserve(width());
        for (int o = 0; o < width(); o++) {
            const int row = row_of(o);
            const float in = row < 0 ? 0.0f : b_ih[row], rec = row < 0 ? 0.0f : b_hh[row];
            layer.bias.get()[o] = cell == GRU ? in : in + rec;
            layer.hidden_bias.get()[o] = cell == GRU ? rec : 0.0f;
        }
    }
    void pack_embeddings(const float* from, int embedding) {
        const size_t stride = embedding_padded;
        embeddings.reserve(vocab * stride);
        std::memset(embeddings.get(), 0, sizeof(float) * vocab * stride);
        for (int token = 0; token < vocab; token++)
            std::memcpy(embeddings.get() + token * stride, from + size_t(token) * embedding,
                        sizeof(float) * embedding);
    }
    // Compute the input side of layer 0 for every token, in float32 for any kind of weights.
    void make_table(const float* from_input, int embedding) {
        Matrix exact;
        pack(exact, FLOAT32, from_input, embedding);
        Rows a;
        a.f = embeddings.get();
        a.stride = embedding_padded;
        Layer& layer = layers[0];
        layer.table.reserve(size_t(vocab) * width());
        team->run([&](int id) {
            const Range mine = range_of(groups, id, team->count());
            const int first = mine.begin * gates, offset = first * PANEL;
            product(exact, layer.bias.get() + offset, first, mine.size() * gates, a, 0, vocab,
                    layer.table.get() + offset, groups * gates);
        });
        layer.from_input = Matrix();
        embeddings = Buffer<float>();
    }
};

}  // namespace

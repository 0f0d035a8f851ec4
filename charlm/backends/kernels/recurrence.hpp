// The recurrent layers: from ids to the hidden vectors of the last layer.

#pragma once

#include "network.hpp"

namespace {

// New state of 16 units from both sides of their gates; the formulas of torch.nn. With blocks, also
// the values of the gates, [gate][16].
inline void pointwise(Cell cell, const float* in, const float* rec, const float* rec_bias,
                      const float* h_before, float* c, float* h, float* blocks) {
    for (int v = 0; v < VECTORS; v++) {
        auto gate = [&](const float* from, int g) {
            return load<vf>(from + g * PANEL + v * LANES);
        };
        auto keep = [&](int g, vf value) {
            if (blocks) store(blocks + g * PANEL + v * LANES, value);
        };
        if (cell == LSTM) {
            const vf i = sigmoid_of(gate(in, 0) + gate(rec, 0));
            const vf f = sigmoid_of(gate(in, 1) + gate(rec, 1));
            const vf g = tanh_of(gate(in, 2) + gate(rec, 2));
            const vf o = sigmoid_of(gate(in, 3) + gate(rec, 3));
            const vf next = f * load<vf>(c + v * LANES) + i * g;
            store(c + v * LANES, next);
            store(h + v * LANES, o * tanh_of(next));
            keep(0, i), keep(1, f), keep(2, g), keep(3, o);
        } else if (cell == GRU) {
            const vf r = sigmoid_of(gate(in, 0) + gate(rec, 0) + gate(rec_bias, 0));
            const vf z = sigmoid_of(gate(in, 1) + gate(rec, 1) + gate(rec_bias, 1));
            const vf n = tanh_of(gate(in, 2) + r * (gate(rec, 2) + gate(rec_bias, 2)));
            const vf before = load<vf>(h_before + v * LANES);
            store(h + v * LANES, n + z * (before - n));
            keep(0, r), keep(1, z), keep(2, n);
        } else {
            store(h + v * LANES, tanh_of(gate(in, 0) + gate(rec, 0)));
        }
    }
}

// Store the values of 16 units after step t of a chunk where net.trace wants them.
void record(const Net& net, int layer, int t, int row, int group, const float* h, const float* c,
            const float* blocks) {
    const Trace& trace = *net.trace;
    const int first = group * PANEL, rest = net.hidden - first;
    const size_t step = size_t(layer) * trace.steps + trace.begin + t;
    const size_t place = (step * trace.rows + row) * net.hidden + first;
    for (int signal = 0; signal < net.signals(); signal++) {
        const int block = signal - net.tensors;
        const float* from = block >= 0 ? blocks + block * PANEL : signal ? c : h;
        if (trace.signals[signal])
            std::memcpy(trace.signals[signal] + place, from,
                        sizeof(float) * (rest < PANEL ? rest : PANEL));
    }
}

// Rows of floats in the number type of the weights. For INT8 each thread converts its rows, and all
// wait for each other.
Rows prepare(const Net& net, const float* x, int stride, int rows, uint8_t* bytes, float* scales,
             int id) {
    Rows result;
    result.f = x;
    result.stride = stride;
    if (net.kind == INT8) {
        const Range mine = range_of(rows, id, net.team->count());
        for (int r = mine.begin; r < mine.end; r++)
            quantise(x + size_t(r) * stride, stride, bytes + size_t(r) * stride, scales + r);
        result.q = bytes;
        result.scale = scales;
        net.team->barrier();
    }
    return result;
}

// Put the inputs of a layer into net.x: embeddings, or the layer below, which is in net.y.
void gather_inputs(Net& net, int layer, int stride, int total, const int64_t* ids, int id) {
    const Range mine = range_of(total, id, net.team->count());
    for (int r = mine.begin; r < mine.end; r++) {
        const float* from = layer ? net.y.get() + size_t(r) * stride
                                  : net.embeddings.get() + size_t(ids[r]) * stride;
        std::memcpy(net.x.get() + size_t(r) * stride, from, sizeof(float) * stride);
    }
    net.team->barrier();
}

// Run one layer over all steps. A thread owns groups of units; all wait for each other after each
// step. in_of(row) is the input side of a row of [steps * rows].
template <class InputSide>
void run_steps(Net& net, int number, int steps, int rows, const InputSide& in_of, int id) {
    const int padded = net.padded, gates = net.gates;
    const Layer& layer = net.layers[number];
    LayerState& state = net.state[number];
    const Range mine = range_of(net.groups, id, net.team->count());
    float scratch[MAX_ROWS * 4 * PANEL], blocks[4 * PANEL];
    for (int t = 0; t < steps; t++) {
        const float* before = state.h[t % 2].get();
        float* after = state.h[1 - t % 2].get();
        const Rows a = prepare(net, before, padded, rows,
                               net.state_bytes.get() + size_t(t % 2) * rows * padded,
                               net.state_scales.get() + size_t(t % 2) * rows, id);
        for (int group = mine.begin; group < mine.end; group++)
            for (int r = 0, some; r < rows; r += some) {
                some = rows_at_once(rows - r);
                block(layer.from_hidden, group * gates, gates, a, r, some, scratch, gates);
                for (int m = 0; m < some; m++) {
                    const size_t row = size_t(t) * rows + r + m;
                    const size_t unit = size_t(r + m) * padded + group * PANEL;
                    pointwise(net.cell, in_of(row) + group * gates * PANEL,
                              scratch + m * gates * PANEL,
                              layer.hidden_bias.get() + group * gates * PANEL, before + unit,
                              state.c.get() + unit, after + unit, net.trace ? blocks : nullptr);
                    if (net.trace)
                        record(net, number, t, r + m, group, after + unit, state.c.get() + unit,
                               blocks);
                    std::memcpy(net.y.get() + row * padded + group * PANEL, after + unit,
                                sizeof(float) * PANEL);
                }
            }
        net.team->barrier();
    }
    if (steps % 2) {  // the newest h belongs in the first buffer
        const Range part = range_of(rows, id, net.team->count());
        std::memcpy(state.h[0].get() + size_t(part.begin) * padded,
                    state.h[1].get() + size_t(part.begin) * padded,
                    sizeof(float) * padded * part.size());
    }
    net.team->barrier();
}

void reserve_work_space(Net& net, int steps, int rows) {
    const size_t total = size_t(steps) * rows;
    const int widest = net.embedding_padded > net.padded ? net.embedding_padded : net.padded;
    net.x.reserve(total * widest);
    net.y.reserve(total * net.padded);
    net.side.reserve(total * net.width());
    if (net.kind == INT8) {
        net.bytes.reserve(total * widest);
        net.scales.reserve(total);
        net.state_bytes.reserve(size_t(rows) * net.padded * 2);
        net.state_scales.reserve(size_t(rows) * 2);
    }
}

// Read ids [steps][rows]: the hidden vectors of the last layer go to net.y ([steps * rows][padded]),
// and the state moves on.
void read_chunk(Net& net, int steps, int rows, const int64_t* ids) {
    const int width = net.width(), total = steps * rows;
    reserve_work_space(net, steps, rows);
    net.team->run([&](int id) {
        const Range mine = range_of(net.groups, id, net.team->count());
        const int first = mine.begin * net.gates, offset = first * PANEL;
        for (int number = 0; number < int(net.layers.size()); number++) {
            const Layer& layer = net.layers[number];
            if (number == 0 && net.uses_table()) {
                const float* table = layer.table.get();
                auto in_of = [=](size_t row) { return table + size_t(ids[row]) * width; };
                run_steps(net, number, steps, rows, in_of, id);
                continue;
            }
            const int stride = number ? net.padded : net.embedding_padded;
            gather_inputs(net, number, stride, total, ids, id);
            const Rows a = prepare(net, net.x.get(), stride, total, net.bytes.get(),
                                   net.scales.get(), id);
            float* side = net.side.get();
            product(layer.from_input, layer.bias.get() + offset, first, mine.size() * net.gates, a,
                    0, total, side + offset, width / PANEL);
            auto in_of = [=](size_t row) { return side + row * width; };
            run_steps(net, number, steps, rows, in_of, id);
        }
    });
}

// The tensors of a layer's state that Python sees: h, then c.
inline Buffer<float>& state_tensor(LayerState& layer, int number) {
    return number ? layer.c : layer.h[0];
}

// Load a state [layer][tensor][rows][hidden].
void load_state(Net& net, int rows, const float* from) {
    for (LayerState& layer : net.state) {
        for (Buffer<float>* buffer : {&layer.h[0], &layer.h[1], &layer.c}) {
            buffer->reserve(size_t(rows) * net.padded);
            std::memset(buffer->get(), 0, sizeof(float) * rows * net.padded);
        }
        for (int tensor = 0; tensor < net.tensors; tensor++)
            for (int r = 0; r < rows; r++, from += net.hidden)
                std::memcpy(state_tensor(layer, tensor).get() + size_t(r) * net.padded, from,
                            sizeof(float) * net.hidden);
    }
}

void save_state(Net& net, int rows, float* to) {
    for (LayerState& layer : net.state)
        for (int tensor = 0; tensor < net.tensors; tensor++)
            for (int r = 0; r < rows; r++, to += net.hidden)
                std::memcpy(to, state_tensor(layer, tensor).get() + size_t(r) * net.padded,
                            sizeof(float) * net.hidden);
}

}  // namespace

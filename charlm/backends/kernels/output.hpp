// The output layer: logits of hidden vectors, and the normaliser of their softmax.

#pragma once

#include "recurrence.hpp"

namespace {

// Logits of hidden vectors [rows][padded] in net.logits [rows][panels * 16]; the threads share the
// outputs.
void team_logits(Net& net, const float* hidden, int rows) {
    const int panels = net.output.panels;
    net.logits.reserve(size_t(rows) * panels * PANEL);
    net.team->run([&](int id) {
        const Rows a =
            prepare(net, hidden, net.padded, rows, net.bytes.get(), net.scales.get(), id);
        const Range mine = range_of(panels, id, net.team->count());
        const int offset = mine.begin * PANEL;
        product(net.output, net.output_bias.get() + offset, mine.begin, mine.size(), a, 0, rows,
                net.logits.get() + offset, panels);
    });
}

// ln of the sum of exponentials of V logits, and the number of logits above `own`.
double log_sum(const float* logits, int vocab, float own, int32_t* above) {
    float largest = logits[0];
    int32_t count = 0;
    for (int i = 0; i < vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
    if (above) {
        for (int i = 0; i < vocab; i++) count += logits[i] > own;
        *above = count;
    }
    double total = 0.0;
    for (int i = 0; i < vocab; i += 64 * LANES) {
        vf sum = {};
        int j = i;
        const int end = i + 64 * LANES < vocab ? i + 64 * LANES : vocab;
        for (; j + LANES <= end; j += LANES) sum += exp_of(load<vf>(logits + j) - largest);
        for (int lane = 0; lane < LANES; lane++) total += sum[lane];
        if (j < end) {
            vf rest = broadcast(-1e30f);
            for (int lane = 0; j + lane < end; lane++) rest[lane] = logits[j + lane] - largest;
            const vf last = exp_of(rest);
            for (int lane = 0; j + lane < end; lane++) total += last[lane];
        }
    }
    return double(largest) + std::log(total);
}

}  // namespace

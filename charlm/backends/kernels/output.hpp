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

// A set of entries and the results for one row of logits.
struct Entries {
    const float* chosen;  // [V], 1 for the entries of the set and 0 for the others
    double log_mass;      // ln of their total probability

    // Add up the exponentials of the set alone: the total of all is too large to hold them.
    double exact_sum(const float* logits, int vocab, float* largest) const {
        bool empty = true;
        for (int i = 0; i < vocab; i++)
            if (chosen[i] != 0.0f && (empty || logits[i] > *largest)) {
                *largest = logits[i];
                empty = false;
            }
        double sum = 0.0;
        for (int i = 0; i < vocab; i++)
            if (chosen[i] != 0.0f) sum += std::exp(double(logits[i]) - double(*largest));
        return sum;
    }
};

constexpr double SMALLEST_PART = 1e-30;  // of a sum of exponentials; exp_of ends at e^-87

// ln of the sum of exponentials of V logits, the number of logits above `own`, and the mass of a
// set of entries.
double log_sum(const float* logits, int vocab, float own, int32_t* above, Entries* entries) {
    float largest = logits[0];
    int32_t count = 0;
    for (int i = 0; i < vocab; i++) largest = logits[i] > largest ? logits[i] : largest;
    if (above) {
        for (int i = 0; i < vocab; i++) count += logits[i] > own;
        *above = count;
    }
    double total = 0.0, part = 0.0;
    for (int i = 0; i < vocab; i += 64 * LANES) {
        vf sum = {}, chosen = {};
        int j = i;
        const int end = i + 64 * LANES < vocab ? i + 64 * LANES : vocab;
        for (; j + LANES <= end; j += LANES) {
            const vf e = exp_of(load<vf>(logits + j) - largest);
            sum += e;
            if (entries) chosen += e * load<vf>(entries->chosen + j);
        }
        for (int lane = 0; lane < LANES; lane++) total += sum[lane], part += chosen[lane];
        if (j < end) {
            vf rest = broadcast(-1e30f);
            for (int lane = 0; j + lane < end; lane++) rest[lane] = logits[j + lane] - largest;
            const vf last = exp_of(rest);
            for (int lane = 0; j + lane < end; lane++) {
                total += last[lane];
                if (entries) part += double(last[lane]) * double(entries->chosen[j + lane]);
            }
        }
    }
    const double log_total = double(largest) + std::log(total);
    if (entries) {
        if (part < SMALLEST_PART) part = entries->exact_sum(logits, vocab, &largest);
        entries->log_mass = double(largest) + std::log(part) - log_total;
    }
    return log_total;
}

}  // namespace

// Training of recurrent layers on processors with AVX-512 BF16: one layer over a window, forward
// and backward, in bfloat16 tiles with sums in float. Compiled for each kind of tiles (tiles.hpp).
//
// All functions are plain C, so that no Python or torch headers are needed and one library serves
// every version of both. There is no global state: memory is the caller's, and calls with memory of
// their own may run at a time. The processor's state (tiles, flushing of subnormals) is put back.
//
//     vectors -> tiles -> products -> forward, backward -> library
//                cells -> call -> packing ----^   ^---- threads

#include "backward.hpp"
#include "forward.hpp"
#include "softmax.hpp"

namespace {

// Call work(cell) with the struct of the call's cell.
template <class Work>
void for_cell(const Call& call, const Work& work) {
    if (call.cell == LSTM) work(Lstm());
    if (call.cell == GRU) work(Gru());
    if (call.cell == RNN) work(Rnn());
}

bool is_empty(const Call& call) { return call.T == 0 || call.B == 0; }

// Run a pass in all threads, each in its own processor state.
template <class Pass>
void run(const Call& call, const Shape& shape) {
    in_threads(int(call.threads), [&](Barrier& barrier, int me) {
        const TileState tiles;
        const Flushing flushing;
        Pass(call, shape, barrier, me).run();
        _mm_sfence();  // ends the stores past the caches
    });
}

bool ids_exist(const Call& call) {
    for (int64_t i = 0; call.ids && i < call.T * call.B; i++)  // the table may be empty
        if (call.ids[i] < 0 || call.ids[i] >= call.V) return false;
    return true;
}

void copy(const float* from, float* to, int64_t count) {
    if (to && from) std::copy(from, from + count, to);
    if (to && !from) std::fill(to, to + count, 0.0f);
}

// The gradients of a window without rows or steps.
void nothing_backward(const Call& c, int64_t gates) {
    copy(c.dh_after, c.dh0, c.B * c.H);
    copy(c.dc_after, c.dc0, c.B * c.H);
    copy(nullptr, c.dw_ih, gates * c.H * c.E);
    copy(nullptr, c.dw_hh, gates * c.H * c.H);
    copy(nullptr, c.db_ih, gates * c.H);
    copy(nullptr, c.db_hh, gates * c.H);
    if (c.dx) std::memset(c.dx, 0, size_t(c.V * c.E * (c.x_is_bf16 ? 2 : 4)));
}

}  // namespace

extern "C" {

// Version of the functions in this file; equal to INTERFACE in training_library.py.
int training_interface() { return 3; }

// Ask the processor and the system for tiles. Before anything else, in each process.
int training_usable() { return tiles_usable(); }

// Bytes of what is kept from forward to backward, and of what each of them uses while it runs.
void training_sizes(const Call* call, int64_t* saved, int64_t* forward, int64_t* backward) {
    Call sizes = *call;
    sizes.scratch = nullptr;
    *saved = *forward = *backward = 0;
    if (is_empty(sizes)) return;
    const Shape s(sizes);
    for_cell(sizes, [&](auto cell) {
        using K = decltype(cell);
        *saved = int64_t(Saved<K>(s, nullptr).bytes);
        *forward = int64_t(ForwardMemory<K>(s, sizes).bytes);
        *backward = int64_t(BackwardMemory<K>(s, sizes).bytes);
    });
}

// Compute y and the state after the window. Returns 1 if there is an id outside of the table.
int training_forward(const Call* call) {
    if (is_empty(*call)) {
        copy(call->h0, call->h_after, call->B * call->H);
        copy(call->c0, call->c_after, call->B * call->H);
        return 0;
    }
    if (!ids_exist(*call)) return 1;
    const Shape s(*call);
    for_cell(*call, [&](auto cell) {
        using K = decltype(cell);
        if (call->V && call->training) run<ForwardPass<K, true, true>>(*call, s);
        if (call->V && !call->training) run<ForwardPass<K, true, false>>(*call, s);
        if (!call->V && call->training) run<ForwardPass<K, false, true>>(*call, s);
        if (!call->V && !call->training) run<ForwardPass<K, false, false>>(*call, s);
    });
    return 0;
}

// Compute the gradients, from what the forward pass of the same call kept.
int training_backward(const Call* call) {
    const Shape s(*call);
    for_cell(*call, [&](auto cell) {
        using K = decltype(cell);
        if (is_empty(*call)) return nothing_backward(*call, K::GATES);
        if (call->V)
            run<BackwardPass<K, true>>(*call, s);
        else
            run<BackwardPass<K, false>>(*call, s);
    });
    return 0;
}

// The losses of targets and, in the place of the logits, the gradients; see softmax.hpp. Returns 1
// if there is a target outside of the vocabulary.
int training_softmax(bf16* logits, const float* bias, const int64_t* targets, float* losses,
                     float* by_bias, int64_t N, int64_t V, float smoothing, int threads) {
    for (int64_t n = 0; n < N; n++)
        if (targets[n] >= V) return 1;
    const Softmax softmax{logits, bias, targets, losses, by_bias, N, V, smoothing};
    in_threads(threads, [&](Barrier& barrier, int me) { softmax.run(me, barrier.members); });
    return 0;
}

// For the test of the emulation: c += a b, one result of one k-step.
void training_tile(const bf16* a, const bf16* b, float* c) {
    const TileState tiles;
    const Flushing flushing;
    Sums sums{c};
    sums.load();
    sums.add<B_STREAMS>(a, b, 1, [] {});
    sums.store();
}

}  // extern "C"

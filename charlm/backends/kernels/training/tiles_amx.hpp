// Products by the processor's tile instructions (AMX). Registers 0 to 3 hold a result, 4 and 5 the
// tiles of A, 6 and 7 those of B.
//
// The instructions are written as asm because gcc 12's intrinsics do not name the memory that they
// read: _tile_loadconfig names 8 of its 64 bytes and _tile_loadd names none, so that stores to the
// rest are dropped or moved behind the load.

#pragma once

#include <sys/syscall.h>
#include <unistd.h>

namespace {

#define TILE_AREA(p) (*(const char(*)[1024])(p))
#define TILE_LOAD(t, p)                                                                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"(64L), "m"(TILE_AREA(p)))
#define TILE_STREAM(t, p) /* leaves other things in the L1 cache */                               \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t : : "r"(p), "r"(64L), "m"(TILE_AREA(p)))
#define TILE_LOAD_ROW(t, p) /* one row of 64 bytes, 16 times */                                   \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t                                              \
                     :                                                                            \
                     : "r"(p), "r"(0L), "m"(*(const char(*)[64])(p)))
#define TILE_STORE(t, p)                                                                          \
    __asm__ volatile("tilestored %%tmm" #t ", (%1,%2,1)"                                          \
                     : "=m"(*(char(*)[1024])(p))                                                  \
                     : "r"(p), "r"(64L))
#define TILE_ZERO(t) __asm__ volatile("tilezero %%tmm" #t : :)
#define TILE_DOT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

// Linux (5.16 or later) must permit the use of tiles, too.
inline bool tiles_usable() {
    unsigned a, b, c, d;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    if (!(d >> 22 & 1) || !(d >> 24 & 1)) return false;  // amx_bf16, amx_tile
    constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

// A configuration of eight tiles of 16 rows of 64 bytes; then the one that was there before (oneDNN
// keeps its own in each thread).
struct TileState {
    struct alignas(64) Config {
        unsigned char bytes[64];
    };
    Config before;
    TileState() {
        __asm__ volatile("sttilecfg %0" : "=m"(before));
        Config now = {};
        now.bytes[0] = 1;
        for (int i = 0; i < 8; i++) now.bytes[16 + 2 * i] = 64, now.bytes[48 + i] = 16;
        __asm__ volatile("ldtilecfg %0" : : "m"(now));
    }
    ~TileState() {
        if (before.bytes[0])
            __asm__ volatile("ldtilecfg %0" : : "m"(before));
        else
            __asm__ volatile("tilerelease" : :);
    }
};

struct Sums {
    float* place;
    INLINE void zero() const {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    // Set every row to the 32 floats at `row`.
    INLINE void fill(const float* row) const {
        TILE_LOAD_ROW(0, row);
        TILE_LOAD_ROW(1, row + 16);
        TILE_LOAD_ROW(2, row);
        TILE_LOAD_ROW(3, row + 16);
    }
    INLINE void load() const {
        TILE_LOAD(0, place);
        TILE_LOAD(1, place + TILE_FLOATS);
        TILE_LOAD(2, place + 2 * TILE_FLOATS);
        TILE_LOAD(3, place + 3 * TILE_FLOATS);
    }
    INLINE void store() const {
        TILE_STORE(0, place);
        TILE_STORE(1, place + TILE_FLOATS);
        TILE_STORE(2, place + 2 * TILE_FLOATS);
        TILE_STORE(3, place + 3 * TILE_FLOATS);
    }
    // Add A times B over `count` k-steps, and call `between` after each of them.
    template <Streams streams, class Between>
    INLINE void add(const bf16* a, const bf16* b, int count, Between&& between) const {
        for (int k = 0; k < count; k++, a += BLOCK, b += BLOCK) {
            if (streams == A_STREAMS) {
                TILE_STREAM(4, a);
                TILE_LOAD(6, b);
                TILE_DOT(0, 4, 6);
                TILE_LOAD(7, b + TILE);
                TILE_DOT(1, 4, 7);
                TILE_STREAM(5, a + TILE);
            } else {
                TILE_LOAD(4, a);
                TILE_STREAM(6, b);
                TILE_DOT(0, 4, 6);
                TILE_STREAM(7, b + TILE);
                TILE_DOT(1, 4, 7);
                TILE_LOAD(5, a + TILE);
            }
            TILE_DOT(2, 5, 6);
            TILE_DOT(3, 5, 7);
            between();
        }
    }
};

}  // namespace

// Products of tiles: the one part of the kernels that differs between their variants.
//
// A tile of A is 16 rows of 32 bfloat16; a tile of B is 16 pairs of rows of 16 columns, the two of
// a pair interleaved. An operand has two tiles (32 rows or 32 columns) for each k-step, which is 32
// of the numbers that are summed over: [k-step][2 tiles]. A result is 32 x 32 floats in four tiles:
// [half of the rows][half of the columns][16][16].
//
// Every variant has three things:
//   tiles_usable()  asks the processor and the system, once for each process;
//   TileState       what a thread sets up before the first product and takes down after the last;
//   Sums            a 32 x 32 result at `place`, which is valid there after store().
//
//   TILES_AMX       the processor's tile instructions;
//   TILES_EMULATED  the same bits as TILES_AMX by AVX-512, slow: for tests on other machines;
//   otherwise       vdpbf16ps, for processors with AVX-512 BF16 and no tiles (Zen 4 and 5). It sums
//                   in another order, so results differ by rounding.

#pragma once

#include "vectors.hpp"

namespace {

constexpr int TILE = 512;                      // bfloat16 in a tile
constexpr int TILE_FLOATS = 256;               // floats in a tile
constexpr int BLOCK = 2 * TILE;                // bfloat16 in a k-step of an operand
constexpr int BLOCK_FLOATS = 4 * TILE_FLOATS;  // floats in a result
constexpr int MAX_M = 8, MAX_N = 8;  // results that a thread works on at once, in its L2 cache

// The operand that passes by once, while the other one stays in the L1 cache.
enum Streams { A_STREAMS, B_STREAMS };

}  // namespace

#if defined(TILES_AMX)
#include "tiles_amx.hpp"
#elif defined(TILES_EMULATED)
#include "tiles_emulated.hpp"
#else
#include "tiles_dot.hpp"
#endif

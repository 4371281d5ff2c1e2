// The map of a submanifold convolution with kernel 3^3, as the fast kernels read it. A tile is 256 sites that follow each other in Morton
// order. Its list names each row that the tile reads once. A 16-bit entry for each offset and place of the tile points into the list. A
// tile that reads more rows than fit into shared memory is computed in 2 or 4 parts of neighbouring sites.
#pragma once
#include "common.cuh"

constexpr int K = 27, TILE = 256;       // offsets; places of a tile
constexpr u32 OFFSETS = (1u << K) - 1;  // a bit for each offset

// outrow[tile][256]: the row that a place computes, or -1.
// mask64[tile][4]: bits of the offsets that are present among each 64 places; the first also holds the number of parts << 28.
// local[tile][27][256]: slot << 3 | bank group; slot s > 0 is the s-th row of the list, slot 0 is a row of zeros.
// lists: row << 3 | bank group, one list after another; each starts at a multiple of 4.
struct Map {
  const int* outrow;
  const u32* mask64;
  const u16* local;
  const u32* lists;
};
// One piece of work. items[0].at is the number of items that follow.
struct __align__(16) Item {
  int at;       // tile << 2 | part
  u32 list;     // where its list starts
  int rows;     // length of the list
  u32 offsets;  // offsets that are present in any of its places
  __device__ int tile() const { return at >> 2; }
  __device__ int part() const { return at & 3; }
};

// Eight sites with different groups still have different groups after a step by any offset. Their rows are then in different banks.
__device__ constexpr int bank_group(int z, int y, int x) { return (z + 2 * y + 4 * x) & 7; }

// The map of a submanifold convolution with kernel 3^3, as the fast kernels read it. Sites that are neighbours in Morton order make a
// tile of 256; the rows that a tile reads, each named once, make its list; and a 16-bit entry for each offset and place of the tile
// points into that list. A tile that reads more rows than shared memory holds is worked in 2 or 4 parts of neighbouring sites.
#pragma once
#include "common.cuh"

constexpr int K = 27, TILE = 256;       // offsets; places of a tile
constexpr u32 OFFSETS = (1u << K) - 1;  // all of them

// outrow[tile][256]: the row that a place computes, or -1.
// mask64[tile][4]: offsets present among each 64 places; the first also holds the number of parts << 28.
// local[tile][27][256]: slot << 3 | bank group; slot s > 0 is the s-th row of the list, slot 0 is a row of zeros.
// lists: rows << 3 | bank group, a list after another, each at a multiple of 4.
struct Map {
  const int* outrow;
  const u32* mask64;
  const u16* local;
  const u32* lists;
};
// One piece of work: items[0].x is how many follow.
struct __align__(16) Item {
  int at;       // tile << 2 | part
  u32 list;     // where its list starts
  int rows;     // length of the list
  u32 offsets;  // present in any of its places
  __device__ int tile() const { return at >> 2; }
  __device__ int part() const { return at & 3; }
};

// Eight sites whose groups differ keep groups that differ after a step by any offset: their rows then lie in different banks.
__device__ constexpr int bank_group(int z, int y, int x) { return (z + 2 * y + 4 * x) & 7; }

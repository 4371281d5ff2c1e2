// Several kernels share these: short names of types, Morton keys, and the index of a set of sites.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

typedef unsigned long long u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

// A brick is a cube of 64 cells: its key, a bit for each active cell, and the rank of the first active cell. Ranks number the active cells
// by ascending key of the brick, then by cell. Bricks are in a hash table of `cap` slots (a power of two) with linear probing.
struct __align__(32) Brick {
  u64 key, bits;
  u32 base, pad[3];
};
constexpr u64 EMPTY = ~0ull;

// Inserts two zeros between neighbouring bits of v, which has at most 21 bits.
__host__ __device__ inline u64 spread(u32 v) {
  u64 x = v;
  x = (x | x << 32) & 0x1f00000000ffffull;
  x = (x | x << 16) & 0x1f0000ff0000ffull;
  x = (x | x << 8) & 0x100f00f00f00f00full;
  x = (x | x << 4) & 0x10c30c30c30c30c3ull;
  return (x | x << 2) & 0x1249249249249249ull;
}
// The inverse of `spread`.
__host__ __device__ inline u32 squeeze(u64 x) {
  x &= 0x1249249249249249ull;
  x = (x | x >> 2) & 0x10c30c30c30c30c3ull;
  x = (x | x >> 4) & 0x100f00f00f00f00full;
  x = (x | x >> 8) & 0x1f0000ff0000ffull;
  x = (x | x >> 16) & 0x1f00000000ffffull;
  return u32(x | x >> 32) & 0x1fffff;
}
// The Morton key of a site whose coordinates have `bits` bits: the batch on top, then the bits of z, y and x in turn.
__host__ __device__ inline u64 morton(int batch, u32 z, u32 y, u32 x, int bits) {
  return u64(batch) << 3 * bits | spread(z) << 2 | spread(y) << 1 | spread(x);
}

__device__ inline u32 mix(u64 brick) {
  brick *= 0x9e3779b97f4a7c15ull;
  return u32(brick >> 32);
}
// The 32-bit address that PTX uses for a byte of shared memory. It may have any alignment.
__device__ inline u32 smem(const void* p) { return u32(__cvta_generic_to_shared(p)); }

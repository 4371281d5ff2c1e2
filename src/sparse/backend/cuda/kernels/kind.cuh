#pragma once
#include "common.cuh"

// Types of the tensor cores' operands. F32 is three products of TF32 values: high * high + high * low + low * high.
enum Kind { F16, BF16, TF32, F32 };
// The place of 16-byte chunk `chunk` of row `row` in a matrix of rows of 32, 64 or 128 bytes, as the tensor cores' swizzles have it.
template <int ROW_BYTES> __host__ __device__ inline int swizzle(int row, int chunk) {
  return ROW_BYTES == 128 ? chunk ^ (row & 7) : ROW_BYTES == 64 ? chunk ^ (row >> 1 & 3) : chunk ^ (row >> 2 & 1);
}

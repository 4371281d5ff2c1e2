#pragma once
#include "common.cuh"

// Types of the tensor cores' operands. F32 takes three products of TF32 values: high * high + high * low + low * high.
enum Kind { F16, BF16, TF32, F32 };
// Where the tensor cores' swizzle puts 16-byte chunk `chunk` of row `row`. Rows have 32, 64 or 128 bytes.
template <int ROW_BYTES> __host__ __device__ inline int swizzle(int row, int chunk) {
  return ROW_BYTES == 128 ? chunk ^ (row & 7) : ROW_BYTES == 64 ? chunk ^ (row >> 1 & 3) : chunk ^ (row >> 2 & 1);
}

// An order of targets for gather.cu. Within every 1024 targets in a row, it puts those with the same offsets together, so that each 128 have
// few offsets to multiply.
#include "common.cuh"

constexpr int WINDOW = 1024, BITS = 22;  // bits of the sort key; with more offsets than this, several share a bit

// Writes order (n) from table[offset][n]. One block of 1024 threads for each window.
extern "C" __global__ void __launch_bounds__(WINDOW) wm_gather_order(const int* table, int n, int offsets, int* order) {
  __shared__ u32 exchange[WINDOW];
  int t = threadIdx.x, i = blockIdx.x * WINDOW + t;
  u32 mask = 0;
  if (i < n)
    for (int o = 0; o < offsets; o++) mask |= u32(table[size_t(o) * n + i] >= 0) << (offsets <= BITS ? o : o * BITS / offsets);
  u32 v = (i < n ? mask : (1u << BITS) - 1) << 10 | t;
  for (int size = 2; size <= WINDOW; size *= 2)
    for (int step = size / 2; step; step /= 2) {
      u32 other;
      if (step >= 32) {
        exchange[t] = v;
        __syncthreads();
        other = exchange[t ^ step];
        __syncthreads();
      } else {
        other = __shfl_xor_sync(~0u, v, step);
      }
      v = ((t & step) == 0) == ((t & size) == 0) ? min(v, other) : max(v, other);
    }
  if (i < n) order[i] = blockIdx.x * WINDOW + int(v & (WINDOW - 1));
}
